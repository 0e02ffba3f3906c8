"""What each outcome of a refresh means, as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sipgate_provider import errors
from sipgate_provider.models import Reason, SipgateToken, State
from sipgate_provider.remote import oauth
from sipgate_provider.tokens.decide import TABLE, Decision, Outcome, Tell, decide, outcome_of

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
EXPECTED = {
    "rejected": ("needs_sign_in", "rejected", 5 * MINUTE, "user"),
    "broken": ("needs_sign_in", "lost_rotation", 5 * MINUTE, "user"),
    "no_refresh_token": ("needs_sign_in", "no_refresh_token", None, "user"),
    "not_this_one": ("failing", "unexpected", MINUTE, "nobody"),
    "client_rejected": ("misconfigured", "client_rejected", None, "operators"),
    "rate_limited": ("failing", "rate_limited", 2 * SECOND, "nobody"),
    "unavailable": ("failing", "unreachable", 2 * SECOND, "nobody"),
    "unexpected": ("failing", "unexpected", 2 * SECOND, "nobody"),
    "key_missing": ("misconfigured", "key_missing", 15 * MINUTE, "nobody"),
    "other_client": ("misconfigured", "other_client", 15 * MINUTE, "nobody"),
}


def test_the_first_time():
    assert {*EXPECTED} == {*TABLE}
    for outcome, expected in EXPECTED.items():
        found = decided(Outcome(outcome))
        again = found.next_attempt_at and found.next_attempt_at - NOW
        assert (found.state, found.reason, again, found.tell) == expected, outcome


def test_the_wait_is_as_long_as_the_trouble_has_lasted():
    for outcome, lasted, wait in [
        ("unavailable", 30 * SECOND, 30 * SECOND),
        ("unavailable", DAY, MINUTE),
        ("not_this_one", 10 * MINUTE, 10 * MINUTE),
        ("not_this_one", DAY, 60 * MINUTE),
    ]:
        found = decided(Outcome(outcome), state=State.FAILING, failing_since=NOW - lasted)
        assert found.next_attempt_at == NOW + wait, (outcome, lasted)
    for lasted, wait in [(DAY, DAY), (30 * DAY, 7 * DAY)]:
        row = {"state": State.NEEDS_SIGN_IN, "state_since": NOW - lasted}
        assert decided(Outcome.REJECTED, **row).next_attempt_at == NOW + wait


def test_a_wish_of_sipgate_is_never_undercut():
    for wish, seconds in [(0.5, 1.8), (90, 90.0)]:
        facts: dict[str, Any] = {"unanswered": False, "wish": wish, "spread": 0.9}
        found = decide(Outcome.RATE_LIMITED, row(), now=NOW, **facts)
        assert found.next_attempt_at == NOW + seconds * SECOND


def test_why_a_refresh_token_is_rejected():
    over = NOW - DAY
    for unanswered, changes, reason in [
        (True, {}, "lost_rotation"),
        (True, {"refresh_expires_at": over}, "lost_rotation"),
        (False, {"refresh_expires_at": over}, "expired_idle"),
        (False, {"refresh_expires_at": over, "reason": Reason.FIXED_END}, "fixed_end"),
        (False, {"refresh_expires_at": NOW + DAY}, "rejected"),
    ]:
        found = decide(Outcome.REJECTED, row(**changes), now=NOW, unanswered=unanswered)
        assert found.reason == reason, (unanswered, changes)
        assert found.unanswered is unanswered, "an answer puts back what was known before"


def test_what_may_be_spent():
    """Without an answer it may be; an answer other than tokens says nothing of earlier times."""
    for before in (True, False):
        for is_answer in (True, False):
            found = decide(
                Outcome.UNAVAILABLE, row(), now=NOW, unanswered=before, is_answer=is_answer
            )
            assert found.unanswered is (before or not is_answer)


def test_a_row_that_needs_a_sign_in_stays_so_and_its_user_is_told_once():
    ended = {
        "state": State.NEEDS_SIGN_IN,
        "reason": Reason.EXPIRED_IDLE,
        "state_since": NOW - DAY,
        "next_attempt_at": NOW + 3 * DAY,
    }
    for outcome, again in [("unavailable", 2 * SECOND), ("client_rejected", 3 * DAY)]:
        found = decided(Outcome(outcome), **ended)
        assert (found.state, found.reason) == ("needs_sign_in", "expired_idle"), outcome
        assert found.next_attempt_at == NOW + again, outcome
    assert decided(Outcome.REJECTED, **ended).tell is Tell.NOBODY
    assert decided(Outcome.CLIENT_REJECTED, **ended).tell is Tell.NOBODY


def test_what_an_answer_is_called():
    for answer, outcome, unanswered in [
        (errors.TokenRejected(code="invalid_grant"), "rejected", False),
        (errors.TokenRejected(code="invalid_scope"), "not_this_one", False),
        (errors.TokenRejected(code="invalid_request"), "not_this_one", False),
        (errors.Misconfigured("…", code="invalid_client"), "client_rejected", False),
        (errors.RateLimited("…"), "rate_limited", False),
        (errors.SipgateUnavailable("…", sent=True), "unavailable", True),
        (errors.SipgateUnavailable("…", sent=False), "unavailable", False),
        (errors.UnexpectedResponse("…"), "unexpected", True),
    ]:
        found: oauth.Failure = answer
        assert (outcome_of(found), oauth.is_unanswered(found)) == (outcome, unanswered), answer


def row(**changes: Any) -> SipgateToken:
    usual = {"state": State.ACTIVE, "reason": Reason.NONE, "state_since": NOW - DAY}
    return SipgateToken(connection_id=1, **{**usual, **changes})


def decided(outcome: Outcome, **changes: Any) -> Decision:
    return decide(outcome, row(**changes), now=NOW, unanswered=False)
