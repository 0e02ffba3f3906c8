"""The smallest settings with which "Sign in with sipgate" works. The tests set the variables that are read here."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
ORIGIN = os.environ["FOREIGN_ORIGIN"]
SANDBOX = os.environ["FOREIGN_SANDBOX"]

SECRET_KEY = os.environ["FOREIGN_SECRET_KEY"]
ALLOWED_HOSTS = ["localhost"]
ROOT_URLCONF = "urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "sipgate_provider",
]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "db.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
LOGIN_REDIRECT_URL = "/company"

SOCIALACCOUNT_ADAPTER = "sipgate_provider.adapter.SipgateSocialAccountAdapter"
SOCIALACCOUNT_PROVIDERS = {
    "sipgate": {
        "APPS": [{"client_id": "1000000-1-sandbox:third-party", "secret": "sandbox-secret"}]
    }
}
SIPGATE_REDIRECT_URI = f"{ORIGIN}/oauth"
SIPGATE_TOKEN_KEYS = [os.environ["FOREIGN_TOKEN_KEY"]]

# Without these three it is sipgate itself.
SIPGATE_AUTH_URL = f"{SANDBOX}/auth/realms/third-party/protocol/openid-connect/auth"
SIPGATE_TOKEN_URL = f"{SANDBOX}/auth/realms/third-party/protocol/openid-connect/token"
SIPGATE_API_URL = f"{SANDBOX}/v2"
