"""The sandbox's start page and static files, and the headers of all its pages."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from . import texts
from .people import PEOPLE

STATIC = Path(__file__).parent / "static"


def headers(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Allow nothing but the sandbox's own style; a form may lead back to the registered sites."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        sites = " ".join(sorted({_origin(uri) for uri in settings.SANDBOX_REDIRECT_URIS}))
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'self'; img-src 'self'; "
            f"form-action 'self' {sites}; frame-ancestors 'none'; base-uri 'none'"
        )
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    return middleware


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


@require_GET
def start(request: HttpRequest) -> HttpResponse:
    site = _origin(settings.SANDBOX_REDIRECT_URIS[0]) if settings.SANDBOX_REDIRECT_URIS else ""
    context = {
        "people": PEOPLE,
        "site": site,
        "happenings": texts.happenings(),
        "known": texts.known_faults().items(),
        "places": texts.places().items(),
        "armed": texts.armed(),
        "is_done": "done" in request.GET,
        "redirect_uris": settings.SANDBOX_REDIRECT_URIS,
    }
    return render(request, "sandbox/start.html", context)


@require_GET
def static(request: HttpRequest, name: str) -> HttpResponse:
    path = (STATIC / name).resolve()
    if not path.is_relative_to(STATIC) or not path.is_file():
        return HttpResponse(status=404)
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return HttpResponse(
        path.read_bytes(), content_type=kind, headers={"Cache-Control": "max-age=300"}
    )
