"""When a link needs its person: one mail and one banner per incident, one click to repair it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.core import mail
from django.db import connection as connection_of_database
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.formats import date_format

from sipgate_provider import errors, tokens
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.ops import keepalive, notices
from sipgate_provider.tokens import rows
from tests.conftest import Connect
from tests.journey import Browser
from tests.rotating_server import Strict

pytestmark = pytest.mark.django_db(transaction=True)

AGAIN = "sipgate for Django: sipgate needs you to sign in again"


def addressed(
    connection: SocialAccount, address: str = "erika@example.org", **extra: str
) -> SocialAccount:
    EmailAddress.objects.create(user=connection.user, email=address, primary=True, verified=True)
    connection.extra_data = extra
    connection.save()
    return connection


def fail(connection: SocialAccount) -> None:
    with pytest.raises(errors.NeedsSignIn):
        tokens.token(connection)
    assert tokens.errands.wait_idle(10)


def fail_twice(connection: SocialAccount) -> None:
    """Let sipgate refuse a connection, again an hour later, and keepalive tell its person."""
    fail(connection)
    hour = timedelta(minutes=61)
    now = timezone.now()
    SipgateToken.objects.filter(pk=connection.pk).update(
        state_since=now - hour, next_attempt_at=now
    )
    fail(connection)
    keepalive.run(rate=0)


class TestMail:
    def test_one_per_incident_not_per_failure(self, connect: Connect, strict: Strict) -> None:
        connection = addressed(connect(age=400))
        strict.control(kill=True)
        fail(connection)
        assert (mail.outbox, keepalive.run(rate=0).notified) == ([], 0), (
            "a refusal may be taken back"
        )
        for _ in range(3):
            fail_twice(connection)
        [message] = mail.outbox
        assert (message.to, message.subject) == (
            ["erika@example.org"],
            "sipgate for Django: sipgate needs you to sign in again",
        )
        assert "http://localhost:8080/accounts/sipgate/login/?process=login" in message.body
        assert TokenEvent.objects.filter(kind=TokenEvent.Kind.NOTIFIED).count() == 1
        assert keepalive.run(rate=0).notified == 0

    def test_another_incident_is_another_mail(self, connect: Connect, strict: Strict) -> None:
        from sipgate_provider.remote import oauth

        connection = addressed(connect(age=400))
        for _ in range(2):
            strict.control(kill=True)
            fail_twice(connection)
            issued = timezone.now() - timedelta(seconds=400)
            tokens.store(connection, oauth.Grant.parse(strict.issue()[0], issued_at=issued))
        assert len(mail.outbox) == 2

    def test_in_the_language_of_the_person(self, connect: Connect, strict: Strict) -> None:
        connection = addressed(connect(age=400), locale="de_DE")
        strict.control(kill=True)
        fail_twice(connection)
        assert notices.language_of(connection) == "de"
        assert "anmelden" in mail.outbox[0].subject

    def test_in_the_language_that_was_chosen_here(self, connect: Connect) -> None:
        connection = addressed(connect(), locale="de_DE", language="en")
        assert notices.language_of(connection) == "en"

    def test_says_what_happened_since_when_and_has_one_button(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = addressed(connect(age=400), firstname="<b>Erika", lastname="& Co")
        strict.control(kill=True)
        fail_twice(connection)
        [message] = mail.outbox
        since = date_format(
            timezone.localtime(tokens.load(connection.pk).state_since), "DATETIME_FORMAT"
        )
        assert (
            f"since {since}, sipgate for Django can no longer use your sipgate account <b>Erika & Co."
            in message.body
        )
        [(html, kind)] = message.alternatives
        assert kind == "text/html"
        assert "account &lt;b&gt;Erika &amp; Co." in html
        address = re.search(r"http://localhost:8080\S+", message.body)[0]
        assert re.findall(r'href="([^"]*)"', html) == [address.replace("&", "&amp;")]
        assert html.count("Sign in again</a>") == 1

    def test_no_secret_and_no_reason_of_sipgate_is_in_it(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = addressed(connect(age=400))
        strict.control(kill=True)
        fail_twice(connection)
        assert not re.search(r"at-|rt-|Session not active", mail.outbox[0].body)

    def test_a_mail_server_that_is_away_is_tried_again_by_upkeep(
        self, connect: Connect, strict: Strict, settings: Any
    ) -> None:
        connection = addressed(connect(age=400))
        strict.control(kill=True)
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
        fail_twice(connection)
        assert tokens.load(connection.pk).notified_at is None
        settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
        assert keepalive.run(rate=0).notified == 1
        assert len(mail.outbox) == 1

    def test_nobody_is_told_of_what_was_revoked(self, connect: Connect) -> None:
        connection = addressed(connect())
        rows.clear(tokens.load(connection.pk), reason=Reason.REVOKED, now=timezone.now())
        assert not notices.tell_person(connection.pk)

    def test_can_be_switched_off(self, connect: Connect, strict: Strict, settings: Any) -> None:
        settings.SIPGATE_NOTICES = False
        connection = addressed(connect(age=400))
        strict.control(kill=True)
        fail(connection)
        assert mail.outbox == []

    def test_operators_learn_once_that_the_client_is_refused(
        self, connect: Connect, strict: Strict, settings: Any
    ) -> None:
        settings.ADMINS = [("Olga", "olga@example.org")]
        connections = [connect(age=400) for _ in range(3)]
        strict.set(fault="client", times=10)
        for connection in connections:
            with pytest.raises(errors.Misconfigured):
                tokens.token(connection)
        assert tokens.errands.wait_idle(10)
        [message] = mail.outbox
        assert message.to == ["olga@example.org"]
        assert "secret in SOCIALACCOUNT_PROVIDERS" in message.body


class TestStorm:
    """sipgate refuses everybody: that is not their people's fault."""

    def refuse(self, connections: list[SocialAccount]) -> None:
        now = timezone.now()
        SipgateToken.objects.filter(pk__in=[connection.pk for connection in connections]).update(
            state=State.NEEDS_SIGN_IN,
            reason=Reason.REFUSED,
            state_since=now - timedelta(hours=2),
            last_refused_at=now,
            next_attempt_at=now + timedelta(hours=2),
        )

    def test_people_are_not_told_and_operators_once(self, connect: Connect, settings: Any) -> None:
        settings.ADMINS = [("Olga", "olga@example.org")]
        self.refuse([addressed(connect(), f"p{number}@example.org") for number in range(12)])
        for _ in range(2):
            assert keepalive.run(rate=0).notified == 0
        [message] = mail.outbox
        assert (message.to, "Nobody was told" in message.body) == (["olga@example.org"], True)
        SipgateToken.objects.update(next_attempt_at=timezone.now())
        assert keepalive.run(rate=0).refreshed == 12, "the refusal was taken back"
        assert len(mail.outbox) == 1

    def crowd(self, number: int, *, addresses: int) -> list[SocialAccount]:
        """Make connections that nobody has used for a day; so many of their people can be written to."""
        now = timezone.now()
        model = get_user_model()
        users = model.objects.bulk_create(model(username=f"p{count}") for count in range(number))
        people = SocialAccount.objects.bulk_create(
            SocialAccount(user=user, provider="sipgate", uid=f"{2_000_000 + count}w0")
            for count, user in enumerate(users)
        )
        EmailAddress.objects.bulk_create(
            EmailAddress(
                user=user, email=f"{user.username}@example.org", primary=True, verified=True
            )
            for user in users[:addresses]
        )
        SipgateToken.objects.bulk_create(
            SipgateToken(
                connection=connection,
                sealed=b"never opened here",
                issued_at=now - timedelta(days=1),
                expires_at=now - timedelta(days=1),
                keepalive_at=now + timedelta(days=9),
                consented_at=now - timedelta(days=1),
                state_since=now - timedelta(days=1),
                last_refreshed_at=now - timedelta(days=1),
            )
            for connection in people
        )
        return people

    def an_hour_later(self) -> None:
        hour = timedelta(hours=1)
        SipgateToken.objects.exclude(last_refused_at=None).update(
            state_since=F("state_since") - hour, last_refused_at=F("last_refused_at") - hour
        )

    def test_a_thousand_refused_connections_mail_nobody(self, settings: Any) -> None:
        settings.ADMINS = [("Olga", "olga@example.org")]
        self.refuse(self.crowd(1_000, addresses=1_000))
        with CaptureQueriesContext(connection_of_database) as queries:
            assert notices.is_storm(timezone.now())
        assert len(queries) == 2
        for _ in range(2):
            assert keepalive.run(rate=0).notified == 0
        assert [message.to for message in mail.outbox] == [["olga@example.org"]]

    def test_one_company_among_a_thousand_is_told_at_once_on_a_busy_site(self) -> None:
        people = self.crowd(1_000, addresses=60)
        SipgateToken.objects.update(last_refreshed_at=timezone.now())
        self.refuse(people[:60])
        assert keepalive.run(rate=0).notified == 60
        assert {message.to[0] for message in mail.outbox} == {
            f"p{count}@example.org" for count in range(60)
        }

    def test_one_company_among_a_thousand_is_told_later_on_a_quiet_site(
        self, settings: Any
    ) -> None:
        """More are refused than refreshed, as in a storm; but a storm would go on, and this is over in an hour."""
        settings.ADMINS = [("Olga", "olga@example.org")]
        people = self.crowd(1_000, addresses=60)
        SipgateToken.objects.filter(
            pk__in=[connection.pk for connection in people[500:530]]
        ).update(last_refreshed_at=timezone.now())
        self.refuse(people[:60])
        assert keepalive.run(rate=0).notified == 0
        self.an_hour_later()
        assert keepalive.run(rate=0).notified == 60, "a delay, never silence"
        assert len(mail.outbox) == 61
        assert keepalive.run(rate=0).notified == 0


