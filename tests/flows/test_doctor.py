"""Every common mistake is produced, and found: with its cure, its severity, and no secret."""

from __future__ import annotations

import io
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount, SocialToken
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.utils import timezone

from sipgate_provider import errors, tokens
from sipgate_provider.models import Reason, Revocation, State
from sipgate_provider.ops import doctor
from sipgate_provider.ops.doctor import Finding, Severity
from sipgate_provider.remote import probes
from sipgate_provider.tokens import authorization_server, pauses, rows, sealing
from sipgate_sandbox.launch import Running
from tests.conftest import Connect
from tests.processes import environment

pytestmark = pytest.mark.django_db(transaction=True)

NEW_KEY = "bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldzE="


def findings(*, offline: bool = False, timeout: float = 10) -> dict[str, Finding]:
    """Return what is not fine, by name."""
    found = doctor.diagnose(offline=offline, timeout=timeout)
    return {finding.check: finding for finding in found if finding.severity is not Severity.OK}


def use_client(settings: Any, client_id: str, secret: str) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = {
        "sipgate": {"APPS": [{"client_id": client_id, "secret": secret}]}
    }


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def at(url: str, place: str, settings: Any) -> None:
    """Let one endpoint be at another address."""
    path = "/auth/realms/third-party/protocol/openid-connect"
    values = {
        "auth": ("SIPGATE_AUTH_URL", f"{url}{path}/auth"),
        "token": ("SIPGATE_TOKEN_URL", f"{url}{path}/token"),
        "api": ("SIPGATE_API_URL", f"{url}/v2"),
    }
    name, value = values[place]
    setattr(settings, name, value)


class TestNothingWrong:
    def test_all_is_well(self, sandbox: Running) -> None:
        assert findings() == {}
        names = {finding.check for finding in doctor.diagnose()}
        assert {
            "client",
            "realm",
            "redirect_uri",
            "keys",
            "database",
            "cache",
            "connections",
            "clock",
        } <= names
        assert {"sipgate.authorization", "sipgate.token", "sipgate.api"} <= names

    def test_asking_changes_nothing_at_sipgate(self, sandbox: Running) -> None:
        doctor.diagnose()
        state = sandbox.control.state()
        # Those of the settings, those of the code, offline_access.
        assert (state["auth"], state["refresh"], state["revoke"]) == (3, 1, 1)
        assert (state.get("reuses"), state["sessions_alive"], state.get("issued", 0)) == (0, 0, 0)

    def test_a_site_that_lets_allauth_build_the_redirect_uri(
        self, sandbox: Running, settings: Any
    ) -> None:
        settings.SIPGATE_REDIRECT_URI = ""
        found = {finding.check: finding for finding in doctor.diagnose()}
        assert found["redirect_uri"].severity is Severity.OK
        assert (found["sipgate.token"].severity, "sipgate.authorization" in found) == (
            Severity.OK,
            False,
        )

    def test_offline_asks_nobody(self, sandbox: Running) -> None:
        assert findings(offline=True) == {}
        state = sandbox.control.state()
        assert (state.get("auth", 0), state.get("refresh", 0)) == (0, 0)


