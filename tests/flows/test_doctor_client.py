"""What the doctor finds out of sipgate without a person: what this client may ask for, and what sipgate publishes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils.decorators import method_decorator
from django.views import View

from sipgate_provider import scopes
from sipgate_provider.decorators import sipgate_required
from sipgate_provider.ops import doctor
from sipgate_provider.ops.doctor import Finding, Severity, permissions
from sipgate_provider.remote import oauth, probes
from sipgate_provider.remote.probes import Verdict
from sipgate_sandbox.launch import Running
from tests.raw_server import of_json, serving, whole

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _code(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """No code but the test's own asks for scopes, and what else runs on this machine is nobody's finding here."""
    permissions._load_views()  # into the one of the site
    monkeypatch.setattr(scopes, "_needed", {})
    del settings.PORT


@pytest.fixture(autouse=True)
def _client(sandbox: Running) -> Iterator[None]:
    yield
    sandbox.control.change_client(scopes=None)


def found() -> dict[str, Finding]:
    return {
        finding.check: finding
        for finding in doctor.diagnose()
        if finding.check.startswith("sipgate.")
    }


def troubles() -> list[str]:
    return [name for name, finding in found().items() if finding.severity is not Severity.OK]


class TestScopes:
    def test_all_are_allowed(self, sandbox: Running) -> None:
        assert found()["sipgate.scopes"].found == "sipgate lets this client ask for account:read."
        assert troubles() == []

    @pytest.mark.parametrize(
        ("wanted", "refused"),
        [
            (["account:read", "balance:read"], "balance:read"),
            (
                ["account:read", "balance:read", "nonsense", "contacts:read"],
                "balance:read, nonsense",
            ),
            (["balance:read"], "balance:read"),
        ],
    )
    def test_a_refused_list_is_asked_one_by_one(
        self, sandbox: Running, settings: Any, wanted: list[str], refused: str
    ) -> None:
        sandbox.control.change_client(scopes=["account:read", "contacts:read"])
        settings.SIPGATE_SCOPE = wanted
        one = found()["sipgate.scopes"]
        assert one.severity is Severity.ERROR
        assert one.found == f"This client may not ask for {refused}: sipgate refuses every sign-in."
        assert "SIPGATE_SCOPE" in one.cure

    def test_what_the_code_asks_for(self, sandbox: Running) -> None:
        @sipgate_required(scopes=["balance:read"])
        def balance(request: Any) -> None: ...

        @method_decorator(sipgate_required(scopes="contacts:read"), name="dispatch")
        class Contacts(View): ...

        sipgate_required(scopes=["numbers:read"])(lambda request: None)

        named = scopes.needed_by_code()
        assert [*named] == ["balance:read", "contacts:read", "numbers:read"]
        assert named["contacts:read"] == ["a class-based view"]
        assert named["balance:read"] == [
            f"{__name__}.TestScopes.test_what_the_code_asks_for.<locals>.balance"
        ]
        assert troubles() == []
        sandbox.control.change_client(scopes=["account:read", "contacts:read"])
        refused = [
            finding for finding in doctor.diagnose() if finding.check == "sipgate.scopes.code"
        ]
        assert [finding.severity for finding in refused] == [Severity.ERROR, Severity.ERROR]
        assert "may not ask for balance:read" in refused[0].found
        assert "<locals>.balance" in refused[0].found
        assert "may not ask for numbers:read" in refused[1].found
        assert found()["sipgate.scopes"].severity is Severity.OK

    def test_the_views_of_the_site_are_loaded(self, sandbox: Running, settings: Any) -> None:
        """In a process that has not served a page yet."""
        import subprocess
        import sys

        from tests.processes import environment

        code = (
            "import django; django.setup(); from sipgate_provider import scopes; "
            "from sipgate_provider.ops.doctor import permissions; permissions._load_views(); "
            "print(' '.join(scopes.needed_by_code()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
            check=True,
        )
        assert "numbers:read" in done.stdout.split()


class TestOfflineAccess:
    def test_allowed_is_advised_and_no_mistake(self, sandbox: Running) -> None:
        one = found()["sipgate.offline_access"]
        assert (one.severity, "may ask for offline_access" in one.found) == (Severity.OK, True)
        assert "SIPGATE_SCOPE" in one.cure

    def test_not_allowed(self, sandbox: Running) -> None:
        sandbox.control.change_client(scopes=["account:read"])
        one = found()["sipgate.offline_access"]
        assert (one.severity, "may not ask for" in one.found, one.cure) == (Severity.OK, True, "")
        assert troubles() == []

    def test_asked_for_already(self, sandbox: Running, settings: Any) -> None:
        settings.SIPGATE_SCOPE = ["account:read", "offline_access"]
        assert "sipgate.offline_access" not in found()


class TestIssuer:
    def test_as_expected(self, sandbox: Running) -> None:
        assert found()["sipgate.issuer"].severity is Severity.OK

    def test_another_one(self, sandbox: Running, settings: Any) -> None:
        settings.SIPGATE_ISSUER = "https://login.example/auth/realms/x"
        one = found()["sipgate.issuer"]
        assert one.severity is Severity.ERROR
        assert settings.SIPGATE_ISSUER in one.found
        assert "SIPGATE_ISSUER" in one.cure


class TestRevocation:
    def test_there_is_one(self, sandbox: Running) -> None:
        assert found()["sipgate.revocation"].severity is Severity.OK

    def test_there_is_none(self, sandbox: Running, settings: Any) -> None:
        sandbox.control.behave(revocation=False)
        one = found()["sipgate.revocation"]
        assert (one.severity, "their other applications" in one.found) == (Severity.WARNING, True)
        settings.SIPGATE_LOGOUT_URL = "off"
        assert found()["sipgate.revocation"].severity is Severity.OK
        settings.SIPGATE_LOGOUT_URL, settings.SIPGATE_REVOKE_URL = "", "off"
        assert "sipgate.revocation" not in found()

    @pytest.mark.parametrize(
        ("status", "body", "verdict"),
        [
            (200, {}, Verdict.FINE),
            (204, {}, Verdict.FINE),
            (400, {"error": "invalid_token"}, Verdict.FINE),
            (400, {"error": "invalid_grant"}, Verdict.FINE),
            (400, {"error": "unsupported_token_type"}, Verdict.ABSENT),
            (404, {}, Verdict.ABSENT),
            (405, {}, Verdict.ABSENT),
            (501, {}, Verdict.ABSENT),
            (401, {"error": "unauthorized_client"}, Verdict.CLIENT_SECRET),
            (503, {}, Verdict.UNAVAILABLE),
            (429, {}, Verdict.BUSY),
            (403, {}, Verdict.ODD),
        ],
    )
    def test_each_answer(self, status: int, body: Any, verdict: Verdict) -> None:
        with serving(of_json(body, f"{status} No")) as server:
            client = oauth.Client(client_id="i", client_secret="s", token_url="")
            answer = probes.revocation(client, f"{server.url}/revoke", timeout=5)
        assert answer.verdict == verdict
        assert server.asked[0].form["token"] == probes.NOBODYS


class TestDiscovery:
    def test_all_agrees(self, sandbox: Running) -> None:
        assert "agree with" in found()["sipgate.discovery"].found

    def test_there_is_none(self, sandbox: Running) -> None:
        sandbox.control.behave(discovery=False)
        one = found()["sipgate.discovery"]
        assert (one.severity, "no discovery document" in one.found) == (Severity.OK, True)

    @pytest.mark.parametrize(
        ("change", "check", "severity"),
        [
            ({"issuer": "https://other.example"}, "sipgate.discovery.issuer", Severity.ERROR),
            (
                {"token_endpoint": "https://a.example/token"},
                "sipgate.discovery.token_endpoint",
                Severity.WARNING,
            ),
            (
                {"authorization_endpoint": "https://a.example/"},
                "sipgate.discovery.authorization_endpoint",
                "warning",
            ),
            (
                {"revocation_endpoint": "https://a.example/x"},
                "sipgate.discovery.revocation_endpoint",
                "warning",
            ),
            (
                {"code_challenge_methods_supported": ["plain"]},
                "sipgate.discovery.pkce",
                Severity.WARNING,
            ),
            (
                {"authorization_response_iss_parameter_supported": False},
                "sipgate.discovery.iss",
                Severity.OK,
            ),
        ],
    )
    def test_each_difference(
        self, sandbox: Running, settings: Any, change: dict[str, Any], check: str, severity: str
    ) -> None:
        import requests

        document = requests.get(f"{sandbox.issuer}/.well-known/openid-configuration", timeout=10)
        data = {**document.json(), **change}
        with serving(of_json(data)) as server:
            if "issuer" not in change:
                data["issuer"] = server.url
            server.answers = (of_json(data),)
            settings.SIPGATE_ISSUER = server.url
            there = {
                finding.check: finding
                for finding in doctor.diagnose()
                if "discovery" in finding.check
            }
        assert {name: finding.severity for name, finding in there.items()} == {check: severity}

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b"{}", b'{"issuer": 1}', b"<html>", b"[" * 10_000]
    )
    def test_what_is_no_document(self, body: bytes) -> None:
        with serving(whole(body=body)) as server:
            answer, document = probes.discovery(server.url, timeout=5)
        assert (answer.verdict, document) == (Verdict.ODD, None)

    def test_odd_values_are_left_out(self) -> None:
        data = {
            "issuer": "i",
            "token_endpoint": 7,
            "x_endpoint": "y",
            "code_challenge_methods_supported": "S256",
        }
        with serving(whole(body=json.dumps(data).encode())) as server:
            _answer, document = probes.discovery(server.url, timeout=5)
        assert document == probes.Discovery(
            issuer="i", endpoints={"x_endpoint": "y"}, has_s256=None, names_issuer=None
        )
