"""Clocks that jump, databases that go back, and the moments between two statements."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from allauth.socialaccount.models import SocialAccount
from django.db import OperationalError, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sipgate_provider import errors, tokens
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import gate, journal, machine, rows, sealing, statements, threads
from sipgate_provider.tokens.refresh import LeftToOthers, RefreshRequest, refresh_connection
from tests.conftest import Connect
from tests.rotating_server import Strict

pytestmark = pytest.mark.django_db(transaction=True)


def issued(strict: Strict) -> tuple[oauth.Grant, sealing.Pair]:
    grant = oauth.Grant.parse(strict.issue()[0], issued_at=datetime.now(UTC))
    return grant, sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)


def sent_of(row: SipgateToken) -> rows.Sent:
    return rows.Sent(connection_id=row.pk, consent_id=row.consent_id, generation=row.generation)


def snapshot(connection: SocialAccount) -> dict[str, Any]:
    """Return what the database has of a connection's row, to be put back later."""
    return dict(SipgateToken.objects.filter(pk=connection.pk).values().get())


def go_back(values: dict[str, Any]) -> None:
    """Let the database lose the commits since ``snapshot``, as a failover to a replica or a restored backup does."""
    SipgateToken.objects.filter(pk=values["connection_id"]).update(**values)


def expire(connection: SocialAccount) -> None:
    moment = timezone.now() - timedelta(seconds=400)
    SipgateToken.objects.filter(pk=connection.pk).update(
        issued_at=moment, expires_at=moment + timedelta(seconds=300)
    )


class TestLateAnswer:
    def test_is_stored_whoever_has_the_lease_now(self, connect: Connect, strict: Strict) -> None:
        # This process was suspended; another one took the lease over.
        connection = connect(age=400)
        row = tokens.load(connection.pk)
        claim = rows.claim(row, owner="a.b.suspended")
        SipgateToken.objects.update(
            lease_owner="c.d.other", lease_until=timezone.now() + timedelta(seconds=30)
        )
        assert rows.save_refreshed(claim, *issued(strict), now=timezone.now())
        row = tokens.load(connection.pk)
        assert (row.generation, row.lease_owner) == (2, "")

    def test_is_not_stored_on_a_newer_consent(self, connect: Connect, strict: Strict) -> None:
        connection = connect(age=400)
        sent = sent_of(tokens.load(connection.pk))
        rows.consent(connection, issued(strict)[0], scope=[], now=timezone.now())
        SipgateToken.objects.update(generation=1)
        assert not rows.save_refreshed(sent, *issued(strict), now=timezone.now())


