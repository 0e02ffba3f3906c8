from __future__ import annotations

from typing import Any

from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.providers.oauth2.views import OAuth2Adapter, OAuth2CallbackView, OAuth2LoginView
from django.conf import settings


class PlainAdapter(OAuth2Adapter):
    provider_id = "plain"
    authorize_url = settings.SIPGATE_AUTH_URL
    access_token_url = settings.SIPGATE_TOKEN_URL

    def complete_login(self, request: Any, app: Any, token: Any, **kwargs: Any) -> Any:
        with get_adapter().get_requests_session() as session:
            headers = {"Authorization": f"Bearer {token.token}"}
            response = session.get(f"{settings.SIPGATE_API_URL}/authorization/userinfo", headers=headers)
            response.raise_for_status()
        return self.get_provider().sociallogin_from_response(request, response.json())


oauth2_login = OAuth2LoginView.adapter_view(PlainAdapter)
oauth2_callback = OAuth2CallbackView.adapter_view(PlainAdapter)
