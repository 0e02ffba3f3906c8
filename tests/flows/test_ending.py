"""Ending grants at sipgate: what is meant and no more. An identity that is connected here is never
ended."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone

from sipgate_provider import background, tokens
from sipgate_provider.models import Ending, Reason, SipgateToken, State, TokenEvent
from sipgate_provider.ops import keepalive
from sipgate_provider.remote.oauth import Tokens
from sipgate_provider.tokens import endings, rows
from tests.conftest import issued
from tests.flows.conftest import OTHER_KEY
from tests.journey import Browser
from tests.rotator import Rotator

pytestmark = pytest.mark.django_db(transaction=True)


class TestJourney:
    """With the sandbox, which keeps one session per browser, as sipgate does."""

    def test_a_sign_up_that_waits_for_a_form_keeps_its_tokens(self, browser, settings):
        disconnected_while_sipgate_is_away(browser)
        make_due()
        settings.SOCIALACCOUNT_AUTO_SIGNUP = False
        form = browser.site.get(browser.consent(browser.start())).headers["Location"]
        assert keepalive.run().endings_done == 0
        answer = browser.site.post(form, {"username": "rosa", "email": "rosa@rosenduft.example"})
        assert answer.status_code == 302
        assert tokens.refresh(SocialAccount.objects.get()).number == 2


class TestTheIdentityDecides:
    def test_a_consent_cancels_what_is_pending(self, pending, rotator):
        sign_in(rotator)
        assert not Ending.objects.exists()
        assert endings.deliver(pending.pk)
        assert rotator.counts()["dead"] == 0

    def test_with_the_consent_or_not_at_all(self, pending, rotator):
        with transaction.atomic():
            sign_in(rotator)
            transaction.set_rollback(True)
        make_due()
        assert keepalive.run().endings_done == 1
        assert (rotator.counts()["dead"], Ending.objects.count()) == (1, 0)

    def test_two_users_with_one_identity(self, pending, rotator):
        connection = sign_in(rotator, username="another", family="another browser")
        make_due()
        keepalive.run()
        assert rotator.counts()["revoke"] == 0
        assert tokens.refresh(connection).number == 2

    @pytest.mark.parametrize("state", [State.ACTIVE, State.FAILING, State.NEEDS_SIGN_IN])
    def test_it_is_looked_at_directly_before_the_request(self, pending, rotator, state):
        """Whatever put the connection there: nobody told the outbox."""
        rows.store_consent(other_connection(), of_client(rotator), scope=[])
        reason = Reason.NONE if state is State.ACTIVE else Reason.REJECTED
        SipgateToken.objects.update(state=state, reason=reason)
        make_due()
        assert keepalive.run().endings_done == 1
        assert (rotator.counts()["dead"], Ending.objects.count()) == (0, 0)
        assert TokenEvent.objects.latest("id").kind == TokenEvent.Kind.ENDING_DROPPED

    def test_a_connection_that_was_ended_here_protects_nothing(self, pending, rotator):
        row, _ = rows.store_consent(other_connection(), of_client(rotator), scope=[])
        rows.forget(row, reason=Reason.REVOKED)
        make_due()
        keepalive.run()
        assert rotator.counts()["dead"] == 1

    def test_nor_does_one_of_another_client_or_another_identity(self, pending, rotator, connect):
        of_another_client = connect(client_id="1-1-another")
        SocialAccount.objects.filter(pk=of_another_client.pk).update(uid=UID)
        connect()
        make_due()
        keepalive.run()
        assert rotator.counts()["dead"] == 1


class TestHow:
    def test_neither_exists_and_nothing_sealed_waits(self, rotator):
        rotator.set(without="both")
        disconnect(sign_in(rotator))
        assert not Ending.objects.exists()
        assert TokenEvent.objects.get(kind="ending_failed").error_code == "no_endpoint"

    def test_a_grant_of_another_client_server_or_site_is_not_sent(self, pending, rotator):
        assert (pending.client_id, pending.site) == (CLIENT, "http://localhost:8080")
        here = {name: getattr(pending, name) for name in ("client_id", "issuer", "site")}
        for name, there in (
            ("client_id", "1-1-another:third-party"),
            ("issuer", "https://login.example/realms/x"),
            ("site", "https://crm.example.org"),
        ):
            Ending.objects.update(**here | {name: there})
            make_due()
            assert keepalive.run().endings_waiting == 1, name
        assert rotator.counts()["revoke_asked"] == 0


class TestPending:
    def test_tokens_open_in_their_own_row_only(self, pending, rotator):
        pending.pk = uuid.uuid4()
        pending.save(force_insert=True)
        make_due()
        assert not endings.deliver(pending.pk)
        assert rotator.counts()["revoke"] == 0
        assert Ending.objects.get(pk=pending.pk).attempts == pending.attempts + 1

    def test_the_next_try_is_half_an_hour_away_at_most(self, pending, rotator):
        Ending.objects.update(attempts=11, next_attempt_at=timezone.now())
        rotator.set(fault="503", times=1)
        assert not endings.deliver(pending.pk)
        assert Ending.objects.get().next_attempt_at <= timezone.now() + timedelta(minutes=30)

    def test_after_a_day_it_is_given_up(self, pending, rotator):
        Ending.objects.update(give_up_at=timezone.now(), next_attempt_at=timezone.now())
        rotator.set(fault="503", times=1)
        assert endings.deliver(pending.pk)
        assert not Ending.objects.exists()
        assert TokenEvent.objects.get(kind="ending_failed").error_code == "503"

    def test_without_the_key_its_connection_and_user_can_still_be_deleted(self, rotator, settings):
        user = sign_in(rotator).user
        settings.SIPGATE_TOKEN_KEYS = [OTHER_KEY]
        user.delete()
        assert not SocialAccount.objects.exists()


UID = "1000000w0"
FAMILY = "one browser session"
CLIENT = "1000000-1-sandbox:third-party"


@pytest.fixture
def pending(rotator: Rotator) -> Ending:
    """A disconnect whose ending sipgate answered with 503."""
    connection = sign_in(rotator)
    rotator.set(fault="503", times=1)
    disconnect(connection)
    return Ending.objects.get()


def sign_in(rotator: Rotator, *, username: str = "one", family: str = FAMILY) -> SocialAccount:
    """Connect the identity ``UID`` with a user of this site, as a completed sign-in does."""
    user, _ = get_user_model().objects.get_or_create(username=username)
    with transaction.atomic():
        connection, _ = SocialAccount.objects.get_or_create(user=user, provider="sipgate", uid=UID)
        tokens.store(connection, of_client(rotator, family))
    return connection


def of_client(rotator: Rotator, family: str = FAMILY) -> Tokens:
    return issued(rotator, family=family, client_id=CLIENT)


def other_connection() -> SocialAccount:
    user = get_user_model().objects.create(username="other")
    return SocialAccount.objects.create(user=user, provider="sipgate", uid=UID)


def disconnect(connection: SocialAccount) -> None:
    connection.delete()
    assert background.errands.wait_idle(10)


def disconnected_while_sipgate_is_away(browser: Browser) -> None:
    browser.sign_in()
    for place in ("revoke", "logout"):
        browser.sandbox.control.fault("unavailable", on=place)
    SocialAccount.objects.all().delete()
    assert background.errands.wait_idle(10)
    assert Ending.objects.get().last_error_code == "503"


def make_due() -> None:
    Ending.objects.update(next_attempt_at=timezone.now())
