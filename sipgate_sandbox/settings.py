"""Settings of the sandbox, from ``SANDBOX_*`` variables that ``__main__`` sets from its arguments."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from sipgate_sandbox.signing_key import private_key

BASE_DIR = Path(__file__).resolve().parent.parent
DATABASE = Path(os.environ.get("SANDBOX_DATABASE") or BASE_DIR / "var" / "sandbox.sqlite3")

SECRET_KEY = "sandbox: nothing here is secret"  # noqa: S105  # a sandbox on the loopback interface
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
ROOT_URLCONF = "sipgate_sandbox.urls"
USE_TZ = True
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "sipgate_sandbox",
]
MIDDLEWARE = [
    "sipgate_sandbox.faults.middleware",
    "sipgate_sandbox.pages.headers",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "sipgate_sandbox.texts.words",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(DATABASE),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
        },
        "CONN_MAX_AGE": None,
    }
}
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
# Cookies are shared by all ports of a host, so two sandboxes would sign each other's people out.
_port = urlsplit(os.environ.get("SANDBOX_URL", "")).port or 8081
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"sandbox_session_{_port}", f"sandbox_csrf_{_port}"
LANGUAGE_COOKIE_NAME = "sandbox_language"
STATIC_URL = "/static/"
DATA_UPLOAD_MAX_MEMORY_SIZE = 30_000_000  # a fax is sent as base64 in JSON

SANDBOX_PRIVATE_KEY = private_key(DATABASE.parent / "sandbox.pem")
SANDBOX_ACCESS_LIFETIME = int(os.environ.get("SANDBOX_ACCESS_LIFETIME", "300"))
SANDBOX_REFRESH_LIFETIME = int(os.environ.get("SANDBOX_REFRESH_LIFETIME", str(30 * 86_400)))
SANDBOX_ISSUER = os.environ.get("SANDBOX_URL", "http://localhost:8081") + "/auth/realms/third-party"
SANDBOX_CLIENT_ID = os.environ.get("SANDBOX_CLIENT_ID", "1000000-1-sandbox:third-party")
SANDBOX_CLIENT_SECRET = os.environ.get("SANDBOX_CLIENT_SECRET", "sandbox-secret")
SANDBOX_REDIRECT_URIS = os.environ.get(
    "SANDBOX_REDIRECT_URIS", "http://localhost:8080/oauth"
).split()
SANDBOX_INTROSPECT_URL = os.environ.get("SANDBOX_INTROSPECT_URL", "")
SANDBOX_LENIENT_REUSE = os.environ.get("SANDBOX_LENIENT_REUSE", "") == "1"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "ERROR"},
    "loggers": {"django": {"level": "ERROR"}},  # a refused request is no fault of the sandbox
}
