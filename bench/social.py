"""A backend for the real social-auth-app-django, if it is there."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from social_core.backends.oauth import BaseOAuth2


class Backend(BaseOAuth2):  # type: ignore[misc]  # may be absent, and is untyped here
    name = "bench"
    EXTRA_DATA = [("expires_in", "expires"), ("refresh_token", "refresh_token", True)]

    def access_token_url(self) -> str:
        return str(settings.SIPGATE_TOKEN_URL)

    def get_user_id(self, details: Any, response: Any) -> str:
        return ""
