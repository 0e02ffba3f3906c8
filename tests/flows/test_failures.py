"""What a failure costs: when it is tried again, what is noted, who hears of it
(docs/how-it-works.md has the table)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.utils import timezone

from sipgate_provider import errors, signals, tokens
from sipgate_provider.models import ClientPause, Reason, SipgateToken, State, TokenEvent
from sipgate_provider.remote import oauth
from tests.conftest import Connect
from tests.rotator import Rotator

pytestmark = pytest.mark.django_db(transaction=True)

SECOND, MINUTE, HOUR, DAY = 1.0, 60.0, 3_600.0, 86_400.0


def fail(connection: SocialAccount, rotator: Rotator, fault: str) -> SipgateToken:
    if fault == "rejected":
        rotator.control(kill=True)
    rotator.set(fault=fault, times=1)
    with pytest.raises(errors.SipgateError):
        tokens.refresh(connection)
    row = tokens.load(connection.pk)
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("fault", "lasts", "wait"),
    [
        ("500", 0, 2 * SECOND),
        ("500", 10, 10 * SECOND),
        ("500", DAY, MINUTE),
        ("consent", 0, MINUTE),
        ("consent", 10 * MINUTE, 10 * MINUTE),
        ("consent", DAY, HOUR),
        ("rejected", 0, 5 * MINUTE),
        ("rejected", HOUR, HOUR),
        ("rejected", 60 * DAY, 7 * DAY),
    ],
)
def test_the_next_attempt(
    connect: Connect, rotator: Rotator, fault: str, lasts: float, wait: float
) -> None:
    """After as long again as it has lasted, within bounds, give or take a tenth."""
    since = timezone.now() - timedelta(seconds=lasts)
    was = {
        "state": State.NEEDS_SIGN_IN if fault == "rejected" else State.FAILING,
        "next_attempt_at": since,
    }
    connection = connect(
        age=400, **({"state_since": since, "failing_since": since, **was} if lasts else {})
    )
    before = timezone.now()
    due = (fail(connection, rotator, fault).next_attempt_at - before).total_seconds()
    assert 0.89 * wait <= due <= 1.11 * wait + 5


def test_a_client_that_is_rejected_pauses_for_a_minute(connect: Connect, rotator: Rotator) -> None:
    before = timezone.now()
    row = fail(connect(age=400), rotator, "client")
    length = (ClientPause.objects.get().until - before).total_seconds()
    assert MINUTE <= length < MINUTE + 10
    assert (row.state, row.next_attempt_at) == (State.MISCONFIGURED, None)


def test_an_incident_is_one_event_and_has_one_beginning(connect: Connect, rotator: Rotator) -> None:
    connection = connect(age=400)
    first = fail(connection, rotator, "500")
    second = fail(connection, rotator, "500")
    assert (first.failing_since, first.state_since) == (second.failing_since, second.state_since)
    assert TokenEvent.objects.filter(kind=TokenEvent.Kind.FAILED).count() == 1


def test_rejected_tokens_stay_rejected_while_sipgate_is_away(
    connect: Connect, rotator: Rotator
) -> None:
    connection = connect(age=400)
    rejected = fail(connection, rotator, "rejected")
    away = fail(connection, rotator, "500")
    assert (away.state, away.reason, away.state_since) == (
        rejected.state,
        rejected.reason,
        rejected.state_since,
    )


def test_a_missing_key_is_noted_once_and_looked_for_at_each_use(
    connect: Connect, settings: Any
) -> None:
    connection, keys = connect(age=400), settings.SIPGATE_TOKEN_KEYS
    settings.SIPGATE_TOKEN_KEYS = ["b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItMTI="]
    noted = set()
    for _ in range(2):
        with pytest.raises(errors.Misconfigured, match="SIPGATE_TOKEN_KEYS"):
            tokens.token(connection)
        row = tokens.load(connection.pk)
        noted.add(row.next_attempt_at)
    assert len(noted) == 1
    assert 13 * MINUTE < (row.next_attempt_at - timezone.now()).total_seconds() < 17 * MINUTE
    assert TokenEvent.objects.filter(kind=TokenEvent.Kind.FAILED).count() == 1
    settings.SIPGATE_TOKEN_KEYS = keys
    assert tokens.token(connection).number == 2


class TestSignals:
    @pytest.fixture
    def heard(self) -> Iterator[list[tuple[str, Any]]]:
        found: list[tuple[str, Any]] = []
        names = ("connected", "repaired", "needs_sign_in", "disconnected", "misconfigured")
        receivers = {name: self._receiver(name, found) for name in names}
        for name, receiver in receivers.items():
            getattr(signals, name).connect(receiver, weak=False)
        yield found
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)

    def _receiver(self, name: str, found: list[tuple[str, Any]]) -> Any:
        def receive(**told: Any) -> None:
            found.append((name, told.get("first", told.get("reason", told.get("setting")))))

        return receive

    def test_of_a_life(
        self, connect: Connect, rotator: Rotator, heard: list[tuple[str, Any]]
    ) -> None:
        connection = connect(age=400)
        SipgateToken.objects.all().delete()
        heard.clear()

        def sign_in() -> None:
            grant = oauth.Tokens.parse(rotator.issue()[0], issued_at=timezone.now())
            tokens.store(connection, grant)

        sign_in()
        rotator.set(suspended=True)
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(connection)
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(connection)  # the same incident
        rotator.set(suspended=False)
        tokens.refresh(connection)
        tokens.refresh(connection)  # nothing to tell
        rotator.set(fault="client", times=2)
        with pytest.raises(errors.Misconfigured):
            tokens.refresh(connection)
        ClientPause.objects.update(until=timezone.now())
        with pytest.raises(errors.Misconfigured):
            tokens.refresh(connection)  # the same incident
        sign_in()
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
