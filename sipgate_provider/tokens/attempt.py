"""Decides what the failure of one attempt to refresh means for the row, the client and the person, and who is told.

Must not know: how a token is sent (``refresh``), pages.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from django.db import connections
from django.utils import timezone

from sipgate_provider import errors, metrics, signals
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.remote import log_fields, oauth
from sipgate_provider.tokens import database, pauses

from . import authorization_server, machine, rows, threads

logger = logging.getLogger(__name__)

UNAVAILABLE = timedelta(seconds=2), timedelta(minutes=1)
FAULT = timedelta(minutes=1), timedelta(hours=1)
REFUSED = timedelta(minutes=5), timedelta(days=7)
"""Shortest and longest time until the next attempt. In between, it is as long as the trouble has lasted."""
LOCAL_FAULT = timedelta(minutes=15)
LOCAL = frozenset({Reason.KEY_MISSING, Reason.OTHER_CLIENT})
"""Faults found without sipgate. They are checked at every use, so a row works again as soon as they are corrected."""
ROWS_IN_SUCCESSION = 5
"""After sipgate has refused this many rows and refreshed none in between, the client is taken to be at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshRequest:
    """What a caller wants refreshed.

    ``seen_generation`` is the one that was not good enough: any newer one will do. ``patience``: seconds to wait if
    somebody else is refreshing it (0: leave it to them). ``actor``: *gate* and *person* are uses of the connection,
    *keepalive* and administrators are not. ``force`` ignores the pause after a failure. ``caller_in_transaction`` makes
    the claim give up quickly where the caller itself may hold the database's lock.
    """

    connection_id: int
    seen_generation: int
    patience: float
    actor: str = "gate"
    force: bool = False
    caller_in_transaction: bool = False

    @property
    def is_use(self) -> bool:
        return self.actor in {"gate", "person"}


class Outcome(StrEnum):
    """The outcome of an attempt, for metrics and log records."""

    REFRESHED = "refreshed"
    REFUSED = Reason.REFUSED.value
    LOST_ROTATION = Reason.LOST_ROTATION.value
    EXPIRED_IDLE = Reason.EXPIRED_IDLE.value
    FIXED_END = Reason.FIXED_END.value
    NO_REFRESH_TOKEN = Reason.NO_REFRESH_TOKEN.value
    UNAVAILABLE = "unavailable"
    RATE_LIMITED = "rate_limited"
    UNEXPECTED = "unexpected"
    MISCONFIGURED = "misconfigured"
    PAUSED = "paused"
    SUPERSEDED = "superseded"
    DISCONNECTED = "disconnected"
    NOT_STORED = "not_stored"
    FAILED = "failed"


REFRESHES = metrics.Counter(
    "refreshes_total",
    "Refreshes, by what came of them.",
    {"outcome": Outcome, "actor": metrics.ACTORS},
)
SECONDS = metrics.Histogram(
    "refresh_seconds", "Duration of refreshes that asked sipgate, storing included."
)


