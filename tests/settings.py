"""The site's own settings with what tests need: known keys, quick hashing of passwords, a database.

``SIPGATE_TEST_DATABASE_URL`` names a PostgreSQL server; without it, the database is SQLite.
"""

from __future__ import annotations

import os

os.environ.update(
    {
        "SECRET_KEY": "tests-only-" * 4,
        "SIPGATE_TOKEN_KEYS": "dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk=",
        "REDIRECT_URI": "http://localhost:8080/oauth",
        "PORT": "8080",
        "OAUTH_SCOPE": "account:read",
        "ALLOWED_HOSTS": "localhost,127.0.0.1",
        **dict.fromkeys(
            (
                "CLIENT_ID",
                "CLIENT_SECRET",
                "AUTH_URL",
                "TOKEN_URL",
                "TEST_API_ENDPOINT",
                "SIPGATE_API_URL",
                "EMAIL_URL",
                "ADMINS",
                "DEBUG",
                "BEHIND_PROXY",
                "LOG_LEVEL",
                "LOG_FORMAT",
                "METRICS_TOKEN",
                "SANDBOX_PORT",
            ),
            "",
        ),
    }
)
os.environ["DATABASE_URL"] = os.environ.get("SIPGATE_TEST_DATABASE_URL", "")

from sipgate_project.settings import *  # noqa: F403  # after the environment is set

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):  # noqa: F405  # from the site's settings
    # A file: threads would not see each other's rows in a database in memory.
    _file = BASE_DIR / "var" / f"test-{os.getpid()}.sqlite3"  # noqa: F405
    DATABASES["default"]["TEST"] = {"NAME": str(_file)}  # noqa: F405
    # Nobody pulls the plug, and waiting for the disk at each commit takes a quarter of the time.
    DATABASES["default"]["OPTIONS"]["init_command"] += "PRAGMA synchronous=OFF;"  # noqa: F405
SIPGATE_JOURNAL_DIR = None  # tests that need it set a folder of their own
LOGGING_CONFIG = None
WHITENOISE_AUTOREFRESH = True  # else each test client looks for all static files first
# A test's rollback or flush does not clear the table of the site's cache.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