class TestWhatSipgateSays:
    def test_the_client_is_unknown(self, sandbox: Running, settings: Any) -> None:
        use_client(settings, "2000000-1-unknown:third-party", "sandbox-secret")
        found = findings()
        assert found["sipgate.authorization"].severity is Severity.ERROR
        assert "client not found" in found["sipgate.authorization"].found
        assert "client_id" in found["sipgate.authorization"].cure
        assert "client_id" in found["sipgate.token"].cure

    def test_the_secret_is_wrong(self, sandbox: Running, settings: Any) -> None:
        use_client(settings, "1000000-1-sandbox:third-party", "another-secret")
        found = findings()
        assert list(found) == ["sipgate.token"]
        assert found["sipgate.token"].cure.startswith("Compare secret in SOCIALACCOUNT_PROVIDERS")

    def test_the_redirect_uri_is_not_registered(self, sandbox: Running, settings: Any) -> None:
        settings.SIPGATE_REDIRECT_URI = "http://127.0.0.1:8080/oauth"
        found = findings()
        assert list(found) == ["sipgate.authorization"]
        assert "invalid parameter: redirect_uri" in found["sipgate.authorization"].found
        assert "http://127.0.0.1:8080/oauth" in found["sipgate.authorization"].cure

    def test_a_scope_is_not_allowed(self, sandbox: Running, settings: Any) -> None:
        settings.SIPGATE_SCOPE = ["account:read", "nonsense:read"]
        found = findings()
        assert list(found) == ["sipgate.scopes"]
        assert "may not ask for nonsense:read:" in found["sipgate.scopes"].found
        assert "SIPGATE_SCOPE" in found["sipgate.scopes"].cure

    @pytest.mark.parametrize(
        ("name", "value", "check", "setting"),
        [
            (
                "SIPGATE_AUTH_URL",
                "/auth/realms/elsewhere/protocol/openid-connect/auth",
                "sipgate.authorization",
                "SIPGATE_AUTH_URL",
            ),
            (
                "SIPGATE_TOKEN_URL",
                "/auth/realms/third-party/protocol/openid-connect/tokens",
                "sipgate.token",
                "SIPGATE_TOKEN_URL",
            ),
            ("SIPGATE_API_URL", "/v3", "sipgate.api", "SIPGATE_API_URL"),
        ],
    )
    def test_an_address_is_wrong(
        self, sandbox: Running, settings: Any, name: str, value: str, check: str, setting: str
    ) -> None:
        setattr(settings, name, sandbox.url + value)
        found = findings()[check]
        assert (found.severity, "HTTP 404" in found.found, setting in found.cure) == (
            Severity.ERROR,
            True,
            True,
        )

    @pytest.mark.parametrize(
        ("place", "check"),
        [
            ("auth", "sipgate.authorization"),
            ("refresh", "sipgate.token"),
            ("account", "sipgate.api"),
        ],
    )
    def test_an_address_has_moved(self, sandbox: Running, place: str, check: str) -> None:
        target = "https://new.example/realms/x/auth?token=secret-in-a-query"
        sandbox.control.fault("redirect", on=place, value=target, times=2)
        found = findings()[check]
        assert "https://new.example/realms/x/auth)" in found.found
        assert "secret-in-a-query" not in found.found

    @pytest.mark.parametrize(
        ("fault", "place", "check", "severity", "words"),
        [
            ("unknown-error", "refresh", "sipgate.token", Severity.ERROR, "HTTP 500"),
            ("bad-gateway", "auth", "sipgate.authorization", Severity.ERROR, "HTTP 502"),
            ("unavailable", "account", "sipgate.api", Severity.ERROR, "HTTP 503"),
            ("too-many", "refresh", "sipgate.token", Severity.WARNING, "fewer requests"),
            ("too-many", "account", "sipgate.api", Severity.WARNING, "fewer requests"),
            ("json-list", "account", "sipgate.api", Severity.ERROR, "401 was expected"),
            ("json-list", "refresh", "sipgate.token", Severity.ERROR, "HTTP 200"),
            (
                "unauthorized-client",
                "refresh",
                "sipgate.token",
                Severity.ERROR,
                "unauthorized_client",
            ),
            ("forbidden", "auth", "sipgate.authorization", Severity.ERROR, "HTTP 403"),
            ("huge", "auth", "sipgate.authorization", Severity.ERROR, "too large"),
        ],
    )
    def test_an_endpoint_is_in_trouble(
        self, sandbox: Running, fault: str, place: str, check: str, severity: Severity, words: str
    ) -> None:
        sandbox.control.fault(fault, on=place, times=2, seconds=1)
        found = findings()
        assert list(found) == [check]
        assert (found[check].severity, words in found[check].found) == (severity, True), found[
            check
        ]
        assert found[check].cure

    def test_silence_ends_with_the_time_out(self, sandbox: Running) -> None:
        sandbox.control.fault("slow", on="all", times=None, seconds=3)
        found = findings(timeout=0.5)
        assert set(found) == {"sipgate.authorization", "sipgate.token", "sipgate.api"}
        assert all("did not answer within" in finding.found for finding in found.values())

    def test_a_slow_endpoint(self, sandbox: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor.sipgate, "SLOW", 0.5)
        sandbox.control.fault("slow", on="account", seconds=0.8)
        assert [*findings()] == ["sipgate.api.slow"]


