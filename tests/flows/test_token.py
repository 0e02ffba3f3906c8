"""An access token, asked for against a rotator: what callers get, what is stored, what is
noted."""

from __future__ import annotations

from datetime import timedelta

import pytest
from allauth.socialaccount.models import SocialAccount
from django.db import connections, transaction
from django.utils import timezone

from sipgate_provider import errors, tokens
from sipgate_provider.models import ClientPause, Ending, Reason, SipgateToken, State, TokenEvent
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import background, rows, sealing
from tests.conftest import Connect, wait_for
from tests.rotator import Rotator

pytestmark = pytest.mark.django_db(transaction=True)


class TestLook:
    def test_valid_token_costs_one_query_and_no_request(
        self, connect: Connect, rotator: Rotator, django_assert_num_queries
    ) -> None:
        connection = connect()
        with django_assert_num_queries(1):
            token = tokens.token(connection)
        assert token.value.startswith("at-")
        assert rotator.counts()["refresh"] == 0

    def test_value_stays_out_of_repr(self, connect: Connect) -> None:
        assert "at-" not in repr(tokens.token(connect()))

    def test_unknown_connection_is_not_connected(self, db: None) -> None:
        with pytest.raises(errors.NotConnected):
            tokens.token(4711)

    def test_near_its_end_it_is_handed_out_and_refreshed_behind(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=240)
        before = tokens.load(connection.pk)
        token = tokens.token(connection)
        assert token.number == before.number
        assert background.refreshes.wait_idle(10)
        assert tokens.load(connection.pk).number == before.number + 1
        assert rotator.counts()["refresh"] == 1