class TestLease:
    def test_database_clock_decides(self, connect: Connect) -> None:
        row = rows.load_with_clock(connect(age=400).pk)
        with time_machine.travel(timezone.now() + timedelta(hours=1)):
            rows.claim(row, owner=rows.new_owner(""))
        left = rows.load_with_clock(row.pk)
        assert abs(left.lease_until - left.database_now - timedelta(seconds=45)) < timedelta(
            seconds=2
        )

    def test_taking_it_over_leaves_a_mark_and_returning_it_does_not_clear_it(
        self, connect: Connect
    ) -> None:
        row = rows.load_with_clock(connect(age=400).pk)
        rows.claim(row, owner="m.b.killed")
        claim = rows.claim(rows.load_with_clock(row.pk), owner="m.b.next")
        assert claim.is_marked
        assert rows.give_back(claim)
        row = tokens.load(row.pk)
        assert (row.lease_owner, row.mark_owner, row.mark_until is not None) == (
            "",
            "m.b.killed",
            True,
        )

    @pytest.mark.parametrize(
        ("owner", "place", "over_for", "is_free"),
        [
            ("m.b.x", "m.b", -40, True),  # the lock is ours, so its holder is dead
            (
                "m.b.x",
                "m.c",
                -40,
                False,
            ),  # the machine was started again: the lock proves nothing, time does
            ("m.b.x", "m.c", 1, True),
            ("m.b.x", "n.b", 1, False),  # another machine: its journal may hold the pair
            ("m.b.x", "n.b", 121, True),
            ("..x", "m.b", -40, False),  # taken without a lock
            ("..x", "m.b", 1, True),
            ("m.b.x", "", 1, False),
        ],
    )
    def test_whose_is_free_for_whom(
        self, connect: Connect, owner: str, place: str, over_for: float, is_free: bool
    ) -> None:
        until = timezone.now() - timedelta(seconds=over_for)
        row = rows.load_with_clock(connect(age=400, lease_owner=owner, lease_until=until).pk)
        assert rows.is_free(row, place=place) is is_free

    def test_anothers_mark_has_its_grace(self, connect: Connect) -> None:
        pk = connect(age=400, mark_owner="m.b.x", mark_until=timezone.now()).pk
        row = rows.load_with_clock(pk)
        assert (rows.is_free(row, place="m.c"), rows.is_free(row, place="n.b")) == (True, False)

    def test_written_by_a_clock_that_was_ahead_it_does_not_block_for_ever(
        self, connect: Connect, strict: Strict, settings: Any
    ) -> None:
        settings.SIPGATE_LEASE_SECONDS, settings.SIPGATE_ANSWER_SECONDS = 2.5, 1
        connection = connect(
            age=400, lease_owner="m.b.x", lease_until=timezone.now() + timedelta(days=1)
        )
        settings.SIPGATE_GRACE_SECONDS = 0
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=1)
        assert tokens.token(connection, wait=6).generation == 2

    def test_a_claim_whose_confirmation_was_lost_is_known_to_its_owner(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row = rows.load_with_clock(connect(age=400).pk)
        update = statements.update

        def arrives_but_is_not_confirmed(*args: Any) -> int:
            update(*args)
            raise OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(statements, "update", arrives_but_is_not_confirmed)
        claim = rows.claim(row, owner="m.b.x")
        assert claim is not None
        assert claim.owner == tokens.load(row.pk).lease_owner


@pytest.fixture
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
    return tmp_path / "journal"


@pytest.mark.usefixtures("folder")
class TestJournal:
    def waits(self, connection: SocialAccount, strict: Strict) -> journal.Entry:
        """Let a pair wait, as a process leaves it that was killed before it could store it."""
        entry = journal.write(sent_of(tokens.load(connection.pk)), *issued(strict))
        assert entry is not None
        return entry

    def test_rollback_of_the_caller_leaves_the_pair_in_it(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400, state=State.NEEDS_SIGN_IN, reason=Reason.LOST_ROTATION)
        self.waits(connection, strict)
        with transaction.atomic():
            assert tokens.token(connection).generation == 2
            transaction.set_rollback(True)
        assert (tokens.load(connection.pk).generation, journal.waiting()) == (1, 1)
        assert tokens.token(connection).generation == 2
        assert journal.waiting() == 0

    def test_what_somebody_else_has_just_recovered_is_used(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400, state=State.NEEDS_SIGN_IN, reason=Reason.LOST_ROTATION)
        self.waits(connection, strict)
        seen = tokens.load(connection.pk)
        assert tokens.recover() == 1
        assert tokens.token(connection, row=seen).generation == 2

    def test_the_first_use_of_a_connection_recovers_what_waits(
        self, connect: Connect, strict: Strict
    ) -> None:
        self.waits(connect(age=400), strict)
        other = connect()
        for waiting in (1, 0):
            tokens.token(other)
            assert tokens.errands.wait_idle(10)
            assert journal.waiting() == waiting
            journal._has_begun.get().clear()  # as in a process that has just started

    def test_odd_files_stop_nobody(self, connect: Connect, strict: Strict, folder: Path) -> None:
        connection = connect(age=400)
        entry = self.waits(connection, strict)
        for name in ("notes.sealed", "1-x-2.sealed", "-.sealed"):
            (entry.path.parent / name).write_text("not ours")
        odd = f"{connection.pk}-{uuid.uuid4().hex}"
        (entry.path.parent / f"{odd}-1.sealed").mkdir()
        os.mkfifo(entry.path.parent / f"{odd}-2.sealed")
        (entry.path.parent / f"{odd}-3.sealed").symlink_to("/dev/zero")
        assert tokens.recover() == 1
        assert tokens.token(connection).generation == 2

    def test_entry_of_a_newer_version_is_waited_for(
        self, connect: Connect, strict: Strict, caplog: pytest.LogCaptureFixture
    ) -> None:
        connection, other = connect(age=400), connect(age=400)
        entry = self.waits(connection, strict)
        newer = {"grant": {"access_token": "at-unmistakable", "newer": 1}}
        entry.path.write_bytes(
            sealing.seal(json.dumps(newer).encode(), context=journal._context(entry))
        )
        self.waits(other, strict)
        assert tokens.recover() == 1
        assert entry.path.exists()
        with pytest.raises(errors.Misconfigured, match="not understood"):
            tokens.token(connection)
        assert strict.counts()["refresh"] == 0
        assert "unmistakable" not in caplog.text

    def test_pair_of_a_revoked_connection_has_its_session_ended(
        self, connect: Connect, strict: Strict
    ) -> None:
        # The pair waits on another machine, where nobody could look before the connection was revoked here.
        connection = connect(age=400)
        self.waits(connection, strict)
        rows.clear(tokens.load(connection.pk), reason=Reason.REVOKED, now=timezone.now())
        assert tokens.recover() == 0
        assert tokens.errands.wait_idle(10)
        assert (
            TokenEvent.objects.get(kind=TokenEvent.Kind.REVOCATION).note
            == "revoked during a refresh (revocation)"
        )

    def test_nothing_is_thrown_away_because_of_an_empty_database(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        self.waits(connection, strict)
        SipgateToken.objects.all().delete()
        tokens.errands.wait_idle(10)
        TokenEvent.objects.filter(kind=TokenEvent.Kind.REVOCATION).count()
        before = strict.counts()["logout"]
        assert (tokens.recover(), journal.waiting()) == (0, 1)
        assert strict.counts()["logout"] == before

    def test_a_renamed_entry_does_not_open(self, connect: Connect, strict: Strict) -> None:
        """A pair is bound to its connection and consent: nobody gets somebody else's."""
        bob, entry = connect(age=400), self.waits(connect(age=400), strict)
        target = sent_of(tokens.load(bob.pk))
        folder = machine.shard(bob.pk)
        folder.mkdir(exist_ok=True)
        path = folder / f"{bob.pk}-{target.consent_id.hex}-1.sealed"
        entry.path.rename(path)
        with pytest.raises(journal.Broken):
            journal.recover(
                replace(entry, connection_id=bob.pk, consent_id=target.consent_id, path=path)
            )
        assert tokens.load(bob.pk).generation == 1

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
    def test_a_folder_that_may_not_be_looked_into_stops_nobody(
        self, connect: Connect, folder: Path
    ) -> None:
        folder.mkdir(mode=0o000)
        assert tokens.token(connect(age=400)).generation == 2

    def test_drafts_of_killed_processes_are_removed_and_those_being_written_stay(
        self, folder: Path
    ) -> None:
        shard = machine.shard(7)
        assert shard is not None
        shard.mkdir(parents=True)
        left, young = shard / ".7-1.sealed.0.draft", shard / ".7-1.sealed.1.draft"
        for draft in (left, young):
            draft.touch()
        os.utime(left, (time.time() - 2 * journal.DRAFT_LASTS,) * 2)
        tokens.recover()
        assert (left.exists(), young.exists()) == (False, True)

    def test_a_full_disk_leaves_no_draft(
        self, connect: Connect, strict: Strict, folder: Path
    ) -> None:
        sent, new = sent_of(tokens.load(connect().pk)), issued(strict)
        room = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, room[1]))  # no file may grow
        try:
            assert journal.write(sent, *new) is None
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, room)
        assert [path for path in folder.rglob("*") if path.is_file()] == []

    def test_lock_files_of_connections_that_are_gone_are_removed(
        self, connect: Connect, folder: Path
    ) -> None:
        stays, gone, held, new = (connect(age=400) for _ in range(4))
        for connection in (stays, gone, held, new):
            tokens.refresh(connection)
        for connection in (gone, held, new):
            connection.delete()
        files = {int(file.stem): file for file in folder.glob("*/*.lock")}
        long_ago = time.time() - 2 * 86_400
        for pk in (stays.pk, *files.keys() - {stays.pk, max(files)}):
            os.utime(files[pk], (long_ago, long_ago))
        gone_pk, held_pk, new_pk = sorted(files.keys() - {stays.pk})
        with held_by_another_process(held_pk):
            os.utime(files[held_pk], (long_ago, long_ago))
            tokens.recover()
            assert {int(file.stem) for file in folder.glob("*/*.lock")} == {
                stays.pk,
                held_pk,
                new_pk,
            }
        assert not files[gone_pk].exists()

    def test_lock_files_stay_beside_an_empty_database(self, connect: Connect, folder: Path) -> None:
        tokens.refresh(connect(age=400))
        SipgateToken.objects.all().delete()
        [file] = folder.glob("*/*.lock")
        os.utime(file, (0, 0))
        tokens.recover()
        assert file.exists()

    def test_the_newest_entry_stays_and_does_not_wait(self, connect: Connect, folder: Path) -> None:
        connection = connect(age=400)
        for generation in (2, 3, 4):
            assert tokens.refresh(connection).generation == generation
        assert [path.name.rpartition("-")[2] for path in folder.glob("*/*.s*ed")] == ["3.stored"]
        assert journal.waiting() == 0