class TestTheWayThere:
    @pytest.mark.parametrize("place", ["auth", "token", "api"])
    def test_an_unknown_name(self, sandbox: Running, settings: Any, place: str) -> None:
        at("https://nowhere.invalid", place, settings)
        assert [*self.words()] == ["has a name that is not known here"]

    @pytest.mark.parametrize("place", ["auth", "token", "api"])
    def test_nothing_listens(self, sandbox: Running, settings: Any, place: str) -> None:
        at(f"http://127.0.0.1:{closed_port()}", place, settings)
        assert [*self.words()] == ["refuses connections"]

    @pytest.mark.parametrize("place", ["auth", "token", "api"])
    def test_a_certificate_that_is_not_trusted(
        self, sandbox: Running, settings: Any, tls: str, place: str
    ) -> None:
        at(tls, place, settings)
        assert [*self.words()] == [
            "shows a certificate that is not trusted (self-signed certificate)"
        ]

    def test_no_tls_at_all(self, sandbox: Running, settings: Any) -> None:
        at(sandbox.url.replace("http://", "https://"), "token", settings)
        assert [*self.words()] == ["does not speak TLS as it should"]

    def test_a_proxy_that_is_not_there(self, sandbox: Running) -> None:
        """In a process of its own: the session reads the environment once."""
        proxy = f"http://someone:proxy-password@127.0.0.1:{closed_port()}"
        names = dict.fromkeys(("HTTP_PROXY", "http_proxy"), proxy) | dict.fromkeys(
            ("NO_PROXY", "no_proxy"), ""
        )
        command = [sys.executable, "manage.py", "sipgate_doctor", "--json", "--problems"]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**environment(), **names}, timeout=60
        )
        found = {
            finding["check"]: finding["found"] for finding in json.loads(done.stdout)["findings"]
        }
        for name in ("authorization", "token", "api"):
            assert "through the proxy" in found[f"sipgate.{name}"]
        assert "proxy-password" not in done.stdout + done.stderr

    @staticmethod
    def words() -> Iterator[str]:
        known = (
            "has a name that is not known here",
            "refuses connections",
            "shows a certificate that is not trusted (self-signed certificate)",
            "does not speak TLS as it should",
        )
        for finding in findings(timeout=5).values():
            if finding.check.startswith("sipgate."):
                assert finding.severity is Severity.ERROR
                yield next((words for words in known if words in finding.found), finding.found)


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[str]:
    """A server whose certificate nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server = Quiet(("127.0.0.1", 0), NotFound)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    yield from served(server, "https")


class Quiet(HTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A refused handshake is what the test wants."""


class NotFound(BaseHTTPRequestHandler):
    status = 404

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        pass


def served(server: HTTPServer, scheme: str = "http") -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"{scheme}://localhost:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


