"""The journal: tokens survive the process, and a database that goes back; what cannot be opened is
not sent again."""

import os
import resource
import time

import pytest
from django.utils import timezone

from sipgate_provider import background, errors, tokens
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.tokens import access, journal, rows
from tests.conftest import issued
from tests.flows.conftest import OTHER_KEY, go_back, waiting
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("folder")]


class TestRecovery:
    def test_who_refreshes_next_stores_what_waits_and_sends_nothing(self, connect, rotator):
        connection = connect(age=400, state=State.NEEDS_SIGN_IN, next_attempt_at=timezone.now())
        waiting(connection, rotator)
        assert tokens.journal_waiting() == 1
        assert tokens.token(connection).number == 2
        assert (tokens.journal_waiting(), rotator.counts()["refresh"]) == (0, 0)
        event = TokenEvent.objects.get(kind=TokenEvent.Kind.RECOVERED)
        assert (event.actor, event.number) == ("journal", 2)

    def test_the_first_use_of_any_connection_recovers_all(self, connect, rotator, monkeypatch):
        waiting(connect(age=400), rotator)
        monkeypatch.setattr(access, "_has_begun", False)  # as in a process that has just started
        tokens.token(connect())
        assert background.errands.wait_idle(10)
        assert tokens.journal_waiting() == 0

    def test_a_newer_consent_is_not_overwritten(self, connect, rotator):
        connection = connect(age=400)
        waiting(connection, rotator)
        new = issued(rotator)
        tokens.store(connection, new)
        assert tokens.recover() == 0
        assert tokens.token(connection).value == new.access_token

    def test_an_ended_connection_stays_ended(self, connect, rotator):
        connection = connect(age=400)
        path = waiting(connection, rotator)
        newest = rotator.counts()["revoke"]
        assert tokens.end(connection, by="olga")
        assert background.errands.wait_idle(10)
        assert rotator.counts()["revoke"] == newest + 1
        assert tokens.recover() == 0
        assert tokens.load(connection.pk).sealed == ""
        assert path.exists(), "for a day, in case this is the wrong database"

    def test_nothing_is_thrown_away_because_of_an_empty_database(self, connect, rotator):
        path = waiting(connect(age=400), rotator)
        SipgateToken.objects.all().delete()
        os.utime(path, (0, 0))
        assert (tokens.recover(), path.exists()) == (0, True)
        connect()
        assert (tokens.recover(), path.exists()) == (0, False)


