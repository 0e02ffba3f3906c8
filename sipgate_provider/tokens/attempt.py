"""Records the result of one attempt to refresh, in the row, the history, the log and the metrics,
and sends the signals."""

from __future__ import annotations

import logging
import random
import time
from datetime import timedelta
from typing import Any

from django.db import connections
from django.utils import timezone

from sipgate_provider import database, errors, metrics, signals
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import lease, rows
from sipgate_provider.tokens.decide import FOUND_HERE, Decision, Outcome, Tell, decide
from sipgate_provider.tokens.lock import Busy

logger = logging.getLogger("sipgate_provider.tokens.refresh")
REFRESHES = metrics.counter(
    "refreshes_total",
    "Refreshes, by what came of them.",
    {"outcome": [*Outcome], "actor": metrics.ACTORS},
)
SECONDS = metrics.histogram(
    "refresh_seconds", "Duration of refreshes that asked sipgate, storing included."
)


class Attempt:
    """One attempt to refresh one row, as it was read."""

    def __init__(self, row: SipgateToken, by: str) -> None:
        self.row = row
        self.by = by
        self.holder = ""
        """Names the lease while this attempt has one."""
        self._started = time.monotonic()

    def give_back(self) -> None:
        """Give the lease back: nothing was sent, so *unanswered* gets its old value."""
        self._noted(unanswered=self.row.unanswered)

    def failed(self, outcome: Outcome, error: oauth.Failure) -> Exception:
        """Record what an outcome means, and return the error to raise: ``Busy`` if the row has
        newer tokens by now and must be read again."""
        row, now = self.row, timezone.now()
        is_known = row.reason in FOUND_HERE and row.reason == outcome.value
        if is_known and not self.holder and row.next_attempt_at and row.next_attempt_at > now:
            return error  # recorded already
        decision = decide(
            outcome,
            row,
            now=now,
            unanswered=row.unanswered,
            is_answer=not (self.holder and oauth.is_unanswered(error)),
            wish=getattr(error, "retry_after", None) or 0.0,
            spread=random.uniform(0.9, 1.1),  # noqa: S311  # jitter
        )
        self.count(outcome)
        if not self.note(decision, error) and self.present().number > row.number:
            return Busy()
        return _explained(decision, error)

    def present(self) -> SipgateToken:
        """Return the row as it is now. Raises ``errors.NotConnected`` if it is gone."""
        row = rows.load(self.row.pk)
        if row is None:
            self.count(Outcome.DISCONNECTED)
            raise errors.NotConnected("The connection was removed while it was refreshed.")
        return row

    def not_due(self) -> errors.SipgateError:
        """Return the error for a row whose next attempt is not due."""
        row = self.row
        if row.state == State.NEEDS_SIGN_IN:
            return errors.NeedsSignIn(
                "This connection needs a new sign-in.", reason=row.reason, code=row.last_error_code
            )
        now = timezone.now()
        return errors.SipgateUnavailable(
            "The last refresh failed a moment ago; the next one is due soon.",
            sent=False,
            retry_after=max(((row.next_attempt_at or now) - now).total_seconds(), 0.0),
            endpoint="token",
            code=row.last_error_code or None,
        )

    def note(self, decision: Decision, error: oauth.Failure) -> bool:
        """Carry out a decision, and give the lease back. False: the row has changed, so there is
        nothing to record."""
        row, now = self.row, timezone.now()
        code = error.code or (str(error.status) if error.status else "no answer")
        self._log(decision, error)
        changes: dict[str, Any] = {
            "state": decision.state,
            "reason": decision.reason,
            "last_error_code": code[:80],
            "next_attempt_at": decision.next_attempt_at,
            "state_since": row.state_since if row.state == decision.state else now,
            "failing_since": row.failing_since or now,
        }
        if decision.outcome is Outcome.REJECTED:
            changes["last_rejected_at"] = now
        if not self._noted(unanswered=decision.unanswered, **changes):
            return False
        if (row.state, row.reason) != (decision.state, decision.reason):
            # One event for each incident, not for each attempt: an outage of a day must not write
            # a thousand rows.
            needs_sign_in = decision.state is State.NEEDS_SIGN_IN
            is_news = decision.tell is Tell.OPERATORS and not _happened_lately(decision.reason)
            TokenEvent.objects.add(
                TokenEvent.Kind.STATE if needs_sign_in else TokenEvent.Kind.FAILED,
                row=row,
                actor=self.by,
                state=decision.state,
                reason=decision.reason,
                error_code=code,
                number=row.number,
                duration_ms=self._milliseconds(),
                note=getattr(error, "description", ""),
            )
            if is_news:
                signals.announce(
                    signals.misconfigured, code=code, setting=getattr(error, "setting", "")
                )
        if decision.tell is Tell.USER:
            signals.announce(
                signals.needs_sign_in,
                connection=row.connection,
                token=rows.load(row.pk),
                reason=decision.reason,
            )
        return True

    def _noted(self, *, unanswered: bool, **changes: Any) -> bool:
        """Give the lease back, if there is one. If the database does not answer, only this record
        is lost: the lease ends in time, and *unanswered* was set with it."""
        holder, self.holder = self.holder, ""
        try:
            if holder:
                return lease.give_back(self.row, holder, unanswered=unanswered, **changes)
            return bool(changes) and rows.note(self.row, **changes)
        except database.AWAY as error:
            connections[database.using()].close()
            logger.warning(
                "The outcome of a refresh is not noted (%s)",
                type(error).__name__,
                extra=self.log_fields(),
            )
            return False

    def succeeded(self, stored: SipgateToken) -> None:
        """Record that the row has new tokens."""
        if self.row.state != State.ACTIVE and stored.state == State.ACTIVE:
            TokenEvent.objects.add(
                TokenEvent.Kind.REPAIRED,
                row=stored,
                actor=self.by,
                number=stored.number,
                duration_ms=self._milliseconds(),
            )
            signals.announce(signals.repaired, connection=stored.connection, token=stored)
        self.count(Outcome.REFRESHED)
        SECONDS.observe(time.monotonic() - self._started)
        logger.info(
            "Refreshed connection %s in %s ms",
            stored.pk,
            self._milliseconds(),
            extra=self.log_fields(outcome=Outcome.REFRESHED),
        )

    def count(self, outcome: Outcome) -> None:
        REFRESHES.labels(outcome, metrics.one_of(self.by, metrics.ACTORS)).inc()

    def _log(self, decision: Decision, error: oauth.Failure) -> None:
        of_sipgate = error if isinstance(error, errors.SipgateError) else None
        logger.log(
            logging.ERROR if decision.state is State.MISCONFIGURED else logging.WARNING,
            "Refresh of connection %s failed (%s)%s: %s",
            self.row.pk,
            decision.outcome,
            f" [{of_sipgate.reference}]" if of_sipgate else "",
            error,
            extra=self.log_fields(of_sipgate, outcome=decision.outcome),
        )

    def log_fields(
        self, error: errors.SipgateError | None = None, outcome: str = ""
    ) -> dict[str, Any]:
        """Return what a log record says about this attempt besides its message."""
        return errors.log_fields(
            error,
            connection=self.row.pk,
            number=self.row.number,
            outcome=outcome,
            actor=metrics.one_of(self.by, metrics.ACTORS),
            duration_ms=self._milliseconds(),
        )

    def _milliseconds(self) -> int:
        return round((time.monotonic() - self._started) * 1000)


def _happened_lately(reason: Reason) -> bool:
    """Tell whether any connection has had this trouble within a day: operators know of it then."""
    since = timezone.now() - timedelta(days=1)
    failed = TokenEvent.objects.filter(kind=TokenEvent.Kind.FAILED, at__gt=since)
    return failed.filter(reason=reason).exists()


def _explained(decision: Decision, error: oauth.Failure) -> errors.SipgateError:
    """Return the error for callers."""
    if not isinstance(error, errors.TokenRejected):
        return error
    if decision.outcome is Outcome.NOT_THIS_ONE:
        return errors.UnexpectedResponse(
            f"sipgate does not refresh this connection ({error.code}).",
            endpoint="token",
            status=error.status,
            code=error.code,
        )
    return errors.NeedsSignIn(
        "This connection needs a new sign-in.",
        reason=decision.reason,
        code=error.code,
        endpoint="token",
    )