class TestRefresh:
    def test_expired_token_is_refreshed_once_and_stored(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400)
        token = tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.number, row.refresh_count, row.state, row.lease_holder) == (
            2,
            1,
            State.ACTIVE,
            "",
        )
        assert rows.opened(row).access_token == token.value
        assert tokens.token(connection).value == token.value
        assert rotator.counts()["refresh"] == 1

    def test_rejected_token_is_refreshed_though_it_looks_fresh(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect()
        old = tokens.token(connection)
        new = tokens.token(connection, rejected=old.value)
        assert new.value != old.value
        assert tokens.token(connection, rejected=old.value).value == new.value
        assert rotator.counts()["refresh"] == 1

    def test_token_rejected_right_after_its_refresh_is_not_refreshed_for_ever(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect()
        new = tokens.token(connection, rejected=tokens.token(connection).value)
        with pytest.raises(errors.AccessRejected):
            tokens.token(connection, rejected=new.value)
        assert rotator.counts()["refresh"] == 1

    def test_a_short_lived_token_that_ended_on_its_way_is_refreshed(
        self, connect: Connect, rotator: Rotator
    ) -> None:
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

    def test_rollback_of_the_caller_keeps_the_new_tokens(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400)

        def caller() -> None:
            with transaction.atomic():
                tokens.token(connection)
                raise RuntimeError

        if connections["default"].vendor == "sqlite":
            # IMMEDIATE: the caller holds the only write lock. A clear error, and sipgate is not
            # asked.
            with pytest.raises(errors.CallerHoldsLock):
                caller()
            assert rotator.counts()["refresh"] == 0
            assert tokens.token(connection).number == 2
        else:
            with pytest.raises(RuntimeError):
                caller()
            assert tokens.load(connection.pk).number == 2
        assert rotator.counts()["reuse"] == 0

    def test_odd_expires_in_does_not_lose_the_tokens(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400)
        rotator.set(fault="odd", times=1)
        assert tokens.token(connection).number == 2

    def test_odd_access_token_does_not_lose_the_tokens(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400)
        rotator.set(fault="huge", times=1)
        tokens.token(connection)
        assert tokens.token(connection).value.startswith("at-")
        assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (2, 0)

    def test_caller_may_leave_while_the_refresh_goes_on(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400)
        rotator.set(latency=0.5)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.05)
        assert background.refreshes.wait_idle(10)
        assert tokens.token(connection).number == 2


class TestClassify:
    def test_rejection_needs_sign_in_and_keeps_the_row(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400)
        rotator.control(kill=True)
        with pytest.raises(errors.NeedsSignIn) as caught:
            tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.state, row.reason, caught.value.reason) == (
            State.NEEDS_SIGN_IN,
            Reason.REJECTED,
            Reason.REJECTED,
        )
        assert row.sealed
        event = TokenEvent.objects.get(kind=TokenEvent.Kind.STATE)
        assert (event.error_code, event.note) == ("invalid_grant", "Session not active")
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(connection)
        assert rotator.counts()["refresh"] == 1

    def test_rejection_after_the_disclosed_end_says_so(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400, refresh_expires_at=timezone.now() - timedelta(hours=1))
        rotator.control(kill=True)
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(connection)
        assert tokens.load(connection.pk).reason == Reason.EXPIRED_IDLE

    def test_outage_keeps_everything_and_backs_off(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400)
        rotator.set(fault="500", times=1)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.state, row.reason) == (State.FAILING, Reason.UNREACHABLE)
        assert row.next_attempt_at > timezone.now()
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection)
        assert rotator.counts()["arrived"] == 1
        tokens.refresh(connection)
        row = tokens.load(connection.pk)
        assert (row.state, row.failing_since, row.next_attempt_at) == (State.ACTIVE, None, None)
        assert [event.kind for event in TokenEvent.objects.order_by("id")] == ["failed", "repaired"]

    def test_outage_in_the_mandatory_window_goes_on_with_the_present_token(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=280)
        rotator.set(fault="500", times=1)
        assert tokens.token(connection).number == 1

    def test_rate_limit_is_honoured(self, connect: Connect, rotator: Rotator) -> None:
        connection = connect(age=400)
        rotator.set(fault="429", times=1)
        with pytest.raises(errors.RateLimited):
            tokens.token(connection)
        wait = (tokens.load(connection.pk).next_attempt_at - timezone.now()).total_seconds()
        assert 5 < wait <= 7.1

    def test_lost_answer_is_asked_once_more_and_then_named(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400)
        rotator.set(fault="lose", times=1)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.state, row.lease_holder, row.unanswered) == (State.FAILING, "", True)
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(connection)
        row = tokens.load(connection.pk)
        assert (row.reason, row.unanswered) == (Reason.LOST_ROTATION, True)
        assert rotator.counts()["refresh"] == 2

    def test_answer_lost_before_the_rotation_is_repaired_by_the_second_question(
        self, connect: Connect, rotator: Rotator, monkeypatch
    ) -> None:
        connection = connect(age=400)
        rotator.set(fault="503", times=1)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection)
        tokens.refresh(connection)
        assert tokens.load(connection.pk).number == 2

    def test_rejected_client_pauses_every_refresh_and_blames_nobody(
        self, connect: Connect, rotator: Rotator, settings
    ) -> None:
        one, other = connect(age=400), connect(age=400)
        rotator.set(fault="client", times=5)
        with pytest.raises(errors.Misconfigured) as caught:
            tokens.token(one)
        assert caught.value.setting == errors.CLIENT_SECRET
        with pytest.raises(errors.Misconfigured):
            tokens.token(other)
        assert rotator.counts()["arrived"] == 1, "nobody asks during the pause"
        assert tokens.load(other.pk).state == State.ACTIVE
        assert ClientPause.objects.count() == 1
        rotator.set(fault="", times=0)
        ClientPause.objects.update(until=timezone.now())
        assert tokens.token(one).number == 2
        assert ClientPause.objects.count() == 0
        assert tokens.load(one.pk).state == State.ACTIVE

    def test_corrected_credentials_are_not_held_up(
        self, connect: Connect, rotator: Rotator, settings
    ) -> None:
        connection = connect(age=400)
        rotator.set(fault="client", times=1)
        with pytest.raises(errors.Misconfigured):
            tokens.token(connection)
        providers = {
            "sipgate": {
                "APPS": [{"client_id": "1000000-1-sandbox:third-party", "secret": "corrected"}]
            }
        }
        settings.SOCIALACCOUNT_PROVIDERS = providers
        assert tokens.token(connection).number == 2

    def test_missing_key_keeps_the_row_and_names_the_cure(
        self, connect: Connect, rotator: Rotator, settings
    ) -> None:
        connection = connect()
        good = settings.SIPGATE_TOKEN_KEYS
        settings.SIPGATE_TOKEN_KEYS = ["b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItMTI="]
        with pytest.raises(sealing.SealError, match="SIPGATE_TOKEN_KEYS"):
            tokens.token(connection)
        settings.SIPGATE_TOKEN_KEYS = [*settings.SIPGATE_TOKEN_KEYS, *good]
        assert tokens.token(connection).number == 1


