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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sipgate_project.env import NAMES
from sipgate_project.management.commands.runserver import _why_not

ROOT = Path(__file__).resolve().parents[2]
SECRET = "s3cret-value-that-must-never-ever-show"
SITE = f"SECRET_KEY={SECRET}\nSIPGATE_TOKEN_KEYS=dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk=\n"
CLIENT = f"CLIENT_ID=1234567-1-abc:third-party\nCLIENT_SECRET={SECRET}\n"
CLIENT_VARIABLES = {"CLIENT_ID": "1234567-1-abc:third-party", "CLIENT_SECRET": SECRET}
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


READ_ALL = """
import importlib, json, sys
from pathlib import Path
from django.core.exceptions import ImproperlyConfigured
said = []
for text in json.loads(sys.argv[1]):
    Path(".env").write_bytes(text.encode("latin-1"))
    sys.modules.pop("sipgate_project.settings", None)
    try:
        importlib.import_module("sipgate_project.settings")
        said.append("")
    except ImproperlyConfigured as error:
        said.append(str(error))
print(json.dumps(said))
"""
"""Reads the settings once for each file; bytes travel as Latin-1."""


class Project:
    """A copy of the project's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The settings find their folder by the real place of their file: a link would lead back.
        shutil.copytree(
            ROOT / "sipgate_project",
            folder / "sipgate_project",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        shutil.copy(ROOT / "manage.py", folder)
        for name in ("sipgate_provider", "sipgate_sandbox", "templates"):
            (folder / name).symlink_to(ROOT / name)

    def write(self, text: str | bytes) -> None:
        (self.folder / ".env").write_bytes(text.encode() if isinstance(text, str) else text)

    def run(
        self, *arguments: str, without_rights: bool = False, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Python here. ``without_rights``: bound by the modes of files, even as root."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in {"PATH", "HOME", "LANG", "SYSTEMROOT", "TMPDIR"}
        }
        rights = "-dac_override,-dac_read_search"
        bound = without_rights and os.geteuid() == 0
        return subprocess.run(
            [
                *(["setpriv", "--bounding-set", rights, "--inh-caps", rights] if bound else []),
                sys.executable,
                *arguments,
            ],
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
    assert done.stderr.strip().endswith((".", "?"))
    assert variable in done.stderr
    assert "s3cret" not in done.stderr


MISTAKES: dict[str, list[str | bytes]] = {
    (
        "CLIENT_SECRET is not set. Copy Id and Secret of your client from console.sipgate.com, or set "
        "neither to use the local sandbox."
    ): [
        f"{SITE}CLIENT_ID=1-1-x:third-party",
        f"{SITE}CLIENT_ID=1-1-x:third-party\nCLIENT_SECRET=YOUR_CLIENT_SECRET",
    ],
    (
        "CLIENT_ID is not set. Copy Id and Secret of your client from console.sipgate.com, or set neither to "
        "use the local sandbox."
    ): [
        f"{SITE}CLIENT_SECRET={SECRET}",
    ],
    "REDIRECT_URI names port 8080 but PORT is 9000: make them equal, here and in sipgate's console.": [
        f"{SITE}REDIRECT_URI=http://localhost:8080/oauth\nPORT=9000",
    ],
    "REDIRECT_URI names port 80 but PORT is 8080: make them equal, here and in sipgate's console.": [
        f"{SITE}REDIRECT_URI=http://localhost/oauth\nPORT=8080",
    ],
    "REDIRECT_URI must have a path of its own and no query, such as http://localhost:8080/oauth.": [
        f"{SITE}REDIRECT_URI=http://localhost:8080/oauth?a={SECRET}",
        f"{SITE}REDIRECT_URI=http://localhost:8080",
        f"{SITE}REDIRECT_URI=http://localhost:8080/",
        f"{SITE}REDIRECT_URI=http://localhost:8080/account",
        f"{SITE}REDIRECT_URI=http://localhost:8080/admin/oauth",
        f"{SITE}REDIRECT_URI=http://localhost:8080/accounts/login/",
        f"{SITE}REDIRECT_URI=http://localhost:8080/readyz",
    ],
    "REDIRECT_URI must be a full address such as https://example.org/path, without quotes, blanks or a fragment.": [
        f"{SITE}REDIRECT_URI=http://localhost:8080/oauth#fragment",
        f"{SITE}REDIRECT_URI=localhost:8080/oauth",
        f"{SITE}REDIRECT_URI=/oauth",
        f"{SITE}REDIRECT_URI=http://localhost:99999/oauth",
        f"{SITE}REDIRECT_URI=http://localhost:abc/oauth",
        f"{SITE}REDIRECT_URI=http://[::1/oauth",
        f"{SITE}REDIRECT_URI=http://me:{SECRET}@localhost:8080/oauth",
    ],
    "REDIRECT_URI must name its host in ASCII, such as xn--mnchen-3ya.example for münchen.example.": [
        f"{SITE}{CLIENT}REDIRECT_URI=https://münchen.example/oauth",
    ],
    "REDIRECT_URI must start with https://: over plain http the client secret and tokens could be read.": [
        f"{SITE}REDIRECT_URI=http://crm.example.org/oauth",
    ],
    (
        ".env line 3 is not understood: write REDIRECT_URI=value, with straight quotes at both ends or none, "
        "and nothing behind."
    ): [
        f'{SITE}REDIRECT_URI="http://localhost:8080/oauth",',
    ],
    "PORT must be a whole number from 1 to 65535.": [
        f"{SITE}PORT=eight",
        f"{SITE}PORT=0",
        f"{SITE}PORT=65536",
        f"{SITE}PORT=8080,",
        f"{SITE}PORT=80.5",
    ],
    "AUTH_URL must start with https://: over plain http the client secret and tokens could be read.": [
        f"{SITE}{CLIENT}AUTH_URL=http://login.sipgate.com/auth",
    ],
    "TOKEN_URL must start with https://: over plain http the client secret and tokens could be read.": [
        f"{SITE}{CLIENT}TOKEN_URL=http://login.example.org/token",
    ],
    "TOKEN_URL must be a full address such as https://example.org/path, without quotes, blanks or a fragment.": [
        f"{SITE}{CLIENT}TOKEN_URL=https://me:{SECRET}@login.example.org/token",
        f"{SITE}{CLIENT}TOKEN_URL=login.sipgate.com/token",
    ],
    (
        "TEST_API_ENDPOINT must be a full address such as https://example.org/path, without quotes, blanks "
        "or a fragment."
    ): [
        f"{SITE}{CLIENT}TEST_API_ENDPOINT=ftp://api.sipgate.com/v2/account",
    ],
    "SIPGATE_API_URL must start with https://: over plain http the client secret and tokens could be read.": [
        f"{SITE}{CLIENT}SIPGATE_API_URL=http://api.sipgate.com/v2",
    ],
    "SIPGATE_LOGOUT_URL must be a full address such as https://example.org/path, without quotes, blanks or a fragment.": [
        f"{SITE}{CLIENT}SIPGATE_LOGOUT_URL=no",
    ],
    "SIPGATE_REVOKE_URL must be a full address such as https://example.org/path, without quotes, blanks or a fragment.": [
        f"{SITE}{CLIENT}SIPGATE_REVOKE_URL=yes",
    ],
    (
        "CLIENT_ID ends in :third-party but TOKEN_URL names the realm sipgate-apps: sipgate would answer "
        "'client not found'. Remove AUTH_URL and TOKEN_URL, or correct the realm in them."
    ): [
        (
            f"{SITE}{CLIENT}AUTH_URL={REALM}/sipgate-apps/protocol/openid-connect/auth\nTOKEN_URL={REALM}/"
            f"sipgate-apps/protocol/openid-connect/token"
        ),
    ],
    "AUTH_URL and TOKEN_URL name different realms: both must be those of your client.": [
        f"{SITE}{CLIENT}AUTH_URL={REALM}/sipgate-apps/protocol/openid-connect/auth",
    ],
    "SANDBOX_PORT must differ from PORT.": [
        f"{SITE}SANDBOX_PORT=8080",
    ],
    "SANDBOX_PORT must be a whole number from 1 to 65535.": [
        f"{SITE}SANDBOX_PORT=x",
    ],
    "SANDBOX_URL must start with https://: over plain http the client secret and tokens could be read.": [
        f"{SITE}SANDBOX_URL=http://sandbox.example.org",
    ],
    "SANDBOX_URL must name this machine, such as http://localhost:8081.": [
        f"{SITE}SANDBOX_URL=https://sandbox.example.org",
        f"{SITE}SANDBOX_URL=https://192.168.1.7:8081",
    ],
    "CLIENT_ID is not set, but REDIRECT_URI names a host other than this machine: set CLIENT_ID and CLIENT_SECRET, since the sandbox is used on a loopback address only.": [
        f"{SITE}REDIRECT_URI=https://crm.example.org/oauth",
        f"{SITE}REDIRECT_URI=https://192.168.1.7:8080/oauth",
        f"{SITE}CLIENT_ID=YOUR_CLIENT_ID\nREDIRECT_URI=https://crm.example.org/oauth",
        f"{SITE}REDIRECT_URI=https://crm.example.org/oauth\nSANDBOX_URL=http://localhost:8081",
    ],
    "CLIENT_ID is not set, but ALLOWED_HOSTS names a host other than this machine: set CLIENT_ID and CLIENT_SECRET, since the sandbox is used on a loopback address only.": [
        f"{SITE}ALLOWED_HOSTS=crm.example.org,localhost",
    ],
    "SECRET_KEY is not set. Use a long random value and keep it secret.": [
        f"{CLIENT}REDIRECT_URI=https://crm.example.org/oauth",
    ],
    "DEBUG must be on or off.": [
        f"{SITE}DEBUG=maybe-{SECRET}",
    ],
    "BEHIND_PROXY must be on or off.": [
        f"{PUBLIC}BEHIND_PROXY=2",
    ],
    "ATOMIC_REQUESTS must be on or off.": [
        f"{SITE}ATOMIC_REQUESTS=x",
    ],
    "HSTS_SECONDS must be a whole number from 0 to 63072000.": [
        f"{PUBLIC}HSTS_SECONDS=a year",
        f"{PUBLIC}HSTS_SECONDS=-1",
    ],
    "HSTS_PRELOAD must be on or off.": [
        f"{PUBLIC}HSTS_PRELOAD=x",
    ],
    (
        "DATABASE_URL cannot be understood; expected something like postgres://user:password@host/name or "
        "sqlite:////folder/file.sqlite3."
    ): [
        f"{SITE}DATABASE_URL=postgres//user:{SECRET}@host/name",
        f"{SITE}DATABASE_URL=oracel://user:{SECRET}@host/name",
        f"{SITE}DATABASE_URL=postgres://user:{SECRET}/more@host/name",
        f"{SITE}DATABASE_URL={SECRET}",
        f"{SITE}DATABASE_URL=mysql://user:{SECRET}@host/name",
    ],
    "DATABASE_URL names a file in a folder that does not exist.": [
        f"{SITE}DATABASE_URL=sqlite:////no/such/folder/{SECRET}.sqlite3",
    ],
    "DATABASE_POOL must be a whole number from 1 to 200.": [
        f"{SITE}DATABASE_URL=postgres://u:{SECRET}@127.0.0.1/n\nDATABASE_POOL=0",
    ],
    "EMAIL_URL cannot be understood; expected something like submission://user:password@host:587.": [
        f"{SITE}EMAIL_URL=mailto:{SECRET}@example.org",
        f"{SITE}EMAIL_URL=smtp://me:{SECRET}/x@host:25",
        f"{SITE}EMAIL_URL=smtp://host:abc",
        f"{SITE}EMAIL_URL=host",
    ],
    "TIME_ZONE cannot be understood; expected a name such as Europe/Berlin.": [
        f"{SITE}TIME_ZONE=Mars/Phobos",
        f"{SITE}TIME_ZONE=Europe",
        f"{SITE}TIME_ZONE=../../etc/passwd",
    ],
    "LOG_LEVEL must be DEBUG, INFO, WARNING, ERROR or CRITICAL.": [
        f"{SITE}LOG_LEVEL=chatty",
    ],
    "LOG_FORMAT must be line or json.": [
        f"{SITE}LOG_FORMAT=xml",
    ],
    "METRICS_TOKEN must have at least 16 characters: ASCII, without blanks.": [
        f"{SITE}METRICS_TOKEN=s3cret-value-th",
        f"{SITE}METRICS_TOKEN={SECRET} {SECRET}",
        f"{SITE}METRICS_TOKEN={SECRET}-gehört",
    ],
    ".env cannot be read (UnicodeDecodeError): it must be a UTF-8 text file, readable by this user.": [
        f"{SITE}# gehört\n".encode("latin-1"),
        f"SECRET_KEY={SECRET}\n".encode("utf-16"),
    ],
    (
        "CLIENT_ID contains a character that cannot be meant (U+0020 SPACE): copy the value from "
        "console.sipgate.com again."
    ): [
        f"{SITE}CLIENT_ID=1234567 1-abc:third-party\nCLIENT_SECRET={SECRET}",
    ],
    "CLIENT_ID has quotes (“…”) that became a part of it: remove them.": [
        f"{SITE}CLIENT_ID=“1234567-1-abc:third-party”\nCLIENT_SECRET={SECRET}",
    ],
    "CLIENT_SECRET contains an invisible character (U+200B ZERO WIDTH SPACE): type the value again.": [
        f"{SITE}CLIENT_ID=1234567-1-abc:third-party\nCLIENT_SECRET={SECRET}\u200b",
    ],
    (
        "CLIENT_ID contains a character that cannot be meant (U+2011 NON-BREAKING HYPHEN): copy the value "
        "from console.sipgate.com again."
    ): [
        f"{SITE}CLIENT_ID=1234567‑1-abc:third-party\nCLIENT_SECRET={SECRET}",
    ],
    "CLIENT_ID has quotes ('…') that became a part of it: remove them.": [
        f"{SITE}CLIENT_ID=\"'1234567-1-abc:third-party'\"\nCLIENT_SECRET={SECRET}",
    ],
    (
        "CLIENT_ID is not set. Copy Id and Secret of your client from console.sipgate.com, or set neither to "
        "use the local sandbox. .env line 3: CLIENTID is not a variable of this site; did you mean CLIENT_ID?"
    ): [
        f"{SITE}CLIENTID=1234567-1-abc:third-party\nCLIENT_SECRET={SECRET}",
    ],
    (
        ".env line 3 is not understood: write CLIENT_ID=value, with straight quotes at both ends or none, "
        "and nothing behind."
    ): [
        f"{SITE}CLIENT_ID: 1234567-1-abc:third-party\nCLIENT_SECRET={SECRET}",
    ],
    "OAUTH_SCOPE holds a name that no scope can have: expected something like account:read users:read.": [
        f"{SITE}{CLIENT}OAUTH_SCOPE=größe",
    ],
    "OAUTH_SCOPE has quotes (“…”) that became a part of it: remove them.": [
        f"{SITE}{CLIENT}OAUTH_SCOPE=“account:read”",
    ],
    (
        "REDIRECT_URI starts with https:// but this site itself speaks http only: use http:// on this "
        "machine, or set BEHIND_PROXY=on if a proxy in front ends TLS."
    ): [
        f"{SITE}REDIRECT_URI=https://localhost:8080/oauth",
    ],
    "REDIRECT_URI names an address of this machine or network: use localhost, or a host name with https://.": [
        f"{SITE}REDIRECT_URI=http://0.0.0.0:8080/oauth",
        f"{SITE}{CLIENT}REDIRECT_URI=http://192.168.1.5:8080/oauth",
    ],
    "TEST_API_ENDPOINT must be the address of the account resource, such as https://api.sipgate.com/v2/account.": [
        f"{SITE}{CLIENT}TEST_API_ENDPOINT=https://api.sipgate.com",
        f"{SITE}{CLIENT}TEST_API_ENDPOINT=https://api.sipgate.com/v2",
        f"{SITE}{CLIENT}TEST_API_ENDPOINT=https://api.sipgate.com/v2/",
    ],
    (
        "AUTH_URL must end in /realms/third-party/protocol/openid-connect/auth, with the realm of your "
        "client. Remove it to use sipgate's own address."
    ): [
        f"{SITE}{CLIENT}AUTH_URL=https://login.sipgate.com/",
        f"{SITE}{CLIENT}AUTH_URL={REALM}/third-party/protocol/openid-connect/token",
    ],
    (
        "TOKEN_URL must end in /realms/third-party/protocol/openid-connect/token, with the realm of your "
        "client. Remove it to use sipgate's own address."
    ): [
        f"{SITE}{CLIENT}TOKEN_URL={REALM}/third-party",
    ],
    "ALLOWED_HOSTS must hold host names only, such as crm.example.org, without https://, port and path.": [
        f"{PUBLIC}ALLOWED_HOSTS=https://crm.example.org",
        f"{PUBLIC}ALLOWED_HOSTS=crm.example.org:443",
        f"{PUBLIC}ALLOWED_HOSTS=*",
    ],
    "ALLOWED_HOSTS does not contain crm.example.org, the host of REDIRECT_URI: every page would be refused.": [
        f"{PUBLIC}ALLOWED_HOSTS=www.example.org",
    ],
    "SECRET_KEY is shorter than 32 characters: sessions could be forged.": [
        f"{PUBLIC}SECRET_KEY=x",
    ],
    "ADMINS must hold e-mail addresses, separated by blanks.": [
        f"{SITE}ADMINS=me",
    ],
    "DEFAULT_FROM_EMAIL cannot be understood; expected something like Company <sipgate@example.org>.": [
        f"{SITE}DEFAULT_FROM_EMAIL=Company",
    ],
    "SIPGATE_JOURNAL_DIR must name a folder, but a file has this name.": [
        f"{SITE}SIPGATE_JOURNAL_DIR=/etc/passwd",
    ],
    "STATIC_ROOT must name a folder, but a file has this name.": [
        f"{SITE}STATIC_ROOT=/etc/passwd",
    ],
}
"""What the site says → the files that it says it of."""


def _name(case: Any) -> str:
    if str(case) in MISTAKES:
        return str(case).split()[0]
    text = case.decode("latin-1") if isinstance(case, bytes) else str(case)
    return text.strip().rpartition("\n")[2].replace(SECRET, "…")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the settings say of each file, all read by one process."""
    project = Project(tmp_path_factory.mktemp("mistakes"))
    files = [
        text if isinstance(text, bytes) else text.encode()
        for texts in MISTAKES.values()
        for text in texts
    ]
    done = project.run("-c", READ_ALL, json.dumps([text.decode("latin-1") for text in files]))
    assert done.returncode == 0, done.stderr
    return dict(
        zip([text.decode("latin-1") for text in files], json.loads(done.stdout), strict=True)
    )


