"""Removes sipgate's answer from the callback's query (RFC 6749 §4.1.2, RFC 9207) before anything can report it.

Error reports and traces show the request: its query, and the addresses that servers keep beside it (``RAW_URI``,
``REQUEST_URI``). A code that was not redeemed yet must not be among them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest

from sipgate_provider.remote.secret import Secret

SECRET_PARAMETERS = ("code", "state", "session_state")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationResponse:
    """Parameters of the callback; each is empty if it was absent."""

    code: Secret = field(repr=False)
    state: Secret = field(repr=False)
    error: str
    error_description: str
    iss: str
    query: Secret = field(repr=False)
    """The whole query, for a redirect of the browser to the same address."""


def take(request: HttpRequest) -> AuthorizationResponse:
    """Return the authorization response that ``request`` carries, and remove its secrets from ``request``."""
    query = Secret(request.META.get("QUERY_STRING", ""))
    found = AuthorizationResponse(
        code=Secret(request.GET.get("code", "")),
        state=Secret(request.GET.get("state", "")),
        error=request.GET.get("error", ""),
        error_description=request.GET.get("error_description", ""),
        iss=request.GET.get("iss", ""),
        query=query,
    )
    kept = request.GET.copy()
    for name in SECRET_PARAMETERS:
        kept.pop(name, None)
    request.GET = kept  # type: ignore[assignment]  # a mutable QueryDict is one
    _replace_query(request, query, kept.urlencode())
    _keep_from_sentry(kept.urlencode())
    return found


def _replace_query(request: HttpRequest, query: str, kept: str) -> None:
    if query:
        for name, value in request.META.items():
            # Whatever a server or proxy calls the address: RAW_URI, REQUEST_URI, HTTP_X_ORIGINAL_URI …
            if isinstance(value, str) and query in value:
                request.META[name] = value.replace(query, kept)
    request.META["QUERY_STRING"] = kept
    scope: dict[str, Any] | None = getattr(request, "scope", None)
    if scope is not None:
        scope["query_string"] = kept.encode()


def _keep_from_sentry(kept: str) -> None:
    """Let Sentry, if this site uses it, report only the rest of the query: it reads the query before Django runs."""
    sentry = sys.modules.get("sentry_sdk")
    if sentry is None or not hasattr(sentry, "get_isolation_scope"):
        return

    def strip(event: dict[str, Any], _hint: object) -> dict[str, Any]:
        reported = event.get("request")
        if isinstance(reported, dict) and "query_string" in reported:
            reported["query_string"] = kept
        return event

    sentry.get_isolation_scope().add_event_processor(strip)
