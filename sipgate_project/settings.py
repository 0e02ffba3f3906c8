"""Settings of the site. No other module reads its variables.

Environments differ by the values of variables; there is one settings file. ``.env.example`` explains every variable.
"""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.http.request import split_domain_port, validate_host
from django.utils.translation import gettext_lazy as _

from sipgate_provider.endpoints import is_loopback, realm_of, realm_of_client

from .database import settings_from
from .env import Env, mail, sender, split_url, time_zone

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env(BASE_DIR)

# --- sipgate: the names of sipgate's own Python example ------------------------------------------------------------

CLIENT_ID = env.credential("CLIENT_ID")
CLIENT_SECRET = env.credential("CLIENT_SECRET")
if bool(CLIENT_ID) != bool(CLIENT_SECRET):
    _missing = "CLIENT_SECRET" if CLIENT_ID else "CLIENT_ID"
    raise ImproperlyConfigured(
        f"{_missing} is not set. Copy Id and Secret of your client from console.sipgate.com, or set neither to use "
        f"the local sandbox.{env.hint(_missing)}"
    )

_redirect_parts = split_url("REDIRECT_URI", env.url("REDIRECT_URI", "http://localhost:8080/oauth"))
LOOPBACK = is_loopback(_redirect_parts.hostname or "")
"""The site is used on this machine only, so generated secrets are allowed."""

_redirect_port = _redirect_parts.port or (443 if _redirect_parts.scheme == "https" else 80)
PORT = env.number(
    "PORT", _redirect_port if LOOPBACK and env.text("REDIRECT_URI") else 8080, low=1, high=65535
)
SIPGATE_REDIRECT_URI = env.url("REDIRECT_URI", f"http://localhost:{PORT}/oauth")
_redirect_parts = split_url("REDIRECT_URI", SIPGATE_REDIRECT_URI)
_redirect_port = _redirect_parts.port or (443 if _redirect_parts.scheme == "https" else 80)
if LOOPBACK and _redirect_parts.scheme == "https" and not env.flag("BEHIND_PROXY"):
    raise ImproperlyConfigured(
        "REDIRECT_URI starts with https:// but this site itself speaks http only: use http:// on this machine, or set "
        "BEHIND_PROXY=on if a proxy in front ends TLS."
    )
if LOOPBACK and _redirect_port != PORT and not env.flag("BEHIND_PROXY"):
    raise ImproperlyConfigured(
        f"REDIRECT_URI names port {_redirect_port} but PORT is {PORT}: make them equal, here and in sipgate's console."
    )
if (
    _redirect_parts.query
    or _redirect_parts.path
    in {"", "/", "/account", "/account.json", "/livez", "/readyz", "/metrics"}
    or _redirect_parts.path.startswith(("/admin/", "/account/", "/i18n/", "/static/"))
    # allauth's own path for the callback is fine; others below /accounts/ could hide a page of allauth.
    or _redirect_parts.path.removeprefix("/accounts/")
    not in {_redirect_parts.path, "sipgate/login/callback/"}
):
    raise ImproperlyConfigured(
        "REDIRECT_URI must have a path of its own and no query, such as http://localhost:8080/oauth."
    )

SANDBOX = not CLIENT_ID
"""Without credentials the site uses the local sandbox instead of sipgate."""
if SANDBOX:
    # A deployment that lost its CLIENT_ID would send its users' tokens to whatever listens on the sandbox's port.
    for _name, _hosts in {
        "REDIRECT_URI": [_redirect_parts.hostname or ""],
        "ALLOWED_HOSTS": env.words("ALLOWED_HOSTS"),
    }.items():
        if not all(is_loopback(_host.strip("[]")) for _host in _hosts):
            raise ImproperlyConfigured(
                f"CLIENT_ID is not set, but {_name} names a host other than this machine: set CLIENT_ID and "
                f"CLIENT_SECRET, since the sandbox is used on a loopback address only.{env.hint('CLIENT_ID')}"
            )
SANDBOX_PORT = env.number("SANDBOX_PORT", PORT + 1 if PORT < 65535 else PORT - 1, low=1, high=65535)
if SANDBOX and SANDBOX_PORT == PORT:
    raise ImproperlyConfigured("SANDBOX_PORT must differ from PORT.")
