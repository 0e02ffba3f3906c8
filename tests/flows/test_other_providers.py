"""Other providers of a site keep allauth's own ways: our adapter is there for sipgate only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from allauth.socialaccount.models import SocialToken
from allauth.socialaccount.providers import registry
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from django.test import Client
from django.urls import include, path

from sipgate_provider.adapter import SipgateSocialAccountAdapter
from tests.journey import HOST
from tests.raw_server import RawServer, of_json, serving, whole

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
def another_provider(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    """A provider of OpenID Connect whose discovery document has moved."""
    registry.load()
    monkeypatch.setitem(registry.provider_map, "openid_connect", OpenIDConnectProvider)
    moved = whole("301 Moved", b"", location="/moved/openid-configuration")
    found = of_json({"authorization_endpoint": AUTHORIZE, "token_endpoint": AUTHORIZE})
    with serving(moved, found) as server:
        app = {
            "provider_id": "another",
            "name": "Another",
            "client_id": "one",
            "secret": "two",
            "settings": {"server_url": f"{server.url}/.well-known/openid-configuration"},
        }
        settings.SOCIALACCOUNT_PROVIDERS = {
            **settings.SOCIALACCOUNT_PROVIDERS,
            "openid_connect": {"APPS": [app]},
        }
        yield server
