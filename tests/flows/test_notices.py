"""A connection needs its user: one mail and one banner per incident, one click to repair it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.core import mail
from django.utils import timezone, translation
from django.utils.formats import date_format

from sipgate_provider import background, errors, tokens
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.ops import keepalive, notices
from tests.flows.conftest import addressed

pytestmark = pytest.mark.django_db(transaction=True)


class TestUsers:
    def test_one_mail_per_incident_after_a_second_rejection(self, connect, rotator):
        name = {"firstname": "<b>Erika", "lastname": "& Co"}
        connection = addressed(connect(age=400), "erika@example.org", **name)
        rotator.control(kill=True)
        with pytest.raises(errors.NeedsSignIn):
            tokens.token(connection)
        assert keepalive.run().mails == 0, "sipgate may take a rejection back"
        an_hour_later()
        assert [keepalive.run().mails for _ in range(3)] == [0, 1, 0]
        [message] = mail.outbox
        assert message.to == ["erika@example.org"]
        assert message.subject == "sipgate for Django: sipgate needs you to sign in again"
        since = timezone.localtime(tokens.load(connection.pk).state_since)
        with translation.override("en"):
            assert date_format(since, "DATETIME_FORMAT") in message.body
        assert "sipgate account <b>Erika & Co." in message.body
        assert "http://localhost:8080/accounts/sipgate/login/?process=login" in message.body
        assert not re.search(r"at-|rt-|Session not active", message.body)
        assert message.alternatives == []
        assert TokenEvent.objects.filter(kind=TokenEvent.Kind.NOTIFIED).count() == 1

    def test_another_incident_is_another_mail(self, connect):
        connection = ended(addressed(connect()))
        assert keepalive.run().mails == 1
        now = timezone.now()
        SipgateToken.objects.filter(pk=connection.pk).update(state_since=now)
        assert keepalive.run().mails == 1

    def test_at_most_twenty_in_a_run(self, connect, monkeypatch):
        """sipgate rejects everybody: that is not the users' fault, and rarely stays so."""
        monkeypatch.setattr(notices, "MOST", 2)
        for number in range(5):
            ended(addressed(connect(), f"p{number}@example.org"))
        assert [keepalive.run().mails for _ in range(4)] == [2, 2, 1, 0]

    def test_in_the_language_of_the_user(self, connect):
        chosen = addressed(connect(), locale="de_DE", language="en")
        assert notices.language_of(chosen) == "en"
        ended(addressed(connect(), locale="de_DE"))
        keepalive.run()
        assert "anmelden" in mail.outbox[0].subject

    def test_in_the_language_that_was_chosen_after_the_sign_in(self, browser):
        browser.sign_in()
        for language, word in (("de", "anmelden"), ("en", "sign in again")):
            browser.site.post("/i18n/setlang/", {"language": language})
            connection = ended(SocialAccount.objects.get(), notified_at=None)
            email = {"email": f"{language}@example.org", "verified": True}
            EmailAddress.objects.update_or_create(user=connection.user, defaults=email)
            keepalive.run()
            assert word in mail.outbox[-1].subject

    def test_a_mail_server_that_is_away_is_tried_again(self, connect, settings):
        connection = ended(addressed(connect()))
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
        assert keepalive.run().mails == 0
        assert tokens.load(connection.pk).notified_at is None
        settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
        assert keepalive.run().mails == 1

    def test_who_is_not_told(self, connect, settings):
        for who in ("olga", "user"):
            tokens.end(addressed(connect()).pk, by=who)
        SipgateToken.objects.update(state_since=timezone.now() - timedelta(minutes=6))
        ended(connect())  # has no address
        ended(addressed(connect()), state_since=timezone.now() - timedelta(days=4))
        assert keepalive.run().mails == 0
        ended(addressed(connect()))
        settings.SIPGATE_NOTICES = False
        assert keepalive.run().mails == 0
        assert mail.outbox == []


class TestOperators:
    def test_learn_once_that_the_client_is_rejected(self, connect, rotator, settings):
        settings.ADMINS = [("Olga", "olga@example.org")]
        rotator.set(fault="client", times=10)
        for connection in [connect(age=400) for _ in range(3)]:
            with pytest.raises(errors.Misconfigured):
                tokens.token(connection)
        assert background.errands.wait_idle(10)
        [message] = mail.outbox
        assert message.to == ["olga@example.org"]
        assert "secret in SOCIALACCOUNT_PROVIDERS" in message.body


class TestBanner:
    def test_leads_to_sipgate_and_back_to_the_page(self, browser):
        browser.sign_in()
        connection = SocialAccount.objects.get()
        browser.sandbox.control.kill_session()
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(connection)
        for path in ("/accounts/settings/", "/accounts/email/?x=1"):
            page = browser.site.get(path).content.decode()
            assert page.count("sipgate needs you to sign in again") == 1, path
        [action] = re.findall(r'action="(/accounts/sipgate/login/[^"]*)"', page)
        response = browser.site.post(action.replace("&amp;", "&"))
        callback = browser.consent(response.headers["Location"])
        assert browser.site.get(callback).headers["Location"] == "/accounts/email/?x=1"
        assert SocialAccount.objects.get() == connection
        assert SipgateToken.objects.get().state == "active"
        assert "sign in again" not in browser.site.get("/accounts/email/").content.decode()


def ended(connection: SocialAccount, **changes: Any) -> SocialAccount:
    """Let a connection need a sign-in for certain, since a moment ago."""
    moment = {"state_since": timezone.now() - timedelta(minutes=1)}
    values = {"state": State.NEEDS_SIGN_IN, "reason": Reason.EXPIRED_IDLE, **moment, **changes}
    SipgateToken.objects.filter(pk=connection.pk).update(**values)
    return connection


def an_hour_later() -> None:
    """Let an hour pass, after which keepalive tries again what sipgate rejected."""
    now = timezone.now()
    then = now - timedelta(minutes=61)
    SipgateToken.objects.update(state_since=then, last_rejected_at=then, next_attempt_at=now)
