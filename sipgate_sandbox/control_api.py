"""The control API: tests and the start page switch faults, end sessions and change lifetimes here.

The counterpart of ``control.SandboxControl``: an order's name in the path, its arguments as JSON or
form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_POST

from . import counters, faults, realm, telephony
from .models import BrowserSession, Consent, Credential, Grant


@require_POST
def order(request: HttpRequest, name: str) -> HttpResponse:
    """Carry an order out, and answer with what it returns; a wrong one is a 400 and a sentence."""
    is_form = request.content_type == "application/x-www-form-urlencoded"
    try:
        arguments = request.POST.dict() if is_form else json.loads(request.body or "{}")
        answer = ORDERS[name](**arguments)
    except (KeyError, TypeError, ValueError) as error:
        return JsonResponse({"error": str(error)}, status=400)
    return HttpResponseRedirect("/?done") if is_form else JsonResponse(answer or {})


def state() -> dict[str, Any]:
    """Return counters, the number of living sessions, and the armed faults."""
    alive = BrowserSession.objects.filter(alive=True).count()
    shown = {"reuses": 0, "rotations": 0, **dict(sorted(counters.counts.items()))}
    return shown | {"sessions_alive": alive, "faults": faults.armed()}


def reset() -> None:
    BrowserSession.objects.all().delete()
    Consent.objects.all().delete()
    for module in (realm, telephony, faults, counters):
        module.reset()


def expire_access(uid: str = "") -> None:
    """Let the access tokens of one person, or of all, expire."""
    found = Credential.objects.filter(kind=Credential.Kind.ACCESS)
    (found.filter(grant__session__uid=uid) if uid else found).update(expires_at=timezone.now())


def kill_session(uid: str = "") -> None:
    """End all sessions and grants of one person, or of all, as an administrator can."""
    grants, sessions = Grant.objects.all(), BrowserSession.objects.all()
    if uid:
        grants, sessions = grants.filter(session__uid=uid), sessions.filter(uid=uid)
    grants.update(alive=False)
    sessions.update(alive=False)


def withdraw_consent(uid: str) -> None:
    """Withdraw a person's consent to our client."""
    ours = settings.SANDBOX_CLIENT_ID
    Consent.objects.filter(client_id=ours, uid=uid).delete()
    Grant.objects.filter(client_id=ours, session__uid=uid).update(alive=False)


ORDERS: dict[str, Callable[..., dict[str, Any] | None]] = {
    "state": state,
    "faults": faults.arm,
    "clear": faults.reset,
    "reset": reset,
    "expire-access": expire_access,
    "kill-session": kill_session,
    "withdraw-consent": withdraw_consent,
    "realm": realm.change,
}
