"""The environment of the site: a mistake ends in one sentence that names the variable."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import ImproperlyConfigured

from sipgate_project import env
from tests.project.pages import ROOT


def test_a_mistake_ends_in_one_sentence_that_names_the_variable(tmp_path):
    for beginning, text in MISTAKES.items():
        with pytest.raises(ImproperlyConfigured) as told:
            settings(tmp_path, text)
        assert str(told.value).startswith(beginning)
        assert str(told.value)[-1] in ".?"
        assert "s3cret" not in repr(told.value), beginning
        assert told.value.__cause__ is None, beginning
        assert told.value.__suppress_context__ or told.value.__context__ is None, beginning


class TestWhatWorks:
    def test_the_env_of_sipgates_example_with_and_without_credentials(self, tmp_path):
        found = settings(tmp_path, EXAMPLE)
        assert found.SANDBOX
        assert found.SIPGATE_REDIRECT_URI == "http://localhost:8080/oauth"
        assert found.SIPGATE_API_URL == "http://localhost:8081/v2"
        filled = EXAMPLE.replace("YOUR_CLIENT_ID", "1-1-x:third-party").replace("YOUR_", "")
        found = settings(tmp_path, filled)
        assert (found.SANDBOX, found.CLIENT_SECRET) == (False, "CLIENT_SECRET")
        assert found.SIPGATE_TOKEN_URL.startswith("https://login.sipgate.com/auth/realms/third-")
        assert found.SIPGATE_API_URL == "https://api.sipgate.com/v2"

    def test_it_is_read_as_that_example_reads_it(self, tmp_path):
        for line in (
            "TIME_ZONE=Europe/Paris # the office",
            "export TIME_ZONE = 'Europe/Paris'",
            "CITY=Paris\nTIME_ZONE=Europe/${CITY}",
            "TIME_ZONE=Europe/Rome\r\nTIME_ZONE=Europe/Paris\r\n",
            "\ufeffTIME_ZONE=Europe/Paris",
        ):
            assert settings(tmp_path, line).TIME_ZONE == "Europe/Paris", line
        text = "PORT=8080\nREDIRECT_URI=http://localhost:${PORT}/oauth"
        found = settings(tmp_path, text, PORT="9000")
        assert found.SIPGATE_REDIRECT_URI == "http://localhost:9000/oauth"

    def test_port_and_redirect_uri_follow_each_other(self, tmp_path):
        assert settings(tmp_path, "PORT=9000").SIPGATE_REDIRECT_URI == "http://localhost:9000/oauth"
        assert settings(tmp_path, "REDIRECT_URI=http://localhost:7000/oauth").PORT == 7000
        assert settings(tmp_path, PUBLIC).PORT == 8080

    def test_the_realm_is_that_of_the_client(self, tmp_path):
        found = settings(tmp_path, CLIENT.replace("third-party", "sipgate-apps"))
        assert f"{REALM}/auth" == found.SIPGATE_AUTH_URL

    def test_a_deployment(self, tmp_path):
        text = f"{PUBLIC}ALLOWED_HOSTS=www.example.org,.example.net\nBEHIND_PROXY=yes\n"
        text += f"DATABASE_URL=postgres://me:{SECRET}%2F@db.example:5433/name\nDATABASE_POOL=3\n"
        text += "EMAIL_URL=submission://u:p%40@mail.example\nADMINS=a@example.org b@example.org\n"
        found = settings(tmp_path, f"{text}SIPGATE_JOURNAL_DIR=OFF\nLOG_LEVEL=DEBUG\n")
        assert found.ALLOWED_HOSTS == ["crm.example.org", "www.example.org", ".example.net"]
        assert found.SECURE_SSL_REDIRECT
        assert found.ALLAUTH_TRUSTED_PROXY_COUNT == 1
        database = found.DATABASES["default"]
        assert (database["PORT"], database["PASSWORD"]) == (5433, f"{SECRET}/")
        assert database["OPTIONS"]["pool"]["max_size"] == 3
        assert (found.EMAIL_HOST, found.EMAIL_HOST_PASSWORD) == ("mail.example", "p@")
        assert (found.EMAIL_PORT, found.EMAIL_USE_TLS) == (587, True)
        assert found.ADMINS == [("a@example.org",) * 2, ("b@example.org",) * 2]
        assert found.SIPGATE_JOURNAL_DIR is None

    def test_the_secrets_of_a_laptop_are_made_once_and_kept_private(self, tmp_path):
        local = tmp_path / "var" / "local.env"
        with environment(tmp_path), ThreadPoolExecutor(4) as pool:
            made = pool.map(lambda _: env.secret("SECRET_KEY", local=local), range(8))
        assert len({*made, settings(tmp_path, "").SECRET_KEY}) == 1
        assert local.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in local.parent.glob(".local*")] == []
        local.write_text("nothing\n")
        with pytest.raises(ImproperlyConfigured, match="SECRET_KEY is not set, and"):
            settings(tmp_path, "")

    def test_every_variable_is_read(self):
        folder = ROOT / "sipgate_project"
        code = (folder / "settings.py").read_text() + (folder / "env.py").read_text()
        assert {name for name in env.NAMES if f'"{name}"' in code} == env.NAMES


class TestCommands:
    """Real ones: nothing but the sentence is printed."""

    def test_a_mistake(self, checkout):
        (checkout / ".env").write_text(f"{SITE}PORT=eight")
        done = manage(checkout, "migrate")
        sentence = "Configuration: PORT must be a whole number from 1 to 65535.\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)

    def test_a_database_and_a_folder_that_cannot_be_used(self, checkout):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            url = f"postgres://me:{SECRET}@127.0.0.1:{probe.getsockname()[1]}/site"
        journal = "SIPGATE_JOURNAL_DIR=/etc/passwd/x"
        (checkout / ".env").write_text(f"{SITE}DATABASE_URL={url}\n{journal}")
        done = manage(checkout, "check")
        assert done.returncode == 1
        assert "SIPGATE_JOURNAL_DIR: this process cannot write to /etc/passwd/x" in done.stderr
        done = manage(checkout, "migrate", SIPGATE_JOURNAL_DIR="off")
        assert done.returncode == 1
        assert "The database cannot be used (DATABASE_URL): " in done.stderr
        assert "Connection refused" in done.stderr
        assert "Traceback" not in done.stderr
        assert "s3cret" not in done.stderr

    def test_a_busy_port(self, checkout):
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
            (checkout / ".env").write_text(f"{SITE}PORT={port}")
            done = manage(checkout, "runserver")
        assert done.returncode == 1
        assert done.stderr.startswith(
            f"CommandError: Port {port} cannot be used (Address already in use): "
        )
        assert len(done.stderr.splitlines()) == 1
        assert "sandbox" not in done.stdout, "it is not left running"


def settings(folder: Path, text: str | bytes, **variables: str) -> Any:
    """Return the site's settings, read anew with this ``.env`` in this folder."""
    (folder / ".env").write_bytes(text if isinstance(text, bytes) else text.encode())
    file = ROOT / "sipgate_project" / "settings.py"
    spec = importlib.util.spec_from_file_location("sipgate_project.settings", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with environment(folder, **variables):
        spec.loader.exec_module(module)
    return module


@contextmanager
def environment(folder: Path, **variables: str) -> Iterator[None]:
    with (
        mock.patch.dict(os.environ, variables, clear=True),
        mock.patch.object(env, "BASE_DIR", folder),
    ):
        yield


def manage(checkout: Path, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", command],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SECRET = "s3cret-value-that-must-never-ever-show"
KEYS = "SIPGATE_TOKEN_KEYS=dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk="
SITE = f"SECRET_KEY={SECRET}\n{KEYS}\n"
CLIENT = f"{SITE}CLIENT_ID=1234567-1-abc:third-party\nCLIENT_SECRET={SECRET}\n"
PUBLIC = f"{CLIENT}REDIRECT_URI=https://crm.example.org/oauth\n"
REALM = "https://login.sipgate.com/auth/realms/sipgate-apps/protocol/openid-connect"
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


MISTAKES = {
    "CLIENT_SECRET is not set. Copy Id and Secret": f"{SITE}CLIENT_ID=1-1-x:third-party",
    "CLIENT_ID is not set. Copy Id and Secret": f"{SITE}CLIENT_SECRET={SECRET}",
    "CLIENT_ID must be copied from console.sipgate.com again": f"{SITE}CLIENT_ID=1 1:third-party",
    "CLIENT_SECRET must be copied from": f"{SITE}CLIENT_ID=1-1\nCLIENT_SECRET={SECRET}\u200b",
    "CLIENT_ID contains its quotes": f"{SITE}CLIENT_ID=“1-1-x:third-party”",
    "CLIENTID in .env is not a variable of this site; did you mean CLIENT_ID?": "CLIENTID=1",
    "client_secret in .env is not a variable": f"client_secret={SECRET}",
    "OAUTH_SCOPES in .env is not a variable": "export OAUTH_SCOPES=account:read",
    "REDIRECT_URI names port 8080 but PORT is 9000": (
        f"{SITE}REDIRECT_URI=http://localhost:8080/oauth\nPORT=9000"
    ),
    "REDIRECT_URI must have a path and no query": f"{SITE}REDIRECT_URI=http://localhost:8080/",
    "REDIRECT_URI must be a full address": f"{SITE}REDIRECT_URI=localhost:8080/oauth",
    "REDIRECT_URI must start with https://": f"{CLIENT}REDIRECT_URI=http://crm.example.org/oauth",
    "REDIRECT_URI starts with https:// but this site serves plain http": (
        f"{SITE}REDIRECT_URI=https://localhost:8080/oauth"
    ),
    "REDIRECT_URI names another machine, but the sandbox serves only this one: set CLIENT_ID": (
        f"{SITE}REDIRECT_URI=https://crm.example.org/oauth"
    ),
    "PORT must be a whole number from 1 to 65535": f"{SITE}PORT=eight",
    "AUTH_URL must start with https://": f"{CLIENT}AUTH_URL=http://login.sipgate.com/auth",
    "AUTH_URL must end in /realms/third-party/protocol/openid-connect/auth": (
        f"{CLIENT}AUTH_URL={REALM}/auth"
    ),
    "TOKEN_URL must end in /realms/third-party/protocol/openid-connect/token": (
        f"{CLIENT}TOKEN_URL=https://login.sipgate.com/"
    ),
    "TOKEN_URL must be a full address": f"{CLIENT}TOKEN_URL=https://me:{SECRET}@x.example/token",
    "TEST_API_ENDPOINT must be the address of the account resource": (
        f"{CLIENT}TEST_API_ENDPOINT=https://api.sipgate.com/v2"
    ),
    "SIPGATE_API_URL must start with https://": f"{CLIENT}SIPGATE_API_URL=http://x.example/v2",
    "SIPGATE_LOGOUT_URL must be a full address": f"{CLIENT}SIPGATE_LOGOUT_URL=no",
    "SECRET_KEY is not set": PUBLIC.replace(f"SECRET_KEY={SECRET}", ""),
    "SECRET_KEY must have at least 32 characters": f"{PUBLIC}SECRET_KEY=s3cret",
    "SIPGATE_TOKEN_KEYS is not set": PUBLIC.replace(KEYS, ""),
    "ALLOWED_HOSTS must be a list such as crm.example.org": (
        f"{PUBLIC}ALLOWED_HOSTS=https://crm.example.org"
    ),
    "ALLOWED_HOSTS must be a list such as": f"{PUBLIC}ALLOWED_HOSTS=*",
    "DEBUG must be on or off": f"{SITE}DEBUG=maybe-{SECRET}",
    "DATABASE_URL must be like postgres://": f"{SITE}DATABASE_URL=mysql://u:{SECRET}@host/name",
    "DATABASE_URL must be like postgres": f"{SITE}DATABASE_URL=postgres://u:{SECRET}/x@host/name",
    "DATABASE_URL must be like": f"{SITE}DATABASE_URL=sqlite:////no/such/{SECRET}.sqlite3",
    "DATABASE_POOL must be a whole number from 1 to 200": f"{SITE}DATABASE_POOL=0",
    "EMAIL_URL must be like submission://": f"{SITE}EMAIL_URL=mailto:{SECRET}@example.org",
    "EMAIL_URL must be like submission": f"{SITE}EMAIL_URL=smtp://me:{SECRET}/x@host:25",
    "ADMINS must be a list such as you@example.org": f"{SITE}ADMINS=me",
    "LOG_LEVEL must be one of INFO, DEBUG": f"{SITE}LOG_LEVEL=chatty",
    "METRICS_TOKEN must have at least 16 characters": f"{SITE}METRICS_TOKEN={SECRET} {SECRET}",
    "HSTS_SECONDS must be a whole number": f"{PUBLIC}HSTS_SECONDS=a year",
    ".env cannot be read (UnicodeDecodeError)": f"SECRET_KEY={SECRET}\n".encode("utf-16"),
}
"""How a sentence begins → the file that it is told of."""
