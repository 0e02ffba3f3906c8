"""Checks what this site keeps: keys, journal, cache, database, and the connections in it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta

from allauth.socialaccount.models import SocialToken
from django.core.cache import cache
from django.db import DatabaseError
from django.db import connections as database_connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from sipgate_provider import conf, errors, tokens
from sipgate_provider.models import State
from sipgate_provider.ops import journal_folder, statistics

from .findings import Finding, error, ok, warning, when

OLD_REVOCATION = timedelta(hours=1)
"""After this time, a revocation has been tried a dozen times."""
LONG_FAILING = timedelta(minutes=15)
"""Shorter trouble ends by itself."""


def findings() -> Iterator[Finding]:
    yield from _keys()
    yield from _journal()
    yield from _cache()
    yield from _database()


# --- keys, journal, cache ---------------------------------------------------------------------------------------------


def _keys() -> Iterator[Finding]:
    try:
        ring = tokens.key_ids()
    except errors.Misconfigured:
        return  # a system check says so
    if not conf.token_keys():
        yield ok(
            "keys",
            "Tokens are sealed with a key made from SECRET_KEY, because DEBUG is on.",
            "Set SIPGATE_TOKEN_KEYS before others use the site.",
        )
    elif len(set(ring)) < len(ring):
        yield warning("keys", "SIPGATE_TOKEN_KEYS contains a key twice.", "Remove the second one.")
    else:
        yield ok("keys", f"{len(ring)} {'key' if len(ring) == 1 else 'keys'}; {ring[0]} seals.")


def _used_keys() -> Iterator[Finding]:
    """Compare the ring with the keys that are in use."""
    try:
        ring = tokens.key_ids()
    except errors.Misconfigured:
        return
    used = tokens.status().keys
    old = [key for key in dict.fromkeys(ring) if key != ring[0]]
    if lost := sorted(set(used) - set(ring)):
        number = sum(used[key] for key in lost)
        yield error(
            "keys.lost",
            f"{number} sealed values need keys that are not in SIPGATE_TOKEN_KEYS: {', '.join(lost)}.",
            "Add these keys again after the first one, then run manage.py sipgate_reseal.",
        )
    if unused := [key for key in old if key not in used]:
        yield warning(
            "keys.unused",
            f"Nothing is sealed with these old keys any more: {', '.join(unused)}.",
            "Remove them from SIPGATE_TOKEN_KEYS.",
        )
    if behind := sum(used.get(key, 0) for key in old):
        yield ok(
            "keys.behind",
            f"{behind} values are still sealed with an old key.",
            "Run manage.py sipgate_reseal, then remove it.",
        )


def _journal() -> Iterator[Finding]:
    directory = conf.journal_directory()
    if directory is None:
        return  # a system check says so where it matters
    if reason := journal_folder.why_not_writable(directory):
        yield error(
            "journal",
            f"The journal's folder cannot be written ({reason}): a token pair is lost if the database fails.",
            "Let this user write to SIPGATE_JOURNAL_DIR.",
        )
    elif waiting := tokens.journal_waiting():
        yield warning(
            "journal.waiting",
            f"{waiting} token pairs wait in the journal.",
            "Run manage.py sipgate_keepalive to store them.",
        )
    else:
        yield ok("journal", "The journal can be written and is empty.")


def _cache() -> Iterator[Finding]:
    key, value = f"sipgate_doctor.{secrets.token_hex(8)}", secrets.token_hex(8)
    try:
        cache.set(key, value, 30)
        kept = cache.get(key) == value
        cache.delete(key)
    except (
        Exception
    ) as failure:  # caches raise errors of their client libraries, which have no common base
        problem = f"The default cache does not answer ({type(failure).__name__})."
        yield error("cache", problem, "Check CACHES, and that the cache runs.")
        return
    if kept:
        yield ok("cache", "The default cache works.")
    else:
        yield warning(
            "cache", "The default cache stores nothing: rate limits do not count.", "Check CACHES."
        )


# --- database and what is in it ---------------------------------------------------------------------------------------


def _database() -> list[Finding]:
    try:
        connection = database_connections[tokens.using()]
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        pending = sorted({migration.app_label for migration, _backwards in plan})
        found = [*_database_mode(connection)]
        if pending:
            problem = f"{len(plan)} migrations are not applied: {', '.join(pending)}."
            found.append(error("database.migrations", problem, "Run manage.py migrate."))
        if not {"sipgate_provider", "socialaccount"} & set(pending):
            found += [*_used_keys(), *_clear_text(), *_pause(), *connections(timezone.now())]
    except DatabaseError as failure:
        problem = f"The database does not answer ({type(failure).__name__})."
        return [
            error(
                "database",
                problem,
                "Check DATABASES, and that the database runs and lets this user in.",
            )
        ]
    return found


def _database_mode(connection: BaseDatabaseWrapper) -> Iterator[Finding]:
    name = connection.vendor
    if name == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            mode = str(cursor.fetchone()[0]).lower()
        name = f"SQLite ({mode})"
        if mode not in {"wal", "memory"}:
            yield warning(
                "database.sqlite",
                f"SQLite runs in the mode {mode}: readers and the writer block each other.",
                "Set OPTIONS = {'init_command': 'PRAGMA journal_mode=WAL;'} in DATABASES.",
            )
    yield ok("database", f"{name} answers.")


def _clear_text() -> Iterator[Finding]:
    number = SocialToken.objects.filter(account__provider=conf.PROVIDER_ID).count()
    if number:
        yield warning(
            "clear_text",
            f"{number} of allauth's token rows contain sipgate's tokens in clear text.",
            "Switch SOCIALACCOUNT_STORE_TOKENS off and delete these rows.",
        )


def _pause() -> Iterator[Finding]:
    try:
        pause = tokens.pause(tokens.client())
    except errors.Misconfigured:
        return  # the client has a finding of its own
    if pause is not None:
        yield client_paused(pause.since, pause.error_code, pause.setting)


def client_paused(since: datetime, error_code: str, setting: str) -> Finding:
    return error(
        "client.paused",
        f"sipgate has refused this site's client since {when(since)} ({error_code}); no token is refreshed.",
        f"Correct {setting}. Refreshing resumes as soon as the credentials are correct.",
    )


def connections(
    now: datetime,
    known: statistics.Statistics | None = None,
    details: statistics.Details | None = None,
) -> list[Finding]:
    """Report which connections need attention.

    Args:
        known, details: what was counted already; counted now if left out.

    Raises:
        DatabaseError: there is nothing to judge.
    """
    known, details = known or statistics.measure(now), details or statistics.details(now)
    found = [*_connections_in_trouble(now, known, details), *_old_revocations(now, known)]
    if found:
        return found
    waiting = known.states[State.NEEDS_SIGN_IN]
    people = f"; {waiting} need a new sign-in by their users" if waiting else ""
    return [ok("connections", f"{known.connections} connections, none in trouble{people}.")]


def _connections_in_trouble(
    now: datetime, known: statistics.Statistics, details: statistics.Details
) -> Iterator[Finding]:
    failing, refused = known.states[State.FAILING], known.states[State.MISCONFIGURED]
    if refused:
        yield error(
            "connections.misconfigured",
            f"{refused} connections cannot be refreshed because sipgate refused this site's client.",
            f"Correct {errors.CLIENT_ID} and {errors.CLIENT_SECRET}; the next use or sipgate_keepalive repairs them.",
        )
    since = details.oldest_failing_since
    if failing and since is not None and now - since > LONG_FAILING:
        yield warning(
            "connections.failing",
            f"{failing} connections cannot be refreshed, the first since {when(since)}.",
            "See their last error in the admin. If all connections fail, check whether sipgate can be reached.",
        )
    if details.overdue:
        yield warning(
            "connections.overdue",
            f"{details.overdue} connections should have been refreshed by the keepalive more than a day ago.",
            "Run manage.py sipgate_keepalive regularly.",
        )


def _old_revocations(now: datetime, known: statistics.Statistics) -> Iterator[Finding]:
    oldest = known.oldest_revocation
    if known.revocations and oldest and now - oldest > OLD_REVOCATION:
        yield warning(
            "revocations.old",
            f"{known.revocations} revocations are pending at sipgate, the first since {when(oldest)}.",
            "Run manage.py sipgate_keepalive; see the last error of the pending revocations in the admin.",
        )
