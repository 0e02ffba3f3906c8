"""Faults that can be switched on: what goes wrong, at which endpoint, and how often.

A fault is armed for a place (``token``, ``refresh``, ``account`` …) and fires on the next matching requests. Faults of
the connection (``drip``, ``cut`` …) are applied by ``wsgi_server`` to the bytes of the answer.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

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
ANSWERS = {
    "unauthorized": "401 with an empty body",
    "forbidden": "403 with an empty body",
    "forbidden-text": "403 with a text",
    "payment-required": "402 with an empty body",
    "too-many": "429 with Retry-After (seconds)",
    "unknown-error": '500 with {"error": "unknown_error"}',
    "bad-gateway": "502 with an HTML page",
    "unavailable": "503",
    "invalid-grant": "400 invalid_grant",
    "invalid-client": "401 invalid_client",
    "unauthorized-client": "401 unauthorized_client, as for a wrong secret",
    "malformed-json": "200 with half a JSON object",
    "json-list": "200 with a JSON list",
    "redirect": "307 to another address (value)",
    "huge": "200 with a body of 50 MB",
    "missing-sub": "identity without sub",
    "missing-master": "identity without masterSipId",
}
WIRE = {
    "slow": "the right answer, after some seconds",
    "hang": "silence for some seconds, then the end",
    "drip": "the right answer, byte by byte (seconds between two)",
    "cut": "the connection ends within the body",
    "cut-headers": "the connection ends within the headers",
    "reset": "the connection is reset before anything is done",
    "lose-answer": "the work is done (rotated!), then the connection ends",
    "wrong-type": "the right body as text/html",
    "no-type": "the right body without Content-Type",
    "misdated": "the right answer, dated so many seconds ahead",
}
GRANT = {
    "null-access-token": "access_token is null",
    "null-refresh-token": "refresh_token is null",
    "no-refresh-token": "there is no refresh_token",
    "odd-expires": "expires_in is odd (value)",
    "no-scope-field": "there is no scope",
    "scope-less": "less scope than asked for",
}
KNOWN = {**ANSWERS, **WIRE, **GRANT}


@dataclass(slots=True)
class Fault:
    fault: str
    on: str = "all"
    times: int | None = 1
    seconds: float = 5.0
    value: Any = None
    fired: int = field(default=0)


_lock = threading.Lock()
_armed: list[Fault] = []
_now = threading.local()


def arm(payload: dict[str, Any]) -> Fault:
    """Arm a fault. Raises ``ValueError`` with a sentence for an invalid payload."""
    unknown = set(payload) - {"fault", "on", "times", "seconds", "value"}
    if unknown:
        raise ValueError(f"Unknown words: {', '.join(sorted(unknown))}.")
    if not isinstance(payload.get("fault"), str) or payload["fault"] not in KNOWN:
        raise ValueError(f"Unknown fault. Known are: {', '.join(KNOWN)}.")
    if payload.get("on", "all") not in PLACES:
        raise ValueError(f"Unknown place. Known are: {', '.join(PLACES)}.")
    times, seconds = payload.get("times", 1), payload.get("seconds", 5.0)
    if times is not None and (not isinstance(times, int) or times < 1):
        raise ValueError("times must be a whole number from 1, or null for until cleared.")
    if not isinstance(seconds, int | float) or not 0 <= seconds <= 600:
        raise ValueError("seconds must be a number from 0 to 600.")
    fault = Fault(
        payload["fault"], payload.get("on", "all"), times, float(seconds), payload.get("value")
    )
    with _lock:
        _armed.append(fault)
    return fault


def clear() -> None:
    with _lock:
        _armed.clear()


def armed() -> list[dict[str, Any]]:
    with _lock:
        return [asdict(fault) for fault in _armed]


def take(places: set[str]) -> Fault | None:
    """Return the first fault that is armed for one of ``places``, and count it down."""
    with _lock:
        for fault in _armed:
            if fault.on in places:
                fault.fired += 1
                if fault.times is not None and fault.fired >= fault.times:
                    _armed.remove(fault)
                return fault
    return None


def places_of(request: HttpRequest) -> set[str]:
    path = request.path
    if "/protocol/openid-connect/" in path:
        last = path.rpartition("/")[2]
        if last == "token" and request.POST.get("grant_type") == "refresh_token":
            return {"refresh", "all"}
        return {last, "all"} if last in PLACES else {"all"}
    if path.startswith("/v2/"):
        special = {"/v2/account": "account", "/v2/authorization/userinfo": "userinfo"}.get(path, "")
        if path.startswith("/v2/users"):
            special = "users"
        return {"api", "all", special} - {""}
    return set()


def middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    def guard(request: HttpRequest) -> HttpResponse:
        places = places_of(request)
        fault = take(places) if places else None
        _now.fault = fault
        if fault is None:
            return get_response(request)
        if fault.fault in {"slow"}:
            time.sleep(fault.seconds)
        if fault.fault in {"hang", "reset"}:
            return _to_wire(HttpResponse(), fault)
        answer = (
            _answer(fault)
            if fault.fault in ANSWERS and not fault.fault.startswith("missing-")
            else None
        )
        response = answer or get_response(request)
        return _to_wire(response, fault) if fault.fault in WIRE else response

    return guard


def current() -> str:
    fault = getattr(_now, "fault", None)
    return fault.fault if fault else ""


def _to_wire(response: HttpResponse, fault: Fault) -> HttpResponse:
    response.headers["X-Sandbox-Wire"] = json.dumps([fault.fault, fault.seconds])
    return response


def _answer(fault: Fault) -> HttpResponse:
    simple: dict[str, Callable[[], HttpResponse]] = {
        "unauthorized": lambda: HttpResponse(status=401),
        "forbidden": lambda: HttpResponse(status=403),
        "forbidden-text": lambda: HttpResponse(
            "This needs a Classic PBX account.", status=403, content_type="text/plain"
        ),
        "payment-required": lambda: HttpResponse(status=402),
        "too-many": lambda: HttpResponse(
            status=429, headers={"Retry-After": str(int(fault.seconds))}
        ),
        "unknown-error": lambda: JsonResponse({"error": "unknown_error"}, status=500),
        "bad-gateway": lambda: HttpResponse("<html><h1>502 Bad Gateway</h1></html>", status=502),
        "unavailable": lambda: HttpResponse(status=503),
        "invalid-grant": lambda: JsonResponse(
            {"error": "invalid_grant", "error_description": "Session not active"}, status=400
        ),
        "invalid-client": lambda: JsonResponse({"error": "invalid_client"}, status=401),
        "unauthorized-client": lambda: JsonResponse(
            {"error": "unauthorized_client", "error_description": "Invalid client secret"},
            status=401,
        ),
        "malformed-json": lambda: HttpResponse(
            '{"access_token": "abc', content_type="application/json"
        ),
        "json-list": lambda: HttpResponse("[]", content_type="application/json"),
        "redirect": lambda: HttpResponse(
            status=307, headers={"Location": str(fault.value or "http://127.0.0.1:9/elsewhere")}
        ),
        "huge": lambda: HttpResponse(b"x" * 50_000_000, content_type="application/json"),
    }
    return simple[fault.fault]()


def changed_grant(data: dict[str, Any]) -> dict[str, Any]:
    """Return a token answer, changed by the current fault."""
    fault = getattr(_now, "fault", None)
    name = fault.fault if fault else ""
    if name == "null-access-token":
        data["access_token"] = None
    elif name == "null-refresh-token":
        data["refresh_token"] = None
    elif name == "no-refresh-token":
        data.pop("refresh_token", None)
    elif name == "odd-expires":
        data["expires_in"] = fault.value  # type: ignore[union-attr]  # a name implies a fault
    elif name == "no-scope-field":
        data.pop("scope", None)
    elif name == "scope-less":
        data["scope"] = " ".join(str(data.get("scope", "")).split()[:-1])
    return data
