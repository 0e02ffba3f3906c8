"""Settings of the site. No other module reads its variables.

There is one settings file: environments differ by variables, which ``.env.example`` explains.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from csp.constants import NONE, SELF
from django.utils.translation import gettext_lazy as _

from . import env
from .database import settings_from

env.load()
BASE_DIR = env.BASE_DIR
VAR = BASE_DIR / "var"
with suppress(OSError):  # a read-only container has variables for all paths
    (VAR / "static").mkdir(parents=True, exist_ok=True)

# --- sipgate: the names of sipgate's own Python example ------------------------------------------

CLIENT_ID, CLIENT_SECRET = env.client()
SANDBOX = not CLIENT_ID
"""Without credentials the site uses the local sandbox instead of sipgate."""
ADDRESS = env.address(sandbox=SANDBOX)
PORT = ADDRESS.port
SIPGATE_REDIRECT_URI = ADDRESS.redirect_uri
SIPGATE_SITE_NAME = "sipgate for Django"

SANDBOX_PORT = env.number("SANDBOX_PORT", PORT + 1, low=1, high=65535)
SANDBOX_URL = f"http://localhost:{SANDBOX_PORT}"
if SANDBOX:
    CLIENT_ID, CLIENT_SECRET = "1000000-1-sandbox:third-party", "sandbox-secret"  # both public
    # The .env of sipgate's example has sipgate's addresses even while its credentials are empty.
    _realm = f"{SANDBOX_URL}/auth/realms/third-party/protocol/openid-connect"
    SIPGATE_AUTH_URL, SIPGATE_TOKEN_URL = f"{_realm}/auth", f"{_realm}/token"
    SIPGATE_API_URL = f"{SANDBOX_URL}/v2"
else:
    SIPGATE_AUTH_URL, SIPGATE_TOKEN_URL, SIPGATE_API_URL = env.endpoints(CLIENT_ID)
    SIPGATE_REVOKE_URL = env.url("SIPGATE_REVOKE_URL", may_be_off=True)
    SIPGATE_LOGOUT_URL = env.url("SIPGATE_LOGOUT_URL", may_be_off=True)

# With the sandbox, sign-ins also ask for the name, for the greeting, and every page asks again, so
# that the buttons show their effect.
SIPGATE_SCOPE = env.words("OAUTH_SCOPE", "account:read users:read" if SANDBOX else "account:read")
SIPGATE_ACCOUNT_MAX_AGE_SECONDS = env.number(
    "SIPGATE_ACCOUNT_MAX_AGE_SECONDS", 0 if SANDBOX else 60, low=0, high=86_400
)
SIPGATE_HISTORY_DAYS = env.number("SIPGATE_HISTORY_DAYS", 365, low=0, high=36_500)

# A second instance of this checkout, on another port, has a sandbox with other data, so it needs a
# database of its own.
_apart = f"-{PORT}" if SANDBOX and PORT != 8080 else ""
SIPGATE_JOURNAL_DIR = env.path("SIPGATE_JOURNAL_DIR", VAR / f"journal{_apart}")

# --- the site ------------------------------------------------------------------------------------

DEBUG = env.flag("DEBUG")
_local = VAR / "local.env" if ADDRESS.is_loopback else None
SECRET_KEY = env.secret("SECRET_KEY", local=_local)
SIPGATE_TOKEN_KEYS = env.words("SIPGATE_TOKEN_KEYS") or [
    env.secret("SIPGATE_TOKEN_KEYS", local=_local)
]
BEHIND_PROXY = env.flag("BEHIND_PROXY")
ALLOWED_HOSTS = [
    ADDRESS.host,
    *(["localhost", "127.0.0.1", "[::1]"] if ADDRESS.is_loopback else []),
    *env.words("ALLOWED_HOSTS", each=r"\.?[\w.-]+|\[[\w:.]+\]", such_as="crm.example.org"),
]

DATABASE_POOL = env.number("DATABASE_POOL", 8, low=1, high=200)
DATABASES = {
    "default": env.read(
        "DATABASE_URL",
        f"sqlite:///{VAR / f'db{_apart}.sqlite3'}",
        partial(settings_from, pool_size=DATABASE_POOL),
        "be like postgres://user:password@host/name, or sqlite:////folder/file.sqlite3 "
        "in a folder that exists",
    )
}

_mail = env.mail()
EMAIL_BACKEND = _mail["EMAIL_BACKEND"]
EMAIL_HOST, EMAIL_PORT = _mail["EMAIL_HOST"], _mail["EMAIL_PORT"]
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail["EMAIL_HOST_USER"], _mail["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS, EMAIL_USE_SSL = _mail["EMAIL_USE_TLS"], _mail["EMAIL_USE_SSL"]
EMAIL_FILE_PATH = _mail["EMAIL_FILE_PATH"]
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.read("DEFAULT_FROM_EMAIL", f"sipgate@{ADDRESS.host}")
_admins = env.words("ADMINS", each=r"[^@\s]+@[^@\s]+", such_as="you@example.org")
ADMINS = MANAGERS = [(address, address) for address in _admins]

# In the database, so that all processes count wrong passwords together. `migrate` makes the table.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "site_cache",
    }
}

INSTALLED_APPS = [
    "sipgate_project",
    "whitenoise.runserver_nostatic",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.admin",
    "csp",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.usersessions",
    "sipgate_provider",
]

MIDDLEWARE = [
    "sipgate_project.health.probes",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "sipgate_project.middleware.private_pages",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "sipgate_project.middleware.canonical_host",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "sipgate_project.context.site",
            ],
        },
    }
]

ROOT_URLCONF = "sipgate_project.urls"
WSGI_APPLICATION = "sipgate_project.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- accounts ------------------------------------------------------------------------------------

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "account"
LOGOUT_REDIRECT_URL = "home"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*", "password2*"]
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_FORMS = {"reset_password": "sipgate_provider.forms.VerifiedResetPasswordForm"}
ACCOUNT_USER_DISPLAY = "sipgate_project.people.display_name"
ACCOUNT_ADAPTER = "sipgate_project.adapter.AccountAdapter"
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_RATE_LIMITS = {"sipgate_refresh": "6/m/key"}  # Refresh now, of one connection
SOCIALACCOUNT_ADAPTER = "sipgate_provider.adapter.SipgateSocialAccountAdapter"
SOCIALACCOUNT_STORE_TOKENS = False  # sipgate_provider stores them, encrypted
SOCIALACCOUNT_PROVIDERS = {
    "sipgate": {
        "APPS": [{"name": "sipgate", "client_id": CLIENT_ID, "secret": CLIENT_SECRET}],
        "SCOPE": SIPGATE_SCOPE,
    }
}

# --- languages and time --------------------------------------------------------------------------

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("de", _("German"))]
LOCALE_PATHS = [
    BASE_DIR / "sipgate_project" / "locale",  # the site's own texts, collected by make messages
    BASE_DIR / "sipgate_project" / "wording",  # our words for allauth's and Django's, kept by hand
]
TIME_ZONE = env.read("TIME_ZONE", "Europe/Berlin")

# --- static files --------------------------------------------------------------------------------

STATIC_URL = "static/"
STATIC_ROOT = Path(env.path("STATIC_ROOT", VAR / "static") or VAR)
# It works without collectstatic, and better with it: hashed names, long caching, compression.
WHITENOISE_USE_FINDERS = True
_collected = (STATIC_ROOT / "staticfiles.json").is_file() and not DEBUG
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": (
            "whitenoise.storage.CompressedManifestStaticFilesStorage"
            if _collected
            else "django.contrib.staticfiles.storage.StaticFilesStorage"
        )
    },
}

# --- security ------------------------------------------------------------------------------------

if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Otherwise all visitors have the proxy's address, and ten wrong passwords lock everybody out.
ALLAUTH_TRUSTED_PROXY_COUNT = 1 if BEHIND_PROXY else 0
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = ADDRESS.is_https
SECURE_HSTS_SECONDS = env.number(
    "HSTS_SECONDS", 31_536_000 if ADDRESS.is_https else 0, low=0, high=63_072_000
)
# HSTS for subdomains and browsers' lists concerns more than this site.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
# Cookies are shared by all ports of a host. These names keep other local projects and checkouts
# apart.
_at_port = f"_{PORT}" if ADDRESS.is_loopback and PORT != 8080 else ""
SESSION_COOKIE_NAME = f"sipgate_session{_at_port}"
CSRF_COOKIE_NAME = f"sipgate_csrf{_at_port}"
LANGUAGE_COOKIE_NAME = "sipgate_language"

_sipgate = urlsplit(SIPGATE_AUTH_URL)
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "style-src": [SELF],
        "img-src": [SELF],
        "script-src": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        # Browsers apply form-action to the redirect that follows: the sign-in button posts here,
        # then goes to sipgate.
        "form-action": [SELF, f"{_sipgate.scheme}://{_sipgate.netloc}"],
    }
}

# --- logs ----------------------------------------------------------------------------------------

LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", "DEBUG", "WARNING", "ERROR", "CRITICAL")
LOG_FORMAT = env.choice("LOG_FORMAT", "line", "json")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"},
        "json": {"()": "sipgate_project.logs.JsonLines"},
    },
    "filters": {"without_query": {"()": "sipgate_project.logs.WithoutQuery"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT},
        "requests": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "filters": ["without_query"],
        },
    },
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "sipgate_provider": {"level": LOG_LEVEL},
        "sipgate_project": {"level": LOG_LEVEL},
        "django": {"handlers": [], "level": "INFO"},
        **{
            name: {"handlers": ["requests"], "level": "INFO", "propagate": False}
            for name in ("django.server", "gunicorn.access", "gunicorn.error")
        },
    },
}

# --- metrics -------------------------------------------------------------------------------------

METRICS_TOKEN = env.read(
    "METRICS_TOKEN", "", env.at_least(16), "have at least 16 characters: ASCII, without blanks"
)
SIPGATE_METRICS = bool(METRICS_TOKEN)
