"""The files in deploy/: systemd and nginx accept them, and a browser reaches the site through that very nginx."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests import tools
from tests.ports import free_port, is_open
from tests.served import Served, served
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
FILES = [*UNITS, *DEPLOY.glob("*.timer")]
HOST = "crm.example.org"


@pytest.mark.long
@pytest.mark.parametrize("unit", FILES, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(tmp_path, unit):
    # systemd looks for the program that a unit names: it is where this machine has it.
    text = unit.read_text().replace("/srv/sipgate/.venv/bin/", f"{Path(sys.executable).parent}/")
    text = text.replace("/srv/sipgate", str(ROOT))
    (tmp_path / unit.name).write_text(text)
    for other in FILES:
        if other != unit:
            shutil.copy(other, tmp_path)
    words = ("verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit.name))
    done = systemd_analyze(*words)
    ours = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.long
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_the_unit_is_hardened(unit):
    done = systemd_analyze("security", "--offline=yes", "--no-pager", str(unit))
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert level, done.stdout + done.stderr
    assert float(level[1]) < 2.0  # of 10; a service without any hardening has 9.6


@pytest.mark.parametrize("name", ["sipgate-site", "sipgate-keepalive"])
def test_a_unit_waits_for_the_refreshes_under_way(name):
    server = (ROOT / "gunicorn.conf.py").read_text()
    unit = (DEPLOY / f"{name}.service").read_text()
    [own] = re.findall(r"^graceful_timeout = ([0-9]+)$", server, re.M)
    [systemds] = re.findall(r"^TimeoutStopSec=([0-9]+)$", unit, re.M)
    assert int(systemds) > int(own)


@pytest.mark.long
def test_a_reload_loses_no_page(site):
    def workers():
        first = site.process.pid
        return set(Path(f"/proc/{first}/task/{first}/children").read_text().split())

    before = workers()
    site.process.send_signal(signal.SIGHUP)

    def all_are_new():
        assert site.get("/readyz").status_code == 200
        return not workers() & before

    wait_for(all_are_new)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
class TestThroughNginx:
    def test_a_page_comes_safely(self, nginx):
        page = nginx.get("/")
        assert page.status_code == 200
        assert page.headers["Strict-Transport-Security"].startswith("max-age=")
        assert "form-action" in page.headers["Content-Security-Policy"]
        style = re.search(r'href="(/static/[^"]+\.css)"', page.text)
        assert style
        assert nginx.get(style[1]).status_code == 200

    def test_plain_http_leads_to_https(self, nginx):
        answer = nginx.get("/account?next=/", scheme="http")
        assert (answer.status_code, answer.headers["Location"]) == (
            301,
            f"https://{HOST}/account?next=/",
        )

    def test_a_sign_in_begins(self, nginx):
        answer = nginx.post("/accounts/sipgate/login/", {})
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith(
            "https://login.sipgate.com/auth/realms/third-party/"
        )
        assert "redirect_uri=https%3A%2F%2Fcrm.example.org%2Foauth" in answer.headers["Location"]

    @pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz"])
    def test_what_is_for_machines_inside_stays_there(self, nginx, site, path):
        assert nginx.get(path).status_code == 404
        assert site.get(path).status_code == 200

    def test_no_log_has_the_code(self, nginx, site):
        assert nginx.get("/oauth?code=unmistakable&state=x").status_code < 500
        nginx.get("/oauth?code=unmistakable&state=x", scheme="http")
        logs = (
            "".join(path.read_text() for path in nginx.folder.glob("*.log")) + site.log.read_text()
        )
        assert '"GET /oauth"' in logs
        assert "unmistakable" not in logs

    def test_wrong_passwords_count_by_the_address_that_nginx_saw(self, nginx):
        """A visitor who invents an address for each try is stopped all the same."""
        told = []
        for number in range(12):
            form = {"login": f"nobody{number}", "password": "wrong"}
            answer = nginx.post(
                "/accounts/login/", form, {"X-Forwarded-For": f"203.0.113.{number}"}
            )
            told.append((answer.status_code, "Too many failed login attempts" in answer.text))
        assert told[0] == (200, False)
        assert told[-1][1] or told[-1][0] == 429, told


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("site")
    with served(folder, f"sqlite:///{folder}/db.sqlite3", BEHIND_PROXY="on") as running:
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
            cwd=ROOT,
            env=running.environment,
            check=True,
            timeout=120,
        )
        yield running


@pytest.fixture(scope="module")
def nginx(site: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    proxy = Nginx(tmp_path_factory.mktemp("nginx"), site.port)
    done = subprocess.run([*proxy.command, "-t"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr
    process = subprocess.Popen(proxy.command)
    try:
        wait_for(lambda: is_open(proxy.https))
        yield proxy
    finally:
        process.terminate()
        process.wait(30)


class Nginx:
    """nginx with ``deploy/nginx-site.conf``, but with ports, folders and certificate of the test."""

    def __init__(self, folder: Path, upstream: int) -> None:
        self.folder, self.http, self.https = folder, free_port(), free_port()
        certificate(folder)
        site = (DEPLOY / "nginx-site.conf").read_text()
        for theirs, ours in {
            "listen [::]:80;": "",
            "listen [::]:443 ssl http2;": "",
            "listen 80;": f"listen 127.0.0.1:{self.http};",
            "listen 443 ssl": f"listen 127.0.0.1:{self.https} ssl",
            "127.0.0.1:8000": f"127.0.0.1:{upstream}",
            f"/etc/ssl/{HOST}": str(folder),
            "/var/log/nginx": str(folder),
        }.items():
            assert theirs in site, theirs
            site = site.replace(theirs, ours)
        (folder / "site.conf").write_text(site)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        user = "user root;" if os.geteuid() == 0 else ""  # the folder is this user's
        (folder / "nginx.conf").write_text(
            f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
            f"http {{ {temporary} access_log off; include {folder}/site.conf; }}\n"
        )
        program = tools.needed("nginx", package="nginx-light")
        self.command = [program, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]

    def get(self, path: str, scheme: str = "https") -> requests.Response:
        return self._ask("GET", scheme, path)

    def post(
        self, path: str, form: dict[str, str], headers: dict[str, str] | None = None
    ) -> requests.Response:
        """Send a form as a new visitor, with what the sign-in page gave: a token and cookies."""
        page = self.get("/accounts/login/")
        [token] = set(re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text))
        assert all(cookie.secure for cookie in page.cookies)
        return self._ask(
            "POST",
            "https",
            path,
            data={"csrfmiddlewaretoken": token, **form},
            headers={
                "Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in page.cookies),
                "Referer": f"https://{HOST}/accounts/login/",
                **(headers or {}),
            },
        )

    def _ask(self, method: str, scheme: str, path: str, **more: Any) -> requests.Response:
        port = self.https if scheme == "https" else self.http
        return requests.request(
            method,
            f"{scheme}://127.0.0.1:{port}{path}",
            headers={"Host": HOST} | more.pop("headers", {}),
            timeout=30,
            allow_redirects=False,
            verify=False,
            **more,
        )


def systemd_analyze(*words: str) -> subprocess.CompletedProcess[str]:
    program = tools.needed("systemd-analyze", package="systemd")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60)


def certificate(folder: Path) -> None:
    """Write a certificate for ``HOST`` and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
