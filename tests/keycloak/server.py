"""Starts Keycloak on a free port of this machine, and creates realms like ``realm.json`` there.

A server takes half a minute to start, a realm a second: pytest's workers share one server
(``make test-keycloak``), and each has a realm of its own.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sipgate_sandbox.people import PEOPLE
from sipgate_sandbox.scopes import SCOPES
from tests.keycloak import distribution
from tests.keycloak.admin import Administrator
from tests.ports import free_port
from tests.waiting import wait_until_served

PASSWORD = "sipgate"
"""Of every person in the realm."""
START_LIMIT = 300.0
URL, ADMINISTRATOR_PASSWORD = "KEYCLOAK_URL", "KEYCLOAK_ADMINISTRATOR_PASSWORD"
"""Variables that name a running server."""
BUILT_IN_SCOPES = {"openid", "profile", "email", "offline_access"}


class Keycloak:
    """A realm at a running Keycloak, and what its administrator can do there."""

    def __init__(self, url: str, administrator_password: str, realm: str = "third-party") -> None:
        self.url, self.administrator_password = url, administrator_password
        self.administrator = Administrator(url, password=administrator_password, realm=realm)
        self.issuer = f"{url}/realms/{realm}"
        self.oidc_url = f"{self.issuer}/protocol/openid-connect"

    def create_realm(self, redirect_uris: Iterable[str]) -> None:
        """Create the realm with its clients, sipgate's scopes and the sandbox's people."""
        realm = json.loads(Path(__file__).with_name("realm.json").read_text(encoding="utf-8"))
        clients = realm.pop("clients")
        self.administrator.create_realm(realm)
        self.administrator.create_scopes(sorted(set(SCOPES) - BUILT_IN_SCOPES))
        for client in clients:
            self.administrator.create_client(
                **client,
                redirectUris=list(redirect_uris),
                attributes={"post.logout.redirect.uris": "+"},
                protocolMappers=[
                    audience(name) for name in sorted({client["clientId"], "rest-api"})
                ],
                defaultClientScopes=["basic"],  # without it tokens do not say whose they are
                optionalClientScopes=sorted(set(SCOPES) - {"openid"}),
            )
        password = {"type": "password", "value": PASSWORD, "temporary": False}
        for person in PEOPLE:  # Keycloak would ask them for a missing name or email
            self.administrator.create_user(
                username=person.uid,
                enabled=True,
                credentials=[password],
                firstName=person.firstname or "Ada",
                lastName=person.lastname or "Muster",
                email=person.email or f"{person.uid}@people.example",
            )


def audience(client_id: str) -> dict[str, Any]:
    """Return a mapper that puts a client into ``aud``, so that it can introspect the token."""
    return {
        "name": f"audience {client_id}",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": {
            "included.client.audience": client_id,
            "access.token.claim": "true",
            "introspection.token.claim": "true",
        },
    }


class Process:
    """One Keycloak process with a database of its own below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._home = distribution.installed()
        self._folder = folder
        self.administrator_password = secrets.token_urlsafe(16)
        self._port, self._management_port = free_port(), free_port()
        self.url = f"http://localhost:{self._port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Yield when the server answers; end it afterwards."""
        with (self._folder / "keycloak.log").open("ab") as file:
            # Its own process group: Ctrl-C does not reach it, and Java ends with the script.
            process = subprocess.Popen(
                self._command(),
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            log = self._folder / "keycloak.log"
            wait_until_served(process, f"{self.url}/realms/master", log.read_text, START_LIMIT)
            yield
        finally:
            # Nobody needs its data again.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def _command(self) -> list[str]:
        return [
            str(self._home / "bin" / "kc.sh"),
            "start-dev",
            "--http-host=127.0.0.1",
            f"--http-port={self._port}",
            f"--http-management-port={self._management_port}",
            f"--db-url=jdbc:h2:file:{self._folder}/database;NON_KEYWORDS=VALUE",
            "--cache=local",
        ]

    def _environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("KC_")},
            "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
            "KC_BOOTSTRAP_ADMIN_PASSWORD": self.administrator_password,
            # Only the quick compiler: the server runs for minutes, and so starts a third faster.
            "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1",
        }


@contextmanager
def running() -> Iterator[Process]:
    """Yield a Keycloak process without a realm; leave nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="sipgate-keycloak-"))
    try:
        process = Process(folder)
        with process.running():
            yield process
    finally:
        shutil.rmtree(folder)


@contextmanager
def realm(name: str, redirect_uris: Iterable[str]) -> Iterator[Keycloak]:
    """Yield a new realm on the server that the environment names, else on one of its own."""
    with ExitStack() as stack:
        url, password = os.environ.get(URL), os.environ.get(ADMINISTRATOR_PASSWORD)
        if url is None or password is None:
            process = stack.enter_context(running())
            url, password = process.url, process.administrator_password
        keycloak = Keycloak(url, password, name)
        stack.callback(keycloak.administrator.close)
        keycloak.create_realm(redirect_uris)
        yield keycloak
