"""Hands out a usable access token for a connection. All code that needs one comes here.

A fresh token (``SipgateToken.freshness``) is handed out: one query, no write. If it nears its end,
one caller starts a refresh and nobody waits. Otherwise ``refresh`` runs in a thread of its own, once
per connection and process, and the caller waits here without a database connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from allauth.socialaccount.models import SocialAccount
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from sipgate_provider import background, conf, database, errors, metrics
from sipgate_provider.models import Freshness, SipgateToken, State
from sipgate_provider.tokens import journal, rows
from sipgate_provider.tokens.refresh import refresh as refresh_now

Answer = TypeVar("Answer")

REJECTED_TOO_SOON = timedelta(seconds=10)
"""If sipgate rejects a token that is younger than this, another refresh would not help."""
HANDED_OUT = ("present", "refreshed", "error")
REQUESTS = metrics.counter(
    "token_requests_total",
    "Access tokens asked for, by the freshness of the token found and what was handed out.",
    {"freshness": [*Freshness, "rejected"], "result": HANDED_OUT},
)
WAIT_SECONDS = metrics.histogram(
    "token_wait_seconds",
    "How long callers waited for a refreshed access token.",
    {"result": HANDED_OUT},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A usable access token and facts about it. ``value`` stays out of ``repr``."""

    value: str = field(repr=False)
    connection_id: int
    number: int
    expires_at: datetime
    scopes: tuple[str, ...]


@sensitive_variables("rejected")
def token(
    connection: SocialAccount | int,
    *,
    row: SipgateToken | None = None,
    rejected: str | None = None,
    wait: float | None = None,
) -> AccessToken:
    """Return a usable access token for a connection.

    Args:
        connection: the connection, or its primary key.
        row: its row, if the caller has just read it (saves the one query).
        rejected: an access token that sipgate's API has just answered with 401; it is not handed
            out again.
        wait: seconds to wait for a refresh, 0 or more; by default ``SIPGATE_WAIT_SECONDS``. After
            that, the refresh continues without this caller.

    Raises:
        errors.NotConnected: there are no tokens for this connection.
        errors.NeedsSignIn: only a new sign-in can help.
        errors.SipgateUnavailable, errors.UnexpectedResponse: no token now; perhaps later.
        errors.Misconfigured: our client, our keys, the database's pool, or the caller's transaction
            makes it impossible.
    """
    recover_at_start()
    with database.explained():
        row = row or _row(_key(connection))
        found = row.freshness(timezone.now())
        started, result = time.monotonic(), "error"
        try:
            handed_out = _token(row, found, rejected, wait)
            result = "present" if handed_out.number == row.number else "refreshed"
        finally:
            REQUESTS.labels(found if rejected is None else "rejected", result).inc()
            if rejected is not None or found in {Freshness.MANDATORY, Freshness.OVER}:
                WAIT_SECONDS.labels(result).observe(time.monotonic() - started)
    return handed_out


@sensitive_variables("rejected")
def _token(
    row: SipgateToken, found: Freshness, rejected: str | None, wait: float | None
) -> AccessToken:
    if rejected is not None and _opened(row).value == rejected:
        _check_not_too_soon(row)
        return _opened(_refreshed(row, by="caller", wait=wait))
    if found is Freshness.ADVISORY:
        _refresh_behind(row)
    if found in {Freshness.FRESH, Freshness.ADVISORY}:
        return _opened(row)
    try:
        return _opened(_refreshed(row, by="caller", wait=wait))
    except errors.NotConnected:
        raise
    except errors.SipgateError:
        # While it lives, the present token is better than an error.
        if row.freshness(timezone.now()) is Freshness.OVER:
            raise
        return _opened(row)


def call(
    connection: SocialAccount | int,
    ask: Callable[[AccessToken], Answer],
    *,
    row: SipgateToken | None = None,
    wait: float | None = None,
) -> tuple[AccessToken, Answer]:
    """Call ``ask`` with a usable token; return the token and the result. After a 401, refresh and
    call it once more.

    A 401 means that sipgate has done nothing, so any request may be repeated. No database
    connection is held while ``ask`` runs. Other arguments are those of ``token``.

    Raises:
        errors.SipgateError: as ``token``, and whatever ``ask`` raises; ``AccessRejected`` if the
            new token fails as well. Its ``connection_id`` is set.
    """
    try:
        used = token(connection, row=row, wait=wait)
        database.release_connections()
        try:
            return used, ask(used)
        except errors.AccessRejected:
            used = token(connection, rejected=used.value, wait=wait)
        database.release_connections()
        return used, ask(used)
    except errors.SipgateError as error:
        error.connection_id = _key(connection)
        raise


