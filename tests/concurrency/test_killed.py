"""A process is killed at every named point of the gate: the connection survives, but for the one unavoidable window."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sipgate_provider import errors
from sipgate_provider.keeper import gate, journal, store
from sipgate_provider.models import Reason, SipgateToken, State
from tests.concurrency import points
from tests.conftest import Connect
from tests.processes import environment
from tests.strict import Strict

pytestmark = [pytest.mark.django_db(transaction=True)]

LEASE = 2.0


@pytest.fixture
def short_lease(settings, tmp_path: Path) -> None:
    settings.SIPGATE_LEASE_SECONDS = LEASE
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")


def die_at(point: str, connection: int) -> None:
    """Let a process use the stale token and die at ``point``."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.concurrency.caller"],
        input=f'{{"connection": {connection}, "threads": 1}}\n',
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
        env={**environment(), "SIPGATE_STOP_AT": point},
    )
    assert process.returncode == -signal.SIGKILL, (process.returncode, process.stderr)


@pytest.mark.parametrize("point", [point for point in points.POINTS if point not in points.LOST])
def test_the_connection_survives(connect: Connect, strict: Strict, short_lease: None, point: str) -> None:
    connection = connect(age=400).pk
    die_at(point, connection)
    token = gate.usable(connection, wait=LEASE + 5)
    row = store.load(connection)
    assert (row.state, row.generation) == (State.ACTIVE, token.generation)
    assert token.generation in {2, 3}
    assert strict.counts()["reuse"] == 0
    assert strict.counts()["api_401"] == 0
    assert journal.waiting() == 0 or journal.replay() == 0


@pytest.mark.parametrize("point", points.LOST)
def test_the_window_ends_as_lost_rotation_within_one_lease(
    connect: Connect, strict: Strict, short_lease: None, point: str
) -> None:
    connection = connect(age=400).pk
    die_at(point, connection)
    started = time.monotonic()
    with pytest.raises(errors.NeedsSignIn):
        gate.usable(connection, wait=LEASE + 5)
    assert time.monotonic() - started < LEASE + 2
    row = store.load(connection)
    assert (row.state, row.reason) == (State.NEEDS_SIGN_IN, Reason.LOST_ROTATION)
    assert strict.counts()["refresh"] == 2


@pytest.mark.parametrize("point", points.UPKEEP)
def test_upkeep_killed_while_it_stores_loses_nothing(
    connect: Connect, strict: Strict, short_lease: None, point: str
) -> None:
    connections = [connect(age=0.7 * 2_592_000).pk for _ in range(20)]
    process = subprocess.run(
        [sys.executable, "-m", "tests.concurrency.caller"],
        input='{"upkeep": true}\n',
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
        env={**environment(), "SIPGATE_STOP_AT": point},
    )
    assert process.returncode == -signal.SIGKILL, (process.returncode, process.stderr)
    assert 1 <= strict.counts()["rotated"] <= 20
    assert {gate.usable(pk, wait=LEASE + 5).generation for pk in connections} <= {2, 3}
    assert {store.load(pk).state for pk in connections} == {State.ACTIVE}
    assert (strict.counts()["reuse"], strict.counts()["refused"]) == (0, 0)
    assert journal.waiting() == 0 or journal.replay() == 0


def test_others_go_on_with_a_token_that_still_lives(connect: Connect, strict: Strict, short_lease: None) -> None:
    connection = connect(age=400).pk
    die_at("after the claim", connection)
    SipgateToken.objects.filter(pk=connection).update(
        expires_at=store.load(connection).issued_at
        + (store.load(connection).expires_at - store.load(connection).issued_at) * 2
    )
    started = time.monotonic()
    assert gate.usable(connection).generation == 1
    assert time.monotonic() - started < 0.5


class TestJournal:
    @pytest.fixture(autouse=True)
    def _short(self, short_lease: None) -> None:
        pass

    def test_nothing_in_it_can_be_read(self, connect: Connect, strict: Strict, settings) -> None:
        connection = connect(age=400).pk
        die_at("after the journal is written", connection)
        files = [path for path in Path(settings.SIPGATE_JOURNAL_DIR).iterdir() if path.suffix == journal.SUFFIX]
        assert len(files) == 1
        assert b"rt-" not in files[0].read_bytes()
        assert files[0].stat().st_mode & 0o077 == 0

    def test_a_wrong_key_keeps_it_for_later(self, connect: Connect, strict: Strict, settings) -> None:
        connection = connect(age=400).pk
        die_at("after the journal is written", connection)
        keys = settings.SIPGATE_TOKEN_KEYS
        settings.SIPGATE_TOKEN_KEYS = ["b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItMTI="]
        assert (journal.replay(), journal.waiting()) == (0, 1)
        settings.SIPGATE_TOKEN_KEYS = keys
        assert (journal.replay(), journal.waiting()) == (1, 0)
        assert store.load(connection).generation == 2

    def test_a_newer_consent_is_not_overwritten(self, connect: Connect, strict: Strict) -> None:
        from datetime import UTC, datetime

        from allauth.socialaccount.models import SocialAccount

        from sipgate_provider.remote import oauth

        connection = connect(age=400).pk
        die_at("after the journal is written", connection)
        grant = oauth.Grant.parse(strict.issue()[0], issued_at=datetime.now(UTC))
        store.consent(SocialAccount.objects.get(pk=connection), grant, requested_scope=[], now=datetime.now(UTC))
        assert journal.replay() == 0
        assert gate.usable(connection).value == grant.access_token

    def test_a_state_that_another_process_fell_into_meanwhile_is_repaired(
        self, connect: Connect, strict: Strict, settings
    ) -> None:
        connection = connect(age=400).pk
        die_at("after the journal is written", connection)
        folder, settings.SIPGATE_JOURNAL_DIR = settings.SIPGATE_JOURNAL_DIR, None
        strict.control(set={})
        with pytest.raises(errors.NeedsSignIn):  # another machine: it does not see the journal
            gate.usable(connection, wait=LEASE + 5)
        settings.SIPGATE_JOURNAL_DIR = folder
        assert journal.replay() == 1
        assert store.load(connection).state == State.ACTIVE

    def test_a_full_disk_stops_nothing(self, connect: Connect, strict: Strict, settings, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "file" / "journal")
        assert gate.usable(connect(age=400)).generation == 2
