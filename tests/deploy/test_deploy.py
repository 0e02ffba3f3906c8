"""The files in deploy/: systemd and nginx accept them, and a browser reaches the site through that nginx."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests import tools
from tests.ports import free_port, is_open
from tests.processes import Site
from tests.served import ROOT, TOKEN, deployment, served
from tests.waiting import wait_for

DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
FILES = [*UNITS, *DEPLOY.glob("*.timer")]
HOST = "crm.example.org"
TOKEN_OF_FORM = r'name="csrfmiddlewaretoken" value="([^"]+)"'
PASSWORD = "correct horse battery"
SCRAPER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.long
@pytest.mark.parametrize("unit", FILES, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(tmp_path, unit):
    # systemd checks that the program of a unit exists, so the unit names one of this machine.
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


def test_django_finds_nothing_wrong_with_a_deployment(tmp_path):
    environment = deployment(
        tmp_path, "postgres://site@db.example.org/site", EMAIL_URL="submission://mail.example.org"
    )
    assert manage("check --deploy --fail-level WARNING", environment) == 0


@pytest.mark.parametrize("name", ["sipgate-site", "sipgate-keepalive"])
def test_a_unit_waits_for_the_refreshes_under_way(name):
    server = (ROOT / "gunicorn.conf.py").read_text()
    unit = (DEPLOY / f"{name}.service").read_text()
    [own] = re.findall(r"^graceful_timeout = ([0-9]+)$", server, re.M)
    [systemds] = re.findall(r"^TimeoutStopSec=([0-9]+)$", unit, re.M)
    assert int(systemds) > int(own)


@pytest.mark.long
def test_a_reload_loses_no_page(site):
    def workers() -> set[str]:
        first = site.process.pid
        return set(Path(f"/proc/{first}/task/{first}/children").read_text().split())

    before = workers()
    site.process.send_signal(signal.SIGHUP)

    def all_are_new() -> bool:
        assert site.get("/readyz").status_code == 200
        return not workers() & before

    wait_for(all_are_new)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
class TestThroughNginx:
    def test_a_page_arrives_over_https(self, visitor):
        page = visitor.get("/")
        assert page.status_code == 200
        assert page.headers["Strict-Transport-Security"].startswith("max-age=")
        [style] = re.findall(r'href="(/static/[^"]+\.css)"', page.text)
        assert visitor.get(style).status_code == 200

    def test_plain_http_leads_to_https(self, visitor):
        answer = visitor.get("/account?next=/", scheme="http")
        assert answer.status_code == 301
        assert answer.headers["Location"] == f"https://{HOST}/account?next=/"

    def test_a_sign_in_begins(self, visitor):
        address = visitor.post("/accounts/sipgate/login/").headers["Location"]
        assert address.startswith("https://login.sipgate.com/auth/realms/third-party/")
        assert "redirect_uri=https%3A%2F%2Fcrm.example.org%2Foauth" in address

    def test_addresses_for_internal_machines_are_hidden(self, visitor, site):
        for path in ("/livez", "/readyz", "/metrics"):
            assert visitor.get(path).status_code == 404, path
            assert site.get(path, **SCRAPER).status_code == 200, path

    def test_no_log_has_the_code(self, visitor, site, nginx):
        for scheme in ("https", "http"):
            assert visitor.get("/oauth?code=unmistakable&state=x", scheme=scheme).status_code < 500
        logs = [path.read_text() for path in [*nginx.folder.glob("*.log"), site.log]]
        assert '"GET /oauth"' in "".join(logs)
        assert "unmistakable" not in "".join(logs)

    def test_the_site_sees_the_address_that_nginx_saw(self, visitor):
        """Not one that the visitor invents: the site counts wrong passwords by address."""
        answer = visitor.post(
            "/accounts/signup/",
            forwarded_for="203.0.113.9",
            username="erika",
            password1=PASSWORD,
            password2=PASSWORD,
        )
        assert answer.status_code == 302, answer.text
        page = visitor.get("/accounts/sessions/").text
        assert "127.0.0.1" in page
        assert "203.0.113.9" not in page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    database = f"sqlite:///{folder}/db.sqlite3"
    assert manage("migrate --verbosity 0", deployment(folder, database)) == 0
    with served(folder, database) as running:
        yield running


@pytest.fixture
def visitor(nginx: Nginx) -> Iterator[Visitor]:
    one = Visitor(nginx)
    yield one
    one.session.close()


@pytest.fixture(scope="module")
def nginx(
    site: Site, certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    proxy = Nginx(tmp_path_factory.mktemp("nginx"), site.url, certificate)
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
    """nginx with ``deploy/nginx-site.conf``, but with the ports, folders and certificate of the test."""

    def __init__(self, folder: Path, upstream: str, certificate: Path) -> None:
        self.folder, self.http, self.https = folder, free_port(), free_port()
        site = (DEPLOY / "nginx-site.conf").read_text()
        for theirs, ours in {
            "listen [::]:80;": "",
            "listen [::]:443 ssl http2;": "",
            "listen 80;": f"listen 127.0.0.1:{self.http};",
            "listen 443 ssl": f"listen 127.0.0.1:{self.https} ssl",
            "127.0.0.1:8000": upstream.removeprefix("http://"),
            f"/etc/ssl/{HOST}/fullchain.pem": str(certificate),
            f"/etc/ssl/{HOST}/privkey.pem": str(certificate),
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


class Visitor:
    """A browser that knows nginx as ``HOST``."""

    def __init__(self, nginx: Nginx) -> None:
        self.ports = {"http": nginx.http, "https": nginx.https}
        self.session = requests.Session()
        self.session.headers["Host"] = HOST
        self.session.verify = self.session.trust_env = False

    def get(self, path: str, *, scheme: str = "https") -> requests.Response:
        address = f"{scheme}://127.0.0.1:{self.ports[scheme]}{path}"
        return self.session.get(address, timeout=30, allow_redirects=False)

    def post(self, path: str, *, forwarded_for: str = "", **form: str) -> requests.Response:
        """Post a form with the CSRF token of the sign-in page."""
        page = self.get("/accounts/login/")
        assert all(cookie.secure for cookie in page.cookies)
        [form["csrfmiddlewaretoken"]] = set(re.findall(TOKEN_OF_FORM, page.text))
        headers = {"Referer": f"https://{HOST}/", "X-Forwarded-For": forwarded_for}
        address = f"https://127.0.0.1:{self.ports['https']}{path}"
        return self.session.post(address, form, headers=headers, timeout=30, allow_redirects=False)


def manage(command: str, environment: dict[str, str]) -> int:
    words = [sys.executable, "manage.py", *command.split()]
    return subprocess.run(words, cwd=ROOT, env=environment, timeout=120).returncode


def systemd_analyze(*words: str) -> subprocess.CompletedProcess[str]:
    program = tools.needed("systemd-analyze", package="systemd")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60)
