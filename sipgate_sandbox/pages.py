"""The start page of the sandbox, and a check of who presses its buttons."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from . import faults
from .people import PEOPLE

HAPPENINGS = (
    ("sipgate is down", "unavailable", "all"),
    ("sipgate answers only after 5 seconds", "slow", "api"),
    ("sipgate says that there are too many requests", "too-many", "api"),
    ("Nobody can complete a sign-in", "unavailable", "token"),
    ("The new tokens are lost on the way", "lose-answer", "refresh"),
    ("sipgate rejects a refresh", "invalid-grant", "refresh"),
    ("sipgate does not accept your site's client secret", "unauthorized-client", "refresh"),
    ("sipgate does not allow a request", "forbidden", "api"),
    ("sipgate's answer makes no sense", "malformed-json", "api"),
)
"""What a person can make happen: in words, the fault, and its place."""


def reject_other_origins(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Reject what pages of other origins send: their browser is on this machine and reaches us.

    ``get_host`` rejects foreign host names, because a page can make its own name point to this
    machine (DNS rebinding).
    """

    def guarded(request: HttpRequest) -> HttpResponse:
        host = request.get_host()
        origin = request.headers.get("Origin")  # browsers send it with every POST
        if request.method != "GET" and origin and urlsplit(origin).netloc != host:
            return HttpResponse(status=403)
        return get_response(request)

    return guarded


@require_GET
def start(request: HttpRequest) -> HttpResponse:
    words = {(fault, on): text for text, fault, on in HAPPENINGS}
    armed = [
        one | {"text": words.get((one["fault"], one["on"]), "A fault")} for one in faults.armed()
    ]
    context = {
        "people": PEOPLE,
        "site": urljoin(settings.SANDBOX_REDIRECT_URIS[0], "/"),
        "happenings": HAPPENINGS,
        "armed": armed,
        "is_done": "done" in request.GET,
    }
    return render(request, "sandbox/start.html", context)
