"""The refresh, one rule at a time: what has to be true before a token is sent, and what becomes of
the answer.

``tests/protocol`` tries all orders of its steps, ``tests/concurrency`` kills and pauses the real
code.
"""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.db import OperationalError, connections, transaction
from django.db.models.functions import Now
from django.utils import timezone

from sipgate_provider import background, database, errors, tokens
from sipgate_provider.client import SipgateClient
from sipgate_provider.models import Reason, SipgateToken, State
from sipgate_provider.ops import notices
from sipgate_provider.tokens import lease, rows
from sipgate_provider.tokens.lock import lock
from sipgate_provider.tokens.refresh import LATEST, refresh
from tests.conftest import issued
from tests.flows.conftest import fail
from tests.named import replace
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("folder")]


class TestLease:
    def test_it_is_of_the_row_as_it_was_read(self, connect):
        row = tokens.load(connect(age=400).pk)
        for changes in (
            {"consent": "6e5a2b62-7b5f-4f0e-8f0e-3a4d0f1f2a3b"},
            {"number": 2},
            {"state": State.FAILING},
            {"next_attempt_at": timezone.now()},
            {"unanswered": True},
            {"lease_until": timezone.now() + timedelta(minutes=1)},
        ):
            with transaction.atomic():
                SipgateToken.objects.update(**changes)
                before = SipgateToken.objects.values().get()
                assert not lease.take(row, "late"), changes
                if "lease_until" not in changes:
                    assert not rows.note(row, reason=Reason.UNEXPECTED), changes
                assert SipgateToken.objects.values().get() == before
                transaction.set_rollback(True)
        assert lease.take(row, "first")

    def test_it_lasts_45_seconds_by_the_databases_clock(self, connect):
        row = tokens.load(connect(age=400).pk)
        with time_machine.travel(timezone.now() + timedelta(hours=1)):
            assert lease.take(row, "holder")
        taken = SipgateToken.objects.annotate(now=Now()).get()
        assert abs(taken.lease_until - taken.now - timedelta(seconds=45)) < timedelta(seconds=2)

    def test_one_that_is_over_is_taken_and_says_that_the_token_may_be_spent(self, connect):
        row = tokens.load(connect(age=400).pk)
        assert lease.take(row, "killed")
        SipgateToken.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        row = tokens.load(row.pk)
        assert row.unanswered
        assert lease.take(row, "next")

    def test_it_is_given_back_by_its_holder_only(self, connect):
        row = tokens.load(connect(age=400).pk)
        assert lease.take(row, "late")
        SipgateToken.objects.update(lease_holder="another")
        assert not lease.give_back(row, "late", unanswered=False, state=State.FAILING)
        row = tokens.load(row.pk)
        assert (row.lease_holder, row.state, row.unanswered) == ("another", State.ACTIVE, True)

    def test_whoever_waits_for_it_does_not_connect(self, connect, rotator):
        connection, until = connect(age=400), timezone.now() + timedelta(seconds=40)
        before = rotator.counts()["connections"] + 1  # with the one that asks for the counters
        with lock(connection.pk), pytest.raises(errors.SipgateUnavailable):
            refresh(connection.pk, seen=1, by="caller", patience=0.3)
        SipgateToken.objects.update(lease_holder="other", lease_until=until, unanswered=True)
        with pytest.raises(errors.SipgateUnavailable):
            refresh(connection.pk, seen=1, by="caller", patience=0.3)
        assert rotator.counts()["connections"] == before

    def test_whoever_has_waited_long_enough_looks_a_last_time(self, connect, broken):
        def taken_by_another(row, _holder):
            SipgateToken.objects.filter(pk=row.pk).update(number=row.number + 1)
            return False

        broken("tokens.lease.take", lambda _real: taken_by_another)
        assert refresh(connect(age=400).pk, seen=1, by="caller", patience=0).number == 2

    def test_the_lock_excludes_however_long_its_holder_is_paused(self, connect, rotator):
        connection = connect(age=400)
        over = {"lease_holder": "paused", "lease_until": timezone.now() - timedelta(hours=1)}
        SipgateToken.objects.update(**over, unanswered=True)
        with lock(connection.pk), pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.3)
        assert rotator.counts()["arrived"] == 0
        assert tokens.token(connection).number == 2

    @pytest.mark.parametrize("later", [(LATEST + 1, 0.0), (0.0, LATEST + 1)])
    def test_nothing_is_sent_when_too_little_of_it_is_left(self, connect, rotator, broken, later):
        """The process, or its virtual machine, was paused between lease and send: the lease may be
        somebody else's by now."""
        for unanswered in (False, True):
            connection, times = connect(age=400, unanswered=unanswered), iter([(0.0, 0.0), later])
            broken("tokens.refresh.clocks", lambda _real, times=times: lambda: next(times))
            with pytest.raises(errors.SipgateUnavailable, match="still refreshing"):
                refresh(connection.pk, seen=1, by="caller", patience=0)
            row = tokens.load(connection.pk)
            assert (rotator.counts()["arrived"], row.lease_holder) == (0, "")
            assert row.unanswered is unanswered, "as it was before"