class TestSettings:
    """Each mistake alone; everything else is fine."""

    @pytest.mark.parametrize(
        ("change", "check", "severity", "words"),
        [
            ({"ALLOWED_HOSTS": ["example.org"]}, "redirect_uri.host", Severity.ERROR, "localhost"),
            (
                {"SIPGATE_REDIRECT_URI": "http://localhost:8080/elsewhere"},
                "redirect_uri.path",
                Severity.ERROR,
                "/elsewhere",
            ),
            (
                {"SIPGATE_REDIRECT_URI": "http://localhost:8080/account"},
                "redirect_uri.path",
                Severity.ERROR,
                "another view",
            ),
            (
                {"SIPGATE_REDIRECT_URI": "http://localhost:8080/oauth/"},
                "redirect_uri.path",
                Severity.ERROR,
                "slash",
            ),
            (
                {"SIPGATE_REDIRECT_URI": "http://rosa@localhost:8080/oauth"},
                "redirect_uri",
                Severity.ERROR,
                "not a full http(s) address",
            ),
            (
                {"SESSION_COOKIE_SAMESITE": "Strict"},
                "cookies.samesite",
                Severity.ERROR,
                "returns from sipgate",
            ),
            ({"SESSION_COOKIE_SECURE": True}, "cookies.secure", Severity.WARNING, "http"),
            (
                {"SESSION_ENGINE": "django.contrib.sessions.backends.cache"},
                "cookies.sessions",
                Severity.ERROR,
                "get lost",
            ),
            (
                {
                    "SIPGATE_AUTH_URL": "https://login.sipgate.com/auth/realms/sipgate-apps/protocol/openid-connect/auth"
                },
                "realm",
                Severity.ERROR,
                "sipgate-apps",
            ),
            (
                {"SIPGATE_API_URL": "http://api.sipgate.com/v2"},
                "addresses",
                Severity.ERROR,
                "SIPGATE_API_URL",
            ),
            ({"SIPGATE_SCOPE": ["balance:read"]}, "scope", Severity.WARNING, "account:read"),
            (
                {"SOCIALACCOUNT_STORE_TOKENS": True},
                "sipgate_provider.W003",
                Severity.WARNING,
                "clear text",
            ),
            (
                {
                    "SOCIALACCOUNT_ADAPTER": "allauth.socialaccount.adapter.DefaultSocialAccountAdapter"
                },
                "sipgate_provider.E004",
                Severity.ERROR,
                "SOCIALACCOUNT_ADAPTER",
            ),
            (
                {"SOCIALACCOUNT_EMAIL_AUTHENTICATION": True},
                "sipgate_provider.W018",
                Severity.WARNING,
                "e-mail",
            ),
            (
                {"SIPGATE_TOKEN_KEYS": []},
                "sipgate_provider.E001",
                Severity.ERROR,
                "SIPGATE_TOKEN_KEYS",
            ),
            ({"SIPGATE_TOKEN_KEYS": ["short"]}, "sipgate_provider.E002", Severity.ERROR, "Entry 1"),
            ({"SIPGATE_TOKEN_KEYS": [NEW_KEY, NEW_KEY]}, "keys", Severity.WARNING, "twice"),
            (
                {"CACHES": {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}},
                "cache",
                Severity.WARNING,
                "stores nothing",
            ),
            (
                {
                    "CACHES": {
                        "default": {
                            "BACKEND": "django.core.cache.backends.redis.RedisCache",
                            "LOCATION": "redis://:redis-password@127.0.0.1:9",
                        }
                    }
                },
                "cache",
                Severity.ERROR,
                "does not answer",
            ),
        ],
    )
    def test_a_mistake_is_found(
        self, settings: Any, change: dict[str, Any], check: str, severity: Severity, words: str
    ) -> None:
        for name, value in change.items():
            setattr(settings, name, value)
        found = findings(offline=True)
        assert list(found) == [check], found
        assert (found[check].severity, words in found[check].found) == (severity, True), found[
            check
        ]
        assert found[check].cure
        assert "redis-password" not in repr(found)

    @pytest.mark.parametrize(
        ("client_id", "secret", "words"),
        [
            ("", "sandbox-secret", "client_id in SOCIALACCOUNT_PROVIDERS is empty"),
            ("1000000-1-x:third-party", "", "secret in SOCIALACCOUNT_PROVIDERS is empty"),
            ("YOUR_CLIENT_ID", "sandbox-secret", "placeholder"),
            ('"1000000-1-x:third-party"', "sandbox-secret", "quotes"),
            (
                "5f0c3b0e-secret",
                "1000000-1-01234567-89ab-cdef-0123-456789abcdef:third-party",
                "exchanged",
            ),
        ],
    )
    def test_credentials(self, settings: Any, client_id: str, secret: str, words: str) -> None:
        use_client(settings, client_id, secret)
        assert words in findings(offline=True)["client"].found

    def test_no_client(self, settings: Any) -> None:
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {}}
        found = findings()
        assert [*found] == ["client"]
        assert "No sipgate client" in found["client"].found

    def test_a_client_of_the_other_realm(self, settings: Any) -> None:
        use_client(settings, "1000000-1-x:sipgate-apps", "sandbox-secret")
        found = findings(offline=True)
        assert [*found] == ["realm"]
        assert ":sipgate-apps" in found["realm"].found

    def test_a_site_for_others_is_held_to_more(self, settings: Any) -> None:
        settings.SIPGATE_REDIRECT_URI = "http://crm.example/oauth"
        settings.ALLOWED_HOSTS = ["crm.example"]
        settings.DEBUG = True
        found = findings(offline=True)
        assert {
            "security.W018",
            "sipgate_provider.W010",
            "sipgate_provider.W012",
            "sipgate_provider.W013",
        } <= set(found)

    def test_without_a_logout_address(self, settings: Any) -> None:
        settings.SIPGATE_TOKEN_URL = settings.SIPGATE_AUTH_URL = "https://sipgate.example/endpoint"
        assert "addresses.logout" in findings(offline=True)