class Attempt:
    """One attempt to refresh one row, as it was read (``rows.load_with_clock``)."""

    def __init__(self, row: SipgateToken, request: RefreshRequest) -> None:
        self.row = row
        self.request = request
        self.started = time.monotonic()
        self.outcome: Outcome | None = None
        """None: it was left to others."""
        self.token = rows.Sent(
            connection_id=row.pk, consent_id=row.consent_id, generation=row.generation
        )
        self.has_asked = False
        self.claim: rows.Claim | None = None
        self.lock: machine.Lock | None = None
        self.is_suspect = False
        """The token may have been sent before."""

    def count(self) -> None:
        """Count the attempt, once it is over."""
        if self.outcome:
            REFRESHES.count(self.outcome, self.request.actor)
        if self.outcome and self.has_asked:
            SECONDS.observe(time.monotonic() - self.started)

    # --- is it time? --------------------------------------------------------------------------------------------------

    def seconds_to_wait(self) -> float:
        due = self.row.next_attempt_at
        return max((due - timezone.now()).total_seconds(), 0.0) if due else 0.0

    def refuse_unless_due(self) -> None:
        """Raise while the row waits for its next attempt, or for its person."""
        row, wait = self.row, self.seconds_to_wait()
        if row.state == State.NEEDS_SIGN_IN and row.next_attempt_at is None:
            raise self.needs_person()  # ended here, by an administrator or the person: never by itself again
        if self.request.force or row.reason in LOCAL or not wait:
            return
        if row.state == State.NEEDS_SIGN_IN:
            raise self.needs_person()
        raise errors.SipgateUnavailable(
            "The last refresh failed a moment ago; the next one is due soon.",
            sent=False,
            retry_after=wait,
            endpoint="token",
            code=row.last_error_code or None,
        )

    def needs_person(self) -> errors.NeedsSignIn:
        return errors.NeedsSignIn(
            "This connection needs a new sign-in.",
            reason=self.row.reason,
            code=self.row.last_error_code,
        )

    # --- failures -----------------------------------------------------------------------------------------------------

    def local_fault(self, reason: Reason, error: errors.Misconfigured) -> errors.Misconfigured:
        """This row cannot be refreshed from here: it backs off, and others go on. Noted once, not at every use."""
        self.outcome = Outcome.MISCONFIGURED
        if self.row.reason != reason or not self.seconds_to_wait():
            self.note(
                State.MISCONFIGURED, reason, error, next_attempt_at=timezone.now() + LOCAL_FAULT
            )
        return error

    def refused(self, refused: errors.TokenRefused, client: oauth.Client) -> SipgateToken:
        """sipgate refuses the token. First find out whether somebody was faster, or has disconnected."""
        row = rows.load(self.row.pk)
        if row is None:
            raise self.gone() from refused
        if (row.consent_id, row.generation) != (self.row.consent_id, self.row.generation):
            self.outcome = Outcome.SUPERSEDED
            self.give_back()
            return row
        self.clear_note()
        if refused.code in oauth.OF_THE_GRANT:
            raise self._fault_of_row(refused, client) from refused
        raise self.needs_sign_in(
            self._why_refused(), code=refused.code, description=refused.description
        ) from refused

    def _why_refused(self) -> Reason:
        if self.is_suspect:
            return Reason.LOST_ROTATION
        if (
            self.row.refresh_expires_at is not None
            and self.row.refresh_expires_at <= timezone.now()
        ):
            return Reason.FIXED_END if self.row.has_fixed_end else Reason.EXPIRED_IDLE
        return Reason.REFUSED

    def needs_sign_in(
        self, reason: Reason, *, code: str, description: str = ""
    ) -> errors.NeedsSignIn:
        """Only a new sign-in can help, as far as is known. A refused token is not spent (a suspended person may be let
        in again), so it is tried again at growing intervals."""
        error = errors.NeedsSignIn(
            "This connection needs a new sign-in.", reason=reason, code=code, endpoint="token"
        )
        self.outcome, now, row = Outcome(reason.value), timezone.now(), self.row
        since = row.state_since if row.state == State.NEEDS_SIGN_IN else now
        again = None if reason == Reason.NO_REFRESH_TOKEN else later(since, REFUSED, now=now)
        noted = self.note(
            State.NEEDS_SIGN_IN,
            reason,
            error,
            next_attempt_at=again,
            description=description,
            last_refused_at=now,
        )
        if noted and row.state != State.NEEDS_SIGN_IN:
            signals.announce(
                signals.needs_sign_in,
                connection=row.connection,
                token=rows.load(row.pk),
                reason=reason,
            )
        return error

    def _fault_of_row(
        self, refused: errors.TokenRefused, client: oauth.Client
    ) -> errors.SipgateError:
        """sipgate refuses this grant. Only if it refuses one row after the other, our client is at fault."""
        details: dict[str, Any] = {
            "endpoint": "token",
            "status": refused.status,
            "code": refused.code,
        }
        # A row that is known to be at fault proves nothing about the client.
        is_news = self.row.reason != Reason.UNEXPECTED
        if is_news and pauses.count_fault(self.row.pk) >= ROWS_IN_SUCCESSION:
            error = errors.Misconfigured(
                f"sipgate refuses one connection after the other ({refused.code}).",
                setting=oauth.OUR_FAULT[refused.code],
                **details,
            )
            self.fault_of_client(error, client)
            return error
        self.outcome, now = Outcome.UNEXPECTED, timezone.now()
        fault = errors.UnexpectedResponse(
            f"sipgate does not refresh this connection ({refused.code}).", **details
        )
        again = later(self.row.failing_since or now, FAULT, now=now)
        self.note(
            State.FAILING,
            Reason.UNEXPECTED,
            fault,
            next_attempt_at=again,
            description=refused.description,
        )
        return fault

    def fault_of_client(self, error: errors.Misconfigured, client: oauth.Client) -> None:
        """sipgate refuses our client: pause every refresh, ask no user to act, and tell the operator once."""
        self.outcome = Outcome.MISCONFIGURED
        self.clear_note()
        begins = pauses.start_pause(
            authorization_server.fingerprint(client),
            code=error.code or "misconfigured",
            setting=error.setting,
            length=timedelta(seconds=60),
            now=timezone.now(),
        )
        self.note(State.MISCONFIGURED, Reason.CLIENT_REFUSED, error, next_attempt_at=None)
        if begins:
            signals.announce(
                signals.misconfigured, code=error.code or "misconfigured", setting=error.setting
            )

    def no_answer(self, error: errors.SipgateError) -> None:
        """sipgate did not answer, gave an answer that is not understood, or asks to wait."""
        if error.code == threads.BUSY:
            self.outcome = (
                None  # this process ends: nothing was sent, and nothing is wrong with the row
            )
            return
        reason, self.outcome = Reason.UNREACHABLE, Outcome.UNAVAILABLE
        if isinstance(error, errors.RateLimited):
            reason, self.outcome = Reason.RATE_LIMITED, Outcome.RATE_LIMITED
        elif isinstance(error, errors.UnexpectedResponse):
            reason, self.outcome = Reason.UNEXPECTED, Outcome.UNEXPECTED
        now, mark = timezone.now(), {}
        if self.claim is not None and oauth.is_unanswered(error):
            mark = rows.mark(self.claim)
        else:
            self.clear_note()
        again = later(self.row.failing_since or now, UNAVAILABLE, now=now)
        wish = now + timedelta(seconds=getattr(error, "retry_after", None) or 0.0)
        self.note(State.FAILING, reason, error, next_attempt_at=max(again, wish), **mark)

    def gone(self) -> errors.NotConnected:
        self.outcome = Outcome.DISCONNECTED
        return errors.NotConnected("The connection was removed while it was refreshed.")

    # --- notes --------------------------------------------------------------------------------------------------------

    def note(
        self,
        state: State,
        reason: Reason,
        error: errors.SipgateError,
        *,
        next_attempt_at: datetime | None,
        description: str = "",
        **changes: Any,
    ) -> bool:
        """Note a failure in row, history and log, and return the lease. False: the row has changed."""
        code = error.code or (str(error.status) if error.status else "no answer")
        row, now = self.row, timezone.now()
        if row.state == State.NEEDS_SIGN_IN and state != State.NEEDS_SIGN_IN:
            # What sipgate has refused stays so until sipgate says otherwise: its person is not told twice.
            state, reason, next_attempt_at = (
                State(row.state),
                Reason(row.reason),
                next_attempt_at or row.next_attempt_at,
            )
        logger.log(
            logging.ERROR if state == State.MISCONFIGURED else logging.WARNING,
            "Refresh of connection %s failed (%s) [%s]: %s",
            row.pk,
            self.outcome,
            error.reference,
            error.message,
            extra=self.log_fields(error),
        )
        changes |= {
            "state": state,
            "reason": reason,
            "last_error_code": code[:80],
            "next_attempt_at": next_attempt_at,
            "state_since": row.state_since if row.state == state else now,
            "failing_since": row.failing_since or now,
        }
        if not self.give_back(**changes):
            return False
        # One event per incident, not per try: an outage of a day must not write a thousand rows.
        if (row.state, row.reason) != (state, reason):
            TokenEvent.objects.add(
                TokenEvent.Kind.STATE if state == State.NEEDS_SIGN_IN else TokenEvent.Kind.FAILED,
                row=row,
                actor=self.request.actor,
                state=state,
                reason=reason,
                error_code=code,
                generation=row.generation,
                duration_ms=self.elapsed_ms(),
                note=description,
            )
        return True

    def give_back(self, **changes: Any) -> bool:
        """Return the lease, if there is one, and note ``changes``. If the database is away, only the note is lost: a
        lease that was not returned is taken over, and leaves a mark."""
        try:
            if self.claim is not None:
                return rows.give_back(self.claim, **changes)
            return bool(changes) and rows.note_fault(self.row, **changes)
        except database.AWAY as error:
            connections[database.alias()].close()
            logger.warning(
                "The outcome of a refresh is not noted (%s)",
                type(error).__name__,
                extra=self.log_fields(),
            )
            return False

    def clear_note(self) -> None:
        """Clear the lock's note: what it names was not sent, or was answered. An earlier unanswered one stays."""
        if self.lock is not None and not self.is_suspect:
            self.lock.write_note(None)

    def announce(self, stored: SipgateToken, client: oauth.Client) -> None:
        """The row has a new pair."""
        self.outcome = Outcome.REFRESHED
        pauses.forget_faults()
        if self.row.state == State.MISCONFIGURED:
            pauses.end_pause(authorization_server.fingerprint(client))
        if self.row.state != State.ACTIVE and stored.state == State.ACTIVE:
            TokenEvent.objects.add(
                TokenEvent.Kind.REPAIRED,
                row=stored,
                actor=self.request.actor,
                generation=stored.generation,
                duration_ms=self.elapsed_ms(),
            )
            signals.announce(signals.repaired, connection=stored.connection, token=stored)
        logger.info(
            "Refreshed connection %s in %s ms",
            stored.pk,
            self.elapsed_ms(),
            extra=self.log_fields(),
        )

    def log_fields(self, error: errors.SipgateError | None = None) -> dict[str, Any]:
        """Return what a log record says about this attempt besides its text."""
        # Administrators are actors by name.
        actor = self.request.actor if self.request.actor in metrics.ACTORS else metrics.OTHER
        return log_fields.fields(
            error,
            connection=self.row.pk,
            generation=self.row.generation,
            outcome=self.outcome or "",
            actor=actor,
            duration_ms=self.elapsed_ms(),
        )

    def elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


def later(since: datetime, bounds: tuple[timedelta, timedelta], *, now: datetime) -> datetime:
    """Return when to try again: after as long as the trouble has lasted, within ``bounds``, plus or minus a tenth."""
    shortest, longest = bounds
    return now + min(max(now - since, shortest), longest) * random.uniform(0.9, 1.1)  # noqa: S311  # jitter, not a secret
