"""Settings of the sandbox. ``__main__`` puts its arguments into the ``SANDBOX_*`` variables."""

from __future__ import annotations

import os
from pathlib import Path

_get = os.environ.get

SANDBOX_PORT = int(_get("SANDBOX_PORT") or 8081)
SANDBOX_URL = f"http://localhost:{SANDBOX_PORT}"
SANDBOX_REALM = "auth/realms/third-party"
SANDBOX_ISSUER = f"{SANDBOX_URL}/{SANDBOX_REALM}"
SANDBOX_REDIRECT_URIS = (_get("SANDBOX_REDIRECT_URIS") or "http://localhost:8080/oauth").split()
SANDBOX_CLIENT_ID = _get("SANDBOX_CLIENT_ID") or "1000000-1-sandbox:third-party"
SANDBOX_CLIENT_SECRET = _get("SANDBOX_CLIENT_SECRET") or "sandbox-secret"
SANDBOX_INTROSPECT_URL = _get("SANDBOX_INTROSPECT_URL") or ""
"""Where another server tells whose a token is. The REST API then accepts its tokens."""

SECRET_KEY = "sandbox: nothing here is secret"  # noqa: S105  # invented people, no network
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "sipgate_sandbox.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATA_UPLOAD_MAX_MEMORY_SIZE = 30_000_000  # a fax is sent as base64 in JSON
INSTALLED_APPS = ["sipgate_sandbox"]
MIDDLEWARE = [
    "sipgate_sandbox.pages.reject_other_origins",
    "sipgate_sandbox.faults.middleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(_get("SANDBOX_DATABASE") or "sandbox.sqlite3").absolute(),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
        },
    }
}
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
# All ports of a host share cookies, so two sandboxes would sign each other's people out.
SESSION_COOKIE_NAME = f"sandbox_session_{SANDBOX_PORT}"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "ERROR"},
    "loggers": {"django": {"level": "ERROR"}},  # a rejected request is no error of the sandbox
}
