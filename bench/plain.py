"""A plain site's way: allauth's own OAuth 2.0 provider, and views that keep what they fetch
nowhere."""

from __future__ import annotations

from typing import Any

import requests
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialLogin, SocialToken
from allauth.socialaccount.providers.base import ProviderAccount
from allauth.socialaccount.providers.oauth2.provider import OAuth2Provider
from allauth.socialaccount.providers.oauth2.views import (
    OAuth2Adapter,
    OAuth2CallbackView,
    OAuth2LoginView,
)
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path


class PlainAdapter(OAuth2Adapter):
    provider_id = "plain"
    authorize_url = settings.SIPGATE_AUTH_URL
    access_token_url = settings.SIPGATE_TOKEN_URL

    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:
        """Return the one that sipgate knows. The bench brings the answer to ``/plain/callback``."""
        return str(settings.SIPGATE_REDIRECT_URI)

    def complete_login(
        self, request: HttpRequest, app: SocialApp, token: SocialToken, **kwargs: Any
    ) -> SocialLogin:
        identity = get("/authorization/userinfo", token.token)
        return self.get_provider().sociallogin_from_response(request, identity)


class PlainProvider(OAuth2Provider):
    id = name = "plain"
    account_class = ProviderAccount
    oauth2_adapter_class = PlainAdapter
    pkce_enabled_default = True

    def extract_uid(self, data: dict[str, Any]) -> str:
        return f"{data['masterSipId']}{data['sub']}"

    def extract_common_fields(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"username": f"plain-{self.extract_uid(data)}"}


def account(request: HttpRequest) -> JsonResponse:
    """Answer with sipgate's ``/account``, by allauth's stored token."""
    connection = SocialAccount.objects.get(user=request.user.pk, provider="plain")
    token = SocialToken.objects.get(account=connection).token
    return JsonResponse(get("/account", token))


def get(address: str, token: str) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.get(f"{settings.SIPGATE_API_URL}{address}", headers=headers, timeout=60)
    answer.raise_for_status()
    return answer.json()


urlpatterns = [
    path("plain/login", OAuth2LoginView.adapter_view(PlainAdapter), name="plain_login"),
    path("plain/callback", OAuth2CallbackView.adapter_view(PlainAdapter), name="plain_callback"),
    path("plain/account.json", account),
]
