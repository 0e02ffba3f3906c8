"""The gate against a strict server: what callers get, what is stored, what is noted."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from allauth.socialaccount.models import SocialAccount
from django.db import connections, transaction
from django.utils import timezone

from sipgate_provider import errors, tokens
from sipgate_provider.models import ClientPause, Reason, Revocation, SipgateToken, State, TokenEvent
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import gate, rows, sealing, threads
from tests.conftest import Connect
from tests.rotating_server import Strict

pytestmark = pytest.mark.django_db(transaction=True)


class TestLook:
    def test_valid_token_costs_one_query_and_no_request(
        self, connect: Connect, strict: Strict, django_assert_num_queries
    ) -> None:
        connection = connect()
        with django_assert_num_queries(1):
            token = tokens.token(connection)
        assert token.value.startswith("at-")
        assert strict.counts()["refresh"] == 0

    def test_value_stays_out_of_repr(self, connect: Connect) -> None:
        assert "at-" not in repr(tokens.token(connect()))

    def test_unknown_connection_is_not_connected(self, db: None) -> None:
        with pytest.raises(errors.NotConnected):
            tokens.token(4711)

    def test_near_its_end_it_is_handed_out_and_renewed_behind(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=240)
        before = tokens.load(connection.pk)
        token = tokens.token(connection)
        assert token.generation == before.generation
        assert threads.refreshes.wait_idle(10)
        assert tokens.load(connection.pk).generation == before.generation + 1
        assert strict.counts()["refresh"] == 1


class TestRenew:
    def test_expired_token_is_renewed_once_and_stored(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        token = tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.generation, row.refresh_count, row.state, row.lease_owner) == (
            2,
            1,
            State.ACTIVE,
            "",
        )
        assert (
            sealing.open_pair(row.sealed, connection_id=row.pk, generation=2).access_token
            == token.value
        )
        assert tokens.token(connection).value == token.value
        assert strict.counts()["refresh"] == 1

    def test_rejected_token_is_renewed_though_it_looks_fresh(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect()
        old = tokens.token(connection)
        new = tokens.token(connection, rejected=old.value)
        assert new.value != old.value
        assert tokens.token(connection, rejected=old.value).value == new.value
        assert strict.counts()["refresh"] == 1

    def test_token_rejected_right_after_its_refresh_is_not_renewed_for_ever(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect()
        new = tokens.token(connection, rejected=tokens.token(connection).value)
        with pytest.raises(errors.AccessRejected):
            tokens.token(connection, rejected=new.value)
        assert strict.counts()["refresh"] == 1

    def test_a_short_lived_token_that_ended_on_its_way_is_renewed(
        self, connect: Connect, strict: Strict
    ) -> None:
        """Refreshed a moment ago, but for a life of seconds: it may be over by the time sipgate looks at it."""
        strict.set(lifetime=4)
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
        assert strict.counts()["refresh"] == 2

    def test_rollback_of_the_caller_keeps_the_new_pair(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)

        def caller() -> None:
            with transaction.atomic():
                tokens.token(connection)
                raise RuntimeError

        if connections["default"].vendor == "sqlite":
            # IMMEDIATE: the caller holds the only write lock. A clear error, and sipgate is not asked.
            with pytest.raises(errors.CallerHoldsLock):
                caller()
            assert strict.counts()["refresh"] == 0
            assert tokens.token(connection).generation == 2
        else:
            with pytest.raises(RuntimeError):
                caller()
            assert tokens.load(connection.pk).generation == 2
        assert strict.counts()["reuse"] == 0

    def test_a_caller_whose_transaction_is_in_the_way_does_not_stop_another_one(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its refresh gives up early, since its own transaction may hold the lock. Others can wait for its end."""
        connection, other_asks, outcomes = connect(age=400), threading.Event(), []
        ask, claim = threads.refreshes.submit_once, rows.claim

        def asks(*args):
            flight = ask(*args)
            if threading.current_thread() is other:
                other_asks.set()
            return flight

        def claims(row, **how):
            assert other_asks.wait(10)
            return claim(row, **how)

        def uses() -> None:
            try:
                outcomes.append(tokens.token(connection, wait=10).generation)
            except errors.SipgateError as error:
                outcomes.append(error)
            finally:
                connections.close_all()

        monkeypatch.setattr(threads.refreshes, "submit_once", asks)
        monkeypatch.setattr(rows, "claim", claims)
        other = threading.Thread(target=uses)
        with transaction.atomic():
            SipgateToken.objects.select_for_update().get()
            other.start()
            with pytest.raises(errors.CallerHoldsLock):
                tokens.token(connection)
        other.join()
        assert outcomes == [2]

    def test_odd_expires_in_does_not_lose_the_pair(self, connect: Connect, strict: Strict) -> None:
        connection = connect(age=400)
        strict.set(fault="odd", times=1)
        assert tokens.token(connection).generation == 2

    def test_odd_access_token_does_not_lose_the_pair(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        strict.set(fault="huge", times=1)
        tokens.token(connection)
        assert tokens.token(connection).value.startswith("at-")
        assert (strict.counts()["rotated"], strict.counts()["reuse"]) == (2, 0)

    def test_an_api_that_rejects_everything_does_not_turn_all_pairs_over(
        self, connect: Connect, strict: Strict
    ) -> None:
        several = [connect() for _ in range(3)]
        for connection in several:
            renewed = tokens.token(connection, rejected=tokens.token(connection).value)
            with pytest.raises(errors.AccessRejected):
                tokens.token(connection, rejected=renewed.value)
        other = connect()
        with pytest.raises(errors.AccessRejected):
            tokens.token(other, rejected=tokens.token(other).value)
        assert strict.counts()["refresh"] == 3

    def test_caller_may_leave_while_the_refresh_goes_on(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        strict.set(latency=0.5)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.05)
        assert threads.refreshes.wait_idle(10)
        assert tokens.token(connection).generation == 2


class TestClassify:
    def test_refusal_needs_sign_in_and_keeps_the_row(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        strict.control(kill=True)
        with pytest.raises(errors.NeedsSignIn) as caught:
            tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.state, row.reason, caught.value.reason) == (
            State.NEEDS_SIGN_IN,
            Reason.REFUSED,
            Reason.REFUSED,
        )
        assert row.sealed
        event = TokenEvent.objects.get(kind=TokenEvent.Kind.STATE)
        assert (event.error_code, event.note) == ("invalid_grant", "Session not active")
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(connection)
        assert strict.counts()["refresh"] == 1

    def test_refusal_after_the_disclosed_end_says_so(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400, refresh_expires_at=timezone.now() - timedelta(hours=1))
        strict.control(kill=True)
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(connection)
        assert tokens.load(connection.pk).reason == Reason.EXPIRED_IDLE

    def test_outage_keeps_everything_and_backs_off(self, connect: Connect, strict: Strict) -> None:
        connection = connect(age=400)
        strict.set(fault="500", times=1)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.state, row.reason) == (State.FAILING, Reason.UNREACHABLE)
        assert row.next_attempt_at > timezone.now()
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection)
        assert strict.counts()["arrived"] == 1
        tokens.refresh(connection)
        row = tokens.load(connection.pk)
        assert (row.state, row.failing_since, row.next_attempt_at) == (State.ACTIVE, None, None)
        assert [event.kind for event in TokenEvent.objects.order_by("id")] == ["failed", "repaired"]

    def test_outage_in_the_mandatory_window_goes_on_with_the_present_token(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=280)
        strict.set(fault="500", times=1)
        assert tokens.token(connection).generation == 1

    def test_rate_limit_is_honoured(self, connect: Connect, strict: Strict) -> None:
        connection = connect(age=400)
        strict.set(fault="429", times=1)
        with pytest.raises(errors.RateLimited):
            tokens.token(connection)
        wait = (tokens.load(connection.pk).next_attempt_at - timezone.now()).total_seconds()
        assert 5 < wait <= 7.1

    def test_lost_answer_is_asked_once_more_and_then_named(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        strict.set(fault="lose", times=1)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.state, row.lease_owner, bool(row.mark_owner)) == (State.FAILING, "", True)
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(connection)
        row = tokens.load(connection.pk)
        assert (row.reason, bool(row.mark_owner)) == (Reason.LOST_ROTATION, True)
        assert strict.counts()["refresh"] == 2

    def test_answer_lost_before_the_rotation_is_repaired_by_the_second_question(
        self, connect: Connect, strict: Strict, monkeypatch
    ) -> None:
        connection = connect(age=400)
        strict.set(fault="503", times=1)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection)
        tokens.refresh(connection)
        assert tokens.load(connection.pk).generation == 2

    def test_refused_client_pauses_every_refresh_and_blames_nobody(
        self, connect: Connect, strict: Strict, settings
    ) -> None:
        one, other = connect(age=400), connect(age=400)
        strict.set(fault="client", times=5)
        with pytest.raises(errors.Misconfigured) as caught:
            tokens.token(one)
        assert caught.value.setting == errors.CLIENT_SECRET
        with pytest.raises(errors.Misconfigured):
            tokens.token(other)
        assert strict.counts()["arrived"] == 1, "nobody asks during the pause"
        assert tokens.load(other.pk).state == State.ACTIVE
        assert ClientPause.objects.count() == 1
        strict.set(fault="", times=0)
        ClientPause.objects.update(until=timezone.now())
        assert tokens.token(one).generation == 2
        assert ClientPause.objects.count() == 0
        assert tokens.load(one.pk).state == State.ACTIVE

    def test_corrected_credentials_are_not_held_up(
        self, connect: Connect, strict: Strict, settings
    ) -> None:
        connection = connect(age=400)
        strict.set(fault="client", times=1)
        with pytest.raises(errors.Misconfigured):
            tokens.token(connection)
        providers = {
            "sipgate": {
                "APPS": [{"client_id": "1000000-1-sandbox:third-party", "secret": "corrected"}]
            }
        }
        settings.SOCIALACCOUNT_PROVIDERS = providers
        assert tokens.token(connection).generation == 2

    def test_missing_key_keeps_the_row_and_names_the_cure(
        self, connect: Connect, strict: Strict, settings
    ) -> None:
        connection = connect()
        good = settings.SIPGATE_TOKEN_KEYS
        settings.SIPGATE_TOKEN_KEYS = ["b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItMTI="]
        with pytest.raises(sealing.SealError, match="SIPGATE_TOKEN_KEYS"):
            tokens.token(connection)
        settings.SIPGATE_TOKEN_KEYS = [*settings.SIPGATE_TOKEN_KEYS, *good]
        assert tokens.token(connection).generation == 1


