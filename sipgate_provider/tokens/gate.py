"""The gate returns a usable access token for a connection. All code that needs one calls it.

1. *Look.* Usable: hand it out (one query, no write). Near its end: one caller starts a refresh, everybody goes on.
2. Otherwise ``refresh`` does all that is to be done, in a thread of its own, once per connection and process; the
   caller waits here, without a database connection, for as long as it likes.

Must not know: what the token is used for, pages, allauth's flows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from allauth.socialaccount.models import SocialAccount
from django.db import connections
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from sipgate_provider import conf, errors, metrics
from sipgate_provider.models import Freshness, SipgateToken, State
from sipgate_provider.tokens import database

from . import journal, rows, sealing, threads
from .refresh import LeftToOthers, RefreshRequest, refresh_connection

Answer = TypeVar("Answer")

REJECTED_TOO_SOON = timedelta(seconds=10)
"""If a token that was refreshed this recently is rejected, another refresh would not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A usable access token and what is known of it. ``value`` stays out of ``repr``."""

    value: str = field(repr=False)
    connection_id: int
    generation: int
    expires_at: datetime
    scopes: tuple[str, ...]


REJECTED = "rejected"
HANDED_OUT = ("present", "refreshed", "error")
REQUESTS = metrics.Counter(
    "gate_requests_total",
    "Access tokens asked of the gate, by the state of the token found and what was handed out.",
    {"freshness": [*Freshness, REJECTED], "result": HANDED_OUT},
)
WAIT_SECONDS = metrics.Histogram(
    "gate_wait_seconds",
    "How long callers waited for a refreshed access token.",
    {"result": HANDED_OUT},
)


@sensitive_variables("rejected")
def usable(
    connection: SocialAccount | int,
    *,
    row: SipgateToken | None = None,
    rejected: str | None = None,
    wait: float | None = None,
) -> AccessToken:
    """Return a usable access token for a connection.

    Args:
        connection: the connection, or its primary key.
        row: its token row, if the caller has just read it (saves the one query).
        rejected: an access token that sipgate's API has just answered with 401; it is not handed out again.
        wait: seconds to wait for a refresh, 0 or more; ``SIPGATE_WAIT_SECONDS`` by default. The refresh itself goes
            on when the wait is over.

    Raises:
        errors.NotConnected: there is no token for this connection.
        errors.NeedsSignIn: only a new sign-in can help.
        errors.SipgateUnavailable, errors.UnexpectedResponse: no token now; later, perhaps.
        errors.Misconfigured: our client, our keys, the database's pool, or a transaction of the caller is in the way.
    """
    connection_id = connection if isinstance(connection, int) else connection.pk
    journal.recover_at_start()
    with database.explained():
        row = row or rows.load(connection_id)
    if row is None:
        raise errors.NotConnected("There is no sipgate token for this connection.")
    state = row.freshness(timezone.now())
    started, result = time.monotonic(), "error"
    try:
        token = _token(row, state, rejected, wait)
        result = "present" if token.generation == row.generation else "refreshed"
    finally:
        REQUESTS.count(state if rejected is None else REJECTED, result)
        if rejected is not None or state is Freshness.MANDATORY or state is Freshness.OVER:
            WAIT_SECONDS.observe(time.monotonic() - started, result)
    return token


@sensitive_variables("rejected")
def _token(
    row: SipgateToken, state: Freshness, rejected: str | None, wait: float | None
) -> AccessToken:
    if rejected is not None:
        row = _after_rejection(row, rejected, wait)
        state = row.freshness(timezone.now())
    if state is Freshness.FRESH:
        return _open(row)
    if state is Freshness.ADVISORY:
        _refresh_behind(row)
        return _open(row)
    try:
        return _open(_refreshed(row, wait=wait))
    except (
        errors.SipgateUnavailable,
        errors.UnexpectedResponse,
        errors.NeedsSignIn,
        errors.Misconfigured,
    ):
        # The present token, while it lives, is better than an error, unless that token was rejected.
        if row.freshness(timezone.now()) is Freshness.OVER or rejected is not None:
            raise
        return _open(row)


def call(
    connection: SocialAccount | int,
    ask: Callable[[AccessToken], Answer],
    *,
    row: SipgateToken | None = None,
    wait: float | None = None,
) -> tuple[AccessToken, Answer]:
    """Call ``ask`` with a usable token; return its result and the token. After a 401, refresh and call it once more.

    A 401 means that sipgate has done nothing, so any request may be repeated. No database connection is held
    while it runs. Arguments as ``usable``.

    Raises:
        errors.SipgateError: as ``usable``, and whatever ``ask`` raises; ``AccessRejected`` if the new token fails, too.
            Its ``connection_id`` is set.
    """
    try:
        return _call(connection, ask, row=row, wait=wait)
    except errors.SipgateError as error:
        error.connection_id = connection if isinstance(connection, int) else connection.pk
        raise


def _call(
    connection: SocialAccount | int,
    ask: Callable[[AccessToken], Answer],
    *,
    row: SipgateToken | None,
    wait: float | None,
) -> tuple[AccessToken, Answer]:
    token = usable(connection, row=row, wait=wait)
    database.release_connections()
    try:
        return token, ask(token)
    except errors.AccessRejected:
        token = usable(connection, rejected=token.value, wait=wait)
        database.release_connections()
        try:
            answer = ask(token)
        except errors.AccessRejected:
            rejections.note(token.connection_id)
            raise
        rejections.forget()
        return token, answer


def refresh(
    connection: SocialAccount | int,
    *,
    by: str = "person",
    seen: int | None = None,
    wait: float | None = None,
    force: bool = True,
) -> SipgateToken:
    """Refresh a connection now, even if its token is fresh; return the new row. Raises as ``token``.

    Args:
        connection: the connection, or its primary key.
        by: who wants it, for history and metrics: ``"person"``, ``"keepalive"``, or an administrator's name.
        seen: the version number that is not good enough; the present one by default. If the row has a later one, that
            is returned, and sipgate is not asked.
        wait: as ``token``.
        force: do not wait for the next attempt that is due after a failure.
    """
    connection_id = connection if isinstance(connection, int) else connection.pk
    row = rows.load(connection_id)
    if row is None:
        raise errors.NotConnected("There is no sipgate token for this connection.")
    if seen is not None and row.generation > seen:
        return row
    return _refreshed(row, wait=wait, actor=by, force=force)


def _after_rejection(row: SipgateToken, rejected: str, wait: float | None) -> SipgateToken:
    if _open(row).value != rejected:
        return row  # somebody has refreshed it since
    now = timezone.now()
    is_new = (
        row.last_refreshed_at is not None
        and row.issued_at >= row.consented_at
        # A refresh that lies in the future was noted by a clock that was wrong, here or on another machine.
        and abs(now - row.last_refreshed_at)
        < min(REJECTED_TOO_SOON, (row.expires_at - row.issued_at) / 4)
    )
    if is_new:
        rejections.note(row.pk)
    if is_new or rejections.are_many():
        raise errors.AccessRejected(
            "sipgate's API rejects an access token it has just issued.",
            reason="rejected",
            status=401,
        )
    return _refreshed(row, wait=wait)


class _Rejections:
    """Connections whose new access tokens sipgate's API rejected a moment ago, in this process. If there are several,
    the API is in trouble, and refreshing all of them would not help."""

    MANY, SECONDS = 3, 60.0

    def __init__(self) -> None:
        self._at: dict[int, float] = {}

    def note(self, connection_id: int) -> None:
        self._at[connection_id] = time.monotonic()

    def are_many(self) -> bool:
        now = time.monotonic()
        self._at = {pk: at for pk, at in list(self._at.items()) if now - at < self.SECONDS}
        return len(self._at) >= self.MANY

    def forget(self) -> None:
        self._at = {}


rejections = _Rejections()


def _open(row: SipgateToken) -> AccessToken:
    if not row.sealed:
        raise errors.NeedsSignIn("This connection was revoked.", reason=row.reason)
    pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
    return AccessToken(
        value=pair.access_token,
        connection_id=row.pk,
        generation=row.generation,
        expires_at=row.expires_at,
        scopes=row.scopes,
    )


def _refresh_behind(row: SipgateToken) -> None:
    """Start a refresh and do not wait for it. If it fails, callers with a usable token do not notice."""
    now = timezone.now()
    if row.state == State.NEEDS_SIGN_IN or (row.next_attempt_at and row.next_attempt_at > now):
        return
    if (row.lease_until is not None and row.lease_until > now) or threads.refreshes.is_busy:
        return
    if _caller_in_transaction():
        return  # the mandatory window, or the next request, is early enough
    request = RefreshRequest(connection_id=row.pk, seen_generation=row.generation, patience=0)
    threads.refreshes.submit_once(row.pk, partial(_quietly, request))


def _quietly(request: RefreshRequest) -> SipgateToken | None:
    try:
        return refresh_connection(request)
    except (LeftToOthers, errors.SipgateError):
        return None  # noted in the row, the history and the log


@database.explained()
def _refreshed(
    row: SipgateToken, *, wait: float | None, actor: str = "gate", force: bool = False
) -> SipgateToken:
    if row.state == State.NEEDS_SIGN_IN:
        row = _recovered(row, force=force)
        if (
            row.state == State.ACTIVE
            and not force
            and row.freshness(timezone.now()) is not Freshness.OVER
        ):
            return row
    give_up = time.monotonic() + (conf.wait_seconds() if wait is None else wait)
    in_transaction = _caller_in_transaction()
    request = RefreshRequest(
        connection_id=row.pk,
        seen_generation=row.generation,
        patience=conf.wait_seconds(),
        actor=actor,
        force=force,
        caller_in_transaction=in_transaction,
    )
    database.release_connections()
    while True:
        # A caller inside a transaction gives up early, and others must not share its attempt.
        key = (row.pk, "in transaction") if in_transaction else row.pk
        flight = threads.refreshes.submit_once(key, partial(refresh_connection, request))
        try:
            with threads.while_waiting():
                result = flight.result(timeout=max(give_up - time.monotonic(), 0))
        except FutureTimeout:
            raise errors.SipgateUnavailable(
                "Refreshing the access token takes longer than this caller waits; it goes on in the background.",
                endpoint="token",
            ) from None
        except LeftToOthers:
            result = None
        if result is not None and result.generation > row.generation:
            return result
        if time.monotonic() >= give_up:
            raise errors.SipgateUnavailable(
                "Another process is still refreshing this connection.", endpoint="token"
            )


def _recovered(row: SipgateToken, *, force: bool) -> SipgateToken:
    """Return a row that needs a sign-in as the journal knows it, or raise unless it is time to try it again."""
    if journal.recover_row(row):
        return rows.load(row.pk) or row
    if row.next_attempt_at is None or (row.next_attempt_at > timezone.now() and not force):
        raise errors.NeedsSignIn(
            "This connection needs a new sign-in.", reason=row.reason, code=row.last_error_code
        )
    return row


def _caller_in_transaction() -> bool:
    wrapper = connections[database.alias()]
    # With autocommit off, every statement of the caller belongs to a transaction until it commits by itself.
    return wrapper.in_atomic_block or (
        wrapper.connection is not None and not wrapper.get_autocommit()
    )
