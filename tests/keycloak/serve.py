"""``make run-keycloak``: the site with a real Keycloak in sipgate's place, until Ctrl-C.

It leaves nothing behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from sipgate_sandbox.people import PEOPLE
from tests.keycloak import server, site

ROOT = Path(__file__).resolve().parents[2]
PORT = os.environ.get("PORT") or "8080"
REDIRECT_URI = f"http://localhost:{PORT}/oauth"


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("→ starting Keycloak, about half a minute", flush=True)
    with (
        suppress(KeyboardInterrupt),
        TemporaryDirectory(prefix="sipgate-site-") as folder,
        server.realm("third-party", [REDIRECT_URI]) as keycloak,
        site.rest_api(keycloak) as sandbox,
    ):
        environment = {
            **os.environ,
            **site.variables(keycloak, sandbox, redirect_uri=REDIRECT_URI),
            "PORT": PORT,
            "DATABASE_URL": f"sqlite:///{folder}/site.sqlite3",
            "SIPGATE_JOURNAL_DIR": f"{folder}/journal",
        }
        names = ", ".join(f"{person.uid} ({person.name})" for person in PEOPLE[:3])
        print(f"Keycloak is ready. Sign in as {names} …, password {server.PASSWORD}.")
        password = keycloak.administrator_password
        print(f"Its console: {keycloak.url}/admin, user admin, password {password}", flush=True)
        # Without the reloader: one process to stop.
        for words in (("migrate", "--verbosity", "0"), ("runserver", "--noreload")):
            command = [sys.executable, "manage.py", *words]
            subprocess.run(command, cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main()
