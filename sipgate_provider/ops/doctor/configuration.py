"""Checks the settings: system checks, the client, addresses, and the cookies that a sign-in needs."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import allauth
import django
from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connections
from django.http.request import validate_host
from django.urls import Resolver404, resolve

from sipgate_provider import conf, endpoints, errors, scopes, tokens
from sipgate_provider.remote import http, oauth, probes
from sipgate_provider.sign_in import views

from .findings import Finding, Severity, error, finding, ok, warning

CLIENT_ID = re.compile(r"[0-9]+-[0-9]+-[0-9a-f-]{36}(:[a-z-]+)?")
COPY_CREDENTIALS = "Copy the client's Id and Secret from sipgate's console."


def findings() -> Iterator[Finding]:
    yield _versions()
    yield from _system_checks()
    try:
        client = tokens.client()
    except errors.Misconfigured as problem:
        yield error("client", problem.message, COPY_CREDENTIALS)
    else:
        yield from _client(client)
        yield from _realm(client.client_id)
    yield from _scope()
    yield from _addresses()
    yield from _redirect_uri()
    yield from _cookies()


def _versions() -> Finding:
    ours = http.user_agent().replace("/", " ")
    others = f"allauth {allauth.__version__}, Django {django.__version__}, Python {platform.python_version()}"
    return ok("versions", f"{ours}, {others}")


def is_deployed() -> bool:
    """Tell whether the site is meant for anyone but the person at this machine."""
    host = urlsplit(conf.redirect_uri()).hostname
    return not endpoints.is_loopback(host) if host else not settings.DEBUG


def _system_checks() -> Iterator[Finding]:
    """Repeat what Django's, allauth's and our own system checks find; those for deployment only if it is deployed."""
    messages = checks.run_checks(include_deployment_checks=is_deployed())
    # A database that does not answer has a finding of its own.
    with suppress(DatabaseError):
        messages += checks.run_checks(tags=[checks.Tags.database], databases=list(connections))
    messages = [
        message
        for message in messages
        if not message.is_silenced() and message.level >= checks.WARNING
    ]
    for message in messages:
        severity = Severity.ERROR if message.level >= checks.ERROR else Severity.WARNING
        cure = message.hint or "See the documentation of this check."
        yield finding(severity, message.id or "django", str(message.msg), str(cure))
    if not messages:
        yield ok(
            "checks", "The system checks of Django, allauth and sipgate_provider find nothing."
        )


# --- the client and sipgate's addresses -------------------------------------------------------------------------------


def _client(client: oauth.Client) -> Iterator[Finding]:
    credentials = {errors.CLIENT_ID: client.client_id, errors.CLIENT_SECRET: client.client_secret}
    empty = [name for name, value in credentials.items() if not value]
    odd = [name for name, value in credentials.items() if _is_odd(value)]
    exchanged = CLIENT_ID.fullmatch(client.client_secret) and not CLIENT_ID.fullmatch(
        client.client_id
    )
    for name in empty:
        yield error("client", f"{name} is empty.", COPY_CREDENTIALS)
    for name in odd:
        yield error("client", f"{name} contains spaces, quotes or a placeholder.", COPY_CREDENTIALS)
    if exchanged:
        names = f"{errors.CLIENT_ID} and {errors.CLIENT_SECRET}"
        yield error("client", f"{names} look exchanged.", "Exchange their values.")
    if not (empty or odd or exchanged):
        yield ok("client", "Client id and secret are set.")


def _is_odd(value: str) -> bool:
    return bool(re.search(r"[\s'\"<>]", value)) or value.upper().startswith("YOUR_")


def _realm(client_id: str) -> Iterator[Finding]:
    expected = endpoints.realm_of_client(client_id)
    auth, token = endpoints.realm_of(conf.auth_url()), endpoints.realm_of(conf.token_url())
    if auth != token:
        yield error(
            "realm",
            f"SIPGATE_AUTH_URL names the realm {auth or '(none)'}, SIPGATE_TOKEN_URL the realm {token or '(none)'}.",
            "Use the realm of your client in both, or remove both.",
        )
    if expected and token and expected != token:
        yield error(
            "realm",
            f"{errors.CLIENT_ID} ends in :{expected}, but SIPGATE_TOKEN_URL names the realm {token}: "
            "sipgate answers 'client not found'.",
            f"Use the realm {expected} in SIPGATE_AUTH_URL and SIPGATE_TOKEN_URL, or remove both.",
        )
    elif auth == token:
        yield ok("realm", f"The addresses name the realm {token or '(none)'}.")


def _scope() -> Iterator[Finding]:
    if not scopes.suffices(conf.scope(), needed="account:read"):
        yield warning(
            "scope",
            "The requested scopes do not include account:read: sipgate will not show the account.",
            "Add account:read to SIPGATE_SCOPE.",
        )


def _addresses() -> Iterator[Finding]:
    urls = {
        "SIPGATE_AUTH_URL": conf.auth_url(),
        "SIPGATE_TOKEN_URL": conf.token_url(),
        "SIPGATE_API_URL": conf.api_url(),
    }
    unsafe = sorted(name for name, url in urls.items() if not _is_safe(url))
    for name in unsafe:
        yield error(
            "addresses",
            f"{name} is not an https address: the client secret and tokens are sent there.",
            f"Remove {name} to use sipgate's own address, or start it with https://.",
        )
    if not unsafe and any(endpoints.is_loopback(urlsplit(url).hostname) for url in urls.values()):
        stand_in = probes.address_of(conf.token_url())
        yield ok(
            "addresses", f"This site uses a stand-in for sipgate on this machine ({stand_in})."
        )
    elif not unsafe:
        yield ok("addresses", "Authorization, token and API address are https.")
    if not conf.logout_url() and not conf.revoke_url():
        yield warning(
            "addresses.logout",
            "There is no address to end access at: what was granted goes on at sipgate after a disconnect.",
            "Set SIPGATE_REVOKE_URL.",
        )


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (
        parts.scheme == "http" and endpoints.is_loopback(parts.hostname)
    )


# --- the way back -----------------------------------------------------------------------------------------------------


def _redirect_uri() -> Iterator[Finding]:
    uri = conf.redirect_uri()
    parts = urlsplit(uri)
    if not uri:
        yield ok(
            "redirect_uri",
            "SIPGATE_REDIRECT_URI is not set: allauth builds it from the host of each request.",
            "Set it to have it checked.",
        )
    elif (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or parts.fragment
        or parts.username
    ):
        yield error(
            "redirect_uri",
            "SIPGATE_REDIRECT_URI is not a full http(s) address without fragment and user name.",
            "Use an address such as https://example.org/oauth.",
        )
    elif problems := [*_redirect_host(parts.hostname), *_redirect_route(parts.path)]:
        yield from problems
    else:
        yield ok(
            "redirect_uri", f"{probes.address_of(uri)} matches the hosts and routes of this site."
        )


def _redirect_host(host: str) -> Iterator[Finding]:
    allowed = settings.ALLOWED_HOSTS or (
        [".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else []
    )
    bracketed = f"[{host}]" if ":" in host else host
    if not validate_host(bracketed, allowed):
        yield error(
            "redirect_uri.host",
            f"ALLOWED_HOSTS does not contain {host}, the host of SIPGATE_REDIRECT_URI: the callback answers HTTP 400.",
            f"Add {host} to ALLOWED_HOSTS.",
        )


def _redirect_route(path: str) -> Iterator[Finding]:
    callback = _view_at(path)
    if callback is views.oauth2_callback:
        return
    if views.oauth2_callback in {_view_at(f"{path}/"), _view_at(path.rstrip("/"))}:
        yield error(
            "redirect_uri.path",
            f"The path {path} differs from the site's callback by a slash at its end.",
            "Write it the same way in both, and in sipgate's console.",
        )
        return
    leads = "leads to another view" if callback else "does not exist on this site"
    yield error(
        "redirect_uri.path",
        f"The path {path} of SIPGATE_REDIRECT_URI {leads}.",
        "Put *sipgate_provider.urls.callback_urlpatterns() first into the root URL configuration.",
    )


def _view_at(path: str) -> Any:
    try:
        return resolve(path).func
    except Resolver404:
        return None


def _cookies() -> Iterator[Finding]:
    """Find what makes a browser come back from sipgate without its session."""
    parts = urlsplit(conf.redirect_uri())
    problems = []
    if str(settings.SESSION_COOKIE_SAMESITE).lower() == "strict":
        problems.append(
            error(
                "cookies.samesite",
                "SESSION_COOKIE_SAMESITE is Strict: a browser that returns from sipgate does not send the cookie.",
                "Set it to Lax.",
            )
        )
    if parts.scheme == "http" and settings.SESSION_COOKIE_SECURE:
        make = warning if endpoints.is_loopback(parts.hostname) else error
        problems.append(
            make(
                "cookies.secure",
                "SESSION_COOKIE_SECURE is on, but SIPGATE_REDIRECT_URI is http: browsers do not send the cookie.",
                "Use https, or switch it off on this machine.",
            )
        )
    if settings.SESSION_ENGINE.endswith(".cache") and conf.cache_is_per_process():
        problems.append(
            error(
                "cookies.sessions",
                "Sessions are kept in a cache that each process has for itself: sign-ins get lost between processes.",
                "Use database sessions, or a shared cache.",
            )
        )
    yield from problems or [ok("cookies", "The session survives the way to sipgate and back.")]