@pytest.mark.usefixtures("folder")
class TestDatabaseThatGoesBack:
    """A failover to a replica that lacks commits, or a restored backup."""

    @pytest.mark.parametrize("commits", [1, 2])
    def test_the_journal_brings_it_forward(
        self, connect: Connect, strict: Strict, commits: int
    ) -> None:
        connection = connect(age=400)
        before = snapshot(connection)
        for _ in range(commits):
            tokens.refresh(connection)
        value = tokens.token(connection).value
        go_back(before)
        expire(connection)
        assert tokens.token(connection, wait=5).generation == commits + 1
        assert tokens.token(connection).value == value
        counts = strict.counts()
        assert (counts["rotated"], counts["reuse"]) == (commits, 0)
        assert TokenEvent.objects.filter(kind=TokenEvent.Kind.RECOVERED).count() == 1

    @pytest.mark.parametrize("commits", [1, 2])
    def test_a_worker_that_starts_recovers_all(
        self, connect: Connect, strict: Strict, commits: int
    ) -> None:
        people = [connect(age=400) for _ in range(5)]
        before = [snapshot(connection) for connection in people]
        for connection in people * commits:
            tokens.refresh(connection)
        for values in before:
            go_back(values)
        assert tokens.recover() == 5
        assert {tokens.load(connection.pk).generation for connection in people} == {commits + 1}
        assert tokens.recover() == 0

    def test_a_newer_consent_of_the_same_generation_is_kept(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        before = snapshot(connection)
        tokens.refresh(connection)
        go_back(before)
        grant = issued(strict)[0]
        rows.consent(connection, grant, scope=[], now=timezone.now())
        assert tokens.load(connection.pk).generation == 2
        tokens.recover()
        assert tokens.token(connection).value == grant.access_token

    def test_entries_of_an_earlier_consent_do_not_stop_a_newer_one(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        before = snapshot(connection)
        tokens.refresh(connection)
        tokens.refresh(connection)
        go_back(before)
        rows.consent(connection, issued(strict)[0], scope=[], now=timezone.now())
        expire(connection)
        assert tokens.token(connection, wait=5).generation == 3

    def test_during_a_refresh_it_is_stored_all_the_same(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        before = snapshot(connection)
        tokens.refresh(connection)
        strict.set(latency=0.5)
        flight = threads.refreshes.submit_once(
            connection.pk,
            lambda: gate.refresh_connection(
                gate.RefreshRequest(
                    connection_id=connection.pk, seen_generation=2, patience=5, force=True
                )
            ),
        )
        while strict.counts()["connections"] == 0 or not tokens.load(connection.pk).lease_owner:
            assert not flight.done()
        go_back(before)
        assert flight.result(10).generation == 3
        assert tokens.load(connection.pk).generation == 3
        assert strict.counts()["reuse"] == 0

    def test_a_question_that_was_not_answered_is_remembered_beside_the_lock(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        before = snapshot(connection)
        strict.set(fault="lose", times=1)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.refresh(connection)
        go_back(before)
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(connection)
        assert tokens.load(connection.pk).reason == Reason.LOST_ROTATION


@contextmanager
def held_by_another_process(connection: int) -> Iterator[int]:
    """Let a process hold the lock of a connection, and do nothing; yields its id."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        machine.lock(connection)
        os.write(write, b"x")
        while True:
            signal.pause()
    try:
        assert os.read(read, 1) == b"x"
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.usefixtures("folder")
class TestWaiting:
    """Somebody else on this machine refreshes the connection."""

    def request(self, connection: SocialAccount, patience: float = 0) -> RefreshRequest:
        return RefreshRequest(connection_id=connection.pk, seen_generation=1, patience=patience)

    def test_waiting_costs_no_connection_to_sipgate(self, connect: Connect, strict: Strict) -> None:
        connection = connect(age=400)
        before = strict.counts()["connections"]
        with held_by_another_process(connection.pk), pytest.raises(LeftToOthers):
            refresh_connection(self.request(connection, patience=0.5))
        assert strict.counts()["connections"] - before == 1, "asking for the counters"
        assert refresh_connection(self.request(connection)).generation == 2

    def test_losing_costs_one_query(self, connect: Connect) -> None:
        connection = connect(age=400)
        with (
            held_by_another_process(connection.pk),
            CaptureQueriesContext(connections["default"]) as queries,
            pytest.raises(LeftToOthers),
        ):
            refresh_connection(self.request(connection))
        assert len(queries) == 1

    def test_a_paused_holder_is_waited_for_and_reported_once(
        self, connect: Connect, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Also one that was paused before it had taken the lease: then the row says nothing of it."""
        connection = connect(age=400)
        with held_by_another_process(connection.pk) as holder:
            with pytest.raises(LeftToOthers):
                refresh_connection(self.request(connection))
            assert caplog.messages == [], "it has only just begun"
            [file] = folder.glob("*/*.lock")
            begun = time.time() - 60
            os.utime(file, (begun, begun))
            with pytest.raises(LeftToOthers):
                refresh_connection(self.request(connection, patience=0.5))
            [message] = caplog.messages
            assert (
                f"Process {holder} has held the lock of connection {connection.pk} for 60 s"
                in message
            )

    def test_a_look_at_the_lock_keeps_nobody_from_taking_it(
        self, connect: Connect, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(machine.LockHeld), held_by_another_process(7):
            machine.look(7)
        [file] = folder.glob("*/*.lock")
        looks = file.open()
        fcntl.flock(looks, fcntl.LOCK_SH)
        machine.look(7)  # others may look as well
        monkeypatch.setattr("time.sleep", lambda seconds: looks.close())
        lock = machine.lock(7)
        assert lock is not None
        lock.release()


@pytest.mark.usefixtures("folder")
class TestMachine:
    def test_a_copied_folder_is_another_machine(
        self, folder: Path, tmp_path: Path, settings: Any
    ) -> None:
        place = machine.place()
        assert place == machine.place() != ""
        folder.rename(tmp_path / "moved")
        settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "copy")
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "machine").write_bytes((tmp_path / "moved" / "machine").read_bytes())
        assert machine.place().partition(".")[0] != place.partition(".")[0]

    def test_a_lock_is_held_by_one_and_ends_with_its_process(self, folder: Path) -> None:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            machine.lock(7)
            os.write(write, b"x")
            os.read(read, 0)
            while True:
                os.sched_yield()
        assert os.read(read, 1) == b"x"
        with pytest.raises(machine.LockHeld) as caught:
            machine.lock(7)
        assert caught.value.pid == child
        os.kill(child, 9)
        os.waitpid(child, 0)
        lock = machine.lock(7)
        assert lock is not None
        lock.release()

    def test_a_forked_child_does_not_keep_the_lock_of_its_parent(self, folder: Path) -> None:
        lock = machine.lock(7)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, b"x")
            while True:
                os.sched_yield()
        try:
            assert os.read(read, 1) == b"x"
            lock.release()
            again = machine.lock(7)
            assert again is not None
            again.release()
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)

    def test_processes_that_name_a_folder_at_once_agree(self, folder: Path) -> None:
        read, write = os.pipe()
        children = []
        for _ in range(8):
            children.append(os.fork())
            if children[-1] == 0:
                os.write(write, f"{machine.place()}\n".encode())
                os._exit(0)
        for child in children:
            os.waitpid(child, 0)
        names = os.read(read, 10_000).decode().split()
        assert (len(names), len(set(names))) == (8, 1)
        assert [path.name for path in folder.iterdir()] == ["machine"]

    def test_nobody_can_keep_another_process_from_naming_the_folder(self, folder: Path) -> None:
        """A child that was forked while its parent held a lock of that file would hold it for as long as it lives."""
        folder.mkdir()
        with (folder / "machine").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            child = os.fork()
            if child == 0:
                os._exit(0 if machine.place() else 1)
            try:
                give_up = time.monotonic() + 5
                while (ended := os.waitpid(child, os.WNOHANG)) == (
                    0,
                    0,
                ) and time.monotonic() < give_up:
                    time.sleep(0.01)
                assert ended == (child, 0), "it waits"
            finally:
                if ended == (0, 0):
                    os.kill(child, 9)
                    os.waitpid(child, 0)

    def test_a_removed_lock_file_is_noticed(self, folder: Path) -> None:
        lock = machine.lock(7)
        lock.remove_file()
        other = machine.lock(7)
        assert other is not None
        other.release()
        lock.release()

    def test_a_lock_file_that_is_removed_at_this_moment_is_no_lock(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its holder removed it between our opening and our locking: the next one would make a new file."""
        opens, removed = machine._open, []

        def slow(path: Path, flags: int) -> int:
            descriptor = opens(path, flags)
            if not removed:
                removed.append(path)
                path.unlink()
            return descriptor

        monkeypatch.setattr(machine, "_open", slow)
        lock = machine.lock(7)
        with pytest.raises(machine.LockHeld):
            machine.look(7)
        lock.release()

    def test_the_note_survives_its_holder(self, folder: Path) -> None:
        lock, note = machine.lock(7), machine.Note(uuid.uuid4(), 3)
        lock.write_note(note)
        lock.release()
        lock = machine.lock(7)
        assert lock.note() == note
        lock.write_note(None)
        assert lock.note() is None
        lock.release()


class TestClocks:
    def test_token_of_a_clock_that_was_ahead_is_renewed_once_it_is_rejected(
        self, connect: Connect, strict: Strict
    ) -> None:
        ahead = timedelta(minutes=10)
        connection = connect(age=-ahead.total_seconds(), last_refreshed_at=timezone.now() + ahead)
        old = tokens.token(connection)
        assert tokens.token(connection, rejected=old.value).generation == 2
        assert tokens.load(connection.pk).expires_at < timezone.now() + ahead

    def test_nothing_is_sent_when_the_claim_took_too_long(
        self, connect: Connect, strict: Strict, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The process was suspended between claim and send: its lease may be somebody else's by now."""
        settings.SIPGATE_LEASE_SECONDS, settings.SIPGATE_ANSWER_SECONDS = 3, 1
        connection, real = connect(age=400), rows.claim

        def sleeps(row: SipgateToken, **how: Any) -> rows.Claim | None:
            claim = real(row, **how)
            time.sleep(1.2)
            return claim

        monkeypatch.setattr(rows, "claim", sleeps)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=2)
        threads.refreshes.cancel_queued()
        monkeypatch.setattr(rows, "claim", real)
        threads.refreshes.wait_idle(30)
        assert strict.counts()["reuse"] == 0


class TestConnections:
    def test_work_of_a_caller_that_commits_by_itself_is_not_lost(
        self, connect: Connect, strict: Strict
    ) -> None:
        if connections["default"].vendor == "sqlite":
            pytest.skip("SQLite's connection is never given back")
        connection = connect(age=400)
        connections["default"].set_autocommit(False)
        try:
            SocialAccount.objects.filter(pk=connection.pk).update(uid="written-by-the-caller")
            tokens.release_connections()
            connections["default"].commit()
        finally:
            connections["default"].set_autocommit(True)
        assert SocialAccount.objects.get(pk=connection.pk).uid == "written-by-the-caller"
