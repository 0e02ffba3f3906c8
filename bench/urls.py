"""The site's addresses, and one page as it is often written: token and request in the visitor's own thread."""

from __future__ import annotations

from typing import Any

import requests
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path

from bench.models import ClearToken
from sipgate_project.urls import urlpatterns as site_urlpatterns


@login_required
def naive_account(request: HttpRequest) -> HttpResponse:
    connection = SocialAccount.objects.filter(user_id=request.user.pk).first()
    token = ClearToken.objects.filter(user_id=request.user.pk).first()
    headers = {"Authorization": f"Bearer {token.access_token if token else ''}"}
    answer: Any = requests.get(f"{settings.SIPGATE_API_URL}/account", headers=headers, timeout=40)
    return JsonResponse({"uid": connection.uid if connection else "", "account": answer.json()})


urlpatterns = [*site_urlpatterns, path("naive/account", naive_account)]
if "bench.plain" in settings.INSTALLED_APPS:
    urlpatterns += [path("accounts/", include("bench.plain.urls"))]