@pytest.mark.parametrize(
    ("sentence", "text"),
    [(sentence, text) for sentence, texts in MISTAKES.items() for text in texts],
    ids=_name,
)
def test_a_mistake_ends_in_one_sentence(
    said: dict[str, str], sentence: str, text: str | bytes
) -> None:
    told = said[(text if isinstance(text, bytes) else text.encode()).decode("latin-1")]
    assert told == sentence
    assert "s3cret" not in told


@pytest.mark.parametrize(
    "sentence", ["PORT must be a whole number from 1 to 65535.", *list(MISTAKES)[-2:]]
)
@pytest.mark.parametrize("command", ["runserver", "migrate", "sipgate_doctor"])
def test_each_command_ends_with_that_sentence(
    project: Project, sentence: str, command: str
) -> None:
    project.write(MISTAKES[sentence][0])
    done = project.run("manage.py", command)
    refused(done, "")
    assert done.stderr == f"Configuration: {sentence}\n"


def test_a_mistake_under_wsgi_quotes_nothing_either(project: Project) -> None:
    # A worker prints the traceback with all causes: parsers would quote pieces of the password there.
    for text in (
        f"{SITE}DATABASE_URL=postgres://u:{SECRET}/x@h/n",
        f"{SITE}EMAIL_URL=smtp://u:{SECRET}/x@h:25",
    ):
        project.write(text)
        done = project.run("-c", "import sipgate_project.wsgi")
        assert done.returncode != 0
        assert "ImproperlyConfigured" in done.stderr
        assert "s3cret" not in done.stderr


