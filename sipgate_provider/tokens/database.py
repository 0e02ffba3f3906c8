"""Tells which database holds the token rows, and returns this thread's database connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import (
    InterfaceError,
    InternalError,
    OperationalError,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper

from sipgate_provider import errors, models

AWAY = (OperationalError, InterfaceError, InternalError)
"""What the database raises when it does not take a statement now: it is away, or has become read-only in a failover."""
LOCK_PATIENCE_MS = 250
"""How long a claim waits for a lock that its own caller may hold, since the caller would wait for itself."""


def alias() -> str:
    return models.database()


@contextmanager
def own_connections() -> Iterator[None]:
    """For work outside of requests: each statement is committed at once, and connections are returned at the end."""
    try:
        wrapper = connections[alias()]
        if not wrapper.settings_dict.get("AUTOCOMMIT", True):
            # With autocommit off, nobody would commit these statements. The settings are this thread's own copy, so
            # this also holds after the connection was returned and opened again.
            wrapper.close()
            wrapper.settings_dict = {**wrapper.settings_dict, "AUTOCOMMIT": True}
        yield
    finally:
        connections.close_all()


def release_connections() -> None:
    """Return this thread's database connections before waiting for sipgate.

    Those with work of the caller that is not committed stay, since closing would undo it: in a transaction, or with
    autocommit off. So do persistent ones (``CONN_MAX_AGE``), and SQLite's, which nobody else waits for.
    """
    for wrapper in connections.all(initialized_only=True):
        if wrapper.connection is None or wrapper.vendor == "sqlite" or wrapper.in_atomic_block:
            continue
        if wrapper.get_autocommit() and not _is_persistent(wrapper):
            wrapper.close()


def _is_persistent(wrapper: BaseDatabaseWrapper) -> bool:
    is_pooled = bool(wrapper.settings_dict.get("OPTIONS", {}).get("pool"))
    return wrapper.settings_dict.get("CONN_MAX_AGE") != 0 and not is_pooled


@contextmanager
def short_lock_wait(is_needed: bool) -> Iterator[None]:
    """Inside this block, waiting for a lock of the database takes ``LOCK_PATIENCE_MS`` at most, if ``is_needed``.

    Raises:
        errors.CallerHoldsLock: it took longer.
    """
    if not is_needed:
        yield
        return
    connection = connections[alias()]
    try:
        if connection.vendor == "postgresql":
            with transaction.atomic(using=alias()):
                _run(connection, f"SET LOCAL lock_timeout = {LOCK_PATIENCE_MS}")
                yield
        elif connection.vendor == "sqlite":
            _run(connection, f"PRAGMA busy_timeout = {LOCK_PATIENCE_MS}")
            try:
                yield
            finally:
                connection.close()  # the next use opens it with the configured time-out again
        else:
            yield
    except OperationalError as error:
        if (
            connection.vendor == "postgresql"
            and type(error.__cause__).__name__ != "LockNotAvailable"
        ):
            raise
        raise errors.CallerHoldsLock(
            "The caller's open transaction holds the lock that a refresh needs, so sipgate was not asked. Call outside "
            "of transaction.atomic (switch ATOMIC_REQUESTS off for this view), or use PostgreSQL.",
            setting="ATOMIC_REQUESTS",
        ) from error


def _run(connection: BaseDatabaseWrapper, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def explained() -> Iterator[None]:
    """Turn an exhausted pool into an error that names the cure.

    Raises:
        errors.Misconfigured: no connection was free for as long as the pool waits.
    """
    try:
        yield
    except OperationalError as error:
        if type(error.__cause__).__name__ != "PoolTimeout":
            raise
        raise errors.Misconfigured(
            "The pool had no database connection to give: all are in use, or the database does not answer. If it does, "
            "make the pool larger than the number of threads: a transaction that waits for a token keeps its "
            "connection, and the refresh needs another one.",
            setting="pool in DATABASES",
            code="database_pool",
        ) from error
