"""The control API: tests and the start page arm faults, end sessions and change lifetimes here.

The counterpart of ``control.SandboxControl``. It answers clients on this machine only, and no page of another site.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from . import behaviour, counters, faults, sessions, telephony
from .models import BrowserSession, Client, Consent, Credential, digest
from .people import BY_UID
from .scopes import SCOPES
from .seed import seed

View = Callable[[HttpRequest, dict[str, Any]], Any]


def control_view(view: View) -> Callable[..., HttpResponse]:
    """Call ``view`` with the JSON object or form of the request. A ``ValueError`` becomes a 400 with its message."""

    @csrf_exempt
    @wraps(view)
    def handle(request: HttpRequest) -> HttpResponse:
        if not ipaddress.ip_address(request.META["REMOTE_ADDR"]).is_loopback or _is_foreign(
            request
        ):
            return HttpResponse(status=403)
        try:
            answer = view(request, _payload(request))
        except ValueError as error:
            return JsonResponse({"error": str(error)}, status=400)
        if request.content_type == "application/x-www-form-urlencoded" and request.method == "POST":
            return HttpResponseRedirect("/?done")
        return JsonResponse(answer, safe=False)

    return handle


def _is_foreign(request: HttpRequest) -> bool:
    """Tell whether a page of another origin sent the request, whose browser is on the loopback interface, too.

    ``get_host`` refuses names that are not ours, which a page can point at this machine (DNS rebinding).
    """
    host = request.get_host()
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return True
    return request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}


def _payload(request: HttpRequest) -> dict[str, Any]:
    if request.content_type == "application/x-www-form-urlencoded":
        form: dict[str, Any] = dict(request.POST.items())
        if "times" in form:  # of a button: a number, or empty for until cleared
            form["times"] = int(form["times"]) if form["times"] else None
        return form
    if not request.body:
        return {}
    payload = json.loads(request.body)
    if not isinstance(payload, dict):
        raise ValueError("A JSON object is needed.")
    return payload


@control_view
def state(request: HttpRequest, payload: dict[str, Any]) -> Any:
    alive, all_of_them = (
        BrowserSession.objects.filter(alive=True).count(),
        BrowserSession.objects.count(),
    )
    numbers = {"sessions_alive": alive, "sessions_dead": all_of_them - alive}
    return {"reuses": 0, "rotations": 0, **counters.state(), **numbers, "faults": faults.armed()}


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
    telephony.reset()
    if payload.get("people"):
        BrowserSession.objects.all().delete()
        Consent.objects.all().delete()
        seed()
        behaviour.reset()
    return {}


@control_view
def expire_access(request: HttpRequest, payload: dict[str, Any]) -> Any:
    return _expire(Credential.Kind.ACCESS, payload)


@control_view
def expire_refresh(request: HttpRequest, payload: dict[str, Any]) -> Any:
    return _expire(Credential.Kind.REFRESH, payload)


def _expire(kind: Credential.Kind, payload: dict[str, Any]) -> Any:
    found = Credential.objects.filter(kind=kind)
    if payload.get("uid"):
        found = found.filter(grant__session__person=payload["uid"])
    return {"expired": found.update(expires_at=timezone.now())}


@control_view
def kill_session(request: HttpRequest, payload: dict[str, Any]) -> Any:
    """End all sessions and grants of one person, or of all, as an administrator can."""
    alive = BrowserSession.objects.filter(alive=True)
    people = {payload["uid"]} if payload.get("uid") else set(BY_UID)
    for uid in people:
        sessions.end_grants_of_person(uid)
    return {"ended": alive.filter(person__in=people).update(alive=False)}


@control_view
def withdraw_consent(request: HttpRequest, payload: dict[str, Any]) -> Any:
    """Withdraw the consent of one person, or of all."""
    ours = Client.objects.get(pk=settings.SANDBOX_CLIENT_ID)
    people = {payload["uid"]} if payload.get("uid") else set(BY_UID)
    Consent.objects.filter(client=ours, person__in=people).delete()
    return {"ended": sum(sessions.end_grants_of_person(uid, ours) for uid in people)}


@control_view
def person(request: HttpRequest, payload: dict[str, Any]) -> Any:
    """Disable a person (an unpaid bill, say) or let them in again."""
    if payload.get("uid") not in BY_UID:
        raise ValueError(f"Unknown person. Known are: {', '.join(BY_UID)}.")
    behaviour.set_enabled(payload["uid"], bool(payload.get("enabled", True)))
    return {}


@control_view
def client(request: HttpRequest, payload: dict[str, Any]) -> Any:
    """Change our client: its secret, the scopes it may ask for (null: all), whether it is enabled."""
    ours = Client.objects.get(pk=settings.SANDBOX_CLIENT_ID)
    if "secret" in payload:
        ours.secret_hash = digest(str(payload["secret"]))
    if "scopes" in payload:
        if not isinstance(payload["scopes"], list | None):
            raise ValueError("scopes must be a list, or null for all.")
        ours.scopes = list(SCOPES) if payload["scopes"] is None else payload["scopes"]
    if "enabled" in payload:
        ours.enabled = bool(payload["enabled"])
    ours.save()
    return {}


@control_view
def change_behaviour(request: HttpRequest, payload: dict[str, Any]) -> Any:
    changed = asdict(behaviour.change(**payload))
    return changed | {"disabled_people": sorted(changed["disabled_people"])}
