"""``make run-keycloak``: the site with a real Keycloak in sipgate's place, until Ctrl-C.

It leaves nothing behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

from sipgate_sandbox.people import PEOPLE
from tests.keycloak import server, site

ROOT = Path(__file__).resolve().parents[2]
PORT = os.environ.get("PORT") or "8080"
REDIRECT_URI = f"http://localhost:{PORT}/oauth"


def main() -> None:
    signal.signal(signal.SIGTERM, _leave)
    print("→ starting Keycloak, about half a minute", flush=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="sipgate-site-") as folder,
            server.realm("third-party", [REDIRECT_URI]) as keycloak,
            site.rest_api(keycloak) as sandbox,
        ):
            values = site.variables(keycloak, sandbox, redirect_uri=REDIRECT_URI)
            environment = {
                **os.environ,
                **values,
                "PORT": PORT,
                "DATABASE_URL": f"sqlite:///{folder}/site.sqlite3",
            }
            environment["SIPGATE_JOURNAL_DIR"] = f"{folder}/journal"
            _introduce(keycloak)
            _serve(environment)
    except KeyboardInterrupt:
        pass


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _introduce(keycloak: server.Keycloak) -> None:
    names = ", ".join(f"{person.uid} ({person.name})" for person in PEOPLE[:3])
    print(f"Keycloak is ready. Sign in as {names} …, password {server.PASSWORD}.")
    print(
        f"Its console: {keycloak.url}/admin, user admin, password {keycloak.administrator_password}",
        flush=True,
    )


def _serve(environment: dict[str, str]) -> None:
    def manage(*arguments: str) -> list[str]:
        return [sys.executable, "manage.py", *arguments]

    subprocess.run(manage("migrate", "--verbosity", "0"), cwd=ROOT, env=environment, check=True)
    # Without the reloader: one process to stop.
    process = subprocess.Popen(manage("runserver", "--noreload"), cwd=ROOT, env=environment)
    try:
        process.wait()
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
