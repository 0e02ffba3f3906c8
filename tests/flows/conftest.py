"""Fixtures of the journeys: secrets, collected on their way in."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sipgate_provider.remote.oauth import Tokens
from sipgate_provider.sign_in import oauth


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

    def parse(cls, data, **options):
        grant = real(cls, data, **options)
        found.learn("access token", grant.access_token)
        found.learn("refresh token", grant.refresh_token)
        return grant

    monkeypatch.setattr(Tokens, "parse", classmethod(parse))
    real_exchange = oauth.SipgateOAuth2Client.exchange

    def exchange(self, code, verifier):
        found.learn("code", code)
        found.learn("verifier", verifier)
        found.learn("client secret", self.consumer_secret)
        return real_exchange(self, code, verifier)

    monkeypatch.setattr(oauth.SipgateOAuth2Client, "exchange", exchange)
    found.learn("key", settings.SIPGATE_TOKEN_KEYS[0])
    return found
