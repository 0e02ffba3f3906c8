"""A process is killed at every named point of a refresh: but for one window, the connection survives.

The next refresh begins when the lease is over, after 45 seconds at most; here it is made to look
over.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from sipgate_provider import errors, tokens
from sipgate_provider.models import Reason, State
from tests.concurrency import caller, points
from tests.concurrency.crew import end_leases
from tests.processes import die_at

pytestmark = [pytest.mark.django_db(transaction=True)]

SURVIVED = [point for point in points.POINTS if point not in points.LOST]


@pytest.mark.parametrize("point", SURVIVED)
def test_the_connection_survives(connect, rotator, point):
    connection = connect(age=400).pk
    die_at(point, connection=connection)
    end_leases()
    token = tokens.token(connection)
    row = tokens.load(connection)
    assert (row.state, row.number, token.number) == (State.ACTIVE, 2, 2)
    assert (rotator.counts()["reuse"], rotator.counts()["rotated"]) == (0, 1)
    tokens.recover()
    assert (tokens.journal_waiting(), tokens.load(connection).number) == (0, 2)


def test_what_was_sent_a_moment_ago_is_lost_only_if_sipgate_has_begun(connect, rotator):
    """A killed process resets its connection: what sipgate has not read by then was never sent."""
    connection = connect(age=400).pk
    die_at("sent", connection=connection)
    end_leases()
    with contextlib.suppress(errors.NeedsSignIn):
        tokens.token(connection)
    row, counts = tokens.load(connection), rotator.counts()
    was_read = counts["refresh"] == 2
    assert (row.state, row.reason, counts["reuse"]) == (
        (State.NEEDS_SIGN_IN, Reason.LOST_ROTATION, 1)
        if was_read
        else (State.ACTIVE, Reason.NONE, 0)
    )


@pytest.mark.parametrize("point", [point for point in points.LOST if point != "sent"])
def test_the_window_ends_as_lost_rotation(connect, rotator, point):
    connection = connect(age=400).pk
    die_at(point, connection=connection)
    end_leases()
    with pytest.raises(errors.NeedsSignIn):
        tokens.token(connection)
    row = tokens.load(connection)
    assert (row.state, row.reason) == (State.NEEDS_SIGN_IN, Reason.LOST_ROTATION)
    assert rotator.counts()["refresh"] == 2


@pytest.mark.parametrize("point", ["leased", "journaled", "stored"])
def test_keepalive_killed_loses_nothing(connect, rotator, point):
    """One by one: with several at once, a kill hits some in the window."""
    connections = [connect(age=0.7 * 2_592_000).pk for _ in range(5)]
    die_at(point, caller.keep_alive, threads=1)
    end_leases()
    assert {tokens.token(pk).number for pk in connections} == {2}
    assert {tokens.load(pk).state for pk in connections} == {State.ACTIVE}
    counts = rotator.counts()
    assert (counts["reuse"], counts["rejected"], counts["rotated"]) == (0, 0, 5)


@pytest.mark.parametrize("point", ["leased", "journaled"])
def test_nobody_takes_the_lease_before_it_is_over(connect, rotator, folder, settings, point):
    """But what was journaled on this machine is stored at once."""
    connection = connect(age=400).pk
    die_at(point, connection=connection)
    settings.SIPGATE_JOURNAL_DIR = f"{folder}-of-another-machine"
    with pytest.raises(errors.SipgateUnavailable, match="caller waits"):
        tokens.token(connection, wait=0.5)
    assert tokens.load(connection).number == 1
    settings.SIPGATE_JOURNAL_DIR = str(folder)
    if point == "leased":
        with pytest.raises(errors.SipgateUnavailable, match="caller waits"):
            tokens.token(connection, wait=0.5)
        end_leases()
    assert tokens.token(connection).number == 2
    assert rotator.counts()["reuse"] == 0


def test_others_go_on_with_a_token_that_still_lives(connect):
    connection = connect(age=240).pk
    die_at("leased", tokens.refresh, connection=connection)
    started = time.monotonic()
    assert tokens.token(connection).number == 1
    assert time.monotonic() - started < 0.5


def test_what_another_machine_found_lost_is_repaired_by_the_journal(connect, folder, settings):
    connection = connect(age=400).pk
    die_at("journaled", connection=connection)
    end_leases()
    settings.SIPGATE_JOURNAL_DIR = None
    with pytest.raises(errors.NeedsSignIn):  # it does not see the journal
        tokens.token(connection)
    settings.SIPGATE_JOURNAL_DIR = str(folder)
    assert tokens.recover() == 1
    assert tokens.load(connection).state == State.ACTIVE


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    """The journal's folder of this machine."""
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
    return tmp_path / "journal"
