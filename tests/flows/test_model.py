"""Whatever happens in whatever order, a connection ends where a simple model says (Hypothesis,
stateful)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import requests
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.db.models import F
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sipgate_provider import background, errors, tokens
from sipgate_provider.models import Reason, SipgateToken, State
from sipgate_provider.tokens import clients
from tests.conftest import issued
from tests.rotator import Rotator

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(170)]

KEYS = [
    "a2V5LW9uZS1rZXktb25lLWtleS1vbmUta2V5LW9uZTE=",
    "a2V5LXR3by1rZXktdHdvLWtleS10d28ta2V5LXR3bzI=",
]


def test_it_does_what_the_model_says(rotator, settings):
    bound = type("Bound", (Connection,), {"rotator": rotator, "site": settings})
    run_state_machine_as_test(bound, settings=EXAMPLES)


GOOD, SPENT, ENDED = "good", "spent", "ended"
"""What we hold: tokens that sipgate accepts, tokens it does not (nobody here knows yet), or a
connection known to be over."""


class Connection(RuleBasedStateMachine):
    rotator: Rotator
    site: Any

    def __init__(self) -> None:
        super().__init__()
        self.rotator.reset()
        self.site.SIPGATE_TOKEN_KEYS = KEYS[:1]
        self.person = get_user_model().objects.create(username="erika")
        self.connection: SocialAccount | None = None
        self.held, self.number, self.rejected = ENDED, 0, False

    def teardown(self) -> None:
        background.refreshes.wait_idle(10)
        background.errands.wait_idle(10)
        self.person.delete()
        clients.rejected_clients.clear()
        background.errands.wait_idle(10)

    # --- what people and operators do

    @rule()
    def consent(self) -> None:
        if self.connection is None:
            self.connection = SocialAccount.objects.create(
                user=self.person, provider="sipgate", uid="1000000w0"
            )
        tokens.store(self.connection, issued(self.rotator))
        background.errands.wait_idle(10)
        self.held = GOOD

    @precondition(lambda self: self.connection)
    @rule()
    def disconnect(self) -> None:
        self.connection.delete()  # type: ignore[union-attr]  # see the precondition
        background.errands.wait_idle(10)
        self.connection, self.held, self.number = None, ENDED, 0

    @precondition(lambda self: self.connection)
    @rule(forget=st.booleans())
    def administrator_ends_it(self, forget: bool) -> None:
        if forget:
            tokens.end(self.connection.pk, by="olga")  # type: ignore[union-attr]  # see the precondition
        else:
            tokens.require_sign_in(self.connection.pk, by="olga")  # type: ignore[union-attr]
        self.held = ENDED

    @rule()
    def key_is_changed(self) -> None:
        self.site.SIPGATE_TOKEN_KEYS = (
            [*reversed(KEYS)] if self.site.SIPGATE_TOKEN_KEYS[0] == KEYS[0] else KEYS
        )
        tokens.reseal()

    # --- what time and sipgate do

    @precondition(lambda self: self.connection)
    @rule(seconds=st.sampled_from([100, 200, 290, 400]))
    def time_passes(self, seconds: int) -> None:
        step = timedelta(seconds=seconds)
        SipgateToken.objects.update(
            issued_at=F("issued_at") - step,
            expires_at=F("expires_at") - step,
            consented_at=F("consented_at") - step,
            last_refreshed_at=F("last_refreshed_at") - step,
        )
        SipgateToken.objects.exclude(next_attempt_at=None).update(next_attempt_at=timezone.now())
        clients.rejected_clients.clear()
        self.rejected = False

    @rule()
    def sipgate_ends_every_session(self) -> None:
        self.rotator.control(kill=True)
        if self.held == GOOD:
            self.held = SPENT

    # --- what programs do

    @rule(
        fault=st.sampled_from(["", "", "500", "429", "client", "lose", "garbage", "odd"]),
        force=st.booleans(),
    )
    def use(self, fault: str, force: bool) -> None:
        """Ask for a token, or for a refresh; the first question to sipgate meets ``fault``."""
        self.rotator.set(fault=fault, times=1)
        asked = self.rotator.counts()["refresh"]
        before = self.row if self.connection else None
        try:
            if self.connection is None:
                raise errors.NotConnected("nobody")
            tokens.refresh(self.connection) if force else tokens.token(self.connection)
            background.refreshes.wait_idle(20)
            outcome = "ok"
        except errors.SipgateError as error:
            outcome = type(error).__name__
        background.refreshes.wait_idle(20)
        background.errands.wait_idle(20)
        self.rotator.set(fault="", times=0)
        self._check(outcome, fault, before, refreshed=self.rotator.counts()["refresh"] > asked)

    def _check(
        self, outcome: str, fault: str, before: SipgateToken | None, *, refreshed: bool
    ) -> None:
        if before is None:
            assert outcome == "NotConnected"
            return
        row = self.row
        if self.held == ENDED and before.state == State.NEEDS_SIGN_IN:
            was_ended_here = before.reason in {Reason.REVOKED, Reason.SIGN_IN_REQUIRED}
            assert not (refreshed and was_ended_here)
            assert row.state == State.NEEDS_SIGN_IN, "a rejection is not forgotten"
            assert outcome != "ok" or before.reason != Reason.REVOKED
        elif refreshed and fault in {"lose", "garbage"}:
            self.held = SPENT
            assert (row.state, row.unanswered) == (State.FAILING, True), (
                fault,
                outcome,
                row.state,
            )
        elif refreshed and self.held == SPENT:
            self.held = ENDED
            assert row.state == State.NEEDS_SIGN_IN, (fault, outcome, row.state)
        if self.held == GOOD:
            assert row.state != State.NEEDS_SIGN_IN
        if outcome == "ok" and refreshed and row.number > before.number:
            assert row.state == State.ACTIVE

    # --- what always holds

    @property
    def row(self) -> SipgateToken:
        assert self.connection is not None
        found = tokens.load(self.connection.pk)
        assert found is not None
        return found

    @invariant()
    def no_lease_is_left(self) -> None:
        assert not SipgateToken.objects.exclude(lease_holder="").exists()

    @invariant()
    def versions_only_grow(self) -> None:
        if self.connection is not None:
            assert self.row.number >= self.number
            self.number = self.row.number

    @invariant()
    def what_is_good_works(self) -> None:
        """Good tokens can be used, as soon as pauses are over: nothing was lost."""
        if self.held != GOOD or self.connection is None:
            return
        SipgateToken.objects.exclude(next_attempt_at=None).update(next_attempt_at=timezone.now())
        clients.rejected_clients.clear()
        token = tokens.token(self.connection)
        background.refreshes.wait_idle(20)
        answer = requests.get(
            f"{self.rotator.api_url}/account",
            headers={"Authorization": f"Bearer {tokens.token(self.connection).value}"},
            timeout=5,
        )
        assert answer.status_code == 200, token.number


EXAMPLES = settings(
    max_examples=50,
    stateful_step_count=14,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
