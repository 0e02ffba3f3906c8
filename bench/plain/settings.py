"""What ``startproject`` and allauth's quickstart write."""

import os
from pathlib import Path

from sipgate_project.database import settings_from

SECRET_KEY = "bench-only"
ALLOWED_HOSTS = ["localhost"]
# SQLite with the site's options (WAL), opened for each request, which is Django's default; PostgreSQL as tutorials say.
DATABASES = {"default": settings_from(os.environ["DATABASE_URL"])}
DATABASES["default"]["CONN_MAX_AGE"] = (
    600 if DATABASES["default"]["ENGINE"].endswith("postgresql") else 0
)
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "bench.plain",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
ROOT_URLCONF = "bench.plain.site"
LOGIN_REDIRECT_URL = "/account"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STATIC_URL = "static/"

SANDBOX_URL = os.environ["SANDBOX_URL"]
CLIENT = {"client_id": os.environ["CLIENT_ID"], "secret": os.environ["CLIENT_SECRET"]}
SOCIALACCOUNT_STORE_TOKENS = True
SOCIALACCOUNT_PROVIDERS = {"plain": {"APPS": [CLIENT], "SCOPE": ["account:read"]}}
