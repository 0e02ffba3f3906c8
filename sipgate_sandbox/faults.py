"""Faults to switch on: what goes wrong, where, and how often.

A fault is armed for a place (``token``, ``refresh``, ``account`` …) and strikes the next requests
there.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse

PLACES = (
    "auth",
    "token",
    "refresh",
    "logout",
    "revoke",
    "account",
    "userinfo",
    "users",
    "api",
    "all",
)
NOTHING = ""
ANSWERS: dict[str, tuple[int, str]] = {
    "unauthorized": (401, NOTHING),
    "forbidden": (403, NOTHING),
    "forbidden-text": (403, "This needs a Classic PBX account."),
    "too-many": (429, NOTHING),  # Retry-After: seconds
    "unknown-error": (500, '{"error": "unknown_error"}'),
    "unavailable": (503, NOTHING),
    "invalid-grant": (
        400,
        '{"error": "invalid_grant", "error_description": "Session not active"}',
    ),
    "invalid-client": (401, '{"error": "invalid_client"}'),
    "unauthorized-client": (
        401,
        '{"error": "unauthorized_client", "error_description": "Invalid client secret"}',
    ),
    "malformed-json": (200, '{"access_token": "abc'),
}
"""Status and body of the answer that the sandbox sends without doing anything."""

KNOWN = (
    *ANSWERS,
    "slow",  # the right answer, after seconds
    "lose-answer",  # the sandbox does its work (the token is spent!), but a gateway answers 504
    "change",  # the right answer, with the fields in value instead of its own
)


@dataclass(slots=True)
class Fault:
    fault: str
    on: str = "all"
    times: int | None = 1
    """``None``, 0 or empty: until somebody clears it."""
    seconds: float = 5.0
    value: dict[str, Any] | None = None
    fired: int = 0

    def __post_init__(self) -> None:
        if self.fault not in KNOWN:
            raise ValueError(f"Unknown fault. The faults are: {', '.join(KNOWN)}.")
        if self.on not in PLACES:
            raise ValueError(f"Unknown place. The places are: {', '.join(PLACES)}.")
        self.times, self.seconds = int(self.times or 0) or None, float(self.seconds)
        if not isinstance(self.value, dict | None):
            raise ValueError('value must be a JSON object, such as {"scope": "all"}.')


_lock = threading.Lock()
_armed: list[Fault] = []


def arm(**order: Any) -> None:
    """Arm a ``Fault``. Unknown values raise ``ValueError`` or ``TypeError``."""
    fault = Fault(**order)
    with _lock:
        _armed.append(fault)


def reset() -> None:
    """Switch all faults off."""
    with _lock:
        _armed.clear()


def armed() -> list[dict[str, Any]]:
    with _lock:
        return [asdict(fault) for fault in _armed]


def _take(places: set[str]) -> Fault | None:
    """Return the first fault that is armed for one of ``places``, and count it."""
    with _lock:
        for fault in _armed:
            if fault.on in places:
                fault.fired += 1
                if fault.times is not None and fault.fired >= fault.times:
                    _armed.remove(fault)
                return fault
    return None


def _places_of(request: HttpRequest) -> set[str]:
    *_, group, last = request.path.split("/")
    if group == "openid-connect":
        if last == "token" and request.POST.get("grant_type") == "refresh_token":
            last = "refresh"
        return {last, "all"}
    if request.path.startswith("/v2/"):
        return {"api", "all", "users" if group == "users" else last}
    return set()


def middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    def answer(request: HttpRequest) -> HttpResponse:
        fault = _take(_places_of(request))
        if fault is None:
            return get_response(request)
        if fault.fault in ANSWERS:
            return _instead(fault)
        if fault.fault == "slow":
            time.sleep(fault.seconds)
        response = get_response(request)
        if fault.fault == "lose-answer":
            return HttpResponse("<html><h1>The gateway has a problem</h1></html>", status=504)
        if fault.fault == "change" and response.status_code == 200:
            response.content = json.dumps(json.loads(response.content) | (fault.value or {}))
        return response

    return answer


def _instead(fault: Fault) -> HttpResponse:
    status, body = ANSWERS[fault.fault]
    kind = "application/json" if body.startswith("{") else "text/plain"
    response = HttpResponse(body, status=status, content_type=kind)
    if status == 429:
        response.headers["Retry-After"] = str(int(fault.seconds))
    return response
