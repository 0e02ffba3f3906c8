"""sipgate's REST API v2, as far as the site and its examples use it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from . import counters, faults, tokens
from .access import CannotTell, access_of
from .people import PEOPLE, Person

View = Callable[..., HttpResponse]


def scoped(*scopes: str) -> Callable[[View], View]:
    """Restrict a view to valid tokens with one of ``scopes`` (or ``all``), and pass it the person."""

    def decorate(view: View) -> View:
        @csrf_exempt
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            counters.add(
                f"{request.method} {request.resolver_match.route if request.resolver_match else ''}".strip()
            )
            try:
                access = access_of(request)
            except CannotTell:
                return HttpResponse(status=503)
            if access is None:
                return HttpResponse(status=401)
            if scopes and not {*scopes, "all"} & access.scopes:
                return HttpResponse(
                    "The scope of this token does not allow that.",
                    status=403,
                    content_type="text/plain",
                )
            return view(request, access.person, *args, **kwargs)

        return guarded

    return decorate


@scoped("account:read")
def account(request: HttpRequest, person: Person) -> HttpResponse:
    return JsonResponse(person.account)


@scoped()
def userinfo(request: HttpRequest, person: Person) -> HttpResponse:
    data = {
        "sub": person.sub,
        "domain": person.domain,
        "masterSipId": person.master_sip_id,
        "locale": person.locale,
    }
    data |= person.identity_extra
    dropped = {"missing-sub": "sub", "missing-master": "masterSipId"}.get(faults.current(), "")
    return JsonResponse({key: value for key, value in data.items() if key != dropped})


def _user(person: Person) -> dict[str, Any]:
    return {
        "id": person.sub,
        "firstname": person.firstname,
        "lastname": person.lastname,
        "email": person.email,
        "defaultDevice": "e0",
        "busyOnBusy": False,
        "addressId": "1",
        "directDialIds": [],
        "timezone": "Europe/Berlin",
        "admin": person.admin,
    }


@scoped("users:read")
def users(request: HttpRequest, person: Person) -> HttpResponse:
    if not person.admin:
        return HttpResponse(status=403)
    return JsonResponse(
        {"items": [_user(other) for other in PEOPLE if other.master_sip_id == person.master_sip_id]}
    )


@scoped("users:read")
def user(request: HttpRequest, person: Person, user_id: str) -> HttpResponse:
    found = next(
        (
            other
            for other in PEOPLE
            if (other.master_sip_id, other.sub) == (person.master_sip_id, user_id)
        ),
        None,
    )
    if found is None:
        return HttpResponse(status=404)
    if not person.admin and found is not person:
        return HttpResponse(status=403)
    return JsonResponse(_user(found))


@scoped("balance:read")
def balance(request: HttpRequest, person: Person) -> HttpResponse:
    return JsonResponse({"amount": 123_400, "currency": "EUR"})


def _page(request: HttpRequest, items: list[dict[str, Any]]) -> HttpResponse:
    offset, limit = (
        _number(request.GET.get(name, default))
        for name, default in (("offset", "0"), ("limit", "10"))
    )
    if offset is None or limit is None or limit > 1000:
        return HttpResponse(status=400)
    return JsonResponse({"items": items[offset : offset + limit], "totalCount": len(items)})


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


@scoped("numbers:read")
def numbers(request: HttpRequest, person: Person) -> HttpResponse:
    rows = [
        {
            "id": f"n{i}",
            "number": f"+4921199{i:04d}",
            "localized": f"0211 99{i:04d}",
            "type": "LANDLINE",
            "endpointId": "p0",
        }
        for i in range(25)
    ]
    return _page(request, rows)


@scoped("history:read")
def history(request: HttpRequest, person: Person) -> HttpResponse:
    rows = [
        {
            "id": str(1000 + i),
            "source": "+49211990001",
            "target": "+491700000001",
            "type": ("CALL", "SMS", "FAX")[i % 3],
            "created": "2026-01-01T12:00:00Z",
            "direction": "INCOMING",
            "incoming": True,
            "status": "PICKUP",
            "read": True,
            "documentUrl": "/v2/documents/fax.pdf",
            "note": None,
        }
        for i in range(23)
    ]
    return _page(request, rows)


@scoped("devices:read")
def devices(request: HttpRequest, person: Person, user_id: str) -> HttpResponse:
    register = {
        "id": "e0",
        "alias": "Desk",
        "type": "REGISTER",
        "online": True,
        "dnd": False,
        "credentials": {
            "username": f"{person.master_sip_id}e0",
            "password": "sandbox-sip-password",
        },
    }
    mobile = {
        "id": "y0",
        "alias": "Mobile",
        "type": "MOBILE",
        "online": False,
        "dnd": False,
        "puk1": "11112222",
        "puk2": "33334444",
    }
    return JsonResponse({"items": [register, mobile]})


@scoped("sessions:sms:write", "sessions:write")
def sms(request: HttpRequest, person: Person) -> HttpResponse:
    if request.method != "POST":
        return HttpResponse(status=405)
    counters.add("sms")
    return HttpResponse(status=204)


@scoped("history:read", "faxlines:read")
def document(request: HttpRequest, person: Person, name: str) -> HttpResponse:
    parts = (b"%PDF-sandbox" * 1024 for _ in range(256))
    return StreamingHttpResponse(parts, content_type="application/pdf")  # type: ignore[return-value]  # a response, too


@csrf_exempt
def nothing(request: HttpRequest, path: str = "") -> HttpResponse:
    return HttpResponse(status=404)


@csrf_exempt
def oidc_userinfo(request: HttpRequest) -> HttpResponse:
    access = access_of(request)
    if access is None:
        return JsonResponse({"error": "invalid_token"}, status=401)
    if "openid" not in access.scopes:
        return JsonResponse({"error": "insufficient_scope"}, status=403)
    return JsonResponse(tokens.claims_of(access.person.uid, sorted(access.scopes)))