def test_an_unreadable_env_file_is_not_ignored(project: Project) -> None:
    project.write(SITE)
    (project.folder / ".env").chmod(0)
    refused(
        project.run("manage.py", "check", without_rights=True),
        ".env cannot be read (PermissionError)",
    )


REMARKS = {
    "CLIENTID=x": ".env line 3: CLIENTID is not a variable of this site; did you mean CLIENT_ID?",
    "client_id=x": ".env line 3: client_id is not a variable of this site; did you mean CLIENT_ID?",
    "\n\n# so\n\nCLIENT-ID=x": ".env line 7: CLIENT-ID is not a variable of this site; did you mean CLIENT_ID?",
    "export OAUTH_SCOPES=x": ".env line 3: OAUTH_SCOPES is not a variable of this site; did you mean OAUTH_SCOPE?",
    "CLIENT_ID": ".env line 3 has no effect: write CLIENT_ID=value.",
    "CLIENTID: x": ".env line 3 has no effect: write CLIENT_ID=value.",
    "hello there": ".env line 3 has no effect: write NAME=value.",
    "FAVOURITE_COLOUR=blue": ".env line 3: FAVOURITE_COLOUR is not a variable of this site; .env.example lists them.",
    "https_proxy=x": ".env line 3: https_proxy belongs into the environment of the process, not into .env.",
}


