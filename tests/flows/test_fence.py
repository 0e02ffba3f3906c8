"""What has to be true before a refresh token is sent, and what is noted of it, one rule at a time."""

from __future__ import annotations

import smtplib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.db import OperationalError, connections, transaction
from django.utils import timezone

from sipgate_provider import conf, errors, tokens
from sipgate_provider.models import Reason, SipgateToken, State
from sipgate_provider.ops import notices
from sipgate_provider.remote import http, oauth
from sipgate_provider.tokens import gate, journal, machine, rows, sealing, threads
from sipgate_provider.tokens.refresh import (
    LeftToOthers,
    RefreshRequest,
    _Refresh,
    refresh_connection,
)
from tests.conftest import Connect
from tests.journey import Browser
from tests.rotating_server import Strict

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
    return tmp_path / "journal"


def note_of(connection: SocialAccount) -> machine.Note | None:
    lock = machine.lock(connection.pk)
    assert lock is not None
    try:
        return lock.note()
    finally:
        lock.release()


def until(condition: Any) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


class TestLock:
    @pytest.mark.parametrize("looked", ["before it was taken", "afterwards"])
    def test_its_holder_is_waited_for_however_long_it_takes(
        self,
        connect: Connect,
        strict: Strict,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        looked: str,
    ) -> None:
        if looked == "before it was taken":
            monkeypatch.setattr(machine, "look", lambda connection_id: True)
        connection = connect(age=400)
        lock = machine.lock(connection.pk)
        past = timezone.now() - timedelta(hours=1)
        SipgateToken.objects.update(lease_owner=f"{machine.place()}.x", lease_until=past)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.3)
        assert strict.counts()["arrived"] == 0
        lock.release()
        assert tokens.token(connection).generation == 2

    @pytest.mark.parametrize("is_seen", [True, False])
    def test_without_it_time_decides(
        self,
        connect: Connect,
        strict: Strict,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        is_seen: bool,
    ) -> None:
        """The lease is of this machine, but no lock proves that its holder is dead. Whoever sees so at once does not
        connect."""
        if not is_seen:
            monkeypatch.setattr(machine, "look", lambda connection_id: True)
        connection, later = connect(age=400), timezone.now() + timedelta(seconds=40)
        (machine.shard(connection.pk) / f"{connection.pk}.lock").mkdir(parents=True)
        SipgateToken.objects.update(lease_owner=f"{machine.place()}.x", lease_until=later)
        before = strict.counts()["connections"] + 1  # with the one that asks for the counters
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.3)
        counts = strict.counts()
        assert (counts["arrived"], counts["connections"] > before) == (0, not is_seen)
        SipgateToken.objects.update(lease_until=timezone.now() - conf.grace())
        assert tokens.token(connection).generation == 2


