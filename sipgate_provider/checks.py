"""Configuration mistakes, found at start-up, each with its cure. Stable ids: docs/reference lists them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core import checks
from django.db import connections
from django.utils.module_loading import import_string

from sipgate_provider import conf, errors, metrics
from sipgate_provider.keeper import database, sealing
from sipgate_provider.remote import http

SUPPORTED = frozenset({"postgresql", "sqlite"})


def register_checks() -> None:
    checks.register(check_keys, "sipgate")
    checks.register(check_allauth, "sipgate")
    checks.register(check_lease, "sipgate")
    checks.register(check_apps_order, "sipgate")
    checks.register(check_time_zones, "sipgate")
    checks.register(check_metrics, "sipgate")
    checks.register(check_database, checks.Tags.database)
    checks.register(check_supported_database, checks.Tags.database)
    checks.register(check_deployment, "sipgate", deploy=True)


def check_keys(**_kwargs: Any) -> Iterable[checks.CheckMessage]:
    if not conf.token_keys() and not settings.DEBUG:
        yield checks.Error(
            "SIPGATE_TOKEN_KEYS is empty: sipgate's tokens cannot be sealed.",
            hint="Set it to 32 random bytes in URL-safe base64: python -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'",
            id="sipgate_provider.E001",
        )
        return
    try:
        sealing.first_key_id()
    except errors.Misconfigured as error:
        yield checks.Error(
            error.message, hint="Each entry is 32 random bytes in URL-safe base64.", id="sipgate_provider.E002"
        )


def check_allauth(**_kwargs: Any) -> Iterable[checks.CheckMessage]:
    if getattr(settings, "SOCIALACCOUNT_STORE_TOKENS", False):
        yield checks.Warning(
            "SOCIALACCOUNT_STORE_TOKENS is on: allauth also stores every token, in clear text.",
            hint="Switch it off; sipgate_provider keeps sipgate's tokens sealed.",
            id="sipgate_provider.W003",
        )
    from sipgate_provider.adapter import SipgateSocialAccountAdapter

    name = getattr(settings, "SOCIALACCOUNT_ADAPTER", "")
    try:
        adapter = import_string(name) if name else None
    except ImportError:
        adapter = None
    if adapter is None or not issubclass(adapter, SipgateSocialAccountAdapter):
        yield checks.Error(
            "SOCIALACCOUNT_ADAPTER is not sipgate_provider's: pending sign-ins would lie in the session in clear text.",
            hint="Set SOCIALACCOUNT_ADAPTER = 'sipgate_provider.adapter.SipgateSocialAccountAdapter', or inherit from it.",
            id="sipgate_provider.E004",
        )
    if getattr(settings, "SESSION_ENGINE", "").endswith("signed_cookies"):
        yield checks.Warning(
            "Sessions lie in cookies: a pending sign-in is larger than a cookie may be.",
            hint="Use database or cache sessions.",
            id="sipgate_provider.W005",
        )


def check_lease(**_kwargs: Any) -> Iterable[checks.CheckMessage]:
    if conf.lease().total_seconds() < http.TOKEN.total + 5:
        yield checks.Error(
            "SIPGATE_LEASE_SECONDS is shorter than one refresh may take: two processes could ask with the same token.",
            hint=f"Use at least {http.TOKEN.total + 5:.0f} seconds.",
            id="sipgate_provider.E006",
        )
    if not 0 < conf.mandatory_share() < conf.advisory_share() < 1:
        yield checks.Error(
            "SIPGATE_MANDATORY_SHARE and SIPGATE_ADVISORY_SHARE must satisfy 0 < mandatory < advisory < 1.",
            id="sipgate_provider.E007",
        )


def check_apps_order(**_kwargs: Any) -> Iterable[checks.CheckMessage]:
    apps = list(settings.INSTALLED_APPS)
    ours = next((i for i, name in enumerate(apps) if name.split(".apps.")[0] == "sipgate_provider"), -1)
    if "allauth.socialaccount" in apps and ours < apps.index("allauth.socialaccount"):
        yield checks.Error(
            "sipgate_provider is listed before allauth.socialaccount: allauth's token admin would stay.",
            hint="List sipgate_provider behind it.",
            id="sipgate_provider.E008",
        )


def check_time_zones(**_kwargs: Any) -> Iterable[checks.CheckMessage]:
    # Deadlines are compared between machines and with sipgate's clock; a local time repeats an hour each autumn.
    if not settings.USE_TZ:
        yield checks.Error(
            "USE_TZ is off: the deadlines of tokens are moments, which local times are not.",
            hint="Set USE_TZ = True, Django's default.",
            id="sipgate_provider.E015",
        )


def check_metrics(**_kwargs: Any) -> Iterable[checks.CheckMessage]:
    if conf.metrics() and not metrics.is_on():
        yield checks.Warning(
            "SIPGATE_METRICS is on, but prometheus-client is not installed: nothing is counted.",
            hint="pip install 'django-sipgate-provider[metrics]'",
            id="sipgate_provider.W016",
        )


def check_database(databases: Iterable[str] | None = None, **_kwargs: Any) -> Iterable[checks.CheckMessage]:
    for alias in databases or ():
        options = connections[alias].settings_dict.get("OPTIONS", {})
        if connections[alias].vendor == "sqlite" and options.get("transaction_mode", "").upper() != "IMMEDIATE":
            yield checks.Warning(
                f"SQLite database {alias!r} starts transactions without the write lock: busy sites get 'database is locked'.",
                hint="OPTIONS = {'transaction_mode': 'IMMEDIATE', 'timeout': 20}.",
                id="sipgate_provider.W009",
            )


def check_supported_database(databases: Iterable[str] | None = None, **_kwargs: Any) -> Iterable[checks.CheckMessage]:
    alias = database.alias()
    if alias in (databases or ()) and connections[alias].vendor not in SUPPORTED:
        yield checks.Warning(
            f"Tokens lie in database {alias!r}, of the kind {connections[alias].vendor!r}, on which nothing was tried: that "
            "a token is renewed once and never lost depends on how a database counts rows and locks them.",
            hint="Use PostgreSQL or SQLite; a database router may put the tables of sipgate_provider and socialaccount there.",
            id="sipgate_provider.W017",
        )


def check_deployment(**_kwargs: Any) -> Iterable[checks.CheckMessage]:
    uri = conf.redirect_uri()
    if uri and not uri.startswith("https://"):
        yield checks.Warning(
            "SIPGATE_REDIRECT_URI is not https: codes and session cookies travel in the clear.",
            id="sipgate_provider.W010",
        )
    if any(config.get("ATOMIC_REQUESTS") for config in settings.DATABASES.values()) and any(
        connections[alias].vendor == "sqlite" for alias in settings.DATABASES
    ):
        yield checks.Warning(
            "ATOMIC_REQUESTS on SQLite: a view that has written holds the only write lock, so tokens cannot be renewed in it.",
            hint="Use PostgreSQL, or mark such views with transaction.non_atomic_requests.",
            id="sipgate_provider.W011",
        )
    if "LocMem" in settings.CACHES.get("default", {}).get("BACKEND", "") or "Dummy" in settings.CACHES.get(
        "default", {}
    ).get("BACKEND", ""):
        yield checks.Warning(
            "The default cache is per process: allauth's rate limits count in each worker separately.",
            hint="Set REDIS_URL, or configure a shared cache.",
            id="sipgate_provider.W012",
        )
    if conf.journal_directory() is None:
        yield checks.Warning(
            "There is no rotation journal: a pair that sipgate has issued is lost if the database fails at that moment.",
            hint="Set SIPGATE_JOURNAL_DIR to a folder on a disk that outlives the process.",
            id="sipgate_provider.W013",
        )
    if not conf.token_keys():
        yield checks.Warning(
            "SIPGATE_TOKEN_KEYS is derived from SECRET_KEY.", hint="Set a key of its own.", id="sipgate_provider.W014"
        )
