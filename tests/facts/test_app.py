"""What the app does with either server.

It ends the grant it means to end and no other, knows how long a connection lives, and its doctor
finds out what the client may ask for, without a person.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.core import checks
from django.utils import timezone

from sipgate_provider import background, tokens
from sipgate_provider.models import Ending, Reason, SipgateToken
from sipgate_provider.ops import doctor, keepalive
from sipgate_provider.remote import oauth, questions
from sipgate_sandbox.scopes import SCOPES
from tests.facts.server import ROSA, AuthorizationServer, Browser
from tests.raw_server import serving, whole

pytestmark = pytest.mark.django_db(transaction=True)


class TestEnding:
    def test_a_disconnect_leaves_other_applications_alone(self, server, browser):
        other = server.grant(browser, client=server.other_client)
        mine = server.grant(browser)
        disconnect(connect(server, browser))
        assert server.rejects(mine), "of the same browser session"
        server.refreshed(other, server.other_client)

    def test_without_revocation_a_disconnect_ends_other_applications(
        self, server, browser, settings
    ):
        settings.SIPGATE_REVOKE_URL = f"{server.oidc_url}/there-is-no-such-endpoint"
        other = server.grant(browser, client=server.other_client)
        disconnect(connect(server, browser))
        assert server.refresh(other, server.other_client).status_code == 400

    def test_a_late_revocation_does_not_end_a_later_sign_in(self, server, browser, settings):
        settings.SIPGATE_REVOKE_URL = nowhere()
        disconnect(connect(server, browser))
        assert Ending.objects.get().last_error_code == "connection"
        settings.SIPGATE_REVOKE_URL = ""
        connection = connect(server, browser)
        Ending.objects.filter(next_attempt_at__isnull=False).update(next_attempt_at=timezone.now())
        keepalive.run()
        assert tokens.refresh(connection, by="test").number == 2

    def test_a_second_sign_in_ends_nothing(self, server, browser, new_browser):
        connection = connect(server, browser)
        for other in (browser, new_browser()):
            connect(server, other)
        assert background.errands.wait_idle(60)
        assert Ending.objects.count() == 0
        assert tokens.refresh(connection, by="test").number == 4

    def test_a_spent_token_ends_the_grant_too(self, server, browser):
        grant = server.grant(browser)
        newer = server.refreshed(grant)
        client = oauth.Client(
            client_id=server.client.id,
            client_secret=server.client.secret,
            token_url=f"{server.oidc_url}/token",
            revoke_url=f"{server.oidc_url}/revoke",
        )
        assert oauth.end_grant(client, grant["refresh_token"]) == oauth.EndedBy.REVOCATION
        assert server.rejects(newer)
        assert oauth.end_grant(client, "nonsense") == oauth.EndedBy.REVOCATION


class TestLifetime:
    def test_offline_access_has_an_unknown_end(self, server, browser):
        row = tokens.load(connect(server, browser, scope="account:read offline_access").pk)
        assert row is not None
        assert (row.refresh_expires_at, row.is_tied_to_browser) == (None, False)

    def test_a_session_with_a_maximum_has_a_fixed_end(self, server, browser):
        server.set_lifetimes(session=3600)
        connection = connect(server, browser)
        SipgateToken.objects.update(issued_at=timezone.now() - timedelta(minutes=10))
        tokens.refresh(connection, by="test")
        row = tokens.load(connection.pk)
        assert row is not None
        assert row.reason == Reason.FIXED_END
        assert row.keepalive_at == row.refresh_expires_at

    def test_any_other_end_moves(self, server, browser):
        connection = connect(server, browser)
        row = tokens.load(connection.pk)
        assert row is not None
        assert row.refresh_expires_at is not None
        earlier = timedelta(minutes=10)
        SipgateToken.objects.update(
            issued_at=row.issued_at - earlier, refresh_expires_at=row.refresh_expires_at - earlier
        )
        tokens.refresh(connection, by="test")
        assert SipgateToken.objects.get().reason == ""


class TestDoctor:
    @pytest.fixture(autouse=True)
    def busy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give a server on a busy machine a minute to answer."""
        monkeypatch.setattr(questions, "TIMEOUT", (60.0, 60.0))

    @staticmethod
    def troubles() -> dict[str, str]:
        """Return the answers of sipgate that are not fine."""
        found = [one for one in doctor.diagnose() if str(one.id).startswith("sipgate.")]
        return {str(one.id): one.msg for one in found if one.level >= checks.WARNING}

    def test_all_is_well(self, server):
        found = {one.id: one.msg for one in doctor.diagnose()}
        assert self.troubles() == {}
        assert "may ask for offline_access" in found["sipgate.offline_access"]

    def test_scopes(self, server, settings):
        server.set_client_scopes(set(SCOPES) - {"balance:read", "offline_access"})
        settings.SIPGATE_SCOPE = ["account:read", "balance:read", "contacts:read", "nonsense"]
        assert "may not ask for balance:read, nonsense:" in self.troubles()["sipgate.scopes"]
        settings.SIPGATE_SCOPE = ["account:read"]
        found = {one.id: one.msg for one in doctor.diagnose()}
        assert "may not ask for offline_access" in found["sipgate.offline_access"]

    def test_each_wrong_setting(self, server, settings):
        client = {"client_id": server.client.id, "secret": "wrong"}
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": [client]}}
        assert [*self.troubles()] == ["sipgate.token"]
        client["client_id"] = "unknown"
        assert {"sipgate.authorization", "sipgate.token"} <= {*self.troubles()}
        client |= {"client_id": server.client.id, "secret": server.client.secret}
        settings.SIPGATE_REDIRECT_URI = "http://127.0.0.1:8080/oauth"
        assert [*self.troubles()] == ["sipgate.authorization"]


@pytest.fixture(autouse=True)
def _site(server: AuthorizationServer, settings: Any) -> Iterator[None]:
    """The settings of a site whose sipgate is this server."""
    settings.SIPGATE_AUTH_URL = f"{server.oidc_url}/auth"
    settings.SIPGATE_TOKEN_URL = f"{server.oidc_url}/token"
    client = {"client_id": server.client.id, "secret": server.client.secret}
    settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": [client]}}
    del settings.PORT
    with serving(whole("401 Unauthorized", b"")) as rest_api:
        settings.SIPGATE_API_URL = rest_api.url
        yield


def connect(server: AuthorizationServer, browser: Browser, **changes: str | None) -> SocialAccount:
    """Sign in at the server and store the tokens, as a completed sign-in does."""
    answer = server.grant(browser, **changes)
    user, _ = get_user_model().objects.get_or_create(username="rosa")
    connection, _ = SocialAccount.objects.get_or_create(user=user, provider="sipgate", uid=ROSA)
    tokens.store(connection, oauth.Tokens.parse(answer, issued_at=datetime.now(UTC)))
    return connection


def disconnect(connection: SocialAccount) -> None:
    connection.delete()
    assert background.errands.wait_idle(60)


def nowhere() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/revoke"
