"""One refresh of one connection: claim, ask, keep, classify.

Runs in a thread of its own (``background``). Between claim and keep no database connection is held.

Must not know: requests of visitors, pages, what a caller wants the token for.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from django.db import InterfaceError, OperationalError, connections, transaction
from django.utils import timezone

from sipgate_provider import errors, metrics, signals
from sipgate_provider.keeper import database, history, pauses
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.remote import log_fields, oauth

from . import authorization_server, journal, revocation, sealing, store

logger = logging.getLogger(__name__)

POLL_FIRST, POLL_LONGEST = 0.01, 0.08
"""Seconds between two looks at a row that another process renews."""
STORE_PATIENCE = 10.0
"""Seconds for which a pair is offered to a database that does not answer."""
LOCK_PATIENCE_MS = 250
"""How long a refresh waits for a lock that its own caller may hold: longer would only make the caller wait for itself."""


class Keep(Protocol):
    """How a pair is stored: ``store_pair``, or a way that bulk work has."""

    def __call__(
        self, claim: store.Claim, grant: oauth.Grant, pair: sealing.Pair, *, used: bool, row: SipgateToken
    ) -> SipgateToken: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshRequest:
    """What a caller wants renewed.

    ``seen_generation`` is the one that was not good enough: any newer one fulfils the order. ``patience`` is how many
    seconds to wait for another process that holds the lease (0: leave it to them). ``used`` notes a use by the site,
    as opposed to upkeep. ``force`` ignores the pause after a failure. ``caller_in_transaction`` makes the claim give up
    quickly where the caller itself may hold the lock.
    """

    connection_id: int
    seen_generation: int
    patience: float
    actor: str = "gate"
    used: bool = True
    force: bool = False
    caller_in_transaction: bool = False


class LeftToOthers(Exception):
    """Another process renews this connection, and the order does not wait for it."""


def refresh_connection(order: RefreshRequest) -> SipgateToken:
    """Return the row of the connection at a generation newer than ``order.seen_generation``.

    Raises:
        errors.NotConnected: there is no row (any more).
        errors.NeedsSignIn: only a person can repair it.
        errors.Misconfigured: sipgate refuses our client, or a key is missing, or the caller holds the lock.
        errors.SipgateUnavailable, errors.UnexpectedResponse: no new pair now; the row notes when to try again.
        LeftToOthers: somebody else is at it and ``order.patience`` is over.
    """
    give_up = time.monotonic() + order.patience
    pause = POLL_FIRST
    journal.replay(order.connection_id)
    while True:
        row = _load(order)
        if row.generation > order.seen_generation:
            return row
        _refuse_what_is_hopeless(row, order)
        claim = _claim(row, order)
        if claim is not None:
            return refresh_claimed(row, claim, order)
        if time.monotonic() + pause > give_up:
            raise LeftToOthers
        database.release_connections()
        time.sleep(pause)
        pause = min(pause * 1.6, POLL_LONGEST)


def _load(order: RefreshRequest) -> SipgateToken:
    row = store.load(order.connection_id)
    if row is not None:
        return row
    if order.caller_in_transaction:
        raise errors.CallerHoldsLock(
            "The connection is not committed yet: use it after the transaction that created it.",
            setting="ATOMIC_REQUESTS",
        )
    raise errors.NotConnected("The sipgate connection is gone.")


def _refuse_what_is_hopeless(row: SipgateToken, order: RefreshRequest) -> None:
    if row.state == State.NEEDS_SIGN_IN:
        raise errors.NeedsSignIn("This connection needs a new sign-in.", reason=row.reason, code=row.last_error_code)
    wait = (row.next_attempt_at - timezone.now()).total_seconds() if row.next_attempt_at else 0
    if wait > 0 and not order.force:
        raise errors.SipgateUnavailable(
            "The last refresh failed a moment ago; the next one is due soon.",
            sent=False,
            retry_after=wait,
            endpoint="token",
            code=row.last_error_code or None,
        )


def _claim(row: SipgateToken, order: RefreshRequest) -> store.Claim | None:
    if not order.caller_in_transaction:
        return store.claim(row, owner=store.new_owner(), now=timezone.now())
    try:
        with _short_lock_wait():
            return store.claim(row, owner=store.new_owner(), now=timezone.now())
    except OperationalError as error:
        if type(error.__cause__).__name__ == "PoolTimeout":
            raise errors.Misconfigured(
                "Every database connection is held by a transaction that waits for a token, and a refresh needs one of its "
                "own: make the pool larger than the number of threads.",
                setting="pool in DATABASES",
            ) from error
        raise errors.CallerHoldsLock(
            "The caller's open transaction holds the lock that a refresh needs, so sipgate was not asked. Call outside of "
            "transaction.atomic (switch ATOMIC_REQUESTS off for this view), or use PostgreSQL.",
            setting="ATOMIC_REQUESTS",
        ) from error


class _short_lock_wait:  # noqa: N801  # reads as the context manager it is
    """Within it, waiting for a database lock takes ``LOCK_PATIENCE_MS`` at most."""

    def __enter__(self) -> None:
        self._connection = connections[database.alias()]
        self._atomic = None
        if self._connection.vendor == "sqlite":
            self._run(f"PRAGMA busy_timeout = {LOCK_PATIENCE_MS}")
        elif self._connection.vendor == "postgresql":
            self._atomic = transaction.atomic(using=database.alias())
            self._atomic.__enter__()
            self._run(f"SET LOCAL lock_timeout = {LOCK_PATIENCE_MS}")

    def __exit__(self, *failure: object) -> None:
        if self._atomic is not None:
            self._atomic.__exit__(*failure)  # type: ignore[arg-type]  # passed through
        elif self._connection.vendor == "sqlite":
            self._connection.close()  # the next use opens it with the configured time-out again

    def _run(self, statement: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)


def refresh_claimed(
    row: SipgateToken,
    claim: store.Claim,
    order: RefreshRequest,
    *,
    client: oauth.Client | None = None,
    keep: Keep | None = None,
) -> SipgateToken:
    """Renew a connection whose lease is ours; give the lease back, whatever happens. Returns and raises as ``refresh_connection``.

    ``client``: bulk work looks it up, and whether sipgate accepts it, once for all. ``keep``: how it stores pairs.
    """
    attempt = Attempt(row=row, claim=claim, order=order, started=time.monotonic())
    try:
        return _refresh(attempt, client=client, keep=keep or store_pair)
    finally:
        attempt.count()


def _refresh(attempt: Attempt, *, client: oauth.Client | None, keep: Keep) -> SipgateToken:
    row, claim, order = attempt.row, attempt.claim, attempt.order
    try:
        pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
        if client is None:
            client = authorization_server.client()
            attempt.outcome = "paused"
            respect_pause(client)
    except errors.Misconfigured:
        store.release(claim)
        raise
    if pair.refresh_token is None:
        raise attempt.needs_sign_in(Reason.NO_REFRESH_TOKEN, code="")
    attempt.outcome, attempt.has_asked = "failed", True
    try:
        grant = _ask(client, pair.refresh_token, claim, attempt)
    except errors.TokenRefused as refused:
        return attempt.refused(refused)
    except errors.Misconfigured as error:
        attempt.our_fault(client, error)
        raise
    except errors.SipgateError as error:
        attempt.transient(error)
        raise
    new_pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token or pair.refresh_token)
    attempt.outcome = "not_stored"
    try:
        stored = keep(claim, grant, new_pair, used=order.used, row=row)
    except errors.NotConnected:
        attempt.outcome = "disconnected"
        raise
    attempt.outcome = "refreshed"
    _announce(attempt, stored, client)
    return stored


def _announce(attempt: Attempt, stored: SipgateToken, client: oauth.Client) -> None:
    row, order = attempt.row, attempt.order
    if row.state == State.MISCONFIGURED:
        pauses.end_pause(authorization_server.fingerprint(client))
    if row.state != State.ACTIVE and stored.state == State.ACTIVE:
        history.add_event(
            TokenEvent.Kind.REPAIRED,
            row=stored,
            actor=order.actor,
            generation=stored.generation,
            duration_ms=attempt.elapsed_ms(),
        )
        signals.announce(signals.repaired, connection=stored.connection, token=stored)
    logger.info("Refreshed connection %s in %s ms", row.pk, attempt.elapsed_ms(), extra=attempt.fields())


def respect_pause(client: oauth.Client) -> None:
    """Raise ``errors.Misconfigured`` while sipgate is known to refuse these credentials."""
    pause = pauses.pause(authorization_server.fingerprint(client))
    if pause is not None and pause.until > timezone.now():
        raise errors.Misconfigured(
            f"sipgate refuses this site's client ({pause.error_code}); no refresh is tried until that is mended: see {pause.setting}.",
            setting=pause.setting,
            code=pause.error_code,
            endpoint="token",
        )


def _ask(client: oauth.Client, refresh_token: str, claim: store.Claim, attempt: Attempt) -> oauth.Grant:
    """Ask, and ask once more if the first answer was lost: the holder of the lease may, nobody else does.

    Nothing is lost by the second question: if sipgate rotated on the first, the pair is out of reach anyway, and
    servers with a grace period answer it.
    """
    database.release_connections()
    try:
        return oauth.refresh(client, refresh_token)
    except errors.SipgateError as error:
        if not oauth.is_ambiguous(error) or not store.extend(claim, now=timezone.now()):
            raise
        logger.warning(
            "The answer to a refresh of connection %s was lost (%s); asking once more",
            claim.connection_id,
            error.message,
            extra=attempt.fields(error, outcome="asking_again"),
        )
    attempt.answer_lost = True
    database.release_connections()
    return oauth.refresh(client, refresh_token)


def store_pair(
    claim: store.Claim, grant: oauth.Grant, pair: sealing.Pair, *, used: bool, row: SipgateToken
) -> SipgateToken:
    """Store a rotated pair, whatever it takes; return the row that counts afterwards. ``row`` is what the claim saw.

    Raises:
        errors.NotConnected: the connection was deleted meanwhile; the session of the orphaned pair will be ended.
        errors.SipgateUnavailable: the database did not take it within ``STORE_PATIENCE``; it waits in the journal.
        DatabaseError: the same, without a journal.
    """
    entry = journal.write(claim, grant, pair)
    while True:
        stored = _persist(claim, grant, pair, entry, used=used, row=row)
        now = store.load(claim.connection_id)
        if stored or now is None or now.generation > claim.generation:
            break
        # Our lease ran out (a suspended process) and another refresh runs with the spent token. It will be refused
        # or brings something newer: either way the row tells when it is over.
        database.release_connections()
        time.sleep(POLL_LONGEST)
    journal.done(entry)
    if now is None:
        revocation.enqueue(
            pair, uid="", user=None, why="disconnected during a refresh", connection_id=claim.connection_id
        )
        raise errors.NotConnected("The connection was removed while it was renewed.")
    if not stored:
        revocation.give_up_orphan(now, pair)
    return now


def _persist(
    claim: store.Claim, grant: oauth.Grant, pair: sealing.Pair, entry: Path | None, *, used: bool, row: SipgateToken
) -> bool:
    give_up = time.monotonic() + STORE_PATIENCE
    pause = 0.05
    while True:
        try:
            return store.save_refreshed(claim, grant, pair, used=used, now=timezone.now(), row=row)
        except (OperationalError, InterfaceError) as error:
            # The connection may be dead: only a fresh one can tell whether the first statement arrived.
            connections[database.alias()].close()
            if entry is not None and pause < 0.06:
                journal.sync(entry)
            if time.monotonic() + pause > give_up:
                if entry is None:
                    logger.error(
                        "A rotated pair of connection %s is lost: the database does not take it, and there is no journal",
                        claim.connection_id,
                        extra=log_fields.fields(connection=claim.connection_id, outcome="not_stored"),
                    )
                    raise
                raise _waiting(claim) from error
            logger.warning(
                "A rotated pair is not stored yet (%s); trying again",
                type(error).__name__,
                extra=log_fields.fields(connection=claim.connection_id, outcome="not_stored"),
            )
        time.sleep(pause)
        pause = min(pause * 2, 1.0)


def _waiting(claim: store.Claim) -> errors.SipgateUnavailable:
    error = errors.SipgateUnavailable(
        "The database does not answer; the new tokens wait in the journal.", endpoint="token", code="database"
    )
    logger.error(
        "A rotated pair of connection %s stays in the journal [%s]: the database does not take it",
        claim.connection_id,
        error.reference,
        extra=log_fields.fields(error, connection=claim.connection_id, outcome="not_stored"),
    )
    return error


@dataclass(kw_only=True)
class Attempt:
    """One question to the token endpoint, and what its failure means."""

    row: SipgateToken
    claim: store.Claim
    order: RefreshRequest
    started: float
    answer_lost: bool = False
    has_asked: bool = False
    outcome: str = "misconfigured"
    """What came of it, as ``metrics.REFRESH_OUTCOMES`` names it; at first, that a key or our client is missing."""

    def count(self) -> None:
        """Count the attempt, once it is over."""
        metrics.REFRESHES.count(self.outcome, self.order.actor)
        if self.has_asked:
            metrics.REFRESH_SECONDS.observe(time.monotonic() - self.started)

    def fields(self, error: errors.SipgateError | None = None, *, outcome: str = "") -> dict[str, Any]:
        """Return what a log record tells of this attempt beside its text."""
        # Administrators are actors by name.
        actor = self.order.actor if self.order.actor in metrics.ACTORS else metrics.OTHER
        return log_fields.fields(
            error,
            connection=self.row.pk,
            generation=self.claim.generation,
            outcome=outcome or self.outcome,
            actor=actor,
            duration_ms=self.elapsed_ms(),
        )

    def elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)

    def refused(self, refused: errors.TokenRefused) -> SipgateToken:
        """``invalid_grant``: before anybody is blamed, look whether somebody was faster, or disconnected."""
        row = store.load(self.claim.connection_id)
        if row is None:
            self.outcome = "disconnected"
            raise errors.NotConnected("The connection was removed while it was renewed.") from refused
        if row.generation > self.claim.generation:
            self.outcome = "superseded"
            return row
        raise self.needs_sign_in(self._why_refused(), code=refused.code, note=refused.description) from refused

    def _why_refused(self) -> Reason:
        if self.answer_lost or self.claim.taken_over:
            return Reason.LOST_ROTATION
        if self.row.refresh_expires_at is not None and self.row.refresh_expires_at <= timezone.now():
            return Reason.FIXED_END if self.row.has_fixed_end else Reason.EXPIRED_IDLE
        return Reason.REFUSED

    def needs_sign_in(self, reason: Reason, *, code: str, note: str = "") -> errors.NeedsSignIn:
        error = errors.NeedsSignIn("This connection needs a new sign-in.", reason=reason, code=code, endpoint="token")
        self.outcome = reason.value
        noted = self._note(State.NEEDS_SIGN_IN, reason, code=code, next_attempt_at=None, note=note)
        logger.warning(
            "Connection %s needs a new sign-in [%s]: %s",
            self.row.pk,
            error.reference,
            reason.value,
            extra=self.fields(error),
        )
        if noted and self.row.state != State.NEEDS_SIGN_IN:
            connection = self.row.connection
            signals.announce(
                signals.needs_sign_in, connection=connection, token=store.load(connection.pk), reason=reason
            )
        return error

    def our_fault(self, client: oauth.Client, error: errors.Misconfigured) -> None:
        """sipgate refuses our client: pause every refresh, blame no user, tell the operator once."""
        self.outcome = "misconfigured"
        now = timezone.now()
        code = error.code or "misconfigured"
        begins = pauses.start_pause(
            authorization_server.fingerprint(client),
            code=code,
            setting=error.setting,
            length=timedelta(seconds=60),
            now=now,
        )
        self._note(State.MISCONFIGURED, Reason.CLIENT_REFUSED, code=code, next_attempt_at=None)
        logger.error(
            "sipgate refuses this site's client [%s]: %s", error.reference, error.message, extra=self.fields(error)
        )
        if begins:
            signals.announce(signals.misconfigured, code=code, setting=error.setting)

    def transient(self, error: errors.SipgateError) -> None:
        reason, self.outcome = Reason.UNREACHABLE, "unavailable"
        if isinstance(error, errors.RateLimited):
            reason, self.outcome = Reason.RATE_LIMITED, "rate_limited"
        elif isinstance(error, errors.UnexpectedResponse):
            reason, self.outcome = Reason.UNEXPECTED, "unexpected"
        now = timezone.now()
        since = self.row.failing_since or now
        code = error.code or (str(error.status) if error.status else "no answer")
        self._note(State.FAILING, reason, code=code, next_attempt_at=next_attempt(since, error, now=now))
        logger.warning(
            "Refresh of connection %s failed [%s]: %s",
            self.row.pk,
            error.reference,
            error.message,
            extra=self.fields(error),
        )

    def _note(
        self, state: State, reason: Reason, *, code: str, next_attempt_at: datetime | None, note: str = ""
    ) -> bool:
        noted = store.record_failure(
            self.claim, state=state, reason=reason, code=code, next_attempt_at=next_attempt_at, now=timezone.now()
        )
        # One event per incident, not per try: an outage of a day must not write a thousand rows.
        if noted and (self.row.state, self.row.reason) != (state, reason):
            history.add_event(
                TokenEvent.Kind.STATE if state == State.NEEDS_SIGN_IN else TokenEvent.Kind.FAILED,
                row=self.row,
                actor=self.order.actor,
                state=state,
                reason=reason,
                error_code=code,
                generation=self.claim.generation,
                duration_ms=self.elapsed_ms(),
                note=note,
            )
        return noted


def next_attempt(failing_since: datetime, error: errors.SipgateError, *, now: datetime) -> datetime:
    """Return when to try again: soon at first, after a long outage once a minute, never before sipgate's wish."""
    wait = min(max((now - failing_since).total_seconds() / 2, 2.0), 60.0)
    asked = getattr(error, "retry_after", None) or 0.0
    return now + timedelta(seconds=max(wait * random.uniform(0.8, 1.2), asked))  # noqa: S311  # jitter, not a secret
