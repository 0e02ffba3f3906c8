"""The provider, in the way of allauth's documentation."""

from typing import Any

import requests
from allauth.socialaccount.providers.base import ProviderAccount
from allauth.socialaccount.providers.oauth2.provider import OAuth2Provider
from allauth.socialaccount.providers.oauth2.views import (
    OAuth2Adapter,
    OAuth2CallbackView,
    OAuth2LoginView,
)
from django.conf import settings

OIDC = f"{settings.SANDBOX_URL}/auth/realms/third-party/protocol/openid-connect"


class Adapter(OAuth2Adapter):
    provider_id = "plain"
    authorize_url = f"{OIDC}/auth"
    access_token_url = f"{OIDC}/token"

    def complete_login(self, request: Any, app: Any, token: Any, **_kwargs: Any) -> Any:
        answer = requests.get(
            f"{settings.SANDBOX_URL}/v2/authorization/userinfo",
            headers={"Authorization": f"Bearer {token.token}"},
            timeout=10,
        )
        answer.raise_for_status()
        return self.get_provider().sociallogin_from_response(request, answer.json())


class Provider(OAuth2Provider):
    id = "plain"
    name = "sipgate"
    account_class = ProviderAccount
    oauth2_adapter_class = Adapter

    def extract_uid(self, data: dict[str, Any]) -> str:
        return f"{data['masterSipId']}{data['sub']}"

    def extract_common_fields(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"username": f"sipgate-{self.extract_uid(data)}"}


provider_classes = [Provider]
oauth2_login = OAuth2LoginView.adapter_view(Adapter)
oauth2_callback = OAuth2CallbackView.adapter_view(Adapter)
