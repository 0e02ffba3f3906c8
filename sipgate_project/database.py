"""Django's settings of the two kinds of databases that the site can use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dj_database_url

NETWORK = {
    "connect_timeout": 3,
    # A machine that has disappeared does not close its connections. These options find a dead
    # connection within 5 + 3 · 5 s if it is idle, and within 20 s if data is unanswered. Otherwise
    # the kernel waits for hours or a quarter of an hour.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""libpq's options. A ``DATABASE_URL`` may name others: ``…/name?connect_timeout=2``."""


def settings_from(url: str, *, pool_size: int) -> dict[str, Any]:
    """Return Django's settings of a database.

    Args:
        url: ``postgres://…`` or ``sqlite:///…``.
        pool_size: how many connections a process may have (PostgreSQL).

    Raises:
        ValueError: the URL names neither PostgreSQL nor SQLite, cannot be parsed, or names a file
            in a folder that does not exist.
    """
    found: dict[str, Any] = dict(dj_database_url.parse(url))
    if found["ENGINE"] == "django.db.backends.sqlite3":
        if not Path(found["NAME"]).parent.is_dir():
            raise ValueError("no such folder")
        # Opening the file takes as long as three queries, so each thread keeps it open.
        found["CONN_MAX_AGE"] = None
        # WAL: readers and the writer do not block each other. IMMEDIATE: a transaction waits for
        # the write lock at its start instead of failing later.
        options: dict[str, Any] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL;",
        }
    elif found["ENGINE"] == "django.db.backends.postgresql":
        # Without it, the pool would hand out dead connections after a restart of the database.
        found["CONN_HEALTH_CHECKS"] = True
        # pgbouncer in transaction mode gives the next statement another connection, which does not
        # know the cursor.
        found["DISABLE_SERVER_SIDE_CURSORS"] = True
        # The app returns connections before it waits for sipgate, so taking one must be cheap: hence
        # the pool. If the database does not answer, a page fails after `timeout` seconds.
        # Without reconnect_timeout, the delay between the pool's attempts grows to minutes.
        pool = {"min_size": 0, "max_size": pool_size, "timeout": 3, "reconnect_timeout": 3}
        options = {**NETWORK, "pool": pool}
    else:
        raise ValueError("another kind of database")
    found["OPTIONS"] = {**options, **found.get("OPTIONS", {})}
    return found
