"""``sipgate_account``: what sipgate's own example shows, for any user, and one sentence for every trouble."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from sipgate_provider import tokens
from sipgate_provider.models import Reason, SipgateToken, State
from sipgate_provider.tokens import sealing
from sipgate_sandbox.launch import Running
from tests.conftest import Connect
from tests.journey import Browser
from tests.rotating_server import Strict

pytestmark = pytest.mark.django_db(transaction=True)


def shown(*arguments: str) -> str:
    out = io.StringIO()
    call_command("sipgate_account", *arguments, stdout=out)
    return out.getvalue()


def answer(*arguments: str) -> dict[str, Any]:
    (only,) = json.loads(shown(*arguments, "--json"))["connections"]
    return dict(only)


def test_account_refresh_account(connect: Connect, strict: Strict) -> None:
    connection = connect()
    data = answer("person0")
    assert (data["user"], data["uid"], data["state"]) == ("person0", connection.uid, "active")
    assert data["account"]["company"] == data["account_after_refresh"]["company"] == "Strict GmbH"
    assert data["refreshed"] == {"from": 1, "to": 2}
    assert (strict.counts()["refresh"], strict.counts()["api"]) == (1, 2)


def test_without_a_refresh(connect: Connect, strict: Strict) -> None:
    connect()
    data = answer("person0", "--no-refresh")
    assert "refreshed" not in data
    assert (strict.counts()["refresh"], strict.counts()["api"]) == (0, 1)


def test_as_a_table(browser: Browser, sandbox: Running) -> None:
    browser.sign_in()
    text = shown("1000000w0")
    lines = dict(line.split("  ", 1) for line in text.splitlines())
    assert lines["company"].strip() == "Rosenduft Gartenbau GmbH"
    assert lines["token refreshed"].strip().startswith("generation 1 → 2")
    assert lines["account again"].strip() == "the same"
    assert (
        len({len(line) - len(line.split("  ", 1)[1].lstrip()) for line in text.splitlines()}) == 1
    )


def test_a_user_is_found_by_name_address_and_sipgate_id(connect: Connect) -> None:
    connection = connect()
    get_user_model().objects.filter(pk=connection.user_id).update(email="Rosa@sipgate.example")
    EmailAddress.objects.create(user=connection.user, email="second@sipgate.example", verified=True)
    for name in ("person0", "rosa@sipgate.example", "SECOND@sipgate.example", connection.uid):
        assert answer(name, "--no-refresh")["uid"] == connection.uid


def test_every_connection_of_a_user_is_shown_and_one_if_its_id_is_given(connect: Connect) -> None:
    first, second = connect(), connect()
    SocialAccount.objects.filter(pk=second.pk).update(user=first.user)
    assert len(json.loads(shown("person0", "--json"))["connections"]) == 2
    assert answer(second.uid)["uid"] == second.uid


def test_no_token_is_shown(connect: Connect) -> None:
    connection = connect()
    for arguments in ([], ["--json"], ["--no-refresh"]):
        text = shown("person0", *arguments)
        row = tokens.load(connection.pk)
        pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
        assert not [
            secret
            for secret in (pair.access_token, pair.refresh_token, "sandbox-secret")
            if str(secret) in text
        ]


class TestTrouble:
    def sentence(self, *arguments: str) -> str:
        with pytest.raises(CommandError) as failed:
            call_command("sipgate_account", *arguments)
        text = str(failed.value)
        assert "\n" not in text
        assert text.endswith(".")
        return text

    def test_an_unknown_user(self) -> None:
        assert (
            self.sentence("nobody")
            == "There is no user with the name, e-mail address or sipgate id nobody."
        )

    def test_an_address_of_two(self) -> None:
        for name in ("a", "b"):
            get_user_model().objects.create(username=name, email="two@sipgate.example")
        assert self.sentence("two@sipgate.example").startswith("2 users have the address")

    def test_no_connection(self) -> None:
        get_user_model().objects.create(username="rosa")
        assert "has no sipgate connection" in self.sentence("rosa")

    def test_a_connection_without_token(self, connect: Connect) -> None:
        SipgateToken.objects.filter(pk=connect().pk)._raw_delete("default")
        assert "has no sipgate token" in self.sentence("person0")

    def test_one_that_needs_its_person(self, connect: Connect) -> None:
        connect(state=State.NEEDS_SIGN_IN, reason=Reason.EXPIRED_IDLE)
        assert (
            self.sentence("person0")
            == "person0 has to sign in to sipgate again: it was not used for too long."
        )

    def test_one_that_sipgate_refuses_now(self, connect: Connect, strict: Strict) -> None:
        connect()
        strict.control(kill=True)
        assert "has to sign in to sipgate again" in self.sentence("person0")

    def test_a_refused_client(self, connect: Connect, strict: Strict) -> None:
        connect()
        strict.set(fault="client", times=1)
        text = self.sentence("person0")
        assert ("secret in SOCIALACCOUNT_PROVIDERS" in text, "sipgate_doctor" in text) == (
            True,
            True,
        )

    def test_sipgate_down(self, connect: Connect, strict: Strict) -> None:
        connect()
        strict.set(fault="503", times=1)
        assert "HTTP 503" in self.sentence("person0")

    def test_a_missing_permission(self, browser: Browser, sandbox: Running, settings: Any) -> None:
        browser.sign_in()
        sandbox.control.fault("forbidden", on="account")
        assert "allow account:read" in self.sentence("1000000w0")