class TestUnanswered:
    @pytest.mark.parametrize(
        ("fault", "unanswered"),
        [
            ("client", False),
            ("consent", False),
            ("429", False),
            ("500", True),
            ("lose", True),
            ("garbage", True),
        ],
    )
    def test_answers_put_it_back_and_silence_does_not(self, connect, rotator, fault, unanswered):
        assert fail(connect(age=400), rotator, fault).unanswered is unanswered

    def test_it_stays_when_the_second_question_is_rejected(self, connect, rotator):
        connection = connect(age=400)
        for fault in ("lose", "", ""):
            row = fail(connection, rotator, fault)
        assert (row.unanswered, row.reason) == (True, Reason.LOST_ROTATION)


class TestEnded:
    def test_here_it_is_never_sent_again_not_even_by_force(self, connect, rotator):
        connection = connect(age=400, state=State.NEEDS_SIGN_IN, reason=Reason.SIGN_IN_REQUIRED)
        with pytest.raises(errors.NeedsSignIn):
            refresh(connection.pk, seen=1, by="olga", patience=0, force=True)
        assert rotator.counts()["arrived"] == 0

    def test_a_process_that_ends_sends_nothing_and_leaves_the_row_as_it_is(
        self, connect, rotator, monkeypatch
    ):
        connection = connect(age=400)
        before = SipgateToken.objects.values().get()
        with monkeypatch.context() as patch:
            patch.setattr(background, "_is_ending", True)
            with pytest.raises(errors.SipgateUnavailable, match="about to end"):
                refresh(connection.pk, seen=1, by="caller", patience=0)
        assert SipgateToken.objects.values().get() == before
        assert tokens.token(connection).number == 2
        assert rotator.counts()["refresh"] == 1


class TestAnswer:
    def test_without_a_refresh_token_the_old_one_stays(self, connect, rotator):
        """RFC 6749 §6: the authorization server *may* issue a new one."""
        connection = connect(age=400)
        before = rows.opened(tokens.load(connection.pk)).refresh_token
        rotator.set(fault="no refresh token", times=1)
        assert tokens.token(connection).number == 2
        assert rows.opened(tokens.load(connection.pk)).refresh_token == before

    def test_one_that_comes_late_is_stored_whoever_has_the_lease(self, connect, rotator):
        row = tokens.load(connect(age=400).pk)
        assert lease.take(row, "paused")
        SipgateToken.objects.update(lease_holder="other")
        stored = rows.store_refreshed(row.version._replace(number=2), issued(rotator))
        assert stored is not None
        assert (stored.number, stored.lease_holder, stored.unanswered) == (2, "", False)

    def test_it_takes_the_place_of_older_tokens_of_the_same_consent_only(self, connect, rotator):
        connection = connect(age=400)
        second = tokens.load(connection.pk).version._replace(number=2)
        for number in (2, 3):
            SipgateToken.objects.update(number=number)
            assert rows.store_refreshed(second, issued(rotator)) is None
        tokens.store(connection, issued(rotator))
        SipgateToken.objects.update(number=1)
        assert rows.store_refreshed(second, issued(rotator)) is None

    def test_an_administrators_wish_outlives_it(self, connect, rotator):
        connection = connect(age=400)
        rotator.set(fault="late", times=1, late=0.5)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0)
        wait_for(lambda: rotator.counts()["rotated"])
        assert tokens.require_sign_in(connection, by="olga")
        assert background.refreshes.wait_idle(10)
        row = tokens.load(connection.pk)
        assert (row.number, row.state, row.reason) == (2, "needs_sign_in", "sign_in_required")

    def test_a_rejection_after_a_new_consent_is_nobodys_fault(self, connect, rotator):
        connection = connect(age=400)
        rotator.set(latency=0.5, suspended=True)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0)
        wait_for(lambda: rotator.counts()["arrived"])
        tokens.store(connection, issued(rotator))
        assert background.refreshes.wait_idle(10)
        row = tokens.load(connection.pk)
        assert (row.number, row.state, row.reason) == (2, State.ACTIVE, Reason.NONE)

    def test_a_failure_that_cannot_be_noted_is_told_all_the_same(self, connect, rotator, broken):
        rotator.set(fault="500", times=1)
        broken("tokens.lease.give_back", lambda _real: database_is_away)
        with pytest.raises(errors.SipgateUnavailable, match="500"):
            tokens.token(connect(age=400))

    def test_it_is_offered_until_the_database_takes_it_each_time_by_a_new_connection(
        self, connect, broken
    ):
        used: list[Any] = []

        def fails_twice(real):
            def store(*args, **kwargs):
                used.append(connections["default"].connection)
                if len(used) < 3:
                    connections["default"].ensure_connection()
                    database_is_away()
                return real(*args, **kwargs)

            return store

        broken("tokens.rows.store_refreshed", fails_twice)
        assert tokens.token(connect(age=400)).number == 2
        assert used[1:] == [None, None], "the first one may be dead"


