"""An access token, asked for against a rotator: what callers get, and what is stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from allauth.socialaccount.models import SocialAccount
from django.db import connections, transaction
from django.utils import timezone

from sipgate_provider import background, errors, tokens
from sipgate_provider.models import Ending, Reason, SipgateToken, State
from sipgate_provider.tokens import rows
from tests.conftest import issued
from tests.rotator import Rotator
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


class TestLook:
    def test_a_valid_one_costs_one_query_and_no_request(
        self, connect, rotator, django_assert_num_queries
    ):
        connection = connect()
        with django_assert_num_queries(1):
            token = tokens.token(connection)
        assert token.value.startswith("at-")
        assert "at-" not in repr(token)
        assert rotator.counts()["refresh"] == 0

    def test_without_a_connection_there_is_none(self, db):
        with pytest.raises(errors.NotConnected):
            tokens.token(4711)

    def test_near_its_end_it_is_handed_out_and_refreshed_behind(self, connect, rotator):
        connection = connect(age=240)
        assert tokens.token(connection).number == 1
        assert background.refreshes.wait_idle(10)
        assert tokens.load(connection.pk).number == 2
        assert rotator.counts()["refresh"] == 1


class TestRefresh:
    def test_an_expired_one_is_refreshed_once_and_stored(self, connect, rotator):
        connection = connect(age=400)
        token = tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.number, row.refresh_count, row.lease_holder) == (2, 1, "")
        assert row.state == State.ACTIVE
        assert rows.opened(row).access_token == token.value
        assert tokens.token(connection).value == token.value
        assert rotator.counts()["refresh"] == 1

    def test_a_rejected_one_is_refreshed_once_though_it_looks_fresh(self, connect, rotator):
        connection = connect()
        old = tokens.token(connection)
        new = tokens.token(connection, rejected=old.value)
        assert new.value != old.value
        assert tokens.token(connection, rejected=old.value).value == new.value
        with pytest.raises(errors.AccessRejected):
            tokens.token(connection, rejected=new.value)
        assert rotator.counts()["refresh"] == 1, "another would not help"

    def test_a_short_lived_one_that_ended_on_its_way_is_refreshed(self, connect, rotator):
        """Refreshed a moment ago, but for a life of seconds: it may be over by the time sipgate
        looks at it."""
        rotator.set(lifetime=4)
        connection = connect(age=10)
        first = tokens.token(connection)
        moment = timezone.now() - timedelta(seconds=2)
        SipgateToken.objects.update(
            consented_at=moment - timedelta(minutes=1),
            issued_at=moment,
            last_refreshed_at=moment,
            expires_at=moment + timedelta(seconds=4),
        )
        assert tokens.token(connection, rejected=first.value).value != first.value
        assert rotator.counts()["refresh"] == 2

    def test_a_rollback_of_the_caller_keeps_the_new_one(self, connect, rotator):
        connection = connect(age=400)

        def caller():
            with transaction.atomic():
                tokens.token(connection)
                raise RuntimeError

        if connections["default"].vendor == "sqlite":
            # The caller holds the only write lock: a clear error, and sipgate is not asked.
            with pytest.raises(errors.CallerHoldsLock):
                caller()
            assert rotator.counts()["refresh"] == 0
            assert tokens.token(connection).number == 2
        else:
            with pytest.raises(RuntimeError):
                caller()
            assert tokens.load(connection.pk).number == 2
        assert rotator.counts()["reuse"] == 0

    def test_an_odd_one_does_not_lose_the_refresh_token(self, connect, rotator):
        connection = connect(age=400)
        rotator.set(fault="huge", times=1)
        tokens.token(connection)
        assert tokens.token(connection).value.startswith("at-")
        assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (2, 0)


class TestDuringARefresh:
    """Its tokens are on their way, and the caller has left."""

    def test_nothing_happens_and_they_are_stored(self, connect, answer_late):
        connection = connect(age=400)
        answer_late(connection)
        assert background.refreshes.wait_idle(10)
        assert tokens.token(connection).number == 2

    def test_a_new_consent_wins(self, connect, rotator, answer_late):
        connection = connect(age=400)
        answer_late(connection)
        new = issued(rotator)
        tokens.store(connection, new)
        assert background.refreshes.wait_idle(10)
        assert tokens.token(connection).value == new.access_token
        # Tokens that come too late are left alone: what ends them may end the new ones too.
        assert background.errands.wait_idle(10)
        assert (rotator.counts()["revoke_asked"], rotator.counts()["logout_asked"]) == (0, 0)
        assert not Ending.objects.exists()

    @pytest.mark.parametrize("what", ["connection", "user"])
    def test_a_deletion_is_final_and_what_comes_back_is_ended(
        self, connect, rotator, answer_late, what
    ):
        connection = connect(age=400)
        answer_late(connection)
        (connection if what == "connection" else connection.user).delete()
        assert background.refreshes.wait_idle(10)
        assert background.errands.wait_idle(10)
        assert not SipgateToken.objects.exists()
        assert rotator.counts()["revoke"] == 2, "what was stored, and what came back"

    def test_an_ending_is_not_undone(self, connect, answer_late):
        connection = connect(age=400)
        answer_late(connection)
        assert tokens.end(connection, by="olga")
        assert background.refreshes.wait_idle(10)
        row = tokens.load(connection.pk)
        assert (row.state, row.reason, row.sealed) == (State.NEEDS_SIGN_IN, Reason.REVOKED, "")
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(connection)

    def test_a_change_of_keys_loses_nothing(self, connect, answer_late, settings):
        connection = connect(age=400)
        answer_late(connection)
        new = "bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldzE="
        settings.SIPGATE_TOKEN_KEYS = [new, *settings.SIPGATE_TOKEN_KEYS]
        assert tokens.reseal().tokens == 1
        assert background.refreshes.wait_idle(10)
        row = tokens.load(connection.pk)
        assert (row.number, row.key_id) == (2, tokens.key_ids()[0])
        settings.SIPGATE_TOKEN_KEYS = [new]
        assert tokens.token(connection).number == 2


def test_a_row_is_not_saved_without_a_condition(connect):
    with pytest.raises(TypeError, match="with a condition"):
        tokens.load(connect().pk).save()


AnswerLate = Callable[[SocialAccount], None]


@pytest.fixture
def answer_late(rotator: Rotator) -> AnswerLate:
    """Have a refresh under way whose tokens sipgate has rotated already, and will answer with in a
    moment."""

    def begin(connection: SocialAccount) -> None:
        rotator.set(fault="late", times=1, late=1)
        with pytest.raises(errors.SipgateUnavailable, match="longer than this caller waits"):
            tokens.token(connection, wait=0)
        wait_for(lambda: rotator.counts()["rotated"])

    return begin
