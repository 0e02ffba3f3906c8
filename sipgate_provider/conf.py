"""Typed settings. Each is read from Django's settings when it is used, so that a test can override
it.

Must not know: the environment (the site reads that), models, allauth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from sipgate_provider import addresses

PROVIDER_ID = "sipgate"
"""allauth's id of this provider, in its settings, addresses and ``SocialAccount.provider``."""

Value = TypeVar("Value")
REALM = "https://login.sipgate.com/auth/realms/third-party/protocol/openid-connect"


NAMES = (
    "SIPGATE_AUTH_URL",
    "SIPGATE_TOKEN_URL",
    "SIPGATE_API_URL",
    "SIPGATE_REVOKE_URL",
    "SIPGATE_LOGOUT_URL",
    "SIPGATE_ISSUER",
    "SIPGATE_REDIRECT_URI",
    "SIPGATE_TOKEN_KEYS",
    "SIPGATE_SCOPE",
    "SIPGATE_WAIT_SECONDS",
    "SIPGATE_CALLBACKS_AT_ONCE",
    "SIPGATE_PAGE_WAIT_SECONDS",
    "SIPGATE_ACCOUNT_MAX_AGE_SECONDS",
    "SIPGATE_JOURNAL_DIR",
    "SIPGATE_NOTICES",
    "SIPGATE_HISTORY_DAYS",
    "SIPGATE_METRICS",
    "SIPGATE_SITE_URL",
    "SIPGATE_SITE_NAME",
)


def _get(name: str, default: Value, make: Callable[[Any], Value]) -> Value:
    """Return a setting. ``None`` counts as not set: ``os.environ.get`` returns it.

    Raises:
        ImproperlyConfigured: ``make`` cannot read it. It may be a secret, so only its type is told.
    """
    value = getattr(settings, f"SIPGATE_{name}", None)
    try:
        return default if value is None else make(value)
    except (TypeError, ValueError):
        text = (
            f"SIPGATE_{name} has a value that cannot be used, of the type {type(value).__name__}."
        )
        raise ImproperlyConfigured(text) from None


def _words(value: Any) -> list[str]:
    """Return a list; a text is split at blanks, as in the environment."""
    return value.split() if isinstance(value, str) else [str(word) for word in value if word]


def auth_url() -> str:
    """``SIPGATE_AUTH_URL``: sipgate's authorization endpoint."""
    return _get("AUTH_URL", f"{REALM}/auth", str)


def token_url() -> str:
    """``SIPGATE_TOKEN_URL``: the token endpoint of the same realm."""
    return _get("TOKEN_URL", f"{REALM}/token", str)


def api_url() -> str:
    """``SIPGATE_API_URL``: base of the REST API, without a trailing slash."""
    return _get("API_URL", "https://api.sipgate.com/v2", str).rstrip("/")


OFF = "off"


def revoke_url() -> str:
    """``SIPGATE_REVOKE_URL``: the revocation endpoint (RFC 7009), derived from the token endpoint;
    ``off``: endings use the logout endpoint."""
    return _derived("REVOKE_URL", "revoke")


def logout_url() -> str:
    """``SIPGATE_LOGOUT_URL``: Keycloak's logout endpoint, for servers without revocation, derived
    from the token endpoint; ``off``: never.

    A logout ends the user's session at sipgate, and what other applications were granted in it.
    """
    return _derived("LOGOUT_URL", "logout")


def _derived(name: str, endpoint: str) -> str:
    value = _get(name, "", str)
    return "" if value == OFF else value or addresses.sibling(token_url(), endpoint)


def issuer() -> str:
    """``SIPGATE_ISSUER``: what a callback's ``iss`` must equal (RFC 9207), derived from the
    authorization endpoint."""
    return _get("ISSUER", "", str) or addresses.issuer_from(auth_url())


def redirect_uri() -> str:
    """``SIPGATE_REDIRECT_URI``: the callback, exactly as registered at sipgate; empty: allauth
    builds it."""
    return _get("REDIRECT_URI", "", str)


def redirect_path() -> str:
    return urlsplit(redirect_uri()).path


def is_own_host(host: str) -> bool:
    """Tell whether a request's ``Host`` is that of the redirect URI. Browsers omit a scheme's
    default port."""
    parts = urlsplit(redirect_uri())
    port = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return host.lower().removesuffix(port) == parts.netloc.lower().removesuffix(port)


def token_keys() -> tuple[str, ...]:
    """``SIPGATE_TOKEN_KEYS``: keys, each 32 random bytes in URL-safe base64; the first encrypts,
    all decrypt."""
    return tuple(_get("TOKEN_KEYS", [], _words))


def scope() -> list[str]:
    """``SIPGATE_SCOPE``: the scopes a sign-in asks for, unless allauth's own ``SCOPE`` setting
    names others."""
    return _get("SCOPE", ["account:read"], _words)


def wait_seconds() -> float:
    """``SIPGATE_WAIT_SECONDS``: how long a caller without a usable token waits for one by default.

    It covers connecting (5 s) and the answer (20 s), and is less than the 30 s after which gunicorn
    ends a worker by default.
    """
    return _get("WAIT_SECONDS", 25.0, float)


def callbacks_at_once() -> int:
    """``SIPGATE_CALLBACKS_AT_ONCE``: how many callbacks of sign-ins may wait for sipgate in one
    process, such as half of its threads; others try again later. Read once."""
    return _get("CALLBACKS_AT_ONCE", 4, int)


def page_wait() -> float:
    """``SIPGATE_PAGE_WAIT_SECONDS``: how long a page waits for sipgate before it shows the last
    known data."""
    return _get("PAGE_WAIT_SECONDS", 0.8, float)


def account_max_age_seconds() -> float:
    """``SIPGATE_ACCOUNT_MAX_AGE_SECONDS``: how old sipgate's last answer may be before a page asks
    again; 0: every page asks."""
    return _get("ACCOUNT_MAX_AGE_SECONDS", 60.0, float)


def journal_directory() -> Path | None:
    """``SIPGATE_JOURNAL_DIR``: folder for the journal, and for the lock between the processes of
    this machine; ``None``: neither, and only the lease in the row excludes."""
    return _get("JOURNAL_DIR", None, lambda value: Path(value) if value else None)


def cache_is_per_process() -> bool:
    """Tell whether each process has a default cache of its own."""
    backend = str(settings.CACHES.get("default", {}).get("BACKEND", "")).lower()
    return "locmem" in backend or "dummy" in backend


def notices() -> bool:
    """``SIPGATE_NOTICES``: whether users and operators get an email when they have to act."""
    return _get("NOTICES", True, bool)


def history_days() -> int:
    """``SIPGATE_HISTORY_DAYS``: how many days the history and sipgate's last answers are kept; 0:
    forever."""
    return _get("HISTORY_DAYS", 365, int)


def metrics() -> bool:
    """``SIPGATE_METRICS``: whether Prometheus may read the metrics. Read once, at the start."""
    return _get("METRICS", False, bool)


def site_url() -> str:
    """``SIPGATE_SITE_URL``: address of the site, for links in emails; by default that of the
    redirect URI."""
    parts = urlsplit(redirect_uri())
    default = f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
    return _get("SITE_URL", default, str).rstrip("/")


def site_name() -> str:
    """``SIPGATE_SITE_NAME``: name of the site in emails; by default the host of its address."""
    return _get("SITE_NAME", "", str) or urlsplit(site_url()).netloc