SANDBOX_URL = env.url("SANDBOX_URL", f"http://localhost:{SANDBOX_PORT}").rstrip("/")
if SANDBOX and not is_loopback(split_url("SANDBOX_URL", SANDBOX_URL).hostname):
    raise ImproperlyConfigured("SANDBOX_URL must name this machine, such as http://localhost:8081.")

_realm = realm_of_client(CLIENT_ID)
_oidc = f"https://login.sipgate.com/auth/realms/{_realm or 'third-party'}/protocol/openid-connect"
if SANDBOX:
    # The .env of sipgate's example has the addresses even if the credentials are empty. They are ignored then.
    CLIENT_ID, CLIENT_SECRET = (
        "1000000-1-sandbox:third-party",
        "sandbox-secret",
    )  # public, as is the sandbox
    _sandbox = f"{SANDBOX_URL}/auth/realms/third-party/protocol/openid-connect"
    SIPGATE_AUTH_URL, SIPGATE_TOKEN_URL = f"{_sandbox}/auth", f"{_sandbox}/token"
    SIPGATE_API_URL = f"{SANDBOX_URL}/v2"
    SIPGATE_LOGOUT_URL = SIPGATE_REVOKE_URL = ""
else:
    SIPGATE_AUTH_URL = env.url("AUTH_URL", f"{_oidc}/auth")
    SIPGATE_TOKEN_URL = env.url("TOKEN_URL", f"{_oidc}/token")
    _endpoint = env.url("TEST_API_ENDPOINT", "https://api.sipgate.com/v2/account").rstrip("/")
    if split_url("TEST_API_ENDPOINT", _endpoint).path.count("/") < 2:
        raise ImproperlyConfigured(
            "TEST_API_ENDPOINT must be the address of the account resource, such as https://api.sipgate.com/v2/account."
        )
    SIPGATE_API_URL = env.url("SIPGATE_API_URL", _endpoint.rpartition("/")[0]).rstrip("/")
    SIPGATE_REVOKE_URL = env.url("SIPGATE_REVOKE_URL", may_be_off=True)
    SIPGATE_LOGOUT_URL = env.url("SIPGATE_LOGOUT_URL", may_be_off=True)

for _name, _url, _end in (
    ("AUTH_URL", SIPGATE_AUTH_URL, "auth"),
    ("TOKEN_URL", SIPGATE_TOKEN_URL, "token"),
):
    if not realm_of(_url) or not _url.endswith(f"/protocol/openid-connect/{_end}"):
        raise ImproperlyConfigured(
            f"{_name} must end in /realms/third-party/protocol/openid-connect/{_end}, with the realm of your client. "
            "Remove it to use sipgate's own address."
        )
if realm_of(SIPGATE_AUTH_URL) != realm_of(SIPGATE_TOKEN_URL):
    raise ImproperlyConfigured(
        "AUTH_URL and TOKEN_URL name different realms: both must be those of your client."
    )
if _realm and realm_of(SIPGATE_TOKEN_URL) not in {"", _realm}:
    raise ImproperlyConfigured(
        f"CLIENT_ID ends in :{_realm} but TOKEN_URL names the realm {realm_of(SIPGATE_TOKEN_URL)}: "
        "sipgate would answer 'client not found'. Remove AUTH_URL and TOKEN_URL, or correct the realm in them."
    )

# A second instance of this checkout, on another port, has a sandbox with other data, so it needs its own database.
_apart = f"-{PORT}" if SANDBOX and PORT != 8080 else ""
SIPGATE_JOURNAL_DIR = (
    None
    if env.text("SIPGATE_JOURNAL_DIR").lower() == "off"
    else str(env.folder("SIPGATE_JOURNAL_DIR", BASE_DIR / "var" / f"journal{_apart}"))
)

SIPGATE_SITE_NAME = "sipgate for Django"

# With the sandbox the name is asked for, too, so that people are greeted by it.
SIPGATE_SCOPE = env.scopes("OAUTH_SCOPE", "account:read users:read" if SANDBOX else "account:read")

# With the sandbox every page asks, so that people see the effect of its buttons.
SIPGATE_ACCOUNT_MAX_AGE_SECONDS = env.number(
    "SIPGATE_ACCOUNT_MAX_AGE_SECONDS", 0 if SANDBOX else 60, low=0, high=86_400
)

# --- the site -------------------------------------------------------------------------------------------------------