class TestRemarks:
    @pytest.mark.parametrize("line", REMARKS)
    def test_a_line_without_effect_is_remarked_on(self, project: Project, line: str) -> None:
        project.write(f"{SITE}{line}\n")
        done = project.run("manage.py", "check")
        assert done.returncode == 0
        assert f"(sipgate_project.W001) {REMARKS[line]}\n" in done.stderr

    def test_doctor_tells_the_same(self, project: Project) -> None:
        project.write(f"{SITE}CLIENTID=x\n")
        done = project.run("manage.py", "sipgate_doctor", "--offline")
        assert REMARKS["CLIENTID=x"] in done.stdout


class TestAsSipgatesExampleReadsIt:
    """What python-dotenv's ``load_dotenv`` puts into the environment is what this site has."""

    @pytest.mark.parametrize(
        "line",
        [
            "TIME_ZONE=Europe/Paris # the office",
            "export TIME_ZONE=Europe/Paris",
            "TIME_ZONE = 'Europe/Paris'   # the office",
            'TIME_ZONE="Europe/Paris"',
            "CITY=Paris\nTIME_ZONE=Europe/${CITY}",
            "TIME_ZONE=${NOTHING:-Europe/Paris}",
            "TIME_ZONE=Europe/Rome\nTIME_ZONE=Europe/Paris",
        ],
    )
    def test_a_line(self, project: Project, line: str) -> None:
        project.write(f"{SITE}{line}\n")
        example = project.run(
            "-c", "import dotenv, os; dotenv.load_dotenv('.env'); print(os.environ['TIME_ZONE'])"
        )
        assert (
            project.values("TIME_ZONE")
            == {"TIME_ZONE": example.stdout.strip()}
            == {"TIME_ZONE": "Europe/Paris"}
        )

    def test_in_a_reference_the_environment_wins(self, project: Project) -> None:
        project.write(f"{SITE}PORT=8080\nREDIRECT_URI=http://localhost:${{PORT}}/oauth\n")
        values = project.values("SIPGATE_REDIRECT_URI", PORT="9000")
        assert values == {"SIPGATE_REDIRECT_URI": "http://localhost:9000/oauth"}


