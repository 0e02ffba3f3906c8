"""The environment of the site: what works unchanged, and each mistake ends in one sentence that names the variable.

Each test starts a process in a copy of the project's folder with an ``.env`` of its own.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sipgate_project.management.commands.runserver import _why_not

ROOT = Path(__file__).resolve().parents[2]
SECRET = "s3cret-value-that-must-not-show"
SITE = f"SECRET_KEY={SECRET}\nSIPGATE_TOKEN_KEYS=dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk=\n"
CLIENT = f"CLIENT_ID=1234567-1-abc:third-party\nCLIENT_SECRET={SECRET}\n"
PUBLIC = f"{SITE}{CLIENT}REDIRECT_URI=https://crm.example.org/oauth\n"
EXAMPLE = """
CLIENT_ID="YOUR_CLIENT_ID"
CLIENT_SECRET="YOUR_CLIENT_SECRET"

OAUTH_SCOPE=account:read

REDIRECT_URI="http://localhost:8080/oauth"
PORT=8080

AUTH_URL=https://login.sipgate.com/auth/realms/third-party/protocol/openid-connect/auth
TOKEN_URL=https://login.sipgate.com/auth/realms/third-party/protocol/openid-connect/token
TEST_API_ENDPOINT=https://api.sipgate.com/v2/account
"""
"""The variables of sipgate's own Python example."""
REALM = "https://login.sipgate.com/auth/realms"
SHOW = """
import json, sys
from sipgate_project import settings
names = sys.argv[1].split()
print(json.dumps({name: getattr(settings, name) for name in names}, default=str))
"""