class TestFiles:
    def test_the_newest_of_a_consent_stays_and_does_not_wait(self, connect, folder):
        connection = connect(age=400)
        for number in (2, 3, 4):
            assert tokens.refresh(connection).number == number
        [path] = folder.glob("*/*.sealed")
        assert journal.version_of(path) == tokens.load(connection.pk).version
        assert tokens.journal_waiting() == 0

    def test_they_are_for_their_owner_only_and_hold_nothing_in_clear(self, connect, folder):
        row = tokens.refresh(connect())
        found = [folder, *folder.glob("*"), *folder.glob("*/*")]
        assert not [path for path in found if path.stat().st_mode & 0o077]
        [path] = folder.glob("*/*.sealed")
        assert str(rows.opened(row).refresh_token) not in path.read_text()

    def test_a_renamed_one_does_not_open(self, connect, rotator):
        """Tokens are bound to their connection, consent and number: nobody gets somebody else's."""
        bob, path = connect(age=400), waiting(connect(age=400), rotator)
        version = tokens.load(bob.pk).version
        target = path.parent / f"{bob.pk}-{version.consent.hex}-2.sealed"
        path.rename(target)
        with pytest.raises(journal.Broken):
            journal.recover(target)
        assert tokens.load(bob.pk).number == 1

    def test_a_broken_one_is_a_lost_rotation(self, connect, rotator):
        connection = connect(age=400)
        path = waiting(connection, rotator)
        path.write_text(path.read_text()[:-5])
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.reason, rotator.counts()["refresh"]) == (Reason.LOST_ROTATION, 0)

    def test_one_whose_key_is_missing_is_waited_for(self, connect, rotator, settings):
        """Its name proves the token spent: it is not sent, and nobody else's refresh is held up."""
        connection, other, old = connect(age=400), connect(age=400), settings.SIPGATE_TOKEN_KEYS
        settings.SIPGATE_TOKEN_KEYS = [OTHER_KEY, *old]
        waiting(connection, rotator)
        settings.SIPGATE_TOKEN_KEYS = old
        with pytest.raises(errors.Misconfigured, match="SIPGATE_TOKEN_KEYS"):
            tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.reason, rotator.counts()["refresh"]) == (Reason.KEY_MISSING, 0)
        assert tokens.token(other).number == 2
        settings.SIPGATE_TOKEN_KEYS = [*old, OTHER_KEY]
        assert tokens.token(connection).number == 2
        assert tokens.load(connection.pk).state == State.ACTIVE

    def test_odd_ones_stop_nobody(self, connect, rotator):
        path = waiting(connect(age=400), rotator)
        for name in ("notes.sealed", "1-x-2.sealed", "-.sealed", "7.lock"):
            (path.parent / name).write_text("not ours")
        assert tokens.recover() == 1

    def test_drafts_of_killed_processes_are_removed_and_those_being_written_stay(self, folder):
        (folder / "07").mkdir(parents=True)
        left, young = folder / "07" / "tmp1.draft", folder / "07" / "tmp2.draft"
        for draft in (left, young):
            draft.touch()
        os.utime(left, (time.time() - 2 * journal.DRAFT_LASTS,) * 2)
        tokens.recover()
        assert (left.exists(), young.exists()) == (False, True)

    def test_a_full_disk_or_a_file_in_the_way_stops_nothing(self, connect, settings, folder):
        connection = connect(age=400)
        folder.mkdir()
        (folder / f"{connection.pk % 256:02x}").write_text("in the way")
        assert tokens.token(connection).number == 2
        settings.SIPGATE_JOURNAL_DIR = str(folder / f"{connection.pk % 256:02x}" / "journal")
        assert tokens.refresh(connection).number == 3

    def test_what_cannot_be_written_is_no_file(self, connect, rotator):
        version = tokens.load(connect().pk).version
        room = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, room[1]))  # no file may grow
        try:
            assert journal.write(version, issued(rotator)) is None
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, room)


class TestDatabaseThatGoesBack:
    """A failover to a replica that lacks commits, or a restored backup."""

    @pytest.mark.parametrize("commits", [1, 2])
    def test_the_journal_brings_it_forward(self, connect, rotator, commits):
        connection = connect(age=400)
        before = SipgateToken.objects.values().get()
        for _ in range(commits):
            tokens.refresh(connection)
        value = tokens.token(connection).value
        go_back(before)
        assert tokens.token(connection, wait=5).value == value
        counts = rotator.counts()
        assert (counts["rotated"], counts["reuse"]) == (commits, 0)

    def test_a_worker_that_starts_recovers_all(self, connect):
        people = [connect(age=400) for _ in range(5)]
        before = list(SipgateToken.objects.values())
        for connection in people * 2:
            tokens.refresh(connection)
        for values in before:
            go_back(values)
        assert (tokens.recover(), tokens.recover()) == (5, 0)
        assert {tokens.load(connection.pk).number for connection in people} == {3}

    def test_a_newer_consent_of_the_same_number_is_kept(self, connect, rotator):
        connection = connect(age=400)
        before = SipgateToken.objects.values().get()
        tokens.refresh(connection)
        go_back(before)
        new = issued(rotator)
        tokens.store(connection, new)
        assert tokens.load(connection.pk).number == 2
        tokens.recover()
        assert tokens.token(connection).value == new.access_token

    def test_during_a_refresh_it_is_stored_all_the_same(self, connect, rotator):
        connection = connect(age=400)
        before = SipgateToken.objects.values().get()
        tokens.refresh(connection)
        rotator.set(latency=0.5)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.refresh(connection, wait=0)
        wait_for(lambda: rotator.counts()["arrived"] == 2)
        go_back(before)
        assert background.refreshes.wait_idle(10)
        assert tokens.load(connection.pk).number == 3
        assert rotator.counts()["reuse"] == 0
