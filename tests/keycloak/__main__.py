"""``make test-keycloak``: one server, and a realm for each worker of pytest.

It hands its arguments to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.keycloak import server

PYTEST = ("-m", "keycloak and not long", "-n", "2", "--dist", "worksteal")


def main(*arguments: str) -> int:
    with server.running() as keycloak:
        where = {
            server.URL: keycloak.url,
            server.ADMINISTRATOR_PASSWORD: keycloak.administrator_password,
        }
        return subprocess.run(
            [sys.executable, "-m", "pytest", *PYTEST, *arguments],
            env={**os.environ, **where},
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ("tests/facts", "tests/keycloak"))))
