"""What every template may need to know of the site."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, Any]:
    return {"SANDBOX": settings.SANDBOX, "SANDBOX_URL": settings.SANDBOX_URL, "SITE_NAME": "sipgate for Django"}
