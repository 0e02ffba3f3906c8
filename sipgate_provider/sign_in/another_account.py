"""The page *Use another sipgate account* says what sipgate does if somebody is signed in there, and offers ways that
work.

Keycloak keeps one session for each browser. ``prompt=login`` asks for the password of the person who is signed in, and
signing that person out ends what was granted in the session. So a page says so before anybody leaves.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from allauth.socialaccount.models import SocialAccount
from django.contrib import messages
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from requests import RequestException

from sipgate_provider import accounts, conf, errors, problems, scopes, tokens
from sipgate_provider.models import OFFLINE_ACCESS, State, TokenEvent
from sipgate_provider.remote import http, probes

from . import repair, states

FIELD = "another"
"""Query parameter of the sign-in's address: ``1`` shows the page, ``CONTINUE`` goes to sipgate."""
CONTINUE = "continue"
SESSION_KEY = "sipgate_another_account"
WAITS_FOR = 600
"""Seconds for which somebody who comes back from sipgate's logout page is led to the next step."""
REMEMBERED = 600
"""Seconds for which it is remembered what sipgate allows this client."""
PATIENCE = 3.0
"""Seconds to find that out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What sipgate allows this client; False if that is not known."""

    offline_access: bool
    way_back: bool
    """Its logout page leads back to the callback."""


def url(*, next_url: str, process: str, repairs: int) -> str:
    """Return the address of the page for somebody who is to repair the connection with the key ``repairs``."""
    return f"{problems.sign_in_url(next_url, process=process, repairs=repairs)}&{FIELD}=1"


def page(request: HttpRequest, provider: Any) -> HttpResponse:
    """Return the page that says what will happen, and offers what works."""
    needed = repair.named(request)
    here = request.get_full_path()
    query = request.GET.copy()
    query[FIELD] = CONTINUE
    allowed = _allowed(provider)
    if allowed.way_back:
        request.session[SESSION_KEY] = {"url": here, "until": time.time() + WAITS_FOR}
    tied = _tied(request.user)
    context = {
        "needed": needed.get_provider_account().to_str() if needed else "",
        "met": repair.met(request, needed.pk) if needed else "",
        "process": request.GET.get("process"),
        "continue_url": f"{request.path}?{query.urlencode()}",
        "logout_url": _logout_url(provider, way_back=allowed.way_back),
        "comes_back": allowed.way_back,
        "tied": [connection.get_provider_account().to_str() for connection in tied],
        "keep_url": _keep_url(request, provider, here) if tied and allowed.offline_access else "",
        "has_password": request.user.is_authenticated and request.user.has_usable_password(),
        "password_url": reverse("account_set_password"),
    }
    return render(request, "sipgate_provider/another_account.html", context)


def leaves(request: HttpRequest) -> bool:
    """Tell whether this sign-in goes to sipgate now, with or without the page before."""
    wish = request.GET.get(FIELD)
    if wish == CONTINUE and SESSION_KEY in request.session:
        del request.session[SESSION_KEY]
    return not wish or wish == CONTINUE


def next_step(request: HttpRequest) -> str:
    """Return the next page for somebody who comes back from sipgate's logout page; empty for anybody else."""
    waiting = request.session.get(SESSION_KEY)
    if not isinstance(waiting, dict) or waiting.get("until", 0) < time.time():
        return ""
    del request.session[SESSION_KEY]
    return str(waiting["url"])


def _tied(user: Any) -> list[SocialAccount]:
    """Return the user's living connections that end with the session of the browser in which they were made."""
    if not user.is_authenticated:
        return []
    rows = [
        (connection, accounts.token_of(connection)) for connection in accounts.connections_of(user)
    ]
    return [
        row
        for row, token in rows
        if token and token.is_tied_to_browser and token.state != State.NEEDS_SIGN_IN
    ]


def _keep_url(request: HttpRequest, provider: Any, here: str) -> str:
    """Return where a sign-in of the person who is signed in at sipgate now asks for ``offline_access``."""
    wish = scopes.signed(request, [*provider.get_scope(), OFFLINE_ACCESS])
    return problems.sign_in_url(here, process="connect", wish=wish)


def _logout_url(provider: Any, *, way_back: bool) -> str:
    endpoint = _end_session_endpoint()
    if not endpoint:
        return ""
    query = {"client_id": provider.app.client_id}
    if way_back:
        query["post_logout_redirect_uri"] = conf.redirect_uri()
    return f"{endpoint}?{urlencode(query)}"


def _end_session_endpoint() -> str:
    """Return the logout page of OpenID Connect, which Keycloak has beside its other endpoints."""
    head, found, _rest = conf.auth_url().partition("/protocol/openid-connect/")
    return f"{head}{found}logout" if found else ""


def _allowed(provider: Any) -> Allowed:
    asked = (provider.app.client_id, conf.auth_url(), conf.redirect_uri(), *provider.get_scope())
    key = f"sipgate_provider.allowed.{states.digest(' '.join(asked))}"
    known = cache.get(key)
    if known is None:
        tokens.release_connections()
        known = (_may_ask_for_offline_access(provider), _has_way_back(provider))
        cache.set(key, known, REMEMBERED)
    return Allowed(offline_access=known[0], way_back=known[1])


def _may_ask_for_offline_access(provider: Any) -> bool:
    answer = probes.authorization(
        conf.auth_url(),
        client_id=provider.app.client_id,
        redirect_uri=conf.redirect_uri(),
        scope=" ".join([*provider.get_scope(), OFFLINE_ACCESS]),
        timeout=PATIENCE,
    )
    return answer.verdict is probes.Verdict.FINE


def _has_way_back(provider: Any) -> bool:
    """Tell whether sipgate's logout page would lead back: Keycloak refuses an address that is not registered. Nobody is
    signed in here, so it redirects at once, or shows its page.
    """
    address = _logout_url(provider, way_back=True)
    if not address or not conf.redirect_uri():
        return False
    try:
        answer = http.send("GET", address, limits=probes.limits(PATIENCE))
    except RequestException:
        return False
    return answer.status_code == 200 or answer.headers.get("Location", "").startswith(
        conf.redirect_uri()
    )


def try_others(request: HttpRequest, uid: str) -> None:
    """Refresh the user's other connections now that ``uid`` was connected: this may have ended them at sipgate.

    If sipgate refuses one, the user is told, with this sign-in as the likely cause. Other failures are not reported
    here.
    """
    if not request.user.is_authenticated:
        return
    deadline = time.monotonic() + PATIENCE
    for connection in _tied(request.user):
        left = deadline - time.monotonic()
        if connection.uid == uid or left <= 0:
            continue
        try:
            tokens.refresh(connection, by="sign-in", wait=left)
        except errors.NeedsSignIn as ended:
            _tell(request, connection, uid, ended)
        except errors.SipgateError:
            continue


def _tell(
    request: HttpRequest, connection: SocialAccount, uid: str, ended: errors.NeedsSignIn
) -> None:
    TokenEvent.objects.add(
        TokenEvent.Kind.STATE,
        connection=connection,
        actor="sign-in",
        state=State.NEEDS_SIGN_IN,
        reason=ended.reason,
        note=f"refused when {uid} was connected, probably in the same browser",
        reference=ended.reference,
    )
    text = _(
        "sipgate has ended the connection %(name)s, probably because you have just signed in to another sipgate "
        "account in the same browser. Sign in to it again in a private window to have both."
    )
    name = connection.get_provider_account().to_str()
    messages.warning(request, text % {"name": name}, fail_silently=True)
