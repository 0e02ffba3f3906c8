"""``manage.py check --deploy`` with a real deployment's variables: no remark (``make check``)."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys

VARIABLES = {
    "CLIENT_ID": "1234567-1-example:third-party",
    "REDIRECT_URI": "https://example.org/oauth",
    "ALLOWED_HOSTS": "example.org",
    "DATABASE_URL": "postgres://site@db.example.org/site",
    "EMAIL_URL": "submission://mail.example.org:587",
    "DEBUG": "off",
    "PORT": "8080",
    "BEHIND_PROXY": "on",
    "LOG_LEVEL": "INFO",
    **dict.fromkeys(
        (
            "AUTH_URL",
            "TOKEN_URL",
            "TEST_API_ENDPOINT",
            "SIPGATE_API_URL",
            "SIPGATE_JOURNAL_DIR",
            "ATOMIC_REQUESTS",
        ),
        "",
    ),
}


def main() -> int:
    made = {
        "CLIENT_SECRET": secrets.token_urlsafe(),
        "SECRET_KEY": secrets.token_urlsafe(60),
        "SIPGATE_TOKEN_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "DJANGO_SETTINGS_MODULE": "sipgate_project.settings",
    }
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    return subprocess.run(command, env={**os.environ, **VARIABLES, **made}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
