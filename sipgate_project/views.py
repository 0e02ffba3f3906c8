"""The site's own pages: one call into the app each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from sipgate_provider import accounts, errors, problems
from sipgate_provider.api import Account
from sipgate_provider.models import SipgateToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One connection as the pages show it."""

    connection: SocialAccount
    name: str
    token: SipgateToken | None
    account: Account | None
    fetched_at: Any
    is_fresh: bool
    is_pending: bool
    access_left: int
    needs_sign_in: bool
    problem: problems.Problem | None


def _card(view: accounts.AccountView, *, log: bool = True) -> Card:
    problem = None
    if view.error is not None:
        problem = problems.describe(view.error, next_url=reverse("account"), connect=True)
        if log:
            problems.log(problem, view.error)
    return Card(
        connection=view.connection,
        name=view.name,
        token=view.token,
        account=view.account,
        fetched_at=view.fetched_at,
        is_fresh=view.is_fresh,
        is_pending=view.is_pending,
        access_left=view.access_left,
        needs_sign_in=view.needs_sign_in,
        problem=problem,
    )


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    cards = [_card(view) for view in accounts.known_views_of(request.user)] if request.user.is_authenticated else []
    return render(request, "pages/home.html", {"cards": cards})


@never_cache
@require_safe
@login_required
@transaction.non_atomic_requests
def account(request: HttpRequest) -> HttpResponse:
    return _account_page(request)


def _account_page(request: HttpRequest, **context: Any) -> HttpResponse:
    cards = [_card(view) for view in accounts.views_of(request.user)]
    return render(request, "pages/account.html", {"cards": cards, **context})


@never_cache
@require_POST
@login_required
@transaction.non_atomic_requests
def account_refresh(request: HttpRequest) -> HttpResponse:
    """sipgate's own example as a button: account, refresh, account again."""
    try:
        refreshed = accounts.demonstrate(request.user, _number(request.POST.get("connection", "")))
    except errors.SipgateError as error:
        return problems.page(request, error, next_url=reverse("account"))
    return _account_page(request, refreshed=refreshed)


@never_cache
@require_safe
@transaction.non_atomic_requests
def account_json(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return JsonResponse(
            {"type": "about:blank", "title": "Sign in first", "status": 401, "action": reverse("account_login")},
            status=401,
            content_type="application/problem+json",
        )
    views = accounts.views_of(request.user)
    if not views:
        return problems.json(
            request, errors.NotConnected("This user has no sipgate connection."), next_url=reverse("account")
        )
    failed = [view.error for view in views if view.error is not None and view.account is None]
    if len(failed) == len(views):
        return problems.json(request, failed[0], next_url=reverse("account"))
    return JsonResponse({"connections": [_as_json(_card(view)) for view in views]})


def _as_json(card: Card) -> dict[str, Any]:
    token = card.token
    return {
        "uid": card.connection.uid,
        "name": card.name,
        "account": card.account.to_dict() if card.account else None,
        "fetched_at": card.fetched_at,
        "fresh": card.is_fresh,
        "pending": card.is_pending,
        "problem": card.problem.document() if card.problem else None,
        "token": token
        and {
            "state": token.state,
            "reason": token.reason,
            "scope": list(token.scopes),
            "access_expires_at": token.expires_at,
            "link_expires_at": token.refresh_expires_at,
            "generation": token.generation,
        },
    }


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return render(request, "403_csrf.html", status=403)