def answer_late(strict: Strict, connection: SocialAccount) -> None:
    """Have a refresh under way whose pair sipgate has rotated already, and will answer with in a moment."""
    strict.set(fault="late", times=1, late=1)
    request = gate.RefreshRequest(connection_id=connection.pk, seen_generation=1, patience=5)
    threads.refreshes.submit_once(connection.pk, lambda: gate.refresh_connection(request))
    give_up = time.monotonic() + 10
    while not strict.counts()["rotated"]:
        assert time.monotonic() < give_up
        time.sleep(0.01)


class TestNewerTruth:
    def test_consent_during_a_refresh_wins(self, connect: Connect, strict: Strict) -> None:
        from datetime import UTC, datetime

        connection = connect(age=400)
        strict.set(latency=0.6)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.1)
        grant = oauth.Grant.parse(strict.issue()[0], issued_at=datetime.now(UTC))
        rows.consent(connection, grant, scope=[], now=timezone.now())
        assert threads.refreshes.wait_idle(10)
        assert tokens.token(connection).value == grant.access_token
        # The pair that came too late is left alone: what ends it may end the new one too.
        assert tokens.errands.wait_idle(10)
        assert (strict.counts()["revoke_asked"], strict.counts()["logout_asked"]) == (0, 0)
        assert Revocation.objects.count() == 0

    def test_disconnect_during_a_refresh_revokes_what_comes_back(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        answer_late(strict, connection)
        connection.delete()
        assert threads.refreshes.wait_idle(10)
        assert tokens.errands.wait_idle(10)
        assert SipgateToken.objects.count() == 0
        assert strict.counts()["revoke"] == 2, (
            "the pair that was stored, and the one that came back"
        )

    def test_stale_save_is_refused(self, connect: Connect) -> None:
        row = tokens.load(connect().pk)
        with pytest.raises(TypeError, match="conditionally"):
            row.save()

    def test_deletion_of_the_user_during_a_refresh_resurrects_nothing(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        answer_late(strict, connection)
        connection.user.delete()
        assert threads.refreshes.wait_idle(10)
        assert tokens.errands.wait_idle(10)
        assert SipgateToken.objects.count() == 0
        assert strict.counts()["revoke"] == 2, (
            "the pair that was stored, and the one that came back"
        )

    def test_revocation_during_a_refresh_is_not_undone(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect(age=400)
        strict.set(latency=0.6)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.1)
        assert rows.clear(tokens.load(connection.pk), reason=Reason.REVOKED, now=timezone.now())
        assert threads.refreshes.wait_idle(10)
        row = tokens.load(connection.pk)
        assert (row.state, row.reason, bytes(row.sealed)) == (
            State.NEEDS_SIGN_IN,
            Reason.REVOKED,
            b"",
        )
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(connection)

    def test_change_of_keys_during_a_refresh_loses_nothing(
        self, connect: Connect, strict: Strict, settings
    ) -> None:
        connection = connect(age=400)
        strict.set(latency=0.6)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.1)
        settings.SIPGATE_TOKEN_KEYS = [
            "bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldzE=",
            *settings.SIPGATE_TOKEN_KEYS,
        ]
        assert rows.reseal([tokens.load(connection.pk)]) == (1, 0, 0)
        assert threads.refreshes.wait_idle(10)
        row = tokens.load(connection.pk)
        assert (row.generation, row.key_id) == (2, sealing.first_key_id())
        settings.SIPGATE_TOKEN_KEYS = settings.SIPGATE_TOKEN_KEYS[:1]
        assert tokens.token(connection).generation == 2

    def test_a_worker_with_yesterdays_ring_does_not_hide_its_key(
        self, connect: Connect, strict: Strict, settings
    ) -> None:
        """Another process seals the row anew while this one, not restarted yet, refreshes it with the old ring."""
        connection, old = connect(age=400), settings.SIPGATE_TOKEN_KEYS
        row = tokens.load(connection.pk)
        claim = rows.claim(row, owner=rows.new_owner(""))
        settings.SIPGATE_TOKEN_KEYS = ["bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldzE=", *old]
        assert rows.reseal([tokens.load(connection.pk)]) == (1, 0, 0)
        settings.SIPGATE_TOKEN_KEYS = old
        grant = oauth.Grant.parse(strict.issue()[0], issued_at=timezone.now())
        pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
        assert rows.save_refreshed(claim, grant, pair, now=timezone.now())
        stored = tokens.load(connection.pk)
        assert stored.key_id == sealing.key_id(stored.sealed), (
            "reseal would pass it over, and the old key be removed"
        )
