"""The switchboard over HTTP: counters, faults, and what can be done to sessions at once. Loopback clients only."""

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


def lever(view: View) -> Callable[..., HttpResponse]:
    """Give a view the JSON or form of its request; a ``ValueError`` becomes a 400 with its sentence."""

    @csrf_exempt
    @wraps(view)
    def handle(request: HttpRequest) -> HttpResponse:
        if not ipaddress.ip_address(request.META.get("REMOTE_ADDR", "0.0.0.0")).is_loopback:  # noqa: S104  # a value that is refused
            return HttpResponse(status=403)
        if _is_foreign(request):
            return HttpResponse(status=403)
        try:
            answer = view(request, _order(request))
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


def _order(request: HttpRequest) -> dict[str, Any]:
    if request.content_type == "application/x-www-form-urlencoded":
        return {key: value for key, value in request.POST.items() if key != "csrfmiddlewaretoken"}
    if not request.body:
        return {}
    order = json.loads(request.body)
    if not isinstance(order, dict):
        raise ValueError("A JSON object is needed.")
    return order


@lever
def state(request: HttpRequest, order: dict[str, Any]) -> Any:
    alive, all_of_them = KeycloakSession.objects.filter(alive=True).count(), KeycloakSession.objects.count()
    sessions = {"sessions_alive": alive, "sessions_dead": all_of_them - alive}
    return {"reuses": 0, "rotations": 0, **counters.state(), **sessions, "faults": faults.armed()}


@lever
def switch(request: HttpRequest, order: dict[str, Any]) -> Any:
    if request.method == "DELETE" or order.get("fault") == "clear":
        faults.clear()
    elif request.method == "POST":
        faults.arm(order)
    return faults.armed()


@lever
def reset(request: HttpRequest, order: dict[str, Any]) -> Any:
    counters.reset()
    faults.clear()
    if order.get("people"):
        Token.objects.all().delete()
        Issued.objects.all().delete()
        KeycloakSession.objects.all().delete()
        RememberedConsent.objects.all().delete()
    return {}


def _sessions(order: dict[str, Any]) -> Any:
    sessions = KeycloakSession.objects.filter(alive=True)
    return sessions.filter(user__username=order["uid"]) if order.get("uid") else sessions


@lever
def expire_access(request: HttpRequest, order: dict[str, Any]) -> Any:
    return _expire("access", order)


@lever
def expire_refresh(request: HttpRequest, order: dict[str, Any]) -> Any:
    return _expire("refresh", order)


def _expire(kind: str, order: dict[str, Any]) -> Any:
    hashes = Issued.objects.filter(kind=kind, session__in=_sessions(order)).values_list("hash", flat=True)
    return {"expired": Token.objects.filter(hash__in=list(hashes)).update(expires_at=timezone.now())}


@lever
def kill_session(request: HttpRequest, order: dict[str, Any]) -> Any:
    sessions = list(_sessions(order))
    for session in sessions:
        end_session(session)
    return {"ended": len(sessions)}


@lever
def lifetimes(request: HttpRequest, order: dict[str, Any]) -> Any:
    for name, setting in (
        ("access", "IDP_OIDC_ACCESS_TOKEN_EXPIRES_IN"),
        ("refresh", "IDP_OIDC_REFRESH_TOKEN_EXPIRES_IN"),
    ):
        if name in order:
            if not isinstance(order[name], int) or not 1 <= order[name] <= 10 * 365 * 86_400:
                raise ValueError(f"{name} must be a whole number of seconds.")
            setattr(settings, setting, order[name])
    return {"access": settings.IDP_OIDC_ACCESS_TOKEN_EXPIRES_IN, "refresh": settings.IDP_OIDC_REFRESH_TOKEN_EXPIRES_IN}