class TestNewerTruth:
    def test_consent_during_a_refresh_wins(self, connect: Connect, rotator: Rotator) -> None:
        from datetime import UTC, datetime

        connection = connect(age=400)
        rotator.set(latency=0.6)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.1)
        grant = oauth.Tokens.parse(rotator.issue()[0], issued_at=datetime.now(UTC))
        tokens.store(connection, grant)
        assert background.refreshes.wait_idle(10)
        assert tokens.token(connection).value == grant.access_token
        # Tokens that come too late are left alone: what ends it may end the new one too.
        assert tokens.errands.wait_idle(10)
        assert (rotator.counts()["revoke_asked"], rotator.counts()["logout_asked"]) == (0, 0)
        assert Ending.objects.count() == 0

    def test_disconnect_during_a_refresh_revokes_what_comes_back(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400)
        answer_late(rotator, connection)
        connection.delete()
        assert background.refreshes.wait_idle(10)
        assert tokens.errands.wait_idle(10)
        assert SipgateToken.objects.count() == 0
        assert rotator.counts()["revoke"] == 2, (
            "the tokens that were stored, and those that came back"
        )

    def test_stale_save_is_rejected(self, connect: Connect) -> None:
        row = tokens.load(connect().pk)
        with pytest.raises(TypeError, match="with a condition"):
            row.save()

    def test_deletion_of_the_user_during_a_refresh_resurrects_nothing(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400)
        answer_late(rotator, connection)
        connection.user.delete()
        assert background.refreshes.wait_idle(10)
        assert tokens.errands.wait_idle(10)
        assert SipgateToken.objects.count() == 0
        assert rotator.counts()["revoke"] == 2, (
            "the tokens that were stored, and those that came back"
        )

    def test_revocation_during_a_refresh_is_not_undone(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = connect(age=400)
        rotator.set(latency=0.6)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.1)
        assert tokens.end(connection, by="olga")
        assert background.refreshes.wait_idle(10)
        row = tokens.load(connection.pk)
        assert (row.state, row.reason, row.sealed) == (State.NEEDS_SIGN_IN, Reason.REVOKED, "")
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(connection)

    def test_change_of_keys_during_a_refresh_loses_nothing(
        self, connect: Connect, rotator: Rotator, settings
    ) -> None:
        connection = connect(age=400)
        rotator.set(latency=0.6)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.1)
        settings.SIPGATE_TOKEN_KEYS = [
            "bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldzE=",
            *settings.SIPGATE_TOKEN_KEYS,
        ]
        assert tokens.reseal().tokens == 1
        assert background.refreshes.wait_idle(10)
        row = tokens.load(connection.pk)
        assert (row.number, row.key_id) == (2, tokens.key_ids()[0])
        settings.SIPGATE_TOKEN_KEYS = settings.SIPGATE_TOKEN_KEYS[:1]
        assert tokens.token(connection).number == 2

    def test_a_worker_with_yesterdays_keys_does_not_hide_its_key(
        self, connect: Connect, rotator: Rotator, settings
    ) -> None:
        """Another process seals the row anew while this one, not restarted yet, refreshes it with
        the old keys."""
        connection, old = connect(age=400), settings.SIPGATE_TOKEN_KEYS
        row = tokens.load(connection.pk)
        settings.SIPGATE_TOKEN_KEYS = ["bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldzE=", *old]
        assert tokens.reseal().tokens == 1
        settings.SIPGATE_TOKEN_KEYS = old
        new = oauth.Tokens.parse(rotator.issue()[0], issued_at=timezone.now())
        assert rows.store_refreshed(row.version._replace(number=2), new)
        stored = tokens.load(connection.pk)
        assert stored.key_id == sealing.key_of(stored.sealed), (
            "reseal would pass it over, and the old key be removed"
        )


def answer_late(rotator: Rotator, connection: SocialAccount) -> None:
    """Have a refresh under way whose tokens sipgate has rotated already, and will answer with in a
    moment."""
    rotator.set(fault="late", times=1, late=1)
    with pytest.raises(errors.SipgateUnavailable, match="longer than this caller waits"):
        tokens.token(connection, wait=0)
    wait_for(lambda: rotator.counts()["rotated"])
