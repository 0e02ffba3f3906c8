"""The kit for the tests of other people's sites, used as they use it."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from sipgate_provider import errors, testing
from sipgate_provider.client import SipgateClient
from sipgate_provider.models import SipgateToken

pytestmark = [pytest.mark.urls("tests.sample_site"), pytest.mark.django_db]


def test_it_fails_as_told(client, admin_user, sipgate):
    sipgate.connect(admin_user)
    sipgate.fails(errors.RateLimited("Slow down.", retry_after=7))
    client.force_login(admin_user)
    assert client.get("/company").status_code == 503
    sipgate.fails(errors.NotFound("Gone."), path="/balance")
    with pytest.raises(errors.NotFound):
        SipgateClient.for_user(admin_user).get("/balance")


def test_it_records_what_was_asked(mine, sipgate):
    sipgate.answers("/sessions/sms", method="POST")
    mine.send_sms("+4915799912345", "Hello!", sms_id="s0")
    (asked,) = sipgate.requests
    assert (asked.method, asked.path) == ("POST", "/sessions/sms")
    assert asked.json == {"smsId": "s0", "recipient": "+4915799912345", "message": "Hello!"}
    sipgate.answers("/history", lambda request: [{"id": "1", "type": request.params["types"][0]}])
    assert [entry.type for entry in mine.history(types=["FAX"])] == ["FAX"]


def test_lists_have_pages_and_documents_are_bytes(mine, sipgate):
    sipgate.answers("/history", [{"id": str(number)} for number in range(250)])
    assert len(list(mine.history())) == 250
    assert [request.params["offset"] for request in sipgate.requests] == [[0], [100], [200]]
    sipgate.answers("/faxes/1", b"%PDF")
    mine.download("/faxes/1", file := io.BytesIO())
    assert file.getvalue() == b"%PDF"


def test_it_is_as_strict_as_sipgate(admin_user, sipgate):
    mine = SipgateClient(sipgate.connect(admin_user, scopes=["account:read"]))
    with pytest.raises(errors.MissingPermission) as raised:
        mine.balance()
    assert (raised.value.scopes, raised.value.status) == (("balance:read",), 403)
    with pytest.raises(AssertionError, match=r"sipgate\.answers\('/account'"):
        mine.account()
    with pytest.raises(ValueError, match="below"):
        mine.get("https://evil.example/")
    with pytest.raises(ValueError, match="time zone"):
        mine.get("/account", params={"since": datetime(2026, 1, 1)})  # noqa: DTZ001  # the mistake


def test_connections_of_any_kind(admin_user, sipgate):
    neo = SipgateClient(
        sipgate.connect(admin_user, uid="7000000w3", scopes=["rtcm:write"], neo=True)
    )
    assert (neo.connection.uid, neo.user_id, neo.product_line) == ("7000000w3", "w3", "NEO_PBX")
    sipgate.answers("/calls", {"callId": "c1"}, method="POST")
    assert neo.dial("e0", "+4915799912345") == "c1"
    other = testing.connect(get_user_model().objects.create(username="other"))
    assert (SipgateClient(other).product_line, other.uid) == ("CLASSIC_PBX", "1000001w0")
    assert SipgateToken.objects.get(connection=other).scopes == ("account:read",)


def test_neither_keys_nor_mail_nor_second_factors_are_needed(client, admin_user, sipgate, settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.MFA_SUPPORTED_TYPES = ["totp"]
    sipgate.connect(admin_user)
    sipgate.answers("/account", {"company": "Example GmbH"})
    client.force_login(admin_user)
    assert client.get("/company").json() == {"company": "Example GmbH"}


def test_without_keys_of_the_site(admin_user, settings):
    settings.SIPGATE_TOKEN_KEYS = []
    with testing.fake_sipgate() as sipgate:
        sipgate.answers("/account", {"company": "Example GmbH"})
        assert SipgateClient(sipgate.connect(admin_user)).account().company == "Example GmbH"


def test_the_sandbox(sipgate_sandbox):
    client = Client()
    sipgate_sandbox.sign_in(client)
    assert client.get("/company").json() == {"company": "Rosenduft Gartenbau GmbH"}
    sipgate_sandbox.control.fault("unknown-error", on="api", times=None)
    assert client.get("/company").status_code == 503


@pytest.fixture
def client() -> Client:
    """The site of the tests has one host, that of its redirect URI."""
    return Client(headers={"host": "localhost:8080"})


@pytest.fixture
def mine(admin_user: Any, sipgate: Any) -> SipgateClient:
    return SipgateClient(sipgate.connect(admin_user, scopes=["all"]))
