"""The client over real HTTP: what an integrator gets from the sandbox, from the strict server, and from bare sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser

from sipgate_provider import errors
from sipgate_provider.client import SipgateClient
from sipgate_sandbox.launch import Running
from tests.conftest import Connect
from tests.journey import Browser
from tests.strict import Strict

pytestmark = pytest.mark.django_db(transaction=True)

User = get_user_model()
SCOPES = ["account:read", "users:read", "numbers:read", "history:read", "devices:read", "balance:read", "sessions:sms:write"]  # fmt: skip


@pytest.fixture
def granted(settings: Any) -> Callable[[list[str]], None]:
    """Let sign-ins ask for these scopes."""

    def ask_for(scopes: list[str]) -> None:
        app = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"]
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": app, "SCOPE": scopes}}

    return ask_for


@pytest.fixture
def client(browser: Browser, granted: Callable[[list[str]], None]) -> SipgateClient:
    """The client of somebody who allowed everything these tests need."""
    granted(SCOPES)
    browser.sign_in()
    browser.sandbox.control.reset()
    return SipgateClient(SocialAccount.objects.get())


def asked(sandbox: Running, route: str) -> int:
    return int(sandbox.control.state().get(route, 0))


class TestWhose:
    def test_of_several_connections_the_oldest(self, connect: Connect) -> None:
        oldest, other = connect(), connect()
        SocialAccount.objects.filter(pk=other.pk).update(user=oldest.user)
        assert SipgateClient.for_user(oldest.user).connection == oldest
        assert [one.connection for one in SipgateClient.all_for_user(oldest.user)] == [oldest, other]

    def test_by_uid(self, connect: Connect) -> None:
        connection = connect()
        client = SipgateClient.for_uid(connection.uid)
        assert client.connection == connection
        assert client.user_id == "w0"

    def test_nobody(self, db: None) -> None:
        user = User.objects.create(username="alone")
        for call in (lambda: SipgateClient.for_user(user), lambda: SipgateClient.for_user(AnonymousUser())):
            with pytest.raises(errors.NotConnected):
                call()
        with pytest.raises(errors.NotConnected):
            SipgateClient.for_uid("1w0")
        assert list(SipgateClient.all_for_user(user)) == list(SipgateClient.all_for_user(AnonymousUser())) == []

    def test_another_provider_is_refused(self, db: None) -> None:
        user = User.objects.create(username="other")
        foreign = SocialAccount.objects.create(user=user, provider="github", uid="1")
        with pytest.raises(ValueError, match="sipgate"):
            SipgateClient(foreign)
        with pytest.raises(errors.NotConnected):
            SipgateClient.for_user(user)

    def test_repr_shows_the_uid_only(self, connect: Connect) -> None:
        connection = connect()
        assert repr(SipgateClient(connection)) == f"<SipgateClient {connection.uid}>"


class TestCall:
    def test_costs_one_query(self, connect: Connect, django_assert_num_queries: Any) -> None:
        client = SipgateClient(connect())
        with django_assert_num_queries(1):
            assert client.get("/account")["company"] == "Strict GmbH"

    def test_empty_answer_is_none(self, client: SipgateClient, sandbox: Running) -> None:
        body = {"smsId": "s0", "recipient": "+4915799912345", "message": "Hello!"}
        assert client.post("/sessions/sms", json=body) is None
        assert asked(sandbox, "sms") == 1

    def test_expired_token_is_renewed_before(self, connect: Connect, strict: Strict) -> None:
        client = SipgateClient(connect(age=400))
        assert client.get("/account")["verified"] is True
        assert (strict.counts()["refresh"], strict.counts()["api_401"]) == (1, 0)

    @pytest.mark.parametrize(
        "path", ["numbers", "//evil.example/x", "https://evil.example/", "/a/../b", "/a?b=1", "/%2e"]
    )
    def test_paths_stay_below_the_base(self, client: SipgateClient, sandbox: Running, path: str) -> None:
        with pytest.raises(ValueError, match="path below"):
            client.get(path)

    def test_unsendable_body(self, client: SipgateClient, sandbox: Running) -> None:
        with pytest.raises(ValueError, match="not JSON"):
            client.post("/sessions/sms", json={"sendAt": float("nan")})
        assert asked(sandbox, "POST v2/sessions/sms") == 0
