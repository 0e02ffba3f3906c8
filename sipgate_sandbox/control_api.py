"""The control API: here tests and the start page switch faults on, end sessions and so on.

The counterpart of ``control.SandboxControl``. The path names an order; its arguments are JSON or a
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
from .people import BY_UID


@require_POST
def order(request: HttpRequest, name: str) -> HttpResponse:
    """Carry out an order and return its answer. A wrong order gets 400 and a sentence."""
    is_form = request.content_type == "application/x-www-form-urlencoded"
    try:
        arguments = request.POST.dict() if is_form else json.loads(request.body or "{}")
        answer = ORDERS[name](**arguments)
    except (KeyError, TypeError, ValueError) as error:
        return JsonResponse({"error": str(error)}, status=400)
    return HttpResponseRedirect("/?done") if is_form else JsonResponse(answer or {})


def state() -> dict[str, Any]:
    """Return the counters, the number of living sessions, and the armed faults."""
    alive = BrowserSession.objects.filter(alive=True).count()
    shown = {"reuses": 0, "rotations": 0, **counters.counts}
    return shown | {"sessions_alive": alive, "faults": faults.armed()}


def reset() -> None:
    BrowserSession.objects.all().delete()
    Consent.objects.all().delete()
    for module in (realm, telephony, faults, counters):
        module.reset()


def expire_access(uid: str = "") -> None:
    """Let the access tokens of one person, or of all, expire."""
    tokens = Credential.objects.filter(kind=Credential.Kind.ACCESS)
    tokens.filter(grant__session__uid__in=_people(uid)).update(expires_at=timezone.now())


def kill_session(uid: str = "") -> None:
    """End the sessions and grants of one person, or of all, as an administrator can."""
    Grant.objects.filter(session__uid__in=_people(uid)).update(alive=False)
    BrowserSession.objects.filter(uid__in=_people(uid)).update(alive=False)


def withdraw_consent(uid: str) -> None:
    """Withdraw a person's consent to the site's client."""
    ours = settings.SANDBOX_CLIENT_ID
    Consent.objects.filter(client_id=ours, uid=uid).delete()
    Grant.objects.filter(client_id=ours, session__uid=uid).update(alive=False)


def _people(uid: str) -> list[str]:
    return [uid] if uid else list(BY_UID)


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
