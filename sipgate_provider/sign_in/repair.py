"""Tells users who came back from sipgate with the wrong account what they can do.

Keycloak keeps one session for each browser: it answers for the user who is signed in there, and
``prompt=login`` asks for that user's password. So a page explains this, and offers what helps.
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
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from sipgate_provider import addresses, conf, database, errors, links, tokens
from sipgate_provider.client import TokenClient
from sipgate_provider.connections import name_of
from sipgate_provider.remote import oauth

from .asked import Asked


def turn_away_others(
    request: HttpRequest, account: SocialAccount, grant: oauth.Tokens, state: dict[str, Any]
) -> None:
    """If this sign-in is to repair a connection, make sure that ``account`` is its account.

    Any other account is neither connected nor signed in nor signed up, and its grant is ended.

    Raises:
        ImmediateHttpResponse: another account came back, or the connection is gone.
        errors.NeedsSignIn: the same for a headless client.
    """
    repairs = Asked.of(state).repairs
    if repairs is None:
        return
    rows = SocialAccount.objects.using(database.using()).select_related("sipgate_account")
    needed = rows.filter(provider=account.provider, pk=repairs).first()
    if needed is not None and needed.uid == account.uid:
        return
    met = _name(account, grant)
    with transaction.atomic(using=database.using()):
        why = "another account was expected"
        tokens.discard(grant, uid=account.uid, user=request.user.pk, why=why)
    if state.get("headless"):
        text = "The sign-in was to repair the connection of another sipgate account."
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

    The address says which connection to repair, if any, and which account came back instead.
    *Continue* begins the same sign-in, in which sipgate asks who signs in.
    """
    query = request.GET.copy()
    del query[links.ANOTHER]
    query[links.PROMPT] = "login"
    needed = links.to_repair(request)
    context = {
        "needed": name_of(needed) if needed else "",
        "met": links.name_met(request),
        "again_url": f"{request.path}?{query.urlencode()}",
        "logout_url": addresses.sibling(conf.auth_url(), "logout"),  # its page, for browsers
    }
    return render(request, "sipgate_provider/another_account.html", context)


def gone(request: HttpRequest) -> HttpResponse:
    """Answer for a connection that is gone, for which a sign-in would create a new account."""
    text = _("This link is about a connection that no longer exists. Nothing was changed.")
    messages.warning(request, text, fail_silently=True)
    is_signed_in = request.user.is_authenticated
    return redirect(settings.LOGIN_REDIRECT_URL if is_signed_in else settings.LOGIN_URL)


def _name(account: SocialAccount, grant: oauth.Tokens) -> str:
    """Return the name of a sipgate account that will not be connected."""
    rows = SocialAccount.objects.using(database.using()).select_related("sipgate_account")
    known = rows.filter(provider=account.provider, uid=account.uid).first()
    if known is not None:
        return name_of(known)
    database.release_connections()
    with suppress(errors.SipgateError):
        company = TokenClient(grant.access_token).account().company
        if company:
            return company
    return name_of(account)
