"""Tells people who came back from sipgate as somebody else than they wanted what they can do.

Keycloak keeps one session for each browser: it answers for whoever is signed in there, and
``prompt=login`` asks for that person's password. So a page says so, with the ways that there are.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.utils.translation import gettext as _

from sipgate_provider import conf, endpoints, errors, links, tokens
from sipgate_provider.client import TokenClient
from sipgate_provider.remote import oauth

from .asked import Asked


def turn_away_others(
    request: HttpRequest, account: SocialAccount, grant: oauth.Tokens, state: dict[str, Any]
) -> None:
    """Make sure that ``account`` is the one that this sign-in is to repair, if it is to repair one.

    Of anybody else nothing is connected, signed in or signed up, and what was granted is ended.

    Raises:
        ImmediateHttpResponse: somebody else came back, or the connection is gone.
        errors.NeedsSignIn: the same, and the client is headless.
    """
    repairs = Asked.of(state).repairs
    if repairs is None:
        return
    rows = SocialAccount.objects.using(tokens.using()).select_related("sipgate_account")
    needed = rows.filter(provider=account.provider, pk=repairs).first()
    if needed is not None and needed.uid == account.uid:
        return
    met = _name(account, grant)
    with transaction.atomic(using=tokens.using()):
        why = "somebody else was expected"
        tokens.discard(grant, uid=account.uid, user=request.user.pk, why=why)
    if state.get("headless"):
        text = "Somebody else came back from sipgate than the person of the connection to repair."
        raise errors.NeedsSignIn(text)
    if needed is None:
        raise ImmediateHttpResponse(gone(request))
    page = links.sign_in_url(
        state.get("next") or "",
        process=state.get("process") or "",
        repairs=repairs,
        another=links.signed_name(met),
    )
    raise ImmediateHttpResponse(HttpResponseRedirect(page))


def another_account(request: HttpRequest) -> HttpResponse:
    """Return the page that says how to use another sipgate account in this browser.

    The address says whose connection is to be repaired, if any, and who came back instead.
    *Continue* is the same sign-in, in which sipgate asks who signs in.
    """
    query = request.GET.copy()
    del query[links.ANOTHER]
    query[links.PROMPT] = "login"
    needed = links.to_repair(request)
    context = {
        "needed": needed.get_provider_account().to_str() if needed else "",
        "met": links.name_met(request),
        "again_url": f"{request.path}?{query.urlencode()}",
        "logout_url": endpoints.sibling(conf.auth_url(), "logout"),  # its page, for browsers
    }
    return render(request, "sipgate_provider/another_account.html", context)


def gone(request: HttpRequest) -> HttpResponse:
    """Answer for a connection that is gone. An ordinary sign-in would create a new account."""
    text = _("This link is about a connection that no longer exists. Nothing was changed.")
    messages.warning(request, text, fail_silently=True)
    is_signed_in = request.user.is_authenticated
    return HttpResponseRedirect(
        resolve_url(settings.LOGIN_REDIRECT_URL if is_signed_in else settings.LOGIN_URL)
    )


def _name(account: SocialAccount, grant: oauth.Tokens) -> str:
    """Return the name of a sipgate account that is not going to be connected."""
    rows = SocialAccount.objects.using(tokens.using()).select_related("sipgate_account")
    known = rows.filter(provider=account.provider, uid=account.uid).first()
    if known is not None:
        return str(known.get_provider_account().to_str())
    tokens.release_connections()
    with suppress(errors.SipgateError):
        company = TokenClient(grant.access_token).account().company
        if company:
            return company
    return str(account.get_provider_account().to_str())