DEBUG = env.flag("DEBUG")
SECRET_KEY = env.text("SECRET_KEY") or (env.local_secret("SECRET_KEY") if LOOPBACK else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        f"SECRET_KEY is not set. Use a long random value and keep it secret.{env.hint('SECRET_KEY')}"
    )
if not LOOPBACK and len(SECRET_KEY) < 32:
    raise ImproperlyConfigured(
        "SECRET_KEY is shorter than 32 characters: sessions could be forged."
    )

SIPGATE_TOKEN_KEYS = env.words("SIPGATE_TOKEN_KEYS")
if not SIPGATE_TOKEN_KEYS and LOOPBACK and not DEBUG:
    SIPGATE_TOKEN_KEYS = [env.local_secret("SIPGATE_TOKEN_KEYS")]

ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS")
if ALLOWED_HOSTS and not validate_host(split_domain_port(_redirect_parts.netloc)[0], ALLOWED_HOSTS):
    raise ImproperlyConfigured(
        f"ALLOWED_HOSTS does not contain {_redirect_parts.hostname}, the host of REDIRECT_URI: "
        "every page would be refused."
    )
if not ALLOWED_HOSTS:
    ALLOWED_HOSTS = [_redirect_parts.hostname or "localhost"]
    if LOOPBACK:
        ALLOWED_HOSTS += ["localhost", "127.0.0.1", "[::1]"]

HTTPS = _redirect_parts.scheme == "https"
BEHIND_PROXY = env.flag("BEHIND_PROXY")

ATOMIC_REQUESTS = env.flag("ATOMIC_REQUESTS")
DATABASE_POOL = env.number("DATABASE_POOL", 24 if ATOMIC_REQUESTS else 8, low=1, high=200)
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        **env.parsed(
            "DATABASE_URL",
            f"sqlite:///{BASE_DIR / 'var' / f'db{_apart}.sqlite3'}",
            partial(settings_from, pool_size=DATABASE_POOL),
            "something like postgres://user:password@host/name or sqlite:////folder/file.sqlite3",
        ),
        "ATOMIC_REQUESTS": ATOMIC_REQUESTS,
    }
}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    if not env.text("DATABASE_URL"):
        with contextlib.suppress(OSError):  # the next line reports what cannot be made
            (BASE_DIR / "var").mkdir(exist_ok=True)
    if not Path(DATABASES["default"]["NAME"]).parent.is_dir():
        raise ImproperlyConfigured("DATABASE_URL names a file in a folder that does not exist.")

# In the database, so that all processes count wrong passwords together. `migrate` makes the table.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "site_cache",
    }
}

