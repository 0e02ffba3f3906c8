"""Every change of a token row is one conditional UPDATE: what has changed since it was read stays as it is."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from sipgate_provider import tokens
from sipgate_provider.models import Reason, SipgateToken, State
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import rows, sealing
from tests.conftest import Connect
from tests.rotating_server import Strict

pytestmark = pytest.mark.django_db(transaction=True)

ANOTHER_KEY = "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItMTI="


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("consent_id", uuid.uuid4()),
        ("generation", 2),
        ("state", State.FAILING),
        ("next_attempt_at", timezone.now() + timedelta(minutes=1)),
        ("lease_owner", "m.b.another"),
        ("mark_owner", "m.b.another"),
    ],
)
def test_a_claim_and_a_fault_are_of_the_row_as_it_was_read(
    connect: Connect, column: str, value: Any
) -> None:
    row = rows.load_with_clock(connect(age=400).pk)
    SipgateToken.objects.update(**{column: value})
    before = SipgateToken.objects.values().get()
    assert rows.claim(row, owner="m.b.late") is None
    assert not rows.note_fault(row, reason=Reason.UNEXPECTED)
    assert SipgateToken.objects.values().get() == before


def test_a_lease_is_returned_by_its_owner_only(connect: Connect) -> None:
    claim = rows.claim(rows.load_with_clock(connect(age=400).pk), owner="m.b.late")
    SipgateToken.objects.update(lease_owner="m.b.another")
    assert not rows.give_back(claim, state=State.FAILING, **rows.mark(claim))
    row = SipgateToken.objects.get()
    assert (row.lease_owner, row.state, row.mark_owner) == ("m.b.another", State.ACTIVE, "")


def test_a_lease_that_was_taken_over_is_a_mark(connect: Connect) -> None:
    """Whose token may have been sent is known to the next one, by the lease alone or by the mark alone."""
    connection = connect(age=400, lease_owner="m.b.killed", lease_until=timezone.now())
    assert rows.claim(rows.load_with_clock(connection.pk), owner="m.b.next").is_marked
    SipgateToken.objects.update(lease_owner="", lease_until=None)
    assert rows.claim(rows.load_with_clock(connection.pk), owner="m.b.third").is_marked


CHANGES: dict[str, Callable[[SipgateToken], bool]] = {
    "end": lambda row: rows.end(
        row.pk, row.generation, reason=Reason.SIGN_IN_REQUIRED, now=timezone.now()
    ),
    "clear": lambda row: rows.clear(row, reason=Reason.REVOKED, now=timezone.now()),
    "reseal": lambda row: rows.reseal([row])[0] == 1,
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_done_to_an_older_generation_is_not_done(
    connect: Connect, settings: Any, what: str
) -> None:
    row = tokens.load(connect().pk)
    SipgateToken.objects.update(generation=2)
    settings.SIPGATE_TOKEN_KEYS = [ANOTHER_KEY, *settings.SIPGATE_TOKEN_KEYS]
    before = SipgateToken.objects.values().get()
    assert not CHANGES[what](row)
    assert SipgateToken.objects.values().get() == before


def test_resealing_does_not_touch_what_was_sealed_meanwhile(
    connect: Connect, settings: Any
) -> None:
    row = tokens.load(connect().pk)
    SipgateToken.objects.update(key_id="00000000")
    settings.SIPGATE_TOKEN_KEYS = [ANOTHER_KEY, *settings.SIPGATE_TOKEN_KEYS]
    assert rows.reseal([row]) == (0, 1, 0)


def test_a_consent_goes_on_top_of_a_refresh_that_came_in_between(
    connect: Connect, strict: Strict, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, real = connect(), rows._columns

    def slow(*args: Any, **kwargs: Any) -> dict[str, Any]:
        monkeypatch.setattr(rows, "_columns", real)
        SipgateToken.objects.update(generation=2)
        return real(*args, **kwargs)

    monkeypatch.setattr(rows, "_columns", slow)
    grant = oauth.Grant.parse(strict.issue()[0], issued_at=timezone.now())
    row, _before = rows.consent(connection, grant, scope=[], now=timezone.now())
    assert row.generation == tokens.load(connection.pk).generation == 3


def test_a_pair_is_stored_in_place_of_older_ones_only(connect: Connect, strict: Strict) -> None:
    row = tokens.load(connect(age=400).pk)
    sent = rows.Sent(connection_id=row.pk, consent_id=row.consent_id, generation=1)
    grant = oauth.Grant.parse(strict.issue()[0], issued_at=timezone.now())
    pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
    for generation in (2, 3):
        SipgateToken.objects.update(generation=generation)
        assert not rows.save_refreshed(sent, grant, pair, now=timezone.now())
    SipgateToken.objects.update(generation=1)
    assert rows.save_refreshed(sent, grant, pair, now=timezone.now())


def test_a_mark_is_set_by_the_databases_clock(connect: Connect) -> None:
    claim = rows.claim(rows.load_with_clock(connect(age=400).pk), owner="m.b.x")
    with time_machine.travel(timezone.now() + timedelta(hours=1)):
        assert rows.give_back(claim, **rows.mark(claim))
    row = rows.load_with_clock(claim.connection_id)
    assert abs(row.mark_until - row.database_now) < timedelta(seconds=10)
