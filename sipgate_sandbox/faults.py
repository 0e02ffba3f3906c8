"""Faults that can be switched on: what goes wrong, at which endpoint, and how often.

A fault is armed for a place (``token``, ``refresh``, ``account`` …) and fires on the next matching
requests.
"""

from __future__ import annotations

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
HTML = "<html><h1>The gateway has a problem</h1></html>"
ANSWERS: dict[str, tuple[int, str]] = {
    "unauthorized": (401, NOTHING),
    "forbidden": (403, NOTHING),
    "forbidden-text": (403, "This needs a Classic PBX account."),
    "too-many": (429, NOTHING),  # Retry-After: seconds
    "unknown-error": (500, '{"error": "unknown_error"}'),
    "bad-gateway": (502, HTML),
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
    "json-list": (200, "[]"),
    "huge": (200, '"' + 50_000_000 * "x" + '"'),
    "redirect": (307, NOTHING),  # to value
}
"""What is answered instead, while nothing is done: status and body."""

KNOWN = (
    *ANSWERS,
    "change",  # fields of a token answer, or of an identity, are as in value
    "leave-out",  # the field that value names is missing there
    "slow",  # the right answer, after seconds
    "lose-answer",  # the work is done (the token is spent!), but a gateway answers 504
)


@dataclass(slots=True)
class Fault:
    fault: str
    on: str = "all"
    times: int | None = 1
    """None, 0 or empty: until it is cleared."""
    seconds: float = 5.0
    value: Any = None
    fired: int = 0

    def __post_init__(self) -> None:
        if self.fault not in KNOWN:
            raise ValueError(f"Unknown fault. Known are: {', '.join(KNOWN)}.")
        if self.on not in PLACES:
            raise ValueError(f"Unknown place. Known are: {', '.join(PLACES)}.")
        self.times, self.seconds = int(self.times or 0) or None, float(self.seconds)


_lock = threading.Lock()
_armed: list[Fault] = []
_here = threading.local()


def arm(**order: Any) -> None:
    """Arm a ``Fault`` for the next matching requests; a wrong one is a ``ValueError``."""
    fault = Fault(**order)
    with _lock:
        _armed.append(fault)


def clear() -> None:
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
        places = _places_of(request)
        fault = _here.fault = _take(places) if places else None
        if fault is None:
            return get_response(request)
        if fault.fault in ANSWERS:
            return _instead(fault)
        if fault.fault == "slow":
            time.sleep(fault.seconds)
        response = get_response(request)
        return HttpResponse(HTML, status=504) if fault.fault == "lose-answer" else response

    return answer


def _instead(fault: Fault) -> HttpResponse:
    status, body = ANSWERS[fault.fault]
    kind = {"{": "application/json", "[": "application/json", "<": "text/html"}
    response = HttpResponse(body, status=status, content_type=kind.get(body[:1], "text/plain"))
    if status == 429:
        response.headers["Retry-After"] = str(int(fault.seconds))
    if status == 307:
        response.headers["Location"] = str(fault.value)
    return response


def changed(data: dict[str, Any]) -> dict[str, Any]:
    """Return an answer, changed by the fault of the present request."""
    fault = _here.fault
    if fault is not None and fault.fault == "change":
        return {**data, **(fault.value or {})}
    if fault is not None and fault.fault == "leave-out":
        return {name: value for name, value in data.items() if name != fault.value}
    return data