class TestNote:
    """Beside the lock stands what was sent last, unless it was answered, or not sent after all."""

    @pytest.mark.parametrize("fault", ["client", "consent", "429", "killed"])
    def test_an_answer_clears_it(
        self, connect: Connect, strict: Strict, folder: Path, fault: str
    ) -> None:
        connection = connect(age=400)
        if fault == "killed":
            strict.control(kill=True)
        strict.set(fault=fault, times=1)
        with pytest.raises(errors.SipgateError):
            tokens.token(connection)
        assert note_of(connection) is None

    @pytest.mark.parametrize("fault", ["500", "lose", "garbage"])
    def test_none_does_not(
        self, connect: Connect, strict: Strict, folder: Path, fault: str
    ) -> None:
        connection = connect(age=400)
        strict.set(fault=fault, times=1)
        with pytest.raises(errors.SipgateError):
            tokens.token(connection)
        assert note_of(connection) == machine.Note(tokens.load(connection.pk).consent_id, 1)

    def test_nor_does_the_answer_to_the_second_question(
        self, connect: Connect, strict: Strict, folder: Path
    ) -> None:
        connection = connect(age=400)
        strict.set(fault="lose", times=1)
        for _ in range(2):
            with pytest.raises(errors.SipgateError):
                tokens.refresh(connection)
        assert note_of(connection) is not None

    def test_a_later_generation_says_that_the_database_has_gone_back(
        self, connect: Connect, strict: Strict, folder: Path
    ) -> None:
        connection = connect(age=400)
        lock = machine.lock(connection.pk)
        lock.write_note(machine.Note(tokens.load(connection.pk).consent_id, 7))
        lock.release()
        strict.control(kill=True)
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(connection)
        assert tokens.load(connection.pk).reason == Reason.LOST_ROTATION

    def test_what_is_not_sent_leaves_neither_note_nor_lease(
        self, connect: Connect, strict: Strict, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def too_late(*_args: Any) -> None:
            assert note_of_held(connection) is not None, "it is noted before it is checked"
            raise LeftToOthers

        def note_of_held(connection: SocialAccount) -> str | None:
            text = (machine.shard(connection.pk) / f"{connection.pk}.lock").read_text()
            return text if len(text.split()) == 3 else None

        connection = connect(age=400)
        monkeypatch.setattr(_Refresh, "_check_time", too_late)
        with pytest.raises(LeftToOthers):
            refresh_connection(
                RefreshRequest(connection_id=connection.pk, seen_generation=1, patience=0)
            )
        row = tokens.load(connection.pk)
        assert (note_of(connection), row.lease_owner, strict.counts()["arrived"]) == (None, "", 0)


class TestEnded:
    def test_here_it_is_never_sent_again_not_even_by_force(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400, state=State.NEEDS_SIGN_IN, reason=Reason.SIGN_IN_REQUIRED)
        with pytest.raises(errors.NeedsSignIn):
            refresh_connection(
                RefreshRequest(
                    connection_id=connection.pk, seen_generation=1, patience=0, force=True
                )
            )
        assert strict.counts()["arrived"] == 0


class TestEnding:
    def test_a_process_that_ends_sends_nothing(
        self, connect: Connect, strict: Strict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = connect(age=400)
        monkeypatch.setattr(threads, "_is_ending", True)
        with pytest.raises(errors.SipgateUnavailable, match="about to end"):
            tokens.token(connection)
        assert (strict.counts()["arrived"], tokens.load(connection.pk).lease_owner) == (0, "")


class TestAnswer:
    def test_without_a_refresh_token_the_old_one_stays(
        self, connect: Connect, strict: Strict
    ) -> None:
        """RFC 6749 §6: the authorization server *may* issue a new one."""
        connection = connect(age=400)
        before = tokens.load(connection.pk).refresh_fingerprint
        strict.set(fault="no refresh token", times=1)
        assert tokens.token(connection).generation == 2
        assert tokens.load(connection.pk).refresh_fingerprint == before

    def test_a_refusal_after_a_new_consent_is_nobodys_fault(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        strict.set(latency=0.5, suspended=True)
        request = gate.RefreshRequest(connection_id=connection.pk, seen_generation=1, patience=5)
        flight = threads.refreshes.submit_once(
            connection.pk, lambda: gate.refresh_connection(request)
        )
        until(lambda: strict.counts()["arrived"])
        grant = oauth.Grant.parse(strict.issue()[0], issued_at=datetime.now(UTC))
        rows.consent(connection, grant, scope=[], now=timezone.now())
        assert flight.result(10).generation == 2
        row = tokens.load(connection.pk)
        assert (row.state, row.reason) == (State.ACTIVE, Reason.NONE)

    def test_a_failure_that_cannot_be_noted_is_told_all_the_same(
        self, connect: Connect, strict: Strict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_args: Any, **_kwargs: Any) -> bool:
            raise OperationalError("server closed the connection unexpectedly")

        strict.set(fault="500", times=1)
        monkeypatch.setattr(rows, "give_back", away)
        with pytest.raises(errors.SipgateUnavailable, match="500"):
            tokens.token(connect(age=400))

    def test_without_a_journal_a_pair_is_offered_for_as_long_as_it_takes_each_time_by_a_new_connection(
        self, connect: Connect, strict: Strict, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.SIPGATE_STORE_SECONDS = 0
        real, used = rows.save_refreshed, []

        def save(*args: Any, **kwargs: Any) -> bool:
            used.append(connections["default"].connection)
            if len(used) < 3:
                connections["default"].ensure_connection()
                raise OperationalError("the database is read-only: it is being failed over")
            return real(*args, **kwargs)

        monkeypatch.setattr(rows, "save_refreshed", save)
        assert tokens.token(connect(age=400)).generation == 2
        assert used[1:] == [None, None], "the first one may be dead"

    def test_a_pair_of_a_connection_that_went_meanwhile_is_ended(
        self, connect: Connect, strict: Strict, folder: Path
    ) -> None:
        """It waits in a journal, and somebody has disconnected: elsewhere, or while nobody ran here."""
        connection, other = connect(age=400), connect()
        row = tokens.load(connection.pk)
        sent = rows.Sent(connection_id=row.pk, consent_id=row.consent_id, generation=row.generation)
        grant = oauth.Grant.parse(strict.issue()[0], issued_at=datetime.now(UTC))
        pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
        assert journal.write(sent, grant, pair) is not None
        connection.delete()
        assert tokens.errands.wait_idle(10)
        assert strict.counts()["revoke"] == 1
        assert (tokens.recover(), journal.waiting()) == (0, 0)
        assert tokens.errands.wait_idle(10)
        assert (strict.counts()["revoke"], SocialAccount.objects.get()) == (2, other)


class TestFolder:
    def test_is_for_its_owner_only(self, connect: Connect, strict: Strict, folder: Path) -> None:
        tokens.refresh(connect())
        found = [folder, *folder.glob("*/"), *folder.glob("*/*")]
        assert {path.suffix for path in found} == {"", ".lock", ".stored"}
        assert not [
            path for path in found if path.name != "machine" and path.stat().st_mode & 0o077
        ]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Each time this process connected, or waited for an answer: whether that thread held a database connection."""
    if connections["default"].vendor == "sqlite":
        pytest.skip("SQLite's file handle is nobody else's to wait for")
    found: list[bool] = []

    def watch(name: str) -> None:
        real = getattr(http._Stamped, name)

        def watched(self: Any) -> Any:
            found.append(connections["default"].connection is not None)
            return real(self)

        monkeypatch.setattr(http._Stamped, name, watched)

    for name in ("_new_conn", "getresponse"):
        watch(name)
    return found


class TestNoDatabaseConnectionIsHeld:
    def test_by_a_refresh_and_by_who_waits_for_it(
        self, connect: Connect, strict: Strict, held: list[bool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine, callers, real = connections["default"], [], oauth.refresh

        def watched(*args: Any, **kwargs: Any) -> Any:
            callers.append(mine.connection is not None)
            return real(*args, **kwargs)

        monkeypatch.setattr(oauth, "refresh", watched)
        tokens.token(connect(age=400))
        assert (set(held), callers) == ({False}, [False])

    def test_by_who_waits_for_another_process(
        self, connect: Connect, strict: Strict, monkeypatch: pytest.MonkeyPatch, held: list[bool]
    ) -> None:
        later = timezone.now() + timedelta(seconds=40)
        connection = connect(age=400, lease_owner="m.b.x", lease_until=later)
        waiting: list[bool] = []
        real = time.sleep

        def sleep(seconds: float) -> None:
            waiting.append(connections["default"].connection is not None)
            real(seconds)

        monkeypatch.setattr(time, "sleep", sleep)
        request = RefreshRequest(connection_id=connection.pk, seen_generation=1, patience=0.1)
        with pytest.raises(LeftToOthers):
            refresh_connection(request)
        assert set(waiting) == {False}

    def test_by_a_callback(self, browser: Browser, held: list[bool]) -> None:
        callback = browser.consent(browser.start())
        held.clear()
        browser.site.get(callback)
        assert held
        assert not any(held)

    def test_by_the_end_of_a_grant(
        self, connect: Connect, strict: Strict, held: list[bool]
    ) -> None:
        connect().delete()
        assert tokens.errands.wait_idle(10)
        assert (set(held), strict.counts()["revoke"]) == ({False}, 1)

    def test_by_a_mail(
        self, connect: Connect, held: list[bool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = connect(
            state=State.NEEDS_SIGN_IN, reason=Reason.LOST_ROTATION, last_refused_at=timezone.now()
        )
        SipgateToken.objects.update(state_since=timezone.now() - timedelta(hours=2))
        EmailAddress.objects.create(
            user=connection.user, email="erika@example.org", primary=True, verified=True
        )

        def send_mail(*_args: Any, **_kwargs: Any) -> None:
            held.append(connections["default"].connection is not None)
            raise smtplib.SMTPException

        monkeypatch.setattr(notices, "send_mail", send_mail)
        assert not notices.tell_user(connection.pk)
        assert held == [False]

    def test_nor_is_one_taken_from_a_transaction(self, db: None) -> None:
        with transaction.atomic():
            SipgateToken.objects.exists()
            tokens.release_connections()
            assert connections["default"].connection is not None
