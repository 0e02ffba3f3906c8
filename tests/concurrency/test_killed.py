"""A process is killed at every named point of a refresh: the connection survives, but for the one window that stays."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount

from sipgate_provider import errors, tokens
from sipgate_provider.models import Reason, SipgateToken, State
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import journal, rows
from tests.concurrency import points
from tests.conftest import Connect
from tests.processes import die_at
from tests.rotating_server import Strict

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def folder(settings: Any, tmp_path: Path) -> Path:
    """The journal's folder of this machine."""
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
    return tmp_path / "journal"


SURVIVED = [point for point in points.POINTS if point not in points.LOST]


@pytest.mark.parametrize("point", SURVIVED)
def test_the_connection_survives(
    connect: Connect, strict: Strict, folder: Path, point: str
) -> None:
    connection = connect(age=400).pk
    die_at(point, connection=connection)
    started = time.monotonic()
    token = tokens.token(connection)
    assert time.monotonic() - started < 2, (
        "on one machine nobody waits for the lease of somebody who was killed"
    )
    row = tokens.load(connection)
    assert (row.state, row.generation) == (State.ACTIVE, token.generation)
    assert token.generation == 2
    assert (strict.counts()["reuse"], strict.counts()["rotated"]) == (0, 1)
    tokens.recover()
    assert (journal.waiting(), tokens.load(connection).generation) == (0, 2)


def test_what_was_sent_a_moment_ago_is_lost_only_if_sipgate_has_begun(
    connect: Connect, strict: Strict, folder: Path
) -> None:
    """A killed process resets its connection: what sipgate has not read by then was never sent."""
    connection = connect(age=400).pk
    die_at("sent", connection=connection)
    with contextlib.suppress(errors.NeedsSignIn):
        tokens.token(connection)
    row, counts = tokens.load(connection), strict.counts()
    was_read = counts["refresh"] == 2
    assert (row.state, counts["reuse"]) == (
        (State.NEEDS_SIGN_IN, 1) if was_read else (State.ACTIVE, 0)
    )
    assert row.reason == (Reason.LOST_ROTATION if was_read else Reason.NONE)


@pytest.mark.parametrize("point", [point for point in points.LOST if point != "sent"])
def test_the_window_ends_at_once_as_lost_rotation(
    connect: Connect, strict: Strict, folder: Path, point: str
) -> None:
    connection = connect(age=400).pk
    die_at(point, connection=connection)
    started = time.monotonic()
    with pytest.raises(errors.NeedsSignIn):
        tokens.token(connection)
    assert time.monotonic() - started < 2
    row = tokens.load(connection)
    assert (row.state, row.reason) == (State.NEEDS_SIGN_IN, Reason.LOST_ROTATION)
    assert strict.counts()["refresh"] == 2


@pytest.mark.parametrize("point", ["claimed", "journaled", "stored"])
def test_keepalive_killed_loses_nothing(
    connect: Connect, strict: Strict, folder: Path, point: str
) -> None:
    connections = [connect(age=0.7 * 2_592_000).pk for _ in range(5)]
    die_at(point, keepalive=True, threads=1)
    assert {tokens.token(pk).generation for pk in connections} == {2}
    assert {tokens.load(pk).state for pk in connections} == {State.ACTIVE}
    assert (strict.counts()["reuse"], strict.counts()["refused"], strict.counts()["rotated"]) == (
        0,
        0,
        5,
    )


@pytest.mark.parametrize("point", ["claimed", "journaled"])
def test_another_machine_waits_for_lease_and_grace(
    connect: Connect, strict: Strict, folder: Path, settings: Any, point: str
) -> None:
    (
        settings.SIPGATE_LEASE_SECONDS,
        settings.SIPGATE_ANSWER_SECONDS,
        settings.SIPGATE_GRACE_SECONDS,
    ) = 3, 1, 2
    connection = connect(age=400).pk
    die_at(point, connection=connection)
    settings.SIPGATE_JOURNAL_DIR = f"{folder}-of-another-machine"
    with pytest.raises(errors.SipgateUnavailable):
        tokens.token(connection, wait=4)  # its lease is over, its grace is not
    if point == "claimed":
        assert tokens.token(connection, wait=6).generation == 2
        return
    settings.SIPGATE_JOURNAL_DIR = str(
        folder
    )  # the first machine comes back, and a worker starts there
    assert tokens.recover() == 1
    settings.SIPGATE_JOURNAL_DIR = f"{folder}-of-another-machine"
    assert tokens.token(connection, wait=0.5).generation == 2
    assert strict.counts()["reuse"] == 0