class TestClocks:
    def test_a_token_of_a_clock_that_was_ahead_is_refreshed_once_it_is_rejected(self, connect):
        ahead = timedelta(minutes=10)
        connection = connect(age=-ahead.total_seconds(), last_refreshed_at=timezone.now() + ahead)
        old = tokens.token(connection)
        assert tokens.token(connection, rejected=old.value).number == 2
        assert tokens.load(connection.pk).expires_at < timezone.now() + ahead


@pytest.mark.postgresql
class TestNoDatabaseConnectionIsHeld:
    def test_by_a_refresh_and_by_who_waits_for_it(self, connect, held, broken):
        mine, callers = connections["default"], []

        def watched(real):
            def ask(*args):
                callers.append(mine.connection is not None)
                return real(*args)

            return ask

        broken("remote.oauth.refresh", watched)
        tokens.token(connect(age=400))
        assert (set(held), callers) == ({False}, [False])

    def test_by_who_waits_for_another_process(self, connect, monkeypatch, held):
        later = timezone.now() + timedelta(seconds=40)
        connection = connect(age=400, lease_holder="other", lease_until=later, unanswered=True)
        waiting: list[bool] = []
        real = time.sleep

        def sleep(seconds):
            waiting.append(connections["default"].connection is not None)
            real(seconds)

        monkeypatch.setattr(time, "sleep", sleep)
        with pytest.raises(errors.SipgateUnavailable):
            refresh(connection.pk, seen=1, by="caller", patience=0.1)
        assert set(waiting) == {False}

    def test_by_a_request(self, connect, held):
        SipgateClient(connect()).account()
        assert held == [False]

    def test_by_an_ending(self, connect, rotator, held):
        connect().delete()
        assert background.errands.wait_idle(10)
        assert (set(held), rotator.counts()["revoke"]) == ({False}, 1)

    def test_by_a_mail(self, connect, held, monkeypatch):
        connection = connect(
            state=State.NEEDS_SIGN_IN, reason=Reason.LOST_ROTATION, last_rejected_at=timezone.now()
        )
        SipgateToken.objects.update(state_since=timezone.now() - timedelta(hours=2))
        EmailAddress.objects.create(
            user=connection.user, email="erika@example.org", primary=True, verified=True
        )

        def send_mail(*_args, **_kwargs):
            held.append(connections["default"].connection is not None)
            raise smtplib.SMTPRecipientsRefused({})

        monkeypatch.setattr(notices, "send_mail", send_mail)
        assert not notices.tell_user(connection.pk)
        assert held == [False]

    def test_nor_is_one_taken_from_a_transaction(self, db):
        with transaction.atomic():
            SipgateToken.objects.exists()
            database.release_connections()
            assert connections["default"].connection is not None

    def test_nor_is_one_opened_to_be_returned(self, transactional_db, monkeypatch):
        connections["default"].close()
        monkeypatch.setattr(connections["default"], "connect", None)
        database.release_connections()


@pytest.fixture
def broken() -> Iterator[Callable[..., None]]:
    """Put something else in the place of a part of the app until the test is over."""
    undo: list[Callable[[], None]] = []
    yield lambda name, make: undo.append(replace(name, make))
    for one in reversed(undo):
        one()


@pytest.fixture
def held(broken: Callable[..., None]) -> list[bool]:
    """Each time this process asked sipgate: whether that thread held a database connection."""
    found: list[bool] = []

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*args: Any, **kwargs: Any) -> Any:
            found.append(connections["default"].connection is not None)
            return real(*args, **kwargs)

        return ask

    for name in ("remote.line.connect", "remote.line.Line.answer", "remote.session.send"):
        broken(name, watched)
    return found


def database_is_away(*_args: Any, **_kwargs: Any) -> Any:
    raise OperationalError("server closed the connection unexpectedly")