class Project:
    """A copy of the project's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The settings find their folder by the real place of their file: a link would lead back.
        shutil.copytree(
            ROOT / "sipgate_project", folder / "sipgate_project", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(ROOT / "manage.py", folder)
        for name in ("sipgate_provider", "sipgate_sandbox", "templates"):
            (folder / name).symlink_to(ROOT / name)

    def write(self, text: str | bytes) -> None:
        (self.folder / ".env").write_bytes(text.encode() if isinstance(text, str) else text)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in {"PATH", "HOME", "LANG", "SYSTEMROOT", "TMPDIR"}
        }
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=kept | {"PYTHONDONTWRITEBYTECODE": "1"} | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def values(self, *names: str, **variables: str) -> dict[str, Any]:
        done = self.run("-c", SHOW, " ".join(names), **variables)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def refused(done: subprocess.CompletedProcess[str], variable: str) -> None:
    """One sentence (or two short ones) on stderr that names the variable; nothing secret; not a success."""
    assert done.returncode not in {0, -1}
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("Configuration: ")
    assert done.stderr.strip().endswith(".")
    assert variable in done.stderr
    assert "s3cret" not in done.stderr


MISTAKES = [
    ("CLIENT_SECRET", f"{SITE}CLIENT_ID=1-1-x:third-party"),
    ("CLIENT_ID", f"{SITE}CLIENT_SECRET={SECRET}"),
    ("CLIENT_SECRET", f"{SITE}CLIENT_ID=1-1-x:third-party\nCLIENT_SECRET=YOUR_CLIENT_SECRET"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://localhost:8080/oauth\nPORT=9000"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://localhost/oauth\nPORT=8080"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://localhost:8080/oauth?a={SECRET}"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://localhost:8080/oauth#fragment"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://localhost:8080"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://localhost:8080/"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://localhost:8080/account"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://localhost:8080/admin/oauth"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://localhost:8080/accounts/login/"),
    ("REDIRECT_URI", f"{SITE}{CLIENT}REDIRECT_URI=https://münchen.example/oauth"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://crm.example.org/oauth"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=localhost:8080/oauth"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=/oauth"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://localhost:99999/oauth"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://localhost:abc/oauth"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://[::1/oauth"),
    ("REDIRECT_URI", f"{SITE}REDIRECT_URI=http://me:{SECRET}@localhost:8080/oauth"),
    ("REDIRECT_URI", f'{SITE}REDIRECT_URI="http://localhost:8080/oauth",'),
    ("PORT", f"{SITE}PORT=eight"),
    ("PORT", f"{SITE}PORT=0"),
    ("PORT", f"{SITE}PORT=65536"),
    ("PORT", f"{SITE}PORT=8080,"),
    ("AUTH_URL", f"{SITE}{CLIENT}AUTH_URL=http://login.sipgate.com/auth"),
    ("TOKEN_URL", f"{SITE}{CLIENT}TOKEN_URL=http://login.example.org/token"),
    ("TOKEN_URL", f"{SITE}{CLIENT}TOKEN_URL=https://me:{SECRET}@login.example.org/token"),
    ("TOKEN_URL", f"{SITE}{CLIENT}TOKEN_URL=login.sipgate.com/token"),
    ("TEST_API_ENDPOINT", f"{SITE}{CLIENT}TEST_API_ENDPOINT=ftp://api.sipgate.com/v2/account"),
    ("SIPGATE_API_URL", f"{SITE}{CLIENT}SIPGATE_API_URL=http://api.sipgate.com/v2"),
    ("LOGOUT_URL", f"{SITE}{CLIENT}LOGOUT_URL=no"),
    ("REVOKE_URL", f"{SITE}{CLIENT}REVOKE_URL=yes"),
    (
        "CLIENT_ID",
        f"{SITE}{CLIENT}AUTH_URL={REALM}/sipgate-apps/protocol/openid-connect/auth\nTOKEN_URL={REALM}/sipgate-apps/protocol/openid-connect/token",
    ),
    ("AUTH_URL", f"{SITE}{CLIENT}AUTH_URL={REALM}/sipgate-apps/protocol/openid-connect/auth"),
    ("SANDBOX_PORT", f"{SITE}SANDBOX_PORT=8080"),
    ("SANDBOX_PORT", f"{SITE}SANDBOX_PORT=x"),
    ("SANDBOX_URL", f"{SITE}SANDBOX_URL=http://sandbox.example.org"),
    ("SECRET_KEY", f"{CLIENT}REDIRECT_URI=https://crm.example.org/oauth"),
    ("DEBUG", f"{SITE}DEBUG=maybe-{SECRET}"),
    ("BEHIND_PROXY", f"{PUBLIC}BEHIND_PROXY=2"),
    ("ATOMIC_REQUESTS", f"{SITE}ATOMIC_REQUESTS=x"),
    ("HSTS_SECONDS", f"{PUBLIC}HSTS_SECONDS=a year"),
    ("HSTS_SECONDS", f"{PUBLIC}HSTS_SECONDS=-1"),
    ("HSTS_PRELOAD", f"{PUBLIC}HSTS_PRELOAD=x"),
    ("DATABASE_URL", f"{SITE}DATABASE_URL=postgres//user:{SECRET}@host/name"),
    ("DATABASE_URL", f"{SITE}DATABASE_URL=oracel://user:{SECRET}@host/name"),
    ("DATABASE_URL", f"{SITE}DATABASE_URL=postgres://user:{SECRET}/more@host/name"),
    ("DATABASE_URL", f"{SITE}DATABASE_URL={SECRET}"),
    ("DATABASE_URL", f"{SITE}DATABASE_URL=sqlite:////no/such/folder/{SECRET}.sqlite3"),
    ("DATABASE_POOL", f"{SITE}DATABASE_URL=postgres://u:{SECRET}@127.0.0.1/n\nDATABASE_POOL=0"),
    ("EMAIL_URL", f"{SITE}EMAIL_URL=mailto:{SECRET}@example.org"),
    ("EMAIL_URL", f"{SITE}EMAIL_URL=smtp://me:{SECRET}/x@host:25"),
    ("EMAIL_URL", f"{SITE}EMAIL_URL=smtp://host:abc"),
    ("EMAIL_URL", f"{SITE}EMAIL_URL=host"),
    ("REDIS_URL", f"{SITE}REDIS_URL=redix://:{SECRET}@host"),
    ("REDIS_URL", f"{SITE}REDIS_URL=redis://:{SECRET}/x@host:6379/0"),
    ("TIME_ZONE", f"{SITE}TIME_ZONE=Mars/Phobos"),
    ("TIME_ZONE", f"{SITE}TIME_ZONE=Europe"),
    ("TIME_ZONE", f"{SITE}TIME_ZONE=../../etc/passwd"),
    ("LOG_LEVEL", f"{SITE}LOG_LEVEL=chatty"),
    ("LOG_FORMAT", f"{SITE}LOG_FORMAT=xml"),
    ("METRICS_TOKEN", f"{SITE}METRICS_TOKEN=s3cret-value-th"),
    ("METRICS_TOKEN", f"{SITE}METRICS_TOKEN={SECRET} {SECRET}"),
    ("METRICS_TOKEN", f"{SITE}METRICS_TOKEN={SECRET}-gehört"),
    (".env", f"{SITE}# gehört\n".encode("latin-1")),
    (".env", f"SECRET_KEY={SECRET}\n".encode("utf-16")),
]


def _name(case: Any) -> str:
    text = case.decode("latin-1") if isinstance(case, bytes) else str(case)
    return text.strip().rpartition("\n")[2].replace(SECRET, "…")


@pytest.mark.parametrize(("variable", "text"), MISTAKES, ids=_name)
def test_a_mistake_ends_in_one_sentence(project: Project, variable: str, text: str | bytes) -> None:
    project.write(text)
    refused(project.run("manage.py", "runserver"), variable)


def test_a_mistake_under_wsgi_quotes_nothing_either(project: Project) -> None:
    # A worker prints the traceback with all causes: parsers would quote pieces of the password there.
    for text in (f"{SITE}DATABASE_URL=postgres://u:{SECRET}/x@h/n", f"{SITE}EMAIL_URL=smtp://u:{SECRET}/x@h:25"):
        project.write(text)
        done = project.run("-c", "import sipgate_project.wsgi")
        assert done.returncode != 0
        assert "ImproperlyConfigured" in done.stderr
        assert "s3cret" not in done.stderr


def test_an_unreadable_env_file_is_not_ignored(project: Project) -> None:
    project.write(SITE)
    (project.folder / ".env").chmod(0)
    if os.access(project.folder / ".env", os.R_OK):  # root reads everything: then it has to work
        assert project.values("SECRET_KEY") == {"SECRET_KEY": SECRET}
    else:
        refused(project.run("manage.py", "check"), ".env")


class TestWhatWorks:
    def test_the_env_of_sipgates_example_runs_the_sandbox_while_it_has_placeholders(self, project: Project) -> None:
        project.write(EXAMPLE)
        values = project.values(
            "SANDBOX", "SIPGATE_REDIRECT_URI", "PORT", "SIPGATE_TOKEN_URL", "SIPGATE_API_URL", "SIPGATE_SCOPE"
        )
        assert values == {
            "SANDBOX": True,
            "SIPGATE_REDIRECT_URI": "http://localhost:8080/oauth",
            "PORT": 8080,
            "SIPGATE_TOKEN_URL": "http://localhost:8081/auth/realms/third-party/protocol/openid-connect/token",
            "SIPGATE_API_URL": "http://localhost:8081/v2",
            "SIPGATE_SCOPE": ["account:read"],
        }

    def test_and_sipgate_when_it_is_filled_in(self, project: Project) -> None:
        project.write(
            EXAMPLE.replace("YOUR_CLIENT_ID", "1234567-1-abc:third-party").replace("YOUR_CLIENT_SECRET", SECRET)
        )
        names = (
            "SANDBOX",
            "CLIENT_ID",
            "SIPGATE_AUTH_URL",
            "SIPGATE_TOKEN_URL",
            "SIPGATE_API_URL",
            "ALLOWED_HOSTS",
            "DEBUG",
        )
        assert project.values(*names) == {
            "SANDBOX": False,
            "CLIENT_ID": "1234567-1-abc:third-party",
            "DEBUG": False,
            "SIPGATE_AUTH_URL": f"{REALM}/third-party/protocol/openid-connect/auth",
            "SIPGATE_TOKEN_URL": f"{REALM}/third-party/protocol/openid-connect/token",
            "SIPGATE_API_URL": "https://api.sipgate.com/v2",
            "ALLOWED_HOSTS": ["localhost", "localhost", "127.0.0.1", "[::1]"],
        }
        done = project.run("manage.py", "check")
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize(
        "text",
        ["", CLIENT, EXAMPLE, PUBLIC, f"{PUBLIC}DEBUG=on", (ROOT / ".env.example").read_text()],
        ids=["nothing", "client only", "sipgate's example", "public", "debug", ".env.example"],
    )
    def test_checks_pass(self, project: Project, text: str) -> None:
        if text:
            project.write(text)
        done = project.run("manage.py", "check", "--fail-level", "WARNING")
        assert (done.returncode, done.stderr) == (0, "")

    def test_the_environment_wins_over_the_file(self, project: Project) -> None:
        project.write(f"{SITE}TIME_ZONE=Europe/Paris\nPORT=9000\nOAUTH_SCOPE=a")
        values = project.values(
            "TIME_ZONE", "PORT", "SIPGATE_REDIRECT_URI", "SIPGATE_SCOPE", TIME_ZONE="Asia/Tokyo", OAUTH_SCOPE="b c,d"
        )
        assert values == {
            "TIME_ZONE": "Asia/Tokyo",
            "PORT": 9000,
            "SIPGATE_REDIRECT_URI": "http://localhost:9000/oauth",
            "SIPGATE_SCOPE": ["b", "c", "d"],
        }

    def test_the_realm_follows_the_client_id(self, project: Project) -> None:
        for suffix, realm in (
            ("third-party", "third-party"),
            ("sipgate-apps", "sipgate-apps"),
            ("other", "third-party"),
        ):
            values = project.values("SIPGATE_TOKEN_URL", CLIENT_ID=f"1-1-x:{suffix}", CLIENT_SECRET="s")
            assert values["SIPGATE_TOKEN_URL"] == f"{REALM}/{realm}/protocol/openid-connect/token"

    @pytest.mark.parametrize(
        ("uri", "port", "variables"),
        [
            ("http://localhost:9000/oauth", 9000, {}),
            ("http://127.0.0.1:9000/oauth", 9000, {}),
            ("http://[::1]:9000/oauth", 9000, {}),
            ("http://localhost/oauth", 80, {}),
            ("https://crm.example.org/oauth", 8080, {"SECRET_KEY": "x"}),
            ("https://localhost/oauth", 8080, {"BEHIND_PROXY": "on", "PORT": "8080"}),
            ("http://crm.localhost:7000/a/b", 7000, {}),
            ("http://localhost:8080/accounts/sipgate/login/callback/", 8080, {}),
            ("https://xn--mnchen-3ya.example/oauth", 8080, {"SECRET_KEY": "x"}),
        ],
    )
    def test_the_port_follows_the_redirect_uri(
        self, project: Project, uri: str, port: int, variables: dict[str, str]
    ) -> None:
        values = project.values("PORT", "SIPGATE_REDIRECT_URI", REDIRECT_URI=uri, **variables)
        assert values == {"PORT": port, "SIPGATE_REDIRECT_URI": uri}

    def test_behind_a_proxy_rate_limits_count_by_visitor(self, project: Project) -> None:
        assert project.values("ALLAUTH_TRUSTED_PROXY_COUNT", BEHIND_PROXY="on") == {"ALLAUTH_TRUSTED_PROXY_COUNT": 1}
        # Nobody else's word is taken for an address.
        assert project.values("ALLAUTH_TRUSTED_PROXY_COUNT") == {"ALLAUTH_TRUSTED_PROXY_COUNT": 0}

    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
    @pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
    def test_an_editor_may_write_the_file_its_way(self, project: Project, mark: bytes, end: bytes) -> None:
        project.write(mark + CLIENT.encode().replace(b"\n", end))
        assert project.values("CLIENT_ID", "CLIENT_SECRET") == {
            "CLIENT_ID": "1234567-1-abc:third-party",
            "CLIENT_SECRET": SECRET,
        }

    @pytest.mark.parametrize("text", ["1", "on", "TRUE", "Yes", "t"])
    def test_flags(self, project: Project, text: str) -> None:
        assert project.values("DEBUG", DEBUG=text) == {"DEBUG": True}

    @pytest.mark.parametrize(
        ("url", "host", "port", "tls"),
        [
            ("smtp+tls://u:p%40@mail.example:587", "mail.example", 587, True),
            ("submission://u:p%40@mail.example", "mail.example", 587, True),
            ("smtp://u:p%40@mail.example:25", "mail.example", 25, False),
        ],
    )
    def test_mail(self, project: Project, url: str, host: str, port: int, tls: bool) -> None:
        names = ("EMAIL_HOST", "EMAIL_PORT", "EMAIL_USE_TLS", "EMAIL_HOST_USER", "EMAIL_HOST_PASSWORD", "EMAIL_BACKEND")
        assert project.values(*names, EMAIL_URL=url) == {
            "EMAIL_HOST": host,
            "EMAIL_PORT": port,
            "EMAIL_USE_TLS": tls,
            "EMAIL_HOST_USER": "u",
            "EMAIL_HOST_PASSWORD": "p@",
            "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        }

    def test_databases(self, project: Project) -> None:
        values = project.values(
            "DATABASES", DATABASE_URL=f"postgres://me:{SECRET}%2F@db.example:5433/name", DATABASE_POOL="3"
        )
        default = values["DATABASES"]["default"]
        assert (default["HOST"], default["PORT"], default["PASSWORD"]) == ("db.example", 5433, f"{SECRET}/")
        assert default["OPTIONS"]["pool"]["max_size"] == 3
        default = project.values("DATABASES")["DATABASES"]["default"]
        assert default["NAME"] == str(project.folder / "var" / "db.sqlite3")
        assert default["OPTIONS"]["transaction_mode"] == "IMMEDIATE"

    def test_the_secrets_of_a_laptop_are_made_once_and_kept_private(self, project: Project) -> None:
        first = project.values("SECRET_KEY", "SIPGATE_TOKEN_KEYS")
        assert project.values("SECRET_KEY", "SIPGATE_TOKEN_KEYS") == first
        assert len(first["SECRET_KEY"]) > 50
        file = project.folder / "var" / "local.env"
        assert file.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in file.parent.glob(".local*")] == []

    def test_many_first_starts_at_once_end_with_the_same_secrets(self, project: Project) -> None:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: project.values("SECRET_KEY")["SECRET_KEY"], range(4)))
        assert len(set(found)) == 1

    def test_a_damaged_file_of_local_secrets_is_named(self, project: Project) -> None:
        (project.folder / "var").mkdir()
        (project.folder / "var" / "local.env").write_text("nothing\n")
        refused(project.run("manage.py", "check"), "SECRET_KEY")

    def test_a_key_that_is_none_is_a_failing_check_that_does_not_quote_it(self, project: Project) -> None:
        project.write(f"SECRET_KEY=x\nSIPGATE_TOKEN_KEYS={SECRET}")
        done = project.run("manage.py", "check")
        assert done.returncode != 0
        assert "Entry 1 of SIPGATE_TOKEN_KEYS" in done.stderr
        assert "Traceback" not in done.stderr
        assert "s3cret" not in done.stderr

    def test_no_key_on_a_public_host_is_a_failing_check(self, project: Project) -> None:
        project.write(PUBLIC.replace("SIPGATE_TOKEN_KEYS", "# "))
        done = project.run("manage.py", "check")
        assert done.returncode != 0
        assert "SIPGATE_TOKEN_KEYS is empty" in done.stderr

    def test_every_variable_is_in_the_example_file(self) -> None:
        read = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', (ROOT / "sipgate_project" / "settings.py").read_text()))
        listed = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
        assert read - listed == set()
        assert listed - read == set()


class TestPort:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_a_busy_one_ends_runserver_in_one_sentence(self, project: Project, host: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
            project.write(f"{SITE}PORT={port}")
            done = project.run("manage.py", "runserver", *([f"{host}:{port}"] if host == "localhost" else []))
        assert done.returncode not in {0, -1}
        assert "Traceback" not in done.stderr
        assert f"Port {port} is in use" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert "sandbox" not in done.stdout  # it is not left running behind

    @pytest.mark.parametrize(
        ("number", "words"),
        [
            (errno.EADDRINUSE, "Port 80 is in use"),
            (errno.EACCES, "Port 80 needs more rights"),
            (errno.EADDRNOTAVAIL, "Port 80 cannot be used: "),
        ],
    )
    def test_each_reason_has_its_words(self, number: int, words: str) -> None:
        sentence = _why_not(OSError(number, os.strerror(number)), 80)
        assert sentence.startswith(words)
        assert sentence.endswith(".")

    def test_an_address_of_another_machine(self, project: Project) -> None:
        project.write(SITE)
        done = project.run("manage.py", "runserver", "192.0.2.1:8099")
        assert done.returncode not in {0, -1}
        assert "Port 8099 cannot be used" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_busy_port_of_the_sandbox(self, project: Project) -> None:
        with socket.create_server(("127.0.0.1", 0)) as busy, socket.create_server(("127.0.0.1", 0)) as free:
            sandbox_port, port = busy.getsockname()[1], free.getsockname()[1]
            free.close()
            project.write(f"{SITE}PORT={port}\nSANDBOX_PORT={sandbox_port}")
            done = project.run("manage.py", "runserver", "--noreload")
        assert done.returncode not in {0, -1}
        assert f"port {sandbox_port} is in use" in done.stderr
        assert "Traceback" not in done.stderr
