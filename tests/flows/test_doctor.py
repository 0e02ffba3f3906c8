"""The doctor tells how things are: what is wrong, with its cure and its severity, and no secret."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from datetime import timedelta
from typing import Any
from urllib.parse import urljoin

import pytest
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib.auth import get_user_model
from django.core.checks import ERROR, INFO, WARNING, CheckMessage
from django.utils import timezone

from sipgate_provider import scopes, tokens
from sipgate_provider.models import Ending, Reason, State
from sipgate_provider.ops import doctor
from tests.flows.conftest import command
from tests.processes import environment

pytestmark = pytest.mark.django_db(transaction=True)

NEW_KEY = "bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldzE="
OIDC = "/auth/realms/third-party/protocol/openid-connect"


class TestNothingWrong:
    def test_all_is_well_and_asking_changes_nothing(self, sandbox):
        assert findings() == {}
        names = {finding.id for finding in doctor.diagnose()}
        assert {"versions", "checks", "client", "database", "keys", "connections"} <= names
        asked = {"authorization", "token", "scopes", "offline_access"}
        assert {f"sipgate.{one}" for one in asked} <= names
        state = sandbox.control.state()
        assert (state["reuses"], state["rotations"], state["sessions_alive"]) == (0, 0, 0)

    def test_offline_asks_nobody(self, sandbox):
        assert findings(offline=True) == {}
        state = sandbox.control.state()
        assert (state.get("auth", 0), state.get("refresh", 0)) == (0, 0)

    def test_without_a_redirect_uri_a_sign_in_cannot_be_tried(self, sandbox, settings):
        settings.SIPGATE_REDIRECT_URI = ""
        names = {finding.id for finding in doctor.diagnose()}
        assert ("sipgate.token" in names, "sipgate.authorization" in names) == (True, False)

    def test_a_line_that_was_not_tested_is_a_remark(self, monkeypatch):
        monkeypatch.setattr("allauth.__version__", "66.1.2")
        (found,) = (one for one in doctor.diagnose(offline=True) if one.id == "versions.untested")
        assert (found.level, found.msg[:14]) == (INFO, "allauth 66.1.2")


class TestWhatSipgateSays:
    """What it finds out at a real server, too: ``tests/facts/test_app``."""

    @pytest.mark.parametrize(
        ("client_id", "secret", "check", "cure"),
        [
            ("2000000-1-unknown:third-party", "sandbox-secret", "authorization", "client_id"),
            ("2000000-1-unknown:third-party", "sandbox-secret", "token", "client_id"),
            ("1000000-1-sandbox:third-party", "wrong", "token", "Compare secret in SOCIALACCOUNT"),
        ],
    )
    def test_the_client_is_wrong(self, sandbox, settings, client_id, secret, check, cure):
        use_client(settings, client_id, secret)
        assert cure in findings()[f"sipgate.{check}"].hint

    @pytest.mark.parametrize(
        ("name", "value", "check", "cure"),
        [
            ("REDIRECT_URI", "http://127.0.0.1:8080/oauth", "authorization", "127.0.0.1:8080"),
            ("AUTH_URL", f"{OIDC}/authx", "authorization", "SIPGATE_AUTH_URL"),
            ("TOKEN_URL", f"{OIDC}/tokens", "token", "SIPGATE_TOKEN_URL"),
        ],
    )
    def test_an_address_is_wrong(self, sandbox, settings, name, value, check, cure):
        setattr(settings, f"SIPGATE_{name}", urljoin(sandbox.url, value))
        [finding] = findings().values()
        assert finding.id == f"sipgate.{check}"
        assert cure in finding.hint

    def test_scopes_of_settings_and_code(self, sandbox, settings, monkeypatch):
        settings.SIPGATE_SCOPE = ["account:read", "nonsense:read"]
        monkeypatch.setattr(scopes, "_needed", {"odd:read": {"crm.views.calls"}})
        found = findings()
        assert [*found] == ["sipgate.scopes", "sipgate.scopes.code"]
        assert "may not ask for nonsense:read:" in found["sipgate.scopes"].msg
        assert "odd:read, which crm.views.calls needs" in found["sipgate.scopes.code"].msg

    def test_an_endpoint_cannot_be_reached(self, settings):
        settings.SIPGATE_AUTH_URL = f"https://nowhere.invalid{OIDC}/auth"
        with socket.create_server(("127.0.0.1", 0)) as server:
            closed = server.getsockname()[1]
        settings.SIPGATE_TOKEN_URL = f"http://127.0.0.1:{closed}{OIDC}/token"
        found = findings()
        for check in ("authorization", "token"):
            one = found[f"sipgate.{check}"]
            assert (one.level, "cannot be reached" in one.msg) == (ERROR, True), one
            assert "HTTPS_PROXY" in one.hint


class TestClient:
    def test_there_is_none(self, settings):
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {}}
        found = findings()
        assert [*found] == ["client"]
        assert "No sipgate client" in found["client"].msg

    def test_half_of_one(self, settings):
        for client_id, secret, words in (("", "s3cr3t", "client_id in"), ("x", "", "secret in")):
            use_client(settings, client_id, secret)
            assert findings(offline=True)["client"].msg.startswith(words)

    def test_two_rows_are_named_and_one_may_be_deleted(self, settings):
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {}}
        for name in ("CRM", "Shop"):
            SocialApp.objects.create(provider="sipgate", name=name, client_id=name, secret="s3cr3t")
        (found,) = findings(offline=True).values()
        for app in SocialApp.objects.all():
            assert f"{app.client_id} (SocialApp {app.pk})" in found.msg
        assert "delete the other rows" in found.hint
        assert "s3cr3t" not in found.msg
        SocialApp.objects.first().delete()
        assert findings(offline=True) == {}


class TestConnections:
    def test_in_trouble(self, connect):
        now, connection = timezone.now(), connect()
        row = type(connection.sipgate_token).objects.filter(pk=connection.pk)
        an_hour_ago = {"state": State.FAILING, "failing_since": now - timedelta(hours=1)}
        for change, check, severity in (
            (an_hour_ago, "connections.failing", WARNING),
            ({"state": State.MISCONFIGURED}, "connections.misconfigured", ERROR),
            ({"keepalive_at": now - timedelta(days=2)}, "connections.overdue", WARNING),
        ):
            usual = {"state": State.ACTIVE, "failing_since": None}
            row.update(**{"keepalive_at": now + timedelta(days=1), **usual, **change})
            found = findings(offline=True)
            assert [*found] == [check]
            assert found[check].level == severity

    def test_what_is_no_trouble_is_counted(self, connect):
        connect(state=State.FAILING, failing_since=timezone.now())
        connect(state=State.NEEDS_SIGN_IN, reason=Reason.EXPIRED_IDLE)
        assert findings(offline=True) == {}
        counted = doctor.counts()
        assert (counted["connections"], counted["states"]["needs_sign_in"]) == (2, 1)
        assert counted["reasons"] == {"expired_idle": 1}

    def test_tokens_that_wait_in_the_journal(self, monkeypatch):
        monkeypatch.setattr(tokens, "journal_waiting", lambda: 3)
        assert "not have: 3." in findings(offline=True)["journal"].msg
        assert doctor.counts()["journal_waiting"] == 3

    def test_an_ending_that_waits_for_hours(self):
        then = timezone.now() - timedelta(hours=2)
        moments = {"created_at": then, "give_up_at": then, "next_attempt_at": then}
        Ending.objects.create(sealed=b"x", **moments)
        assert "endings" in findings(offline=True)

    def test_a_key_that_rows_need_is_gone(self, connect, settings):
        connect()
        settings.SIPGATE_TOKEN_KEYS = [NEW_KEY, *settings.SIPGATE_TOKEN_KEYS]
        assert findings(offline=True) == {}
        settings.SIPGATE_TOKEN_KEYS = [NEW_KEY]
        assert [*findings(offline=True)] == ["keys.lost"]

    def test_tokens_in_clear_text(self):
        user = get_user_model().objects.create(username="rosa")
        account = SocialAccount.objects.create(user=user, provider="sipgate", uid="1000000w0")
        SocialToken.objects.create(account=account, token="clear", token_secret="text")
        assert [*findings(offline=True)] == ["clear_text"]


class TestDatabase:
    def test_it_does_not_answer(self):
        assert self.run("/nonexistent/db.sqlite3")["database"]["severity"] == "error"

    def test_migrations_are_missing(self, tmp_path):
        found = self.run(str(tmp_path / "new.sqlite3"))
        assert "migrate" in found["database"]["cure"]

    @staticmethod
    def run(database: str) -> dict[str, Any]:
        command = [sys.executable, "manage.py", "sipgate_doctor", "--offline", "--json"]
        told = json.dumps({"settings": {}, "database": database})
        own = {"SIPGATE_WORKER": told, "SIPGATE_TEST_DATABASE_URL": ""}
        done = subprocess.run(
            command, capture_output=True, text=True, env={**environment(), **own}, check=False
        )
        assert done.returncode == 2, done.stderr
        return {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


class TestCommand:
    def test_its_exit_code_is_the_gravest_severity(self, sandbox, settings):
        code, text = command("sipgate_doctor")
        assert (code, text.splitlines()[-1]) == (0, "All is well.")
        settings.SIPGATE_SCOPE = ["numbers:read"]
        assert command("sipgate_doctor", "--offline")[0] == 1
        settings.SIPGATE_API_URL = "http://api.example"
        code, text = command("sipgate_doctor", "--offline")
        assert (code, text.splitlines()[-1]) == (2, "Errors: 1. Warnings: 1.")
        assert "\n        → " in text

    def test_as_json(self, sandbox, settings):
        settings.SIPGATE_API_URL = "http://127.1:1/v2"
        code, text = command("sipgate_doctor", "--json", "--offline")
        report = json.loads(text)
        assert (code, report["exit_code"], report["counts"]["connections"]) == (2, 2, 0)
        found = [one for one in report["findings"] if one["severity"] == "error"]
        assert [one["check"] for one in found] == ["sipgate_provider.E006"]
        assert set(found[0]) == {"check", "severity", "found", "cure"}
        assert text.count("\n") == 1

    def test_no_secret_is_shown(self, sandbox, settings, connect, caplog):
        token = tokens.token(connect()).value
        known = [token, "sandbox-secret", "wrong-value", *settings.SIPGATE_TOKEN_KEYS]
        for secret in ("sandbox-secret", "wrong-value"):
            use_client(settings, "1000000-1-sandbox:third-party", secret)
            for fault in ("unauthorized-client", "malformed-json"):
                sandbox.control.fault(fault, on="token")
                for options in ([], ["--json"]):
                    shown = command("sipgate_doctor", *options)[1] + caplog.text
                    assert not [value for value in known if str(value) in shown]


def findings(*, offline: bool = False) -> dict[str, CheckMessage]:
    """Return what is not fine, by name."""
    found = doctor.diagnose(offline=offline)
    return {str(finding.id): finding for finding in found if finding.level >= WARNING}


def use_client(settings: Any, client_id: str, secret: str) -> None:
    app = {"client_id": client_id, "secret": secret}
    settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": [app]}}
