"""Fixtures of the journeys, and what several of their files do."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.utils import timezone

from sipgate_provider import errors, tokens
from sipgate_provider.models import SipgateToken
from sipgate_provider.remote import oauth
from sipgate_provider.remote.oauth import Tokens
from sipgate_provider.tokens import journal
from tests.conftest import issued
from tests.journey import Browser
from tests.rotator import Rotator

OTHER_KEY = "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItMTI="


@pytest.fixture
def local(browser: Browser) -> Browser:
    """Somebody with a password here and no sipgate connection."""
    browser.log_in(get_user_model().objects.create_user("local", password="correct horse battery"))
    return browser


AskFor = Callable[..., None]


@pytest.fixture
def ask_for(settings: Any) -> AskFor:
    """Let sign-ins from now on ask for some scopes."""
    apps = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"]

    def ask_for(*scopes: str, **more: Any) -> None:
        settings.SIPGATE_SCOPE = scopes
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": apps, "SCOPE": [*scopes], **more}}

    return ask_for


@pytest.fixture
def folder(settings: Any, tmp_path: Path) -> Path:
    """The folder of the journal, which there is none of without this."""
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
    return tmp_path / "journal"


def waiting(connection: SocialAccount, rotator: Rotator) -> Path:
    """Let tokens wait in the journal, as a process leaves them that was killed before it could
    store them."""
    version = tokens.load(connection.pk).version
    path = journal.write(version._replace(number=version.number + 1), issued(rotator))
    assert path is not None
    return path


def fail(connection: SocialAccount, rotator: Rotator, fault: str) -> SipgateToken:
    """Let a refresh fail; return the row."""
    rotator.set(fault=fault, times=1)
    with pytest.raises(errors.SipgateError):
        tokens.refresh(connection)
    return tokens.load(connection.pk)


def go_back(values: dict[str, Any]) -> None:
    """Let the database lose the commits since ``values`` were read; the access token is over by
    now."""
    SipgateToken.objects.filter(pk=values["connection_id"]).update(**values)
    SipgateToken.objects.update(expires_at=timezone.now() - timedelta(seconds=100))


def addressed(connection: SocialAccount, address: str = "", **extra: str) -> SocialAccount:
    """Give the connection's user a verified address."""
    address = address or f"user{connection.pk}@example.org"
    EmailAddress.objects.create(user=connection.user, email=address, primary=True, verified=True)
    connection.extra_data = extra
    connection.save()
    return connection


def command(name: str, *arguments: str) -> tuple[int, str]:
    """Run a command that ends with an exit code; return that, and what it says."""
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command(name, *arguments, stdout=out, no_color=True)
    return int(ended.value.code or 0), out.getvalue()


class Secrets:
    """What must not leak, and where it was looked for."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def learn(self, kind: str, value: str | None) -> None:
        if value:
            self.known[kind + str(len(self.known))] = value

    def assert_absent(self, place: str, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        for kind, value in self.known.items():
            # A JWT's beginning is the same in all of them: its signature is what tells.
            needle = value.rpartition(".")[2][-60:].encode()
            assert needle not in data, f"{kind} in {place}"
            assert base64.b64encode(needle[:45]) not in data, f"{kind} in {place}, encoded"


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Secrets:
    """Learn every token, code, verifier and key that the test meets."""
    found = Secrets()
    real = Tokens.parse.__func__

    def parse(cls: type[Tokens], data: object, **options: Any) -> Tokens:
        made = real(cls, data, **options)
        found.learn("access token", made.access_token)
        found.learn("refresh token", made.refresh_token)
        return made

    monkeypatch.setattr(Tokens, "parse", classmethod(parse))
    real_exchange = oauth.exchange_code

    def exchange(client: oauth.Client, **of_the_callback: Any) -> Tokens:
        found.learn("code", of_the_callback["code"])
        found.learn("verifier", of_the_callback["code_verifier"])
        found.learn("client secret", client.client_secret)
        return real_exchange(client, **of_the_callback)

    monkeypatch.setattr(oauth, "exchange_code", exchange)
    found.learn("key", settings.SIPGATE_TOKEN_KEYS[0])
    return found