def refresh(
    connection: SocialAccount | int,
    *,
    by: str = "user",
    seen: int | None = None,
    wait: float | None = None,
    force: bool = True,
) -> SipgateToken:
    """Refresh a connection now, even if its token is fresh; return the new row. Raises as
    ``token``.

    Args:
        connection: the connection, or its primary key.
        by: who asks for it, for history and metrics: ``"user"``, ``"keepalive"``, or an
            administrator's name.
        seen: the number of the version to replace; by default the present one. If the row has a
            later version, that is returned without asking sipgate.
        wait: as for ``token``.
        force: after a failure, do not wait until the next attempt is due.
    """
    row = _row(_key(connection))
    if seen is not None and row.number > seen:
        return row
    with database.explained():
        return _refreshed(row, by=by, wait=wait, force=force)


def _key(connection: SocialAccount | int) -> int:
    return connection if isinstance(connection, int) else int(connection.pk)


def _row(connection_id: int) -> SipgateToken:
    row = rows.load(connection_id)
    if row is None:
        raise errors.NotConnected("There are no sipgate tokens for this connection.")
    return row


def _opened(row: SipgateToken) -> AccessToken:
    return AccessToken(
        value=rows.opened(row).access_token,
        connection_id=row.pk,
        number=row.number,
        expires_at=row.expires_at,
        scopes=row.scopes,
    )


def _check_not_too_soon(row: SipgateToken) -> None:
    """Raise if the rejected token comes from a refresh a moment ago."""
    recently = min(REJECTED_TOO_SOON, (row.expires_at - row.issued_at) / 4)
    # If the time of a refresh lies in the future, a clock was wrong, here or on another machine.
    refreshed = row.last_refreshed_at if row.issued_at >= row.consented_at else None
    if refreshed is not None and abs(timezone.now() - refreshed) < recently:
        raise errors.AccessRejected(
            "sipgate's API rejects an access token that sipgate has just issued.",
            reason="rejected",
            status=401,
        )


def _refresh_behind(row: SipgateToken) -> None:
    """Start a refresh without waiting for it. If it fails, callers with a usable token do not
    notice."""
    now = timezone.now()
    waits = row.next_attempt_at is not None and row.next_attempt_at > now
    is_under_way = row.lease_until is not None and row.lease_until > now
    if row.state == State.NEEDS_SIGN_IN or waits or is_under_way:
        return
    if background.refreshes.is_busy or database.caller_holds_lock():
        return  # the mandatory window, or the next request, is early enough
    _start(row, by="caller", force=False)


def _start(row: SipgateToken, *, by: str, force: bool) -> Future[SipgateToken]:
    work = partial(
        refresh_now,
        row.pk,
        seen=row.number,
        by=by,
        force=force,
        patience=conf.wait_seconds(),
    )
    return background.refreshes.submit_once((row.pk, row.number, force), work)


def _refreshed(
    row: SipgateToken, *, by: str, wait: float | None, force: bool = False
) -> SipgateToken:
    """Return the row at a later version; wait for that without a database connection."""
    if row.state == State.NEEDS_SIGN_IN and row.next_attempt_at is None:
        raise errors.NeedsSignIn(
            "This connection needs a new sign-in.", reason=row.reason, code=row.last_error_code
        )
    if database.caller_holds_lock():
        raise errors.CallerHoldsLock(
            "The caller's open transaction holds SQLite's only write lock, so sipgate was not asked. "
            "Call outside of transaction.atomic (switch ATOMIC_REQUESTS off for this view), or use "
            "PostgreSQL.",
            setting="ATOMIC_REQUESTS",
        )
    future = _start(row, by=by, force=force)
    database.release_connections()
    try:
        return future.result(timeout=conf.wait_seconds() if wait is None else wait)
    except TimeoutError:
        raise errors.SipgateUnavailable(
            "Refreshing the access token takes longer than this caller waits; it goes on in the "
            "background.",
            endpoint="token",
        ) from None


# --- processes ------------------------------------------------------------------------------------

_has_begun = False


@background.after_fork
def _begin_again() -> None:
    global _has_begun
    _has_begun = False


def recover_at_start() -> None:
    """Recover tokens from the journal in a thread, once per process: when it starts, or first uses
    a connection."""
    global _has_begun
    if not _has_begun:
        _has_begun = True
        if conf.journal_directory() is not None:
            background.errands.submit_once("journal", journal.recover_all)


def begin_process() -> None:
    """Recover in a thread what a killed process left in the journal, and let SIGTERM cancel queued
    refreshes.

    For the main thread of a server's worker. Without this call, the first use of a connection
    recovers the journal.
    """
    recover_at_start()
    background.end_at_sigterm()
