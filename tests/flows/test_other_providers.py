"""Other providers of a site keep allauth's own ways: our adapter is there for sipgate only."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.socialaccount.models import SocialToken
from allauth.socialaccount.providers import registry
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from django.test import Client
from django.urls import include, path

from sipgate_provider.adapter import SipgateSocialAccountAdapter
from tests.journey import HOST
from tests.scripted_server import Answer, Asked, ScriptedServer

AUTHORIZE = "https://another.example/authorize"
urlpatterns = [
    path("accounts/", include("allauth.socialaccount.providers.openid_connect.urls")),
    path("", include("sipgate_project.urls")),
]


@pytest.mark.urls(__name__)
@pytest.mark.django_db
def test_a_discovery_document_behind_a_redirect_is_found(another_provider):
    started = Client(headers={"host": HOST}).post("/accounts/oidc/another/login/")
    assert started.status_code == 302
    assert started.headers["Location"].startswith(f"{AUTHORIZE}?")


def test_a_pending_sign_up_needs_none_of_our_keys(settings):
    settings.SIPGATE_TOKEN_KEYS, settings.DEBUG = (), False
    adapter = SipgateSocialAccountAdapter()
    pending = adapter.serialize_instance(SocialToken(token="theirs", token_secret="secret"))
    assert adapter.deserialize_instance(SocialToken, pending).token == "theirs"


@pytest.fixture
def another_provider(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A provider of OpenID Connect whose discovery document has moved."""
    registry.load()
    monkeypatch.setitem(registry.provider_map, "openid_connect", OpenIDConnectProvider)

    def answer(asked: Asked) -> Answer:
        if asked.path.startswith("/moved"):
            endpoints = {"authorization_endpoint": AUTHORIZE, "token_endpoint": AUTHORIZE}
            return Answer(data=endpoints)
        return Answer(301, headers={"Location": "/moved/openid-configuration"})

    with ScriptedServer() as server:
        server.answer = answer
        address = f"{server.api_url}/.well-known/openid-configuration"
        app = {
            "provider_id": "another",
            "name": "Another",
            "client_id": "one",
            "secret": "two",
            "settings": {"server_url": address},
        }
        settings.SOCIALACCOUNT_PROVIDERS = {
            **settings.SOCIALACCOUNT_PROVIDERS,
            "openid_connect": {"APPS": [app]},
        }
        yield server
