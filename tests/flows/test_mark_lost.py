"""After a restore: what cannot be good is marked without asking sipgate, and what may be good is left."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.core import mail
from django.core.management import CommandError, call_command
from django.utils import timezone

from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.ops import keepalive, mark_lost
from sipgate_provider.tokens import gate, store
from tests.conftest import Connect
from tests.flows.test_interleavings import go_back, snapshot
from tests.strict import Strict

pytestmark = pytest.mark.django_db(transaction=True)

NOW = timezone.now()
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def of_yesterday(connect: Connect, *, used: timedelta, due: timedelta) -> SocialAccount:
    """Return a connection as the backup of yesterday has it: last used so long ago, due in so long."""
    return connect(age=2 * 86_400, last_used_at=NOW - used, keepalive_at=NOW + due)


def state_of(connection: SocialAccount) -> tuple[str, str]:
    row = store.load(connection.pk)
    return row.state, row.reason


LOST = (State.NEEDS_SIGN_IN, Reason.LOST_ROTATION)


def test_what_was_due_or_in_use_is_marked_and_sipgate_is_not_asked(
    connect: Connect, strict: Strict
) -> None:
    due = of_yesterday(connect, used=20 * DAY, due=-2 * HOUR)
    in_use = of_yesterday(connect, used=DAY + HOUR, due=10 * DAY)
    idle = of_yesterday(connect, used=20 * DAY, due=10 * DAY)
    just_due = of_yesterday(connect, used=20 * DAY, due=-timedelta(minutes=30))
    asked = strict.counts()["arrived"]
    assert mark_lost.run(until=NOW).marked == 1
    assert [state_of(one) for one in (due, in_use, idle, just_due)] == [LOST, *[("active", "")] * 3]
    report = mark_lost.run(until=NOW, used_since=NOW - DAY - 2 * HOUR)
    assert (report.marked, report.left) == (1, 2)
    assert [state_of(one) for one in (in_use, idle, just_due)] == [
        LOST,
        ("active", ""),
        ("active", ""),
    ]
    keepalive.run(rate=0)
    assert strict.counts()["arrived"] - asked == 1, "the one that has just become due"
    assert {event.note for event in TokenEvent.objects.filter(kind=TokenEvent.Kind.STATE)} == {
        "the database went back"
    }


def test_the_person_is_told_by_mail_and_need_not_be_refused_twice(
    connect: Connect, strict: Strict
) -> None:
    connection = of_yesterday(connect, used=20 * DAY, due=-2 * HOUR)
    EmailAddress.objects.create(
        user=connection.user, email="erika@example.org", primary=True, verified=True
    )
    mark_lost.run(until=NOW)
    SipgateToken.objects.update(state_since=NOW - timedelta(minutes=6))
    assert keepalive.run(rate=0).notified == 1
    assert [message.to for message in mail.outbox] == [["erika@example.org"]]
    assert strict.counts()["arrived"] == 0


def test_the_journal_comes_first(
    connect: Connect, strict: Strict, settings: Any, tmp_path: Path
) -> None:
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
    refreshed, untouched, elsewhere = (
        of_yesterday(connect, used=2 * DAY, due=10 * DAY) for _ in range(3)
    )
    gate.refresh(untouched)
    SipgateToken.objects.update(issued_at=NOW - 2 * DAY, last_used_at=NOW - 2 * DAY)
    before = [snapshot(connection) for connection in (refreshed, elsewhere)]
    gate.refresh(refreshed)
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "of-another-machine")
    gate.refresh(elsewhere)
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
    for values in before:
        go_back(values)
    how = {"until": NOW, "used_since": NOW - 3 * DAY}
    assert mark_lost.run(**how, dry_run=True).as_dict() | {"seconds": 0} == {
        "dry_run": True,
        "recovered": 0,
        "marked": 1,
        "left": 2,
        "seconds": 0,
    }
    report = mark_lost.run(**how)
    assert (report.recovered, report.marked, report.left) == (1, 1, 2)
    assert [state_of(one) for one in (refreshed, untouched, elsewhere)] == [
        ("active", ""),
        ("active", ""),
        LOST,
    ]
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "of-another-machine")
    assert mark_lost.run(**how).recovered == 1, "its journal is found after all"
    assert state_of(elsewhere) == ("active", "")
    assert [gate.refresh(one).generation for one in (refreshed, untouched, elsewhere)] == [3, 3, 3]
    assert strict.counts()["reuse"] == 0


def test_a_pair_that_is_good_after_all_heals(connect: Connect, strict: Strict) -> None:
    connection = of_yesterday(connect, used=20 * DAY, due=-2 * HOUR)
    mark_lost.run(until=NOW)
    assert gate.refresh(connection).state == State.ACTIVE, "its person has asked for it"


def test_what_has_changed_meanwhile_is_left(connect: Connect) -> None:
    connection = of_yesterday(connect, used=20 * DAY, due=-2 * HOUR)
    row = store.load_with_clock(connection.pk)
    claim = store.claim(row, owner=store.new_owner(""))
    assert not store.mark_lost(row, now=NOW), "it is being refreshed"
    store.give_back(claim)
    gate.refresh(connection)
    assert not store.mark_lost(row, now=NOW)
    assert mark_lost.run(until=NOW - HOUR).marked == 0, "it was refreshed since"


def test_the_command_says_what_it_did(connect: Connect) -> None:
    of_yesterday(connect, used=20 * DAY, due=-2 * DAY)
    out, until = io.StringIO(), (NOW - HOUR).isoformat()
    call_command("sipgate_mark_lost", "--until", until, "--dry-run", stdout=out)
    assert "1 would be marked as lost, 0 left" in out.getvalue()
    call_command("sipgate_mark_lost", "--until", until, "--json", stdout=out)
    assert '"marked": 1, "left": 0' in out.getvalue()


@pytest.mark.parametrize("moment", ["yesterday", "2026-13-01T00:00", "2999-01-01T00:00"])
def test_a_moment_that_cannot_be_is_refused(moment: str) -> None:
    with pytest.raises(CommandError, match="--until"):
        call_command("sipgate_mark_lost", "--until", moment)
