"""The sandbox's own pages: sign-in, start page and static files. Each says that this is not sipgate."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET

from . import counters, faults
from .people import BY_UID, PEOPLE

STATIC = Path(__file__).parent / "static"


def headers(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
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


def sign_in(request: HttpRequest) -> HttpResponse:
    """One click signs a person in; the session then remembers, as sipgate's does."""
    target = request.POST.get("next") or request.GET.get("next") or "/"
    if not url_has_allowed_host_and_scheme(target, allowed_hosts={request.get_host()}):
        target = "/"
    person = BY_UID.get(request.POST.get("person", ""))
    if request.method == "POST" and person is not None:
        user = get_user_model().objects.get(username=person.uid)
        login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        request.session.pop("keycloak_session", None)
        return HttpResponseRedirect(target)
    return render(request, "sandbox/login.html", {"people": PEOPLE, "next": target})


@require_GET
def start(request: HttpRequest) -> HttpResponse:
    site = _origin(settings.SANDBOX_REDIRECT_URIS[0]) if settings.SANDBOX_REDIRECT_URIS else ""
    context = {
        "people": PEOPLE,
        "site": site,
        "known": faults.KNOWN.items(),
        "armed": faults.armed(),
        "places": faults.PLACES,
    }
    return render(request, "sandbox/start.html", {**context, "counts": counters.state()})


@require_GET
def static(request: HttpRequest, name: str) -> HttpResponse:
    path = (STATIC / name).resolve()
    if not path.is_relative_to(STATIC) or not path.is_file():
        return HttpResponse(status=404)
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return HttpResponse(path.read_bytes(), content_type=kind, headers={"Cache-Control": "max-age=300"})
