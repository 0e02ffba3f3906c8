"""Adds what every template may need to know about the site."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from sipgate_provider.connections import needing_sign_in

from . import people

TOLD_ANYWAY = frozenset({"account", "connection", "sipgate_login", "sipgate_callback"})
"""Pages that show every connection with its state, or concern a sign-in: they need no banner."""


def site(request: HttpRequest) -> dict[str, Any]:
    user = getattr(request, "user", None)
    return {
        "SANDBOX": settings.SANDBOX,
        "SANDBOX_URL": settings.SANDBOX_URL,
        "SITE_NAME": settings.SIPGATE_SITE_NAME,
        "here": _here(request),
        "needing_sign_in": SimpleLazyObject(lambda: _needing_sign_in(request)),
        "person_name": SimpleLazyObject(lambda: people.display_name(user)),
    }


def _here(request: HttpRequest) -> str:
    """Return this page's address for links that lead back to it.

    A callback that does not reach its view, such as one with an extra slash, has sipgate's code in
    its query, which a page must not repeat.
    """
    return request.path if "code" in request.GET else request.get_full_path()


def _needing_sign_in(request: HttpRequest) -> list[Any]:
    page = request.resolver_match.url_name if request.resolver_match else ""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or page in TOLD_ANYWAY:
        return []
    return needing_sign_in(user)
