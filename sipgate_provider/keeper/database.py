"""Which database holds the token rows, and when this thread gives its database connections back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections, router

from sipgate_provider.models import SipgateToken


def alias() -> str:
    return router.db_for_write(SipgateToken)


@contextmanager
def own_connections() -> Iterator[None]:
    """Give this thread's database connections back at the end: for work that runs beside requests."""
    try:
        yield
    finally:
        connections.close_all()


def release_connections() -> None:
    """Give this thread's database connections back before waiting for sipgate.

    Those inside a transaction stay (closing would abort the caller's work), and so does SQLite's file handle, which
    nobody else waits for.
    """
    for wrapper in connections.all(initialized_only=True):
        if wrapper.connection is not None and not wrapper.in_atomic_block and wrapper.vendor != "sqlite":
            wrapper.close()