_email = env.parsed(
    "EMAIL_URL", "console:", mail, "something like submission://user:password@host:587"
)
EMAIL_BACKEND = _email["EMAIL_BACKEND"]
EMAIL_HOST, EMAIL_PORT = _email["EMAIL_HOST"], _email["EMAIL_PORT"]
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _email["EMAIL_HOST_USER"], _email["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS, EMAIL_USE_SSL = _email["EMAIL_USE_TLS"], _email["EMAIL_USE_SSL"]
EMAIL_FILE_PATH = _email["EMAIL_FILE_PATH"]
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.parsed(
    "DEFAULT_FROM_EMAIL",
    f"sipgate@{_redirect_parts.hostname}",
    sender,
    "something like Company <sipgate@example.org>",
)
ADMINS = [(address, address) for address in env.addresses("ADMINS")]
MANAGERS = ADMINS

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
    # After allauth: it replaces allauth's token admin.
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

# --- accounts --------------------------------------------------------------------------------------------------------

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
ACCOUNT_EMAIL_VERIFICATION = "optional"
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_FORMS = {"reset_password": "sipgate_provider.forms.VerifiedResetPasswordForm"}
ACCOUNT_LOGOUT_REDIRECT_URL = "home"
ACCOUNT_USER_DISPLAY = "sipgate_project.people.display_name"
ACCOUNT_ADAPTER = "sipgate_project.adapter.AccountAdapter"
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_RATE_LIMITS = {"sipgate_refresh": "6/m/key"}  # Refresh now, of one connection
SOCIALACCOUNT_ADAPTER = "sipgate_provider.adapter.SipgateSocialAccountAdapter"
SOCIALACCOUNT_STORE_TOKENS = False  # sipgate_provider stores them, encrypted
SOCIALACCOUNT_EMAIL_VERIFICATION = "optional"
SOCIALACCOUNT_PROVIDERS = {
    "sipgate": {
        "APPS": [{"name": "sipgate", "client_id": CLIENT_ID, "secret": CLIENT_SECRET}],
        "SCOPE": SIPGATE_SCOPE,
    }
}

# --- languages and time -----------------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("de", _("German"))]
LOCALE_PATHS = [
    BASE_DIR / "sipgate_project" / "locale",  # the site's own texts, collected by make messages
    BASE_DIR / "sipgate_project" / "wording",  # allauth's and Django's in our words, kept by hand
]
TIME_ZONE = env.parsed("TIME_ZONE", "Europe/Berlin", time_zone, "a name such as Europe/Berlin")
USE_TZ = True

# --- static files -----------------------------------------------------------------------------------------------------

STATIC_URL = "static/"
STATIC_ROOT = env.folder("STATIC_ROOT", BASE_DIR / "var" / "static")
with contextlib.suppress(
    OSError
):  # whitenoise warns if the folder is missing, although pages look the same
    STATIC_ROOT.mkdir(parents=True, exist_ok=True)
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

# --- security ---------------------------------------------------------------------------------------------------------

if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Otherwise every visitor has the proxy's address, and ten wrong passwords lock everybody out for a minute.
ALLAUTH_TRUSTED_PROXY_COUNT = 1 if BEHIND_PROXY else 0
SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = env.number("HSTS_SECONDS", 31_536_000 if HTTPS else 0, low=0, high=63_072_000)
# Both concern more than this site, and cannot be undone for a long time, so the owner of the domain switches them on.
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.flag("HSTS_SUBDOMAINS")
SECURE_HSTS_PRELOAD = env.flag("HSTS_PRELOAD")
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
# Cookies are shared by all ports of a host. These names keep other local projects and other checkouts apart.
_at_port = f"_{PORT}" if LOOPBACK and PORT != 8080 else ""
SESSION_COOKIE_NAME = f"sipgate_session{_at_port}"
CSRF_COOKIE_NAME = f"sipgate_csrf{_at_port}"
LANGUAGE_COOKIE_NAME = "sipgate_language"
SESSION_COOKIE_SAMESITE = "Lax"  # with Strict, browsers would not send it to the callback
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "sipgate_project.views.csrf_failure"

_authorize = split_url("AUTH_URL", SIPGATE_AUTH_URL)
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "style-src": [SELF],
        "img-src": [SELF],
        "script-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        # Browsers apply form-action to the redirect that follows: the sign-in button posts here, then goes to sipgate.
        "form-action": [SELF, f"{_authorize.scheme}://{_authorize.netloc}"],
    }
}

# --- logs -------------------------------------------------------------------------------------------------------------

LOG_LEVEL = env.text("LOG_LEVEL", "INFO").upper()
if LOG_LEVEL not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
    raise ImproperlyConfigured("LOG_LEVEL must be DEBUG, INFO, WARNING, ERROR or CRITICAL.")
LOG_FORMAT = env.text("LOG_FORMAT", "line").lower()
if LOG_FORMAT not in {"line", "json"}:
    raise ImproperlyConfigured("LOG_FORMAT must be line or json.")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"},
        "json": {"()": "sipgate_project.logs.JsonLines"},
    },
    "filters": {
        "without_query": {"()": "sipgate_project.logs.WithoutQuery"},
    },
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

# --- metrics ----------------------------------------------------------------------------------------------------------

METRICS_TOKEN = env.text("METRICS_TOKEN")
if METRICS_TOKEN and not (
    len(METRICS_TOKEN) >= 16
    and METRICS_TOKEN.isascii()
    and METRICS_TOKEN.isprintable()
    and " " not in METRICS_TOKEN
):
    raise ImproperlyConfigured(
        "METRICS_TOKEN must have at least 16 characters: ASCII, without blanks."
    )
SIPGATE_METRICS = bool(METRICS_TOKEN)

# --- personal data ------------------------------------------------------------------------------------------

SIPGATE_HISTORY_DAYS = env.number("SIPGATE_HISTORY_DAYS", 365, low=0, high=36_500)

# --- .env -------------------------------------------------------------------------------------------------------------

ENV_REMARKS = env.remarks()
"""What has no effect in ``.env``, one sentence each. A system check reports it."""