def test_others_go_on_with_a_token_that_still_lives(
    connect: Connect, strict: Strict, folder: Path
) -> None:
    connection = connect(age=400).pk
    die_at("claimed", connection=connection)
    row = tokens.load(connection)
    SipgateToken.objects.filter(pk=connection).update(
        expires_at=row.issued_at + (row.expires_at - row.issued_at) * 2
    )
    started = time.monotonic()
    assert tokens.token(connection).generation == 1
    assert time.monotonic() - started < 0.5


class TestJournal:
    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        pass

    def test_nothing_in_it_can_be_read(
        self, connect: Connect, strict: Strict, folder: Path
    ) -> None:
        connection = connect(age=400).pk
        die_at("journaled", connection=connection)
        [file] = folder.glob("*/*.sealed")
        assert b"rt-" not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0

    def test_a_missing_key_is_waited_for(
        self, connect: Connect, strict: Strict, settings: Any
    ) -> None:
        """The entry's name proves the token spent: it is not sent, and nobody else's refresh is held up."""
        connection, other = connect(age=400).pk, connect(age=400).pk
        settings.SIPGATE_TOKEN_KEYS = [
            *settings.SIPGATE_TOKEN_KEYS,
            "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItMTI=",
        ]
        old = settings.SIPGATE_TOKEN_KEYS[:1]
        settings.SIPGATE_TOKEN_KEYS = settings.SIPGATE_TOKEN_KEYS[::-1]
        die_at("journaled", connection=connection)
        keys, settings.SIPGATE_TOKEN_KEYS = settings.SIPGATE_TOKEN_KEYS, old
        with pytest.raises(errors.Misconfigured, match="SIPGATE_TOKEN_KEYS"):
            tokens.token(connection)
        assert (tokens.load(connection).reason, strict.counts()["refresh"]) == (
            Reason.KEY_MISSING,
            1,
        )
        assert tokens.token(other).generation == 2
        settings.SIPGATE_TOKEN_KEYS = keys
        assert tokens.token(connection).generation == 2
        assert tokens.load(connection).state == State.ACTIVE

    def test_a_broken_entry_is_a_lost_rotation(
        self, connect: Connect, strict: Strict, folder: Path
    ) -> None:
        connection = connect(age=400).pk
        die_at("journaled", connection=connection)
        [file] = folder.glob("*/*.sealed")
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(connection)
        assert (tokens.load(connection).reason, strict.counts()["refresh"]) == (
            Reason.LOST_ROTATION,
            1,
        )

    def test_a_newer_consent_is_not_overwritten(self, connect: Connect, strict: Strict) -> None:
        connection = connect(age=400).pk
        die_at("journaled", connection=connection)
        grant = oauth.Grant.parse(strict.issue()[0], issued_at=datetime.now(UTC))
        rows.consent(
            SocialAccount.objects.get(pk=connection),
            grant,
            scope=[],
            now=datetime.now(UTC),
        )
        assert tokens.recover() == 0
        assert tokens.token(connection).value == grant.access_token

    def test_what_another_machine_thought_meanwhile_is_repaired(
        self, connect: Connect, strict: Strict, settings: Any
    ) -> None:
        (
            settings.SIPGATE_LEASE_SECONDS,
            settings.SIPGATE_ANSWER_SECONDS,
            settings.SIPGATE_GRACE_SECONDS,
        ) = 2.5, 1, 0
        connection = connect(age=400).pk
        die_at("journaled", connection=connection)
        folder, settings.SIPGATE_JOURNAL_DIR = settings.SIPGATE_JOURNAL_DIR, None
        with pytest.raises(
            errors.NeedsSignIn
        ):  # it does not see the journal, and there is no grace
            tokens.token(connection, wait=6)
        settings.SIPGATE_JOURNAL_DIR = folder
        assert tokens.recover() == 1
        assert tokens.load(connection).state == State.ACTIVE

    def test_a_full_disk_stops_nothing(
        self, connect: Connect, strict: Strict, settings: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "file" / "journal")
        assert tokens.token(connect(age=400)).generation == 2