class TestDatabase:
    @pytest.mark.parametrize("command", ["migrate", "runserver"])
    def test_one_where_nothing_listens(self, project: Project, command: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        project.write(f"{SITE}DATABASE_URL=postgres://me:{SECRET}@127.0.0.1:{port}/site")
        done = project.run("manage.py", command)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "Connection refused" in done.stderr
        assert "The database cannot be used (DATABASE_URL): " in done.stderr
        assert "s3cret" not in done.stderr


class TestCheckedAtStart:
    def test_a_journal_that_cannot_be_kept(self, project: Project) -> None:
        project.write(f"{SITE}SIPGATE_JOURNAL_DIR=/proc/nowhere")
        done = project.run("manage.py", "migrate")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "SIPGATE_JOURNAL_DIR: this user cannot keep files in /proc/nowhere (" in done.stderr

    def test_certificates_that_are_none(self, project: Project) -> None:
        project.write(SITE)
        done = project.run("manage.py", "check", REQUESTS_CA_BUNDLE="/etc/passwd")
        assert done.returncode == 1
        assert "REQUESTS_CA_BUNDLE is not a file of certificates" in done.stderr
        assert project.run("manage.py", "check", REQUESTS_CA_BUNDLE="/no/such/file").returncode == 1

    def test_an_env_that_is_a_folder(self, project: Project) -> None:
        (project.folder / ".env").mkdir()
        refused(project.run("manage.py", "check"), ".env cannot be read (IsADirectoryError)")

    def test_a_console_that_cannot_show_a_letter_stops_nothing(self, project: Project) -> None:
        project.write(f"{SITE}größe=1\n")
        done = project.run("manage.py", "check", PYTHONIOENCODING="ascii")
        assert done.returncode == 0
        assert "gr\\xf6\\xdfe is not a variable" in done.stderr

    def test_gunicorn_does_not_start_with_what_the_checks_refuse(self, project: Project) -> None:
        shutil.copy(ROOT / "gunicorn.conf.py", project.folder)
        project.write(f"{SITE}CLIENTID=x\nSIPGATE_JOURNAL_DIR=/proc/nowhere\n")
        done = project.run("-m", "gunicorn", "sipgate_project.wsgi", "--bind", "127.0.0.1:0")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "SIPGATE_JOURNAL_DIR: this user cannot keep files in /proc/nowhere (" in done.stderr
        assert REMARKS["CLIENTID=x"] in done.stderr
        project.write(f"{SITE}TIME_ZONE=Mars/Phobos\n")
        done = project.run("-m", "gunicorn", "sipgate_project.wsgi", "--bind", "127.0.0.1:0")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "Configuration: TIME_ZONE cannot be understood" in done.stderr


class TestReadOnlyFolder:
    """A hardened container: nothing may be written beside the program, and each path has a variable."""

    @pytest.fixture
    def sealed(self, project: Project) -> Iterator[Project]:
        (project.folder / "shut").mkdir()
        yield project
        project.folder.chmod(0o755)

    def run(self, project: Project, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a folder that cannot be written to; ``SHUT`` may not even be looked into."""
        project.write(text.replace("SHUT", str(project.folder / "shut")))
        (project.folder / "shut").chmod(0)
        project.folder.chmod(0o555)
        return project.run("manage.py", *arguments, without_rights=True)

    def test_everything_set_works(self, sealed: Project) -> None:
        done = self.run(
            sealed,
            f"{PUBLIC}DATABASE_URL=postgres://u@127.0.0.1/n\nSIPGATE_JOURNAL_DIR=off\n",
            "check",
        )
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            (
                "",
                "SECRET_KEY and SIPGATE_TOKEN_KEYS are not set, and generated ones cannot be kept in var/ (",
            ),
            (SITE, "DATABASE_URL names a file in a folder that does not exist."),
        ],
    )
    def test_what_is_missing_is_named(self, sealed: Project, text: str, sentence: str) -> None:
        refused(self.run(sealed, text, "migrate"), sentence)

    @pytest.mark.parametrize("folder", ["SHUT", "SHUT/journal"])
    def test_a_journal_of_another_user_is_named(self, sealed: Project, folder: str) -> None:
        text = f"{PUBLIC}DATABASE_URL=postgres://u@127.0.0.1/n\nSIPGATE_JOURNAL_DIR={folder}\n"
        done = self.run(sealed, text, "check")
        assert done.returncode == 1
        assert "SIPGATE_JOURNAL_DIR: this user cannot keep files in " in done.stderr
        assert "(Permission denied)." in done.stderr


class TestWhatWorks:
    def test_the_env_of_sipgates_example_runs_the_sandbox_while_it_has_placeholders(
        self, project: Project
    ) -> None:
        project.write(EXAMPLE)
        values = project.values(
            "SANDBOX",
            "SIPGATE_REDIRECT_URI",
            "PORT",
            "SIPGATE_TOKEN_URL",
            "SIPGATE_API_URL",
            "SIPGATE_SCOPE",
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
            EXAMPLE.replace("YOUR_CLIENT_ID", "1234567-1-abc:third-party").replace(
                "YOUR_CLIENT_SECRET", SECRET
            )
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
            "TIME_ZONE",
            "PORT",
            "SIPGATE_REDIRECT_URI",
            "SIPGATE_SCOPE",
            TIME_ZONE="Asia/Tokyo",
            OAUTH_SCOPE="b c,d",
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
            values = project.values(
                "SIPGATE_TOKEN_URL", CLIENT_ID=f"1-1-x:{suffix}", CLIENT_SECRET="s"
            )
            assert values["SIPGATE_TOKEN_URL"] == f"{REALM}/{realm}/protocol/openid-connect/token"

    @pytest.mark.parametrize(
        ("uri", "port", "variables"),
        [
            ("http://localhost:9000/oauth", 9000, {}),
            ("http://127.0.0.1:9000/oauth", 9000, {}),
            ("http://[::1]:9000/oauth", 9000, {}),
            ("http://localhost/oauth", 80, {}),
            ("https://crm.example.org/oauth", 8080, {"SECRET_KEY": SECRET, **CLIENT_VARIABLES}),
            ("https://localhost/oauth", 8080, {"BEHIND_PROXY": "on", "PORT": "8080"}),
            ("http://crm.localhost:7000/a/b", 7000, {}),
            ("http://localhost:8080/accounts/sipgate/login/callback/", 8080, {}),
            (
                "https://xn--mnchen-3ya.example/oauth",
                8080,
                {"SECRET_KEY": SECRET, **CLIENT_VARIABLES},
            ),
        ],
    )
    def test_the_port_follows_the_redirect_uri(
        self, project: Project, uri: str, port: int, variables: dict[str, str]
    ) -> None:
        values = project.values("PORT", "SIPGATE_REDIRECT_URI", REDIRECT_URI=uri, **variables)
        assert values == {"PORT": port, "SIPGATE_REDIRECT_URI": uri}

    def test_what_ends_grants_can_be_switched_off(self, project: Project) -> None:
        project.write(f"{SITE}{CLIENT}SIPGATE_REVOKE_URL=off\nSIPGATE_LOGOUT_URL=Off\n")
        names = ("SIPGATE_REVOKE_URL", "SIPGATE_LOGOUT_URL")
        assert project.values(*names) == dict.fromkeys(names, "off")

    def test_behind_a_proxy_rate_limits_count_by_visitor(self, project: Project) -> None:
        assert project.values("ALLAUTH_TRUSTED_PROXY_COUNT", BEHIND_PROXY="on") == {
            "ALLAUTH_TRUSTED_PROXY_COUNT": 1
        }
        # Nobody else's word is taken for an address.
        assert project.values("ALLAUTH_TRUSTED_PROXY_COUNT") == {"ALLAUTH_TRUSTED_PROXY_COUNT": 0}

    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
    @pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
    def test_an_editor_may_write_the_file_its_way(
        self, project: Project, mark: bytes, end: bytes
    ) -> None:
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
        names = (
            "EMAIL_HOST",
            "EMAIL_PORT",
            "EMAIL_USE_TLS",
            "EMAIL_HOST_USER",
            "EMAIL_HOST_PASSWORD",
            "EMAIL_BACKEND",
        )
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
            "DATABASES",
            DATABASE_URL=f"postgres://me:{SECRET}%2F@db.example:5433/name",
            DATABASE_POOL="3",
        )
        default = values["DATABASES"]["default"]
        assert (default["HOST"], default["PORT"], default["PASSWORD"]) == (
            "db.example",
            5433,
            f"{SECRET}/",
        )
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

    def test_a_key_that_is_none_is_a_failing_check_that_does_not_quote_it(
        self, project: Project
    ) -> None:
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

    def test_every_variable_is_read_and_in_the_example_file(self) -> None:
        read = set(
            re.findall(
                r'env\.\w+\(\s*"([A-Z_]+)"', (ROOT / "sipgate_project" / "settings.py").read_text()
            )
        )
        listed = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
        assert read == listed == NAMES


class TestPort:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_a_busy_one_ends_runserver_in_one_sentence(self, project: Project, host: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
            project.write(f"{SITE}PORT={port}")
            done = project.run(
                "manage.py", "runserver", *([f"{host}:{port}"] if host == "localhost" else [])
            )
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
        with (
            socket.create_server(("127.0.0.1", 0)) as busy,
            socket.create_server(("127.0.0.1", 0)) as free,
        ):
            sandbox_port, port = busy.getsockname()[1], free.getsockname()[1]
            free.close()
            project.write(f"{SITE}PORT={port}\nSANDBOX_PORT={sandbox_port}")
            done = project.run("manage.py", "runserver", "--noreload")
        assert done.returncode not in {0, -1}
        assert f"port {sandbox_port} is in use" in done.stderr
        assert "Traceback" not in done.stderr
