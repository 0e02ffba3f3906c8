"""Returns database connections before waiting for sipgate, and explains a database's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import InterfaceError, InternalError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from sipgate_provider import errors
from sipgate_provider.models import database as using

AWAY = (OperationalError, InterfaceError, InternalError)
"""What the database raises if it cannot execute a statement now: it does not answer, or a failover
has made it read-only."""


@contextmanager
def own_connections() -> Iterator[None]:
    """For work outside of requests: return this thread's database connections at the end."""
    try:
        yield
    finally:
        connections.close_all()


def release_connections() -> None:
    """Return this thread's database connections before waiting for sipgate.

    Keep those in a transaction of the caller, since closing would roll it back, persistent ones
    (``CONN_MAX_AGE``), and SQLite's, which nobody else waits for.
    """
    for connection in connections.all(initialized_only=True):
        if connection.connection is None:
            continue  # asking it for its mode would open it
        in_use = connection.in_atomic_block or not connection.get_autocommit()
        if connection.vendor != "sqlite" and not in_use and not _is_persistent(connection):
            connection.close()


def _is_persistent(connection: BaseDatabaseWrapper) -> bool:
    is_pooled = bool(connection.settings_dict.get("OPTIONS", {}).get("pool"))
    return connection.settings_dict.get("CONN_MAX_AGE") != 0 and not is_pooled


def caller_holds_lock() -> bool:
    """Tell whether the caller is in a transaction that keeps other threads from writing: SQLite has
    one write lock."""
    connection = connections[using()]
    return connection.vendor == "sqlite" and connection.in_atomic_block


@contextmanager
def explained() -> Iterator[None]:
    """Turn an exhausted pool into an error that names the cure.

    Raises:
        errors.Misconfigured: no database connection was free for as long as the pool waits.
    """
    try:
        yield
    except OperationalError as error:
        if type(error.__cause__).__name__ != "PoolTimeout":
            raise
        raise errors.Misconfigured(
            "The pool had no database connection to give: all are in use, or the database does not "
            "answer. If it does, make the pool larger than the number of threads: a transaction that "
            "waits for a token keeps its connection, and the refresh needs another one.",
            setting="pool in DATABASES",
            code="database_pool",
        ) from error


__all__ = [
    "AWAY",
    "caller_holds_lock",
    "explained",
    "own_connections",
    "release_connections",
    "using",
]
