"""System checks: at each start they find settings that cannot work, and name the cure.

Each entry of the tables is one mistake. The doctor (``ops.doctor``) finds out what only sipgate or
the database can tell.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.db import connections
from django.http.request import validate_host
from django.urls import Resolver404, resolve
from django.utils.module_loading import import_string

from sipgate_provider import addresses, conf, database, errors, links, scopes, tokens

NEW_KEY = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"


@dataclass(frozen=True, slots=True)
class Check:
    """One mistake. ``is_wrong`` returns a true value, or a text for the ``{}`` of ``text``."""

    id: str
    is_wrong: Callable[[], object]
    text: str
    hint: str


@checks.register("sipgate")
def check_settings(**_kwargs: Any) -> Iterator[checks.CheckMessage]:
    return _messages(SETTINGS)


@checks.register("sipgate", deploy=True)
def check_deployment(**_kwargs: Any) -> Iterator[checks.CheckMessage]:
    return _messages(DEPLOYMENT)


@checks.register(checks.Tags.database)
def check_database(
    databases: Iterable[str] | None = None, **_kwargs: Any
) -> Iterator[checks.CheckMessage]:
    return _messages(DATABASE if database.using() in (databases or ()) else ())


def _messages(table: Iterable[Check]) -> Iterator[checks.CheckMessage]:
    for check in table:
        wrong = check.is_wrong()
        if wrong:
            kind = checks.Error if check.id.startswith("E") else checks.Warning
            yield kind(check.text.format(wrong), hint=check.hint, id=f"sipgate_provider.{check.id}")


# --- what is wrong ------------------------------------------------------------------------------


def _bad_key() -> str:
    try:
        tokens.key_ids()
    except errors.Misconfigured as error:
        return error.message if conf.token_keys() else ""
    return ""


def _is_foreign_adapter() -> bool:
    from sipgate_provider.adapter import SipgateSocialAccountAdapter

    try:
        adapter = import_string(getattr(settings, "SOCIALACCOUNT_ADAPTER", ""))
    except ImportError:
        return True
    return not issubclass(adapter, SipgateSocialAccountAdapter)


def _unsafe_addresses() -> str:
    urls = {
        "SIPGATE_AUTH_URL": conf.auth_url(),
        "SIPGATE_TOKEN_URL": conf.token_url(),
        "SIPGATE_API_URL": conf.api_url(),
    }
    return ", ".join(name for name, url in urls.items() if not _is_safe(url))


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    is_here = addresses.is_loopback(parts.hostname)
    return parts.scheme == "https" or (parts.scheme == "http" and is_here)


def _has_no_sign_in() -> bool:
    """Tell whether the site has pages, but none where a sign-in begins."""
    if not getattr(settings, "ROOT_URLCONF", ""):
        return False
    return not links.sign_in_url("")


def _client_of_settings() -> str:
    """Return what is wrong with the client in the settings; empty if it is in the database."""
    from sipgate_provider.adapter import apps_of_settings

    apps = [app for app in apps_of_settings() if not app.settings.get("hidden")]
    if len(apps) > 1:
        return f"it names {len(apps)} clients, and only one can be meant"
    if apps and not (apps[0].client_id and apps[0].secret):
        return f"{'secret' if apps[0].client_id else 'client_id'} is empty"
    return ""


def _misspelt() -> str:
    """Return settings that only resemble the app's; a site may have others of its own."""
    found = []
    for name in dir(settings):
        if name.startswith("SIPGATE_") and name not in conf.NAMES:
            # Without the prefix, which all of them share.
            ours = {known.removeprefix("SIPGATE_"): known for known in conf.NAMES}
            for near in get_close_matches(name.removeprefix("SIPGATE_"), ours, n=1, cutoff=0.8):
                found.append(f"{name} (do you mean {ours[near]}?)")
    return ", ".join(found)


