"""System checks: configuration mistakes, found at start-up, each with its cure. docs/reference.md lists the ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.conf import settings
from django.core import checks
from django.db import connections
from django.utils.module_loading import import_string

from sipgate_provider import conf, errors, metrics, tokens
from sipgate_provider.remote import http

SUPPORTED = frozenset({"postgresql", "sqlite"})
NEW_KEY = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"

Messages = Iterator[checks.CheckMessage]


def register_checks() -> None:
    for check in (
        check_keys,
        check_allauth,
        check_refreshes,
        check_apps_order,
        check_time_zones,
        check_metrics,
    ):
        checks.register(check, "sipgate")
    checks.register(check_database, checks.Tags.database)
    checks.register(check_deployment, "sipgate", deploy=True)


def _message(
    kind: Callable[..., checks.CheckMessage], name: str, text: str, hint: str
) -> checks.CheckMessage:
    return kind(text, hint=hint, id=name)


def _error(name: str, text: str, hint: str) -> checks.CheckMessage:
    return _message(checks.Error, name, text, hint)


def _warning(name: str, text: str, hint: str) -> checks.CheckMessage:
    return _message(checks.Warning, name, text, hint)


def check_keys(**_kwargs: Any) -> Messages:
    if not conf.token_keys() and not settings.DEBUG:
        yield _error(
            "sipgate_provider.E001",
            "SIPGATE_TOKEN_KEYS is empty: sipgate's tokens cannot be encrypted.",
            f"Set it to 32 random bytes in URL-safe base64: {NEW_KEY}",
        )
        return
    try:
        tokens.key_ids()
    except errors.Misconfigured as error:
        yield _error(
            "sipgate_provider.E002",
            error.message,
            "Each entry is 32 random bytes in URL-safe base64.",
        )


def check_allauth(**_kwargs: Any) -> Messages:
    if getattr(settings, "SOCIALACCOUNT_STORE_TOKENS", False):
        yield _warning(
            "sipgate_provider.W003",
            "SOCIALACCOUNT_STORE_TOKENS is on: allauth also stores every token in clear text.",
            "Switch it off; sipgate_provider stores sipgate's tokens encrypted.",
        )
    if not _uses_our_adapter():
        yield _error(
            "sipgate_provider.E004",
            "SOCIALACCOUNT_ADAPTER is not sipgate_provider's: sessions would contain tokens in clear text.",
            "Set it to 'sipgate_provider.adapter.SipgateSocialAccountAdapter', or to a subclass.",
        )
    if settings.SESSION_ENGINE.endswith("signed_cookies"):
        yield _warning(
            "sipgate_provider.W005",
            "Sessions are stored in cookies: a pending sign-in is larger than a cookie may be.",
            "Use database or cache sessions.",
        )
    if getattr(settings, "SOCIALACCOUNT_EMAIL_AUTHENTICATION", False):
        yield _warning(
            "sipgate_provider.W018",
            "SOCIALACCOUNT_EMAIL_AUTHENTICATION is on: an e-mail address at sipgate is enough to sign in as its user.",
            "Switch it off; users connect sipgate on their account page.",
        )


def _uses_our_adapter() -> bool:
    from sipgate_provider.adapter import SipgateSocialAccountAdapter

    try:
        adapter = import_string(getattr(settings, "SOCIALACCOUNT_ADAPTER", ""))
    except ImportError:
        return False
    return issubclass(adapter, SipgateSocialAccountAdapter)


def check_refreshes(**_kwargs: Any) -> Messages:
    shortest = conf.answer_seconds() + 1 + conf.store_seconds()
    if conf.lease().total_seconds() < shortest:
        yield _error(
            "sipgate_provider.E006",
            "SIPGATE_LEASE_SECONDS is shorter than an answer and its storing may take: no token could be sent.",
            f"Use at least {shortest:.0f} seconds.",
        )
    if conf.wait_seconds() < http.TOKEN.connect + conf.answer_seconds():
        yield _warning(
            "sipgate_provider.W019",
            "SIPGATE_WAIT_SECONDS is shorter than connecting and sipgate's answer may take: callers give up too early.",
            f"Use at least {http.TOKEN.connect + conf.answer_seconds():.0f} seconds.",
        )
    if not 0 < conf.mandatory_share() < conf.advisory_share() < 1:
        yield _error(
            "sipgate_provider.E007",
            "SIPGATE_MANDATORY_SHARE and SIPGATE_ADVISORY_SHARE must satisfy 0 < mandatory < advisory < 1.",
            "Remove both to use the defaults.",
        )


def check_apps_order(**_kwargs: Any) -> Messages:
    apps = list(settings.INSTALLED_APPS)
    ours = next(
        (i for i, name in enumerate(apps) if name.split(".apps.")[0] == "sipgate_provider"), -1
    )
    if "allauth.socialaccount" in apps and ours < apps.index("allauth.socialaccount"):
        yield _error(
            "sipgate_provider.E008",
            "sipgate_provider is listed before allauth.socialaccount, whose token admin would replace ours.",
            "List sipgate_provider after allauth.socialaccount in INSTALLED_APPS.",
        )


def check_time_zones(**_kwargs: Any) -> Messages:
    # Deadlines are compared between machines and with sipgate's clock; a local time repeats an hour each autumn.
    if not settings.USE_TZ:
        yield _error(
            "sipgate_provider.E015",
            "USE_TZ is off: the deadlines of tokens need time zones.",
            "Set USE_TZ = True, Django's default.",
        )


def check_metrics(**_kwargs: Any) -> Messages:
    if conf.metrics() and not metrics.is_on():
        yield _warning(
            "sipgate_provider.W016",
            "SIPGATE_METRICS is on, but prometheus-client is not installed: nothing is counted.",
            "pip install 'django-sipgate-provider[metrics]'",
        )


def check_database(databases: Iterable[str] | None = None, **_kwargs: Any) -> Messages:
    for alias in databases or ():
        options = connections[alias].settings_dict.get("OPTIONS", {})
        if (
            connections[alias].vendor == "sqlite"
            and options.get("transaction_mode", "").upper() != "IMMEDIATE"
        ):
            yield _warning(
                "sipgate_provider.W009",
                f"SQLite database {alias!r} starts transactions without the write lock: "
                "busy sites get 'database is locked'.",
                "Set OPTIONS = {'transaction_mode': 'IMMEDIATE', 'timeout': 20} in DATABASES.",
            )
    alias = tokens.using()
    if alias not in (databases or ()):
        return
    if connections[alias].vendor not in SUPPORTED:
        yield _warning(
            "sipgate_provider.W017",
            f"Tokens are stored in database {alias!r}, a {connections[alias].vendor} database, which was never tested: "
            "how a database counts and locks rows decides whether tokens are refreshed once and never lost.",
            "Use PostgreSQL or SQLite; a database router may put sipgate_provider's and socialaccount's tables there.",
        )
    if connections[alias].vendor == "sqlite" and connections[alias].settings_dict.get(
        "ATOMIC_REQUESTS"
    ):
        yield _warning(
            "sipgate_provider.W011",
            "ATOMIC_REQUESTS is on with SQLite: a view that has written holds the only write lock, "
            "so no token can be refreshed in it.",
            "Use PostgreSQL, or mark such views with transaction.non_atomic_requests.",
        )


def check_deployment(**_kwargs: Any) -> Messages:
    uri = conf.redirect_uri()
    if uri and not uri.startswith("https://"):
        yield _warning(
            "sipgate_provider.W010",
            "SIPGATE_REDIRECT_URI is not https: codes and session cookies are sent in clear text.",
            "Use https://, here and in sipgate's console.",
        )
    if conf.cache_is_per_process():
        yield _warning(
            "sipgate_provider.W012",
            "Each process has a default cache of its own: allauth's rate limits count in each process separately.",
            "Configure a shared cache in CACHES.",
        )
    if conf.journal_directory() is None:
        yield _warning(
            "sipgate_provider.W013",
            "There is no journal: a token pair is lost if the database fails while it is stored.",
            "Set SIPGATE_JOURNAL_DIR to a folder on a disk that outlives the process.",
        )
    if not conf.token_keys():
        yield _warning(
            "sipgate_provider.W014",
            "SIPGATE_TOKEN_KEYS is derived from SECRET_KEY.",
            "Set a key of its own.",
        )
