"""Decides what the outcome of a refresh means: the row's state, the next attempt, whom to tell.

Pure: answer × row → decision, by a table. ``attempt`` carries it out. (When a token is to be
refreshed is decided by ``SipgateToken.freshness``.)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sipgate_provider import errors
from sipgate_provider.models import Reason, SipgateToken, State
from sipgate_provider.remote import oauth


class Outcome(StrEnum):
    """The result of a refresh, in the words of metrics and log records."""

    REFRESHED = "refreshed"
    REJECTED = "rejected"
    """sipgate rejects the refresh token, which may still be unspent: it may let a suspended user in
    again."""
    BROKEN = "broken"
    """The journal proves the token spent, and its file never opens."""
    NO_REFRESH_TOKEN = "no_refresh_token"  # noqa: S105  # a name
    NOT_THIS_ONE = "not_this_one"
    """sipgate objects to this one grant: ``invalid_scope``, ``invalid_request``."""
    CLIENT_REJECTED = "client_rejected"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    UNEXPECTED = "unexpected"
    KEY_MISSING = "key_missing"
    OTHER_CLIENT = "other_client"
    # Not recorded in the row:
    PAUSED = "paused"
    DISCONNECTED = "disconnected"
    NOT_STORED = "not_stored"


class Tell(StrEnum):
    NOBODY = "nobody"
    USER = "user"
    OPERATORS = "operators"


@dataclass(frozen=True, slots=True)
class Rule:
    state: State
    reason: Reason
    shortest: timedelta | None
    longest: timedelta | None
    """The wait before the next attempt is as long as the trouble has lasted, within these limits;
    None: no attempt without a request."""
    tell: Tell = Tell.NOBODY


SECONDS, MINUTES, DAYS = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
USER, OPERATORS = Tell.USER, Tell.OPERATORS
NEEDS_SIGN_IN, FAILING, MISCONFIGURED = State.NEEDS_SIGN_IN, State.FAILING, State.MISCONFIGURED
TABLE = {
    Outcome.REJECTED: Rule(NEEDS_SIGN_IN, Reason.REJECTED, 5 * MINUTES, 7 * DAYS, USER),
    Outcome.BROKEN: Rule(NEEDS_SIGN_IN, Reason.LOST_ROTATION, 5 * MINUTES, 7 * DAYS, USER),
    Outcome.NO_REFRESH_TOKEN: Rule(NEEDS_SIGN_IN, Reason.NO_REFRESH_TOKEN, None, None, USER),
    Outcome.NOT_THIS_ONE: Rule(FAILING, Reason.UNEXPECTED, MINUTES, 60 * MINUTES),
    Outcome.CLIENT_REJECTED: Rule(MISCONFIGURED, Reason.CLIENT_REJECTED, None, None, OPERATORS),
    Outcome.RATE_LIMITED: Rule(FAILING, Reason.RATE_LIMITED, 2 * SECONDS, MINUTES),
    Outcome.UNAVAILABLE: Rule(FAILING, Reason.UNREACHABLE, 2 * SECONDS, MINUTES),
    Outcome.UNEXPECTED: Rule(FAILING, Reason.UNEXPECTED, 2 * SECONDS, MINUTES),
    Outcome.KEY_MISSING: Rule(MISCONFIGURED, Reason.KEY_MISSING, 15 * MINUTES, 15 * MINUTES),
    Outcome.OTHER_CLIENT: Rule(MISCONFIGURED, Reason.OTHER_CLIENT, 15 * MINUTES, 15 * MINUTES),
}
FOUND_HERE = frozenset({Reason.KEY_MISSING, Reason.OTHER_CLIENT})
"""Found without asking sipgate. Each use checks again, so a row works as soon as the cause is
corrected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a refresh without new tokens means. ``next_attempt_at`` None: no attempt without a
    request."""

    outcome: Outcome
    state: State
    reason: Reason
    next_attempt_at: datetime | None
    unanswered: bool
    """Whether the refresh token may be spent although no answer came."""
    tell: Tell
    """Whom to tell."""


def outcome_of(answer: oauth.Failure) -> Outcome:
    """Return the outcome that an answer without tokens means."""
    if isinstance(answer, errors.TokenRejected):
        return Outcome.NOT_THIS_ONE if answer.code in oauth.OF_THE_GRANT else Outcome.REJECTED
    if isinstance(answer, errors.Misconfigured):
        return Outcome.CLIENT_REJECTED
    if isinstance(answer, errors.RateLimited):
        return Outcome.RATE_LIMITED
    if isinstance(answer, errors.SipgateUnavailable):
        return Outcome.UNAVAILABLE
    return Outcome.UNEXPECTED


def decide(
    outcome: Outcome,
    row: SipgateToken,
    *,
    now: datetime,
    unanswered: bool,
    is_answer: bool = True,
    wish: float = 0.0,
    spread: float = 1.0,
) -> Decision:
    """Return what an outcome means for a row.

    Args:
        outcome: one of those in the table.
        unanswered: whether the refresh token may have been spent before this attempt.
        is_answer: False if this attempt sent the token and got no answer.
        wish: seconds that sipgate asks to wait.
        spread: a factor of the wait, so that rows that failed together are not tried together.
    """
    rule = TABLE[outcome]
    state, reason, tell = rule.state, rule.reason, rule.tell
    if reason is Reason.REJECTED:
        reason = _why_rejected(row, unanswered=unanswered, now=now)
    since = row.failing_since or now
    if state is State.NEEDS_SIGN_IN:
        since = row.state_since if row.state == State.NEEDS_SIGN_IN else now
    again = None
    if rule.shortest is not None and rule.longest is not None:
        wait = min(max(now - since, rule.shortest), rule.longest) * spread
        again = now + max(wait, timedelta(seconds=wish))
    if row.state == State.NEEDS_SIGN_IN:
        tell = Tell.NOBODY
        if state is not State.NEEDS_SIGN_IN:
            # What sipgate has rejected stays rejected until sipgate says otherwise: do not tell the
            # user twice.
            state, reason = State.NEEDS_SIGN_IN, Reason(row.reason)
            again = again or row.next_attempt_at
    return Decision(
        outcome=outcome,
        state=state,
        reason=reason,
        next_attempt_at=again,
        unanswered=unanswered or not is_answer,
        tell=tell,
    )


def _why_rejected(row: SipgateToken, *, unanswered: bool, now: datetime) -> Reason:
    if unanswered:
        return Reason.LOST_ROTATION
    if row.refresh_expires_at is not None and row.refresh_expires_at <= now:
        return Reason.FIXED_END if row.has_fixed_end else Reason.EXPIRED_IDLE
    return Reason.REJECTED