def _redirect_uri() -> str:
    """Return why the callback would not arrive; empty if it would, or if allauth builds the URI."""
    uri = conf.redirect_uri()
    parts = urlsplit(uri)
    if not uri:
        return ""
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment:
        return "it is not a full http(s) address"
    local = [".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else []
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if not validate_host(host, settings.ALLOWED_HOSTS or local):
        return f"ALLOWED_HOSTS does not contain {parts.hostname}"
    try:
        found = resolve(parts.path).url_name
    except Resolver404:
        found = None
    return "" if found == "sipgate_callback" else f"this site has no callback at {parts.path}"


def _unwritable_journal() -> str:
    """Return which folder cannot be written to, and why. If it does not exist yet, try the nearest
    parent that does."""
    folder = conf.journal_directory()
    if folder is None:
        return ""
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            return ""
    except OSError as error:
        return f"{folder} ({error.strerror or type(error).__name__})"


def _has_per_process_sessions() -> bool:
    return settings.SESSION_ENGINE.endswith(".cache") and conf.cache_is_per_process()


def _is_insecure_with_secure_cookie() -> bool:
    return settings.SESSION_COOKIE_SECURE and conf.redirect_uri().startswith("http://")


def _database() -> tuple[str, dict[str, Any]]:
    connection = connections[database.using()]
    return connection.vendor, connection.settings_dict


def _is_lazy_sqlite() -> bool:
    vendor, options = _database()
    mode = options.get("OPTIONS", {}).get("transaction_mode", "")
    return vendor == "sqlite" and mode.upper() != "IMMEDIATE"


def _is_atomic_sqlite() -> bool:
    vendor, options = _database()
    return vendor == "sqlite" and bool(options.get("ATOMIC_REQUESTS"))


# --- the tables ---------------------------------------------------------------------------------

SETTINGS = (
    Check(
        "E001",
        lambda: not conf.token_keys() and not settings.DEBUG,
        "SIPGATE_TOKEN_KEYS is empty: tokens cannot be encrypted.",
        f"Set it to 32 random bytes in URL-safe base64: {NEW_KEY}",
    ),
    Check("E002", _bad_key, "A key cannot be used: {}", f"Make a key with: {NEW_KEY}"),
    Check(
        "E003",
        _is_foreign_adapter,
        "SOCIALACCOUNT_ADAPTER is not this app's: users would not learn why a sign-in failed.",
        "Set it to 'sipgate_provider.adapter.SipgateSocialAccountAdapter', or to a subclass.",
    ),
    Check(
        "E005",
        lambda: not settings.USE_TZ,
        "USE_TZ is off: the deadlines of tokens need time zones.",
        "Set USE_TZ = True, Django's default.",
    ),
    Check(
        "E006",
        _unsafe_addresses,
        "{} must start with https://: the app sends the client's secret or tokens there.",
        "Correct the setting, or remove it to use sipgate's own address.",
    ),
    Check(
        "E007",
        _unwritable_journal,
        "SIPGATE_JOURNAL_DIR: this process cannot write to {}.",
        "Name a folder that this process can write to, or None to do without the journal.",
    ),
    Check(
        "W010",
        _redirect_uri,
        "SIPGATE_REDIRECT_URI cannot bring users back: {}.",
        "Correct it or ALLOWED_HOSTS, or put *callback_urlpatterns() first in the root URLconf.",
    ),
    Check(
        "W012",
        lambda: settings.SESSION_ENGINE.endswith("signed_cookies"),
        "SESSION_ENGINE keeps sessions in cookies: a pending sign-in is larger than a cookie.",
        "Use database or cache sessions.",
    ),
    Check(
        "W013",
        _has_per_process_sessions,
        "SESSION_ENGINE keeps sessions in a cache that processes do not share.",
        "Use database sessions, or a shared cache.",
    ),
    Check(
        "W014",
        _is_insecure_with_secure_cookie,
        "SESSION_COOKIE_SECURE is on, but SIPGATE_REDIRECT_URI is http: sessions would be lost.",
        "Use https, or turn SESSION_COOKIE_SECURE off on this machine.",
    ),
    Check(
        "W015",
        lambda: not scopes.suffices(conf.scope(), needed="account:read"),
        "SIPGATE_SCOPE does not include account:read: sipgate will not show the account.",
        "Add account:read.",
    ),
    Check(
        "W016",
        lambda: getattr(settings, "SOCIALACCOUNT_EMAIL_AUTHENTICATION", False),
        "SOCIALACCOUNT_EMAIL_AUTHENTICATION: an email address at sipgate opens a user's account.",
        "Turn it off; users connect sipgate on their account page.",
    ),
    Check(
        "W017",
        _has_no_sign_in,
        "The root URLconf has no page where a sign-in begins.",
        'Add path("accounts/", include("allauth.urls")).',
    ),
    Check(
        "W018",
        _client_of_settings,
        "SOCIALACCOUNT_PROVIDERS['sipgate'] cannot be used: {}.",
        "Name one client there, with Id and Secret from sipgate's console.",
    ),
    Check("W019", _misspelt, "Not a setting of this app: {}.", "Correct the name."),
)

DEPLOYMENT = (
    Check(
        "W021",
        lambda: conf.redirect_uri() and not conf.redirect_uri().startswith("https://"),
        "SIPGATE_REDIRECT_URI is not https: codes and session cookies travel in clear text.",
        "Use https://, here and in sipgate's console.",
    ),
    Check(
        "W022",
        conf.cache_is_per_process,
        "CACHES: processes do not share the default cache, so each counts rate limits alone.",
        "Configure a shared cache.",
    ),
    Check(
        "W023",
        lambda: conf.journal_directory() is None,
        "SIPGATE_JOURNAL_DIR is not set: tokens are lost if the database fails while storing them.",
        "Name a folder on a disk that outlives the process.",
    ),
    Check(
        "W024",
        lambda: settings.DEBUG and not conf.token_keys(),
        "SIPGATE_TOKEN_KEYS is not set: the key is derived from SECRET_KEY.",
        f"Set it to 32 random bytes in URL-safe base64: {NEW_KEY}",
    ),
)

DATABASE = (
    Check(
        "W031",
        _is_lazy_sqlite,
        "DATABASES: SQLite takes the write lock too late, which fails with 'database is locked'.",
        "Set OPTIONS = {'transaction_mode': 'IMMEDIATE', 'timeout': 20}.",
    ),
    Check(
        "W032",
        _is_atomic_sqlite,
        "ATOMIC_REQUESTS with SQLite: after a view has written, it cannot refresh a token.",
        "Use PostgreSQL, or mark such views with transaction.non_atomic_requests.",
    ),
)
