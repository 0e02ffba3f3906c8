"""What a failed refresh costs: when it is tried again, what is noted, who hears of it
(docs/how-it-works.md has the table, ``tests/unit/test_decide`` each of its rows)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from sipgate_provider import errors, signals, tokens
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.tokens import clients
from tests.conftest import issued
from tests.flows.conftest import OTHER_KEY, fail

pytestmark = pytest.mark.django_db(transaction=True)


class TestRejection:
    def test_needs_a_sign_in_and_keeps_the_row(self, connect, rotator):
        connection = connect(age=400)
        rotator.control(kill=True)
        for _ in range(2):
            with pytest.raises(errors.NeedsSignIn) as caught:
                tokens.token(connection)
            assert caught.value.reason == Reason.REJECTED
        row = tokens.load(connection.pk)
        assert (row.state, row.reason) == (State.NEEDS_SIGN_IN, Reason.REJECTED)
        assert row.sealed
        event = TokenEvent.objects.get(kind=TokenEvent.Kind.STATE)
        assert (event.error_code, event.note) == ("invalid_grant", "Session not active")
        assert rotator.counts()["refresh"] == 1


class TestOutage:
    def test_keeps_everything_and_backs_off(self, connect, rotator):
        connection = connect(age=400)
        rotator.set(fault="500", times=1)
        for _ in range(2):
            with pytest.raises(errors.SipgateUnavailable):
                tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.state, row.reason) == (State.FAILING, Reason.UNREACHABLE)
        assert row.next_attempt_at > timezone.now()
        assert rotator.counts()["arrived"] == 1
        tokens.refresh(connection)
        row = tokens.load(connection.pk)
        assert (row.state, row.failing_since, row.next_attempt_at) == (State.ACTIVE, None, None)
        assert [event.kind for event in TokenEvent.objects.order_by("id")] == ["failed", "repaired"]

    def test_shortly_before_the_end_the_present_token_is_handed_out(self, connect, rotator):
        rotator.set(fault="500", times=1)
        assert tokens.token(connect(age=280)).number == 1

    def test_is_one_event_and_has_one_beginning(self, connect, rotator):
        connection = connect(age=400)
        first, second = (fail(connection, rotator, "500") for _ in range(2))
        assert first.failing_since == second.failing_since
        assert first.state_since == second.state_since
        assert TokenEvent.objects.filter(kind=TokenEvent.Kind.FAILED).count() == 1

    def test_a_wish_to_wait_is_honoured(self, connect, rotator):
        row = fail(connect(age=400), rotator, "429")
        assert 5 < (row.next_attempt_at - timezone.now()).total_seconds() <= 7.1


class TestRejectedClient:
    def test_pauses_every_refresh_for_a_minute_and_blames_nobody(self, connect, rotator):
        one, other = connect(age=400), connect(age=400)
        rotator.set(fault="client", times=5)
        with pytest.raises(errors.Misconfigured) as caught:
            tokens.token(one)
        assert caught.value.setting == errors.CLIENT_SECRET
        with pytest.raises(errors.Misconfigured):
            tokens.token(other)
        assert rotator.counts()["arrived"] == 1, "nobody asks during the pause"
        assert tokens.load(other.pk).state == State.ACTIVE
        rotator.set(fault="", times=0)
        [(until, error)] = clients.rejected_clients.values()
        assert 55 < until - time.monotonic() <= 60
        clients.rejected_clients[clients.client()] = time.monotonic(), error
        assert tokens.token(one).number == 2

    def test_operators_hear_of_it_once_a_day(self, connect, rotator, heard):
        one, other = connect(age=400), connect(age=400)
        for connection, fault in (
            (one, "client"),
            (one, "500"),
            (one, "client"),
            (other, "client"),
        ):
            fail(connection, rotator, fault)
            clients.rejected_clients.clear()  # another process does not know of the pause
        told = ("misconfigured", errors.CLIENT_SECRET)
        assert heard.count(told) == 1
        TokenEvent.objects.update(at=timezone.now() - timedelta(days=2))
        fail(connect(age=400), rotator, "client")
        assert heard.count(told) == 2

    def test_corrected_credentials_are_not_held_up(self, connect, rotator, settings):
        connection = connect(age=400)
        fail(connection, rotator, "client")
        app = {"client_id": "1000000-1-sandbox:third-party", "secret": "corrected"}
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": [app]}}
        assert tokens.token(connection).number == 2


class TestMissingKey:
    def test_is_noted_once_and_looked_for_at_each_use(self, connect, settings):
        connection, fresh, keys = connect(age=400), connect(), settings.SIPGATE_TOKEN_KEYS
        settings.SIPGATE_TOKEN_KEYS = [OTHER_KEY]
        noted = set()
        for _ in range(2):
            for one in (connection, fresh):
                with pytest.raises(errors.Misconfigured, match="SIPGATE_TOKEN_KEYS"):
                    tokens.token(one)
            noted.add(tokens.load(connection.pk).next_attempt_at)
        [again] = noted
        assert 13 * 60 < (again - timezone.now()).total_seconds() < 17 * 60
        assert TokenEvent.objects.filter(kind=TokenEvent.Kind.FAILED).count() == 1
        settings.SIPGATE_TOKEN_KEYS = keys
        assert (tokens.token(connection).number, tokens.token(fresh).number) == (2, 1)


def test_signals_of_a_life(connect, rotator, heard):
    connection = connect(age=400)
    SipgateToken.objects.all().delete()
    heard.clear()
    tokens.store(connection, issued(rotator))
    rotator.set(suspended=True)
    for _ in range(2):  # the second time it is the same incident
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(connection)
    rotator.set(suspended=False)
    for _ in range(2):
        tokens.refresh(connection)
    for _ in range(2):
        fail(connection, rotator, "client")
        clients.rejected_clients.clear()
    tokens.store(connection, issued(rotator))
    connection.delete()
    assert heard == [
        ("connected", True),
        ("needs_sign_in", Reason.REJECTED),
        ("repaired", None),
        ("misconfigured", errors.CLIENT_SECRET),
        ("connected", False),
        ("repaired", None),
        ("disconnected", None),
    ]


@pytest.fixture
def heard() -> Iterator[list[tuple[str, Any]]]:
    """What signals told: each one's name, with what it says."""
    found: list[tuple[str, Any]] = []

    def receive(signal: Any, **told: Any) -> None:
        said = told.get("first", told.get("reason", told.get("setting")))
        found.append((names[signal], said))

    names = {
        getattr(signals, name): name
        for name in ("connected", "repaired", "needs_sign_in", "disconnected", "misconfigured")
    }
    for signal in names:
        signal.connect(receive)
    yield found
    for signal in names:
        signal.disconnect(receive)
