from __future__ import annotations

from typing import Any

from allauth.socialaccount.providers.base import ProviderAccount
from allauth.socialaccount.providers.oauth2.provider import OAuth2Provider

from .views import PlainAdapter


class PlainProvider(OAuth2Provider):
    id = "plain"
    name = "plain"
    account_class = ProviderAccount
    oauth2_adapter_class = PlainAdapter

    def extract_uid(self, data: dict[str, Any]) -> str:
        return f"{data['masterSipId']}{data['sub']}"

    def extract_common_fields(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"username": f"plain-{self.extract_uid(data)}"}


provider_classes = [PlainProvider]