class TestBanner:
    def test_leads_to_sipgate_and_back_to_the_page(self, browser: Browser) -> None:
        browser.sign_in()
        connection = SocialAccount.objects.get()
        history = TokenEvent.objects.count()
        browser.sandbox.control.kill_session()
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(connection)
        page = browser.site.get("/accounts/email/?x=1").content.decode()
        assert page.count("sipgate wants you to sign in again") == 1
        [action] = re.findall(r'action="(/accounts/sipgate/login/[^"]*)"', page)
        response = browser.site.post(action.replace("&amp;", "&"))
        callback = browser.consent(response.headers["Location"])
        assert browser.site.get(callback).headers["Location"] == "/accounts/email/?x=1"
        assert SocialAccount.objects.get() == connection
        assert SipgateToken.objects.get().state == "active"
        assert "sign in again" not in browser.site.get("/accounts/email/").content.decode()
        assert TokenEvent.objects.count() > history
        assert get_user_model().objects.count() == 1

    def test_is_not_shown_where_the_page_says_it_anyway(self, browser: Browser) -> None:
        browser.sign_in()
        browser.sandbox.control.kill_session()
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(SocialAccount.objects.get())
        assert (
            browser.site.get("/").content.decode().count("sipgate wants you to sign in again") == 1
        )
