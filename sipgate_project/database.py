"""The databases that the site can use: their settings, and what is wrong with one that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

CONNECT_TIMEOUT = 5
"""Seconds that connecting to PostgreSQL may take."""
NETWORK = {
    "connect_timeout": CONNECT_TIMEOUT,
    # A machine that has disappeared does not close its connections. These options find a dead connection within 5 + 3 ·
    # 5 s if it is idle, and within 20 s if data is unanswered. Otherwise the kernel waits for hours or a quarter of an
    # hour.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""libpq's options. A ``DATABASE_URL`` may name others: ``…/name?connect_timeout=2``."""


def settings_from(url: str) -> dict[str, Any]:
    """Return Django's settings of a database.

    Raises:
        ValueError: the URL names neither PostgreSQL nor SQLite, or cannot be parsed.
    """
    found: dict[str, Any] = dict(dj_database_url.parse(url))
    options = found.setdefault("OPTIONS", {})
    if found["ENGINE"] == "django.db.backends.sqlite3":
        # Opening the file takes as long as three queries: each thread keeps it open.
        found["CONN_MAX_AGE"] = None
        # WAL: readers and the writer do not block each other. IMMEDIATE: a transaction waits for the write lock at its
        # start instead of failing later.
        own: dict[str, Any] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL;",
        }
    elif found["ENGINE"] == "django.db.backends.postgresql":
        # Without it, the pool would hand out dead connections after a restart of the database.
        found["CONN_HEALTH_CHECKS"] = True
        # pgbouncer in transaction mode gives the next statement another connection, which does not know the cursor.
        found["DISABLE_SERVER_SIDE_CURSORS"] = True
        own = NETWORK
    else:
        raise ValueError("another kind of database")
    found["OPTIONS"] = {**own, **options}
    return found


def refuse_unusable_file(path: Path) -> None:
    """Raise ``ImproperlyConfigured`` if SQLite could not use this file."""
    try:
        found = _trouble_with_file(path)
    except OSError as error:
        found = f"names a file that cannot be looked at ({error.strerror})"
    if found:
        raise ImproperlyConfigured(f"DATABASE_URL {found}.")


def _trouble_with_file(path: Path) -> str:
    if not path.parent.is_dir():
        return "names a file in a folder that does not exist"
    if path.is_dir():
        return "names a folder, not a file"
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return "names a file that this user may not read and write"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return (
            "names a file in a folder that this user may not write to, where SQLite keeps its log"
        )
    if path.is_file() and path.stat().st_size and not _is_sqlite(path):
        return "names a file that is no SQLite database"
    return ""


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


STATEMENT_SECONDS = 30.0
"""Longer than a page waits for a row that another page has locked while it waits for sipgate (25 s)."""
_limit: list[float] = []


def limit_statements() -> None:
    """Let statements of this process fail if PostgreSQL does not answer within ``STATEMENT_SECONDS``. This is for
    processes that serve pages. A server whose disk hangs, or that is suspended, keeps its connections, so no network
    time-out ends them, and it does not enforce its own ``statement_timeout`` either. Every thread would wait, and
    ``/livez`` would not answer. Commands are not limited, because a migration may take long.
    """
    _limit[:] = [STATEMENT_SECONDS]


def connection_class() -> Any:
    """Return psycopg's connection with the limit of ``limit_statements``, for the pool."""
    import psycopg  # only where there is PostgreSQL

    class Connection(psycopg.Connection[Any]):
        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            limit = timeout if timeout is not None or not _limit else _limit[0]
            try:
                return super().wait(gen, interval, limit)
            except psycopg.OperationalError:
                if (
                    self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
                ):  # it has not ended
                    self.pgconn.finish()
                    if timeout is None:
                        raise psycopg.OperationalError(f"no answer within {limit:.0f} s") from None
                raise

    return Connection


def trouble(timeout: int = CONNECT_TIMEOUT) -> str:
    """Try to connect to the site's database; return one sentence on what is wrong, or nothing.

    It opens a connection of its own, because a pool would try again for seconds and log each attempt.
    """
    from django.db import DatabaseError, connections  # settings import this module

    connection = connections["default"]
    if connection.vendor == "postgresql":
        return _trouble_with_postgresql(connection, timeout)
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        return f"DATABASE_URL cannot be used: {error}."
    return ""


def _trouble_with_postgresql(connection: Any, timeout: int) -> str:
    import psycopg

    told = connection.get_connection_params()
    try:
        psycopg.connect(**{**told, "connect_timeout": timeout}).close()
    except psycopg.Error as error:
        where = f"{told.get('host') or 'the local socket'}:{told.get('port') or 5432}"
        return f"DATABASE_URL: the database at {where} cannot be used ({_cause(str(error))})."
    return ""


def _cause(message: str) -> str:
    """Return the end of libpq's message about its first attempt, such as ``Connection refused``."""
    for line in message.splitlines():
        for mark in ("FATAL:", "failed: "):
            if mark in line:
                return line.rpartition(mark)[2].strip().rstrip(".")
    return (message.strip().splitlines() or ["no reason given"])[0].rstrip(".")
