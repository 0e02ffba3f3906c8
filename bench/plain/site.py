"""The pages, and the refresh written by hand: look at the clock, ask, save."""

from datetime import timedelta
from typing import Any

import requests
from allauth.socialaccount.models import SocialAccount, SocialToken
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import include, path
from django.utils import timezone

from .provider import Adapter


def fetch_account(user: Any) -> dict[str, Any]:
    token = SocialToken.objects.get(account__user=user)
    if token.expires_at is not None and token.expires_at < timezone.now() + timedelta(seconds=30):
        refresh(token)
    headers = {"Authorization": f"Bearer {token.token}"}
    answer = requests.get(f"{settings.SANDBOX_URL}/v2/account", headers=headers, timeout=10)
    answer.raise_for_status()
    return dict(answer.json())


def refresh(token: SocialToken) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": token.token_secret}
    client = {"client_id": settings.CLIENT["client_id"], "client_secret": settings.CLIENT["secret"]}
    answer = requests.post(Adapter.access_token_url, data={**form, **client}, timeout=10)
    answer.raise_for_status()
    grant = answer.json()
    token.token, token.token_secret = grant["access_token"], grant["refresh_token"]
    token.expires_at = timezone.now() + timedelta(seconds=grant["expires_in"])
    token.save()


def home(request: HttpRequest) -> HttpResponse:
    connections = (
        SocialAccount.objects.filter(user=request.user) if request.user.is_authenticated else []
    )
    return render(request, "home.html", {"connections": connections})


@login_required
def account(request: HttpRequest) -> HttpResponse:
    return render(request, "account.html", {"account": fetch_account(request.user)})


@login_required
def account_json(request: HttpRequest) -> HttpResponse:
    return JsonResponse(fetch_account(request.user))


urlpatterns = [
    path("", home),
    path("account", account),
    path("account.json", account_json),
    path("accounts/", include("allauth.urls")),
]