class TestKeysAndJournal:
    def test_a_key_that_rows_need_is_gone(self, connect: Connect, settings: Any) -> None:
        connect()
        lost = sealing.first_key_id()
        settings.SIPGATE_TOKEN_KEYS = [NEW_KEY]
        found = findings(offline=True)
        assert [*found] == ["keys.lost"]
        assert lost in found["keys.lost"].found

    def test_a_key_that_only_an_outbox_or_a_journal_needs(
        self, connect: Connect, settings: Any, tmp_path: Path
    ) -> None:
        old = settings.SIPGATE_TOKEN_KEYS
        settings.SIPGATE_JOURNAL_DIR = tmp_path
        (tmp_path / "01").mkdir()
        (tmp_path / "01" / f"1-{'0' * 32}-1.sealed").write_bytes(
            sealing.seal(b"{}", context="anything")
        )
        settings.SIPGATE_TOKEN_KEYS = [NEW_KEY, *old]
        assert "keys.unused" not in findings(offline=True)
        settings.SIPGATE_TOKEN_KEYS = [NEW_KEY]
        assert {*findings(offline=True)} == {"keys.lost", "journal.waiting"}

    def test_an_old_key_that_may_go(self, connect: Connect, settings: Any) -> None:
        old = sealing.first_key_id()
        settings.SIPGATE_TOKEN_KEYS = [NEW_KEY, *settings.SIPGATE_TOKEN_KEYS]
        found = findings(offline=True)
        assert [*found] == ["keys.unused"]
        assert old in found["keys.unused"].found

    def test_a_revoked_row_needs_no_key(self, connect: Connect, settings: Any) -> None:
        connection = connect()
        assert rows.clear(tokens.load(connection.pk), reason=Reason.REVOKED, now=timezone.now())
        settings.SIPGATE_TOKEN_KEYS = [NEW_KEY]
        assert findings(offline=True) == {}

    def test_a_journal_that_cannot_be_written(self, settings: Any, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        settings.SIPGATE_JOURNAL_DIR = tmp_path / "file" / "journal"
        assert findings(offline=True)["journal"].severity is Severity.ERROR

    def test_a_journal_leaves_no_trace(self, settings: Any, tmp_path: Path) -> None:
        settings.SIPGATE_JOURNAL_DIR = tmp_path / "journal"
        assert findings(offline=True) == {}
        assert list(tmp_path.iterdir()) == []


class TestConnections:
    @pytest.mark.parametrize(
        ("change", "check", "severity"),
        [
            (
                {"state": State.FAILING, "failing_since": timedelta(hours=1)},
                "connections.failing",
                Severity.WARNING,
            ),
            (
                {"state": State.MISCONFIGURED, "reason": Reason.CLIENT_REFUSED},
                "connections.misconfigured",
                Severity.ERROR,
            ),
            ({"keepalive_at": timedelta(days=2)}, "connections.overdue", Severity.WARNING),
        ],
    )
    def test_in_trouble(
        self, connect: Connect, change: dict[str, Any], check: str, severity: Severity
    ) -> None:
        now = timezone.now()
        connect(
            **{
                key: now - value if isinstance(value, timedelta) else value
                for key, value in change.items()
            }
        )
        found = findings(offline=True)
        assert [*found] == [check]
        assert found[check].severity is severity

    def test_what_is_no_trouble(self, connect: Connect) -> None:
        connect(state=State.FAILING, failing_since=timezone.now())
        connect(
            state=State.NEEDS_SIGN_IN,
            reason=Reason.REFUSED,
            failing_since=timezone.now() - timedelta(days=9),
        )
        assert findings(offline=True) == {}

    def test_a_session_that_cannot_be_ended(self) -> None:
        then = timezone.now() - timedelta(hours=2)
        sealed = sealing.seal(b"x", context="any")
        Revocation.objects.create(
            sealed=sealed, created_at=then, give_up_at=then, next_attempt_at=then
        )
        assert [*findings(offline=True)] == ["revocations.old"]

    def test_a_pause(self, sandbox: Running) -> None:
        pauses.start_pause(
            authorization_server.fingerprint(authorization_server.client()),
            code="unauthorized_client",
            setting=errors.CLIENT_SECRET,
            length=timedelta(minutes=1),
            now=timezone.now(),
        )
        assert "secret in SOCIALACCOUNT_PROVIDERS" in findings(offline=True)["client.paused"].cure

    def test_a_pause_of_former_credentials_is_over(self, settings: Any) -> None:
        former = authorization_server.fingerprint(authorization_server.client())
        pauses.start_pause(
            former,
            code="x",
            setting=errors.CLIENT_SECRET,
            length=timedelta(minutes=1),
            now=timezone.now(),
        )
        use_client(settings, "1000000-1-corrected:third-party", "corrected")
        assert findings(offline=True) == {}

    def test_tokens_in_clear_text(self) -> None:
        user = get_user_model().objects.create(username="rosa")
        account = SocialAccount.objects.create(user=user, provider="sipgate", uid="1000000w0")
        SocialToken.objects.create(account=account, token="clear", token_secret="text")
        found = findings(offline=True)
        assert [*found] == ["clear_text"]
        assert "sipgate_import_social_tokens" in found["clear_text"].cure


class TestDatabase:
    def test_it_does_not_answer(self) -> None:
        found = self.run(database="/nonexistent/db.sqlite3")
        assert found["database"]["severity"] == "error"

    def test_migrations_are_missing(self, tmp_path: Path) -> None:
        found = self.run(database=str(tmp_path / "new.sqlite3"))
        assert "migrate" in found["database.migrations"]["cure"]

    def test_requests_are_atomic_on_sqlite(self, tmp_path: Path) -> None:
        assert "sipgate_provider.W011" in self.run(
            database=str(tmp_path / "new.sqlite3"), atomic_requests=True
        )

    @staticmethod
    def run(**told: Any) -> dict[str, Any]:
        command = [sys.executable, "manage.py", "sipgate_doctor", "--offline", "--json"]
        # Files in any case: what is looked for does not depend on the database that the other tests use.
        own = {
            "SIPGATE_WORKER": json.dumps({"settings": {}, **told}),
            "SIPGATE_TEST_DATABASE_URL": "",
        }
        done = subprocess.run(
            command, capture_output=True, text=True, env={**environment(), **own}, timeout=60
        )
        assert done.returncode == 2 or "atomic_requests" in told, done.stderr
        return {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


class TestCommand:
    def call(self, *arguments: str) -> tuple[int, str]:
        out = io.StringIO()
        with pytest.raises(SystemExit) as ended:
            call_command("sipgate_doctor", *arguments, stdout=out, no_color=True)
        return int(ended.value.code or 0), out.getvalue()

    def test_its_exit_code_is_the_gravest_severity(self, sandbox: Running, settings: Any) -> None:
        code, text = self.call()
        assert (code, text.splitlines()[-1][:12]) == (0, "All is well:")
        settings.SOCIALACCOUNT_STORE_TOKENS = True
        assert self.call("--offline")[0] == 1
        settings.ALLOWED_HOSTS = ["example.org"]
        code, text = self.call("--offline")
        assert (code, "1 error, 1 warning," in text) == (2, True)

    def test_as_json(self, sandbox: Running, settings: Any) -> None:
        settings.ALLOWED_HOSTS = ["example.org"]
        code, text = self.call("--json", "--problems")
        report = json.loads(text)
        assert (code, report["exit_code"], report["errors"], len(report["findings"])) == (
            2,
            2,
            1,
            1,
        )
        assert set(report["findings"][0]) == {"check", "severity", "found", "cure"}
        assert text.count("\n") == 1

    def test_a_line_for_the_finding_and_one_for_the_cure(self, settings: Any) -> None:
        settings.ALLOWED_HOSTS = ["example.org"]
        lines = self.call("--offline", "--problems")[1].splitlines()
        assert (lines[0][:9], lines[1].strip()[0], len(lines)) == ("error   A", "→", 3)

    @pytest.mark.parametrize("value", ["0", "-1", "nan", "soon", "1000"])
    def test_a_time_out_that_is_none(self, value: str) -> None:
        with pytest.raises(CommandError, match="number of seconds"):
            call_command("sipgate_doctor", "--timeout", value)

    def test_no_secret_is_shown(
        self, sandbox: Running, settings: Any, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        connection = connect()
        row = tokens.load(connection.pk)
        pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
        known = [
            pair.access_token,
            pair.refresh_token,
            "sandbox-secret",
            "wrong-secret-value",
            *settings.SIPGATE_TOKEN_KEYS,
        ]
        for secret in ("sandbox-secret", "wrong-secret-value"):
            use_client(settings, "1000000-1-sandbox:third-party", secret)
            for fault in ("", "unauthorized-client", "lose-answer", "json-list"):
                if fault:
                    sandbox.control.fault(fault, on="refresh")
                for arguments in (["--json"], []):
                    shown = self.call(*arguments)[1] + caplog.text
                    assert not [value for value in known if value and str(value) in shown]


class TestWords:
    """Answers of Keycloak that the sandbox does not give."""

    @pytest.mark.parametrize(
        ("status", "page", "verdict"),
        [
            (400, "<p>Client nicht gefunden.</p>", probes.Verdict.CLIENT_ID),
            (400, "<p>Ungültiger Parameter: redirect_uri</p>", probes.Verdict.REDIRECT_URI),
            (
                400,
                '<a href="?redirect_uri=x">Deutsch</a><p>Client not found.</p>',
                probes.Verdict.CLIENT_ID,
            ),
            (200, "<p>We are sorry... Client not found.</p>", probes.Verdict.CLIENT_ID),
            (200, "<form>Sign in. Which client are you?</form>", probes.Verdict.FINE),
            (400, "<p>Page has expired</p>", probes.Verdict.REFUSED),
        ],
    )
    def test_error_pages(self, status: int, page: str, verdict: probes.Verdict) -> None:
        server = Quiet(("127.0.0.1", 0), page_of(status, page))
        for url in served(server):
            answer = probes.authorization(
                f"{url}/auth",
                client_id="x",
                redirect_uri="http://localhost/oauth",
                scope="a",
                timeout=5,
            )
            assert (answer.verdict, answer.status) == (verdict, status)


def page_of(status_: int, page: str) -> type[NotFound]:
    class Page(NotFound):
        def do_GET(self) -> None:
            body = page.encode()
            self.send_response(status_)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Page
