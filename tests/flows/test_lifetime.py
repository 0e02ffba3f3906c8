"""How long a connection lives: ends that are unknown, ends that refreshes move, ends that nothing
moves."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from allauth.socialaccount.models import SocialAccount
from django.core import mail
from django.utils import timezone

from sipgate_provider import errors, tokens
from sipgate_provider.models import Reason, SipgateToken, State
from sipgate_provider.ops import keepalive, notices
from tests.conftest import Connect, issued
from tests.flows.conftest import addressed
from tests.journey import text_of, visitor
from tests.rotator import Rotator

pytestmark = pytest.mark.django_db(transaction=True)

HOUR, DAY = 3600.0, 86_400.0


def test_an_end_that_is_unknown_is_no_reason_to_wait(connect, rotator):
    for told in (0, None):
        rotator.set(refresh_lifetime=told)
        row = refresh_after(connect(), HOUR)
        assert (row.refresh_expires_at, row.reason) == (None, "")
        assert timedelta(hours=20) < row.keepalive_at - row.issued_at < timedelta(hours=28)
        assert "Each use extends this." not in account_page(row.connection)


def test_an_end_that_moves_with_each_refresh(connect):
    for elapsed in (1, HOUR, 10 * DAY):
        connection = connect()
        ends = tokens.load(connection.pk).refresh_expires_at - timedelta(seconds=elapsed)
        SipgateToken.objects.filter(pk=connection.pk).update(refresh_expires_at=ends)
        row = refresh_after(connection, elapsed)
        assert row.reason == Reason.NONE, elapsed
        assert row.keepalive_at < row.refresh_expires_at - timedelta(days=10)


class TestAnEndThatNothingMoves:
    @pytest.mark.parametrize("elapsed", [20, HOUR, 10 * DAY])
    def test_has_its_own_reason_and_is_left_alone(self, limited, elapsed):
        row = refresh_after(limited, elapsed)
        assert (row.state, row.reason) == (State.ACTIVE, Reason.FIXED_END)
        assert row.keepalive_at == row.refresh_expires_at
        assert tokens.token(limited).value
        assert "This connection ends on" in account_page(limited)

    def test_keepalive_finds_out_once_and_does_not_refresh_ever_faster(self, limited, rotator):
        now = timezone.now()
        yesterday = {"issued_at": now - timedelta(days=1), "expires_at": now}
        SipgateToken.objects.update(keepalive_at=now, **yesterday)
        for _ in range(5):
            keepalive.run()
        assert tokens.load(limited.pk).reason == Reason.FIXED_END
        assert rotator.counts()["refresh"] == 1

    def test_two_refreshes_within_moments_tell_nothing(self, limited):
        assert refresh_after(limited, 1).reason == Reason.NONE
        assert refresh_after(limited, HOUR).reason == Reason.FIXED_END
        assert refresh_after(limited, 1).reason == Reason.FIXED_END

    def test_may_move_again(self, limited, rotator):
        assert refresh_after(limited, HOUR).reason == Reason.FIXED_END
        rotator.set(fixed_end=0)
        row = refresh_after(limited, HOUR)
        assert row.reason == Reason.NONE
        assert row.keepalive_at < row.refresh_expires_at

    def test_is_the_reason_when_it_has_come(self, limited, rotator):
        refresh_after(limited, HOUR)
        past = timezone.now() - timedelta(seconds=1)
        SipgateToken.objects.update(refresh_expires_at=past, keepalive_at=past, expires_at=past)
        rotator.control(kill=True)
        keepalive.run()
        row = tokens.load(limited.pk)
        assert (row.state, row.reason) == (State.NEEDS_SIGN_IN, Reason.FIXED_END)


class TestPeopleAreTold:
    def test_once_some_days_before(self, limited):
        addressed(limited)
        refresh_after(limited, HOUR)
        assert keepalive.run().mails == 1
        [message] = mail.outbox
        assert message.subject.startswith("sipgate for Django: Your sipgate connection ends on ")
        assert "/accounts/sipgate/login/" in message.body
        refresh_after(limited, HOUR)
        assert keepalive.run().mails == 0

    def test_not_months_before(self, connect, rotator):
        rotator.set(fixed_end=time.time() + 20 * DAY)
        connection = addressed(connect())
        assert refresh_after(connection, HOUR).reason == Reason.FIXED_END
        assert keepalive.run().mails == 0
        assert "This connection ends on" not in account_page(connection)

    def test_again_when_it_has_ended(self, limited, rotator):
        addressed(limited)
        refresh_after(limited, HOUR)
        assert notices.tell_user(limited.pk)
        rotator.control(kill=True)
        SipgateToken.objects.update(expires_at=timezone.now(), refresh_expires_at=timezone.now())
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(limited)
        assert keepalive.run().mails == 1
        assert "sipgate limits how long a sign-in lasts" in mail.outbox[1].body
        assert not notices.tell_user(limited.pk)

    def test_not_after_a_new_consent(self, limited, rotator):
        addressed(limited)
        refresh_after(limited, HOUR)
        rotator.set(fixed_end=0)
        tokens.store(limited, issued(rotator))
        row = tokens.load(limited.pk)
        assert (row.reason, row.notified_at) == ("", None)
        assert keepalive.run().mails == 0


def test_signing_out_of_sipgate_is_the_likely_cause_without_offline_access(connect, rotator):
    for scope, is_named in (("account:read", True), ("account:read offline_access", False)):
        connection = addressed(connect(scope=scope))
        rotator.control(kill=True)
        for _ in range(2):  # a rejection may be taken back: they are told after the second one
            with pytest.raises(errors.NeedsSignIn):
                tokens.refresh(connection)
            earlier = timezone.now() - timedelta(minutes=61)
            SipgateToken.objects.update(state_since=earlier, next_attempt_at=timezone.now())
        keepalive.run()
        assert ("signed out of sipgate" in mail.outbox[-1].body) is is_named
        assert ("Someone probably signed out" in account_page(connection)) is is_named
    connection = connect(state=State.NEEDS_SIGN_IN, reason=Reason.LOST_ROTATION)
    assert "signed out of sipgate" not in account_page(connection)


@pytest.fixture
def limited(connect: Connect, rotator: Rotator) -> SocialAccount:
    """A connection that ends in three days, whatever happens: the server has begun to say so."""
    rotator.set(fixed_end=time.time() + 3 * DAY)
    return connect()


def refresh_after(connection: SocialAccount, elapsed: float) -> SipgateToken:
    """Let the row be as old as ``elapsed`` seconds, with what its server said then, and refresh
    it."""
    row = tokens.load(connection.pk)
    moments = {"issued_at": row.issued_at - timedelta(seconds=elapsed)}
    SipgateToken.objects.filter(pk=row.pk).update(**moments)
    tokens.refresh(connection, by="test")
    return tokens.load(connection.pk)


def account_page(connection: SocialAccount) -> str:
    return text_of(visitor(connection.user).get("/account"))
