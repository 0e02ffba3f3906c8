"""The control API: tests and the start page arm faults, end sessions and change lifetimes here.

The counterpart of ``control.SandboxControl``. It answers clients on this machine only, and no page of another site.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from allauth.idp.oidc.models import Token
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from . import counters, faults
from .models import Issued, KeycloakSession, RememberedConsent
from .server import end_session

View = Callable[[HttpRequest, dict[str, Any]], Any]


def control_view(view: View) -> Callable[..., HttpResponse]:
    """Call ``view`` with the JSON object or form of the request; a ``ValueError`` becomes a 400 with its sentence."""

    @csrf_exempt
    @wraps(view)
    def handle(request: HttpRequest) -> HttpResponse:
        if not ipaddress.ip_address(request.META["REMOTE_ADDR"]).is_loopback or _is_foreign(request):
            return HttpResponse(status=403)
        try:
            answer = view(request, _payload(request))
        except ValueError as error:
            return JsonResponse({"error": str(error)}, status=400)
        if request.content_type == "application/x-www-form-urlencoded" and request.method == "POST":
            return HttpResponseRedirect("/")
        return JsonResponse(answer, safe=False)

    return handle


def _is_foreign(request: HttpRequest) -> bool:
    """Tell whether a page of another origin asks: the browser that runs it is on the loopback interface, too.

    ``get_host`` refuses names that are not ours, which a page can point at this machine (DNS rebinding).
    """
    host = request.get_host()
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return True
    return request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}


def _payload(request: HttpRequest) -> dict[str, Any]:
    if request.content_type == "application/x-www-form-urlencoded":
        return {key: value for key, value in request.POST.items() if key != "csrfmiddlewaretoken"}
    if not request.body:
        return {}
    payload = json.loads(request.body)
    if not isinstance(payload, dict):
        raise ValueError("A JSON object is needed.")
    return payload


@control_view
def state(request: HttpRequest, payload: dict[str, Any]) -> Any:
    alive, all_of_them = KeycloakSession.objects.filter(alive=True).count(), KeycloakSession.objects.count()
    sessions = {"sessions_alive": alive, "sessions_dead": all_of_them - alive}
    return {"reuses": 0, "rotations": 0, **counters.state(), **sessions, "faults": faults.armed()}


@control_view
def switch(request: HttpRequest, payload: dict[str, Any]) -> Any:
    if request.method == "DELETE" or payload.get("fault") == "clear":
        faults.clear()
    elif request.method == "POST":
        faults.arm(payload)
    return faults.armed()


@control_view
def reset(request: HttpRequest, payload: dict[str, Any]) -> Any:
    counters.reset()
    faults.clear()
    if payload.get("people"):
        Token.objects.all().delete()
        Issued.objects.all().delete()
        KeycloakSession.objects.all().delete()
        RememberedConsent.objects.all().delete()
    return {}


def _sessions(payload: dict[str, Any]) -> Any:
    sessions = KeycloakSession.objects.filter(alive=True)
    return sessions.filter(user__username=payload["uid"]) if payload.get("uid") else sessions


@control_view
def expire_access(request: HttpRequest, payload: dict[str, Any]) -> Any:
    return _expire("access", payload)


@control_view
def expire_refresh(request: HttpRequest, payload: dict[str, Any]) -> Any:
    return _expire("refresh", payload)


def _expire(kind: str, payload: dict[str, Any]) -> Any:
    hashes = Issued.objects.filter(kind=kind, session__in=_sessions(payload)).values_list("hash", flat=True)
    return {"expired": Token.objects.filter(hash__in=list(hashes)).update(expires_at=timezone.now())}


@control_view
def kill_session(request: HttpRequest, payload: dict[str, Any]) -> Any:
    sessions = list(_sessions(payload))
    for session in sessions:
        end_session(session)
    return {"ended": len(sessions)}


@control_view
def lifetimes(request: HttpRequest, payload: dict[str, Any]) -> Any:
    for name, setting in (
        ("access", "IDP_OIDC_ACCESS_TOKEN_EXPIRES_IN"),
        ("refresh", "IDP_OIDC_REFRESH_TOKEN_EXPIRES_IN"),
    ):
        if name in payload:
            if not isinstance(payload[name], int) or not 1 <= payload[name] <= 10 * 365 * 86_400:
                raise ValueError(f"{name} must be a whole number of seconds.")
            setattr(settings, setting, payload[name])
    return {"access": settings.IDP_OIDC_ACCESS_TOKEN_EXPIRES_IN, "refresh": settings.IDP_OIDC_REFRESH_TOKEN_EXPIRES_IN}
