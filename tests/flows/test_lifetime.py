"""How long a connection lives: ends that are unknown, ends that refreshes move, ends that nothing
moves."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.core import mail
from django.test import Client
from django.utils import timezone

from sipgate_provider import errors, tokens
from sipgate_provider.models import Reason, SipgateToken, State
from sipgate_provider.ops import keepalive, notices
from sipgate_provider.remote import oauth
from tests.conftest import Connect
from tests.journey import HOST
from tests.rotator import Rotator

pytestmark = pytest.mark.django_db(transaction=True)

HOUR, DAY = 3600.0, 86_400.0
MONTH = 30 * DAY


def refresh_after(connection: SocialAccount, elapsed: float) -> SipgateToken:
    """Let the row be as old as ``elapsed`` seconds, with what its server said then, and refresh
    it."""
    row = tokens.load(connection.pk)
    moments = {"issued_at": row.issued_at - timedelta(seconds=elapsed)}
    SipgateToken.objects.filter(pk=row.pk).update(**moments)
    tokens.refresh(connection, by="test")
    found = tokens.load(connection.pk)
    assert found is not None
    return found


@pytest.fixture
def limited(connect: Connect, rotator: Rotator) -> SocialAccount:
    """A connection that ends in three days, whatever happens: the server has begun to say so."""
    rotator.set(fixed_end=time.time() + 3 * DAY)
    return connect()


def addressed(connection: SocialAccount) -> SocialAccount:
    EmailAddress.objects.create(
        user=connection.user, email="erika@example.org", primary=True, verified=True
    )
    return connection


AGAIN = "sipgate for Django: sipgate needs you to sign in again"


class TestAnEndThatIsUnknown:
    @pytest.mark.parametrize("told", [0, None])
    def test_zero_is_no_date_and_nobody_is_left_alone(
        self, connect: Connect, rotator: Rotator, told: Any
    ) -> None:
        rotator.set(refresh_lifetime=told)
        row = refresh_after(connect(), HOUR)
        assert (row.refresh_expires_at, row.reason) == (None, "")
        assert timedelta(hours=20) < row.keepalive_at - row.issued_at < timedelta(hours=28)

    def test_the_page_does_not_promise_that_there_is_none(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        rotator.set(refresh_lifetime=0)
        assert "The end is not known." in account_page(connect())


class TestAnEndThatMoves:
    @pytest.mark.parametrize("elapsed", [1, 60, 300, HOUR, 10 * DAY])
    def test_with_each_refresh(self, connect: Connect, rotator: Rotator, elapsed: float) -> None:
        connection = connect()
        ends = tokens.load(connection.pk).refresh_expires_at - timedelta(seconds=elapsed)
        SipgateToken.objects.update(refresh_expires_at=ends)
        row = refresh_after(connection, elapsed)
        assert row.reason == Reason.NONE
        assert row.keepalive_at < row.refresh_expires_at - timedelta(days=10)


class TestAnEndThatNothingMoves:
    @pytest.mark.parametrize("elapsed", [20, 300, HOUR, 10 * DAY])
    def test_has_its_own_reason_and_is_left_alone(
        self, limited: SocialAccount, rotator: Rotator, elapsed: float
    ) -> None:
        row = refresh_after(limited, elapsed)
        assert (row.state, row.reason) == (State.ACTIVE, Reason.FIXED_END)
        assert row.keepalive_at == row.refresh_expires_at
        assert tokens.token(limited).value

    def test_keepalive_finds_out_once_and_does_not_refresh_ever_faster(
        self, limited: SocialAccount, rotator: Rotator
    ) -> None:
        SipgateToken.objects.update(
            keepalive_at=timezone.now(),
            issued_at=timezone.now() - timedelta(days=1),
            expires_at=timezone.now(),
        )
        for _ in range(5):
            keepalive.run(rate=0)
        row = tokens.load(limited.pk)
        assert (row.reason, row.refresh_count, rotator.counts()["refresh"]) == (
            Reason.FIXED_END,
            1,
            1,
        )

    def test_two_refreshes_within_moments_tell_nothing(
        self, limited: SocialAccount, rotator: Rotator
    ) -> None:
        assert refresh_after(limited, 1).reason == Reason.NONE
        assert refresh_after(limited, HOUR).reason == Reason.FIXED_END
        assert refresh_after(limited, 1).reason == Reason.FIXED_END

    def test_it_may_move_again(self, limited: SocialAccount, rotator: Rotator) -> None:
        assert refresh_after(limited, HOUR).reason == Reason.FIXED_END
        rotator.set(fixed_end=0)
        row = refresh_after(limited, HOUR)
        assert row.reason == Reason.NONE
        assert row.keepalive_at < row.refresh_expires_at

    def test_when_it_has_come(self, limited: SocialAccount, rotator: Rotator) -> None:
        refresh_after(limited, HOUR)
        past = timezone.now() - timedelta(seconds=1)
        SipgateToken.objects.update(refresh_expires_at=past, keepalive_at=past, expires_at=past)
        rotator.control(kill=True)
        keepalive.run(rate=0)
        row = tokens.load(limited.pk)
        assert (row.state, row.reason) == (State.NEEDS_SIGN_IN, Reason.FIXED_END)


class TestPeopleAreTold:
    def test_days_before_once(self, limited: SocialAccount, rotator: Rotator) -> None:
        addressed(limited)
        refresh_after(limited, HOUR)
        assert keepalive.run(rate=0).mails == 1
        [message] = mail.outbox
        assert message.subject.startswith("sipgate for Django: Your sipgate connection ends on ")
        assert "/accounts/sipgate/login/" in message.body
        for _ in range(2):
            refresh_after(limited, HOUR)
            assert keepalive.run(rate=0).mails == 0

    def test_not_months_before(self, connect: Connect, rotator: Rotator) -> None:
        rotator.set(fixed_end=time.time() + 20 * DAY)
        connection = addressed(connect())
        assert refresh_after(connection, HOUR).reason == Reason.FIXED_END
        assert keepalive.run(rate=0).mails == 0
        assert "This connection ends on" not in account_page(connection)

    def test_again_when_it_has_ended(self, limited: SocialAccount, rotator: Rotator) -> None:
        addressed(limited)
        refresh_after(limited, HOUR)
        assert notices.tell_user(limited.pk)
        rotator.control(kill=True)
        SipgateToken.objects.update(expires_at=timezone.now(), refresh_expires_at=timezone.now())
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(limited)
        assert keepalive.run(rate=0).mails == 1
        assert [message.subject for message in mail.outbox][1:] == [AGAIN]
        assert "sipgate limits how long a sign-in lasts" in mail.outbox[1].body
        assert not notices.tell_user(limited.pk)

    def test_not_of_access_that_they_ended_themselves(self, connect: Connect) -> None:
        connection = addressed(connect())
        tokens.end(connection, by="user")
        SipgateToken.objects.update(state_since=timezone.now() - timedelta(minutes=6))
        assert keepalive.run(rate=0).mails == 0

    def test_a_consent_ends_the_incident(self, limited: SocialAccount, rotator: Rotator) -> None:
        addressed(limited)
        refresh_after(limited, HOUR)
        rotator.set(fixed_end=0)
        tokens.store(limited, oauth.Tokens.parse(rotator.issue()[0], issued_at=datetime.now(UTC)))
        row = tokens.load(limited.pk)
        assert (row.reason, row.notified_at) == ("", None)
        assert keepalive.run(rate=0).mails == 0

    def test_on_the_page(self, limited: SocialAccount, rotator: Rotator) -> None:
        refresh_after(limited, HOUR)
        page = account_page(limited)
        assert "This connection ends on" in page
        assert "Each use extends this." not in page


class TestTheBrowserSession:
    def ended(self, connection: SocialAccount, rotator: Rotator) -> str:
        rotator.control(kill=True)
        SipgateToken.objects.update(expires_at=timezone.now())
        for _ in range(2):  # a rejection may be taken back: they are told after the second one
            with pytest.raises(errors.NeedsSignIn):
                tokens.token(connection)
            earlier = timezone.now() - timedelta(minutes=61)
            SipgateToken.objects.update(state_since=earlier, next_attempt_at=timezone.now())
        keepalive.run(rate=0)
        return mail.outbox[-1].body

    def test_signing_out_of_sipgate_is_named_as_the_likely_cause(
        self, connect: Connect, rotator: Rotator
    ) -> None:
        connection = addressed(connect())
        assert "Probably you, or somebody else, signed out of sipgate" in self.ended(
            connection, rotator
        )
        assert "Probably somebody signed out of sipgate" in account_page(connection)

    def test_not_with_offline_access(self, connect: Connect, rotator: Rotator) -> None:
        connection = addressed(connect(scope="account:read offline_access"))
        assert "signed out of sipgate" not in self.ended(connection, rotator)
        assert "signed out of sipgate" not in account_page(connection)

    def test_not_for_another_reason(self, connect: Connect) -> None:
        connection = connect(state=State.NEEDS_SIGN_IN, reason=Reason.LOST_ROTATION)
        assert "signed out of sipgate" not in account_page(connection)


def account_page(connection: SocialAccount) -> str:
    client = Client(headers={"host": HOST})
    client.force_login(connection.user, backend="django.contrib.auth.backends.ModelBackend")
    return client.get("/account").content.decode()
