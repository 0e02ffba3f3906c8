"""sipgate's REST API v2, as far as sites commonly use it."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from . import counters, faults, inputs, telephony, tokens
from .access import CannotTell, access_of
from .inputs import Field, Many, Reader, Rejected
from .people import PEOPLE, Person

View = Callable[..., HttpResponse]
Items = list[dict[str, Any]]

OFFSET = inputs.whole(2**31 - 1)
PAGE: dict[str, Reader | Many] = {"offset": OFFSET, "limit": inputs.whole(1000)}
DONE = 204


def methods(**views: View) -> View:
    """Return a view that passes a request on to the view of its method."""

    @csrf_exempt
    def choose(request: HttpRequest, **arguments: str) -> HttpResponse:
        route = request.resolver_match.route if request.resolver_match else ""
        counters.add(f"{request.method} {route}")
        view = views.get(request.method or "")
        if view is None:
            return HttpResponse(status=405, headers={"Allow": ", ".join(views)})
        try:
            return view(request, **arguments)
        except Rejected as rejected:
            return rejected.answer

    return choose


def scoped(*scopes: str, **readers: Reader | Many) -> Callable[[View], View]:
    """Restrict a view to valid tokens with one of ``scopes`` (or ``all``), and pass it the person.

    The query may have what ``readers`` name, and nothing else.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, **arguments: str) -> HttpResponse:
            try:
                access = access_of(request)
            except CannotTell:
                return HttpResponse(status=503)
            if access is None:
                return HttpResponse(status=401)
            if scopes and not {*scopes, "all"} & access.scopes:
                raise Rejected("The scope of this token does not allow that.", status=403)
            query = inputs.query_of(request, readers)
            return view(
                request, access.person, **arguments, **({"query": query} if readers else {})
            )

        return guarded

    return decorate


def _page(items: Items, query: dict[str, Any], *, limit: int) -> Items:
    start = query.get("offset", 0)
    return items[start : start + query.get("limit", limit)]


# --- who --------------------------------------------------------------------------------------------------------------


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
        "defaultDevice": telephony.extension("e", person),
        "busyOnBusy": False,
        "addressId": "1",
        "directDialIds": [],
        "timezone": "Europe/Berlin",
        "admin": person.admin,
    }


def _colleague(person: Person, user_id: str) -> Person:
    """Return a person of the same company, whom administrators and themselves may see."""
    for other in PEOPLE:
        if (other.master_sip_id, other.sub) == (person.master_sip_id, user_id):
            if person.admin or other is person:
                return other
            raise Rejected("Only administrators may see other people.", status=403)
    raise Rejected("There is no such user.", status=404)


@scoped("users:read")
def users(request: HttpRequest, person: Person) -> HttpResponse:
    if not person.admin:
        raise Rejected("Only administrators may see other people.", status=403)
    colleagues = [one for one in PEOPLE if one.master_sip_id == person.master_sip_id]
    return JsonResponse({"items": [_user(one) for one in colleagues]})


@scoped("users:read")
def user(request: HttpRequest, person: Person, user_id: str) -> HttpResponse:
    return JsonResponse(_user(_colleague(person, user_id)))


@scoped("balance:read")
def balance(request: HttpRequest, person: Person) -> HttpResponse:
    return JsonResponse({"amount": 123_400, "currency": "EUR"})


@csrf_exempt
def oidc_userinfo(request: HttpRequest) -> HttpResponse:
    access = access_of(request)
    if access is None:
        return JsonResponse({"error": "invalid_token"}, status=401)
    if "openid" not in access.scopes:
        return JsonResponse({"error": "insufficient_scope"}, status=403)
    return JsonResponse(tokens.claims_of(access.person.uid, sorted(access.scopes)))


# --- numbers and extensions -------------------------------------------------------------------------------------------


@scoped("numbers:read", **PAGE)
def numbers(request: HttpRequest, person: Person, query: dict[str, Any]) -> HttpResponse:
    """The specification has neither a total nor a usual ``limit`` here."""
    items = telephony.numbers(person)
    return JsonResponse({"items": _page(items, query, limit=len(items))})


def extensions(scope: str, items_of: Callable[[Person], Items]) -> View:
    """Return the view of a list that each person has."""

    @scoped(scope)
    def listed(request: HttpRequest, person: Person, user_id: str) -> HttpResponse:
        return JsonResponse({"items": items_of(_colleague(person, user_id))})

    return listed


# --- history ----------------------------------------------------------------------------------------------------------

FILTERS: dict[str, Reader | Many] = {
    "types": Many(inputs.one_of("CALL", "VOICEMAIL", "SMS", "FAX")),
    "directions": Many(inputs.one_of("INCOMING", "OUTGOING", "MISSED_INCOMING", "MISSED_OUTGOING")),
    "connectionIds": Many(str),
    "starred": Many(inputs.one_of("STARRED", "UNSTARRED")),
    "archived": inputs.flag,
    "from": inputs.moment,
    "to": inputs.moment,
    "phonenumber": str,
}
CHANGES = {
    "read": inputs.SWITCH.optional(),
    "archived": inputs.SWITCH.optional(),
    "starred": inputs.SWITCH.optional(),
    "note": inputs.ANY_TEXT.optional(),
}


@scoped("history:read", **FILTERS, **PAGE)
def history(request: HttpRequest, person: Person, query: dict[str, Any]) -> HttpResponse:
    rows = [row for row in telephony.company_of(person).history if _matches(row, query)]
    return JsonResponse({"items": _page(rows, query, limit=10), "totalCount": len(rows)})


def _matches(row: dict[str, Any], query: dict[str, Any]) -> bool:
    created = datetime.fromisoformat(row["created"])
    star = "STARRED" if row["starred"] else "UNSTARRED"
    return (
        row["archived"] == query.get("archived", False)
        and row["type"] in query.get("types", [row["type"]])
        and row["direction"] in query.get("directions", [row["direction"]])
        and star in query.get("starred", [star])
        and not {*row["connectionIds"]}.isdisjoint(query.get("connectionIds", row["connectionIds"]))
        and query.get("from", created) <= created <= query.get("to", created)
        and query.get("phonenumber", row["source"]) in {row["source"], row["target"]}
    )


def _entry(person: Person, entry_id: str) -> dict[str, Any]:
    found = telephony.company_of(person).entry(entry_id)
    if found is None:
        raise Rejected("There is no such entry.", status=404)
    return found


@scoped("history:read")
def entry(request: HttpRequest, person: Person, entry_id: str) -> HttpResponse:
    """One entry. A fax that is on its way goes one status further with each look."""
    found = _entry(person, entry_id)
    answer = JsonResponse(found)
    telephony.goes_on(found)
    return answer


@scoped("history:write")
def change_entry(request: HttpRequest, person: Person, entry_id: str) -> HttpResponse:
    _entry(person, entry_id).update(inputs.body_of(request, CHANGES))
    return HttpResponse(status=DONE)


# --- calls, SMS and faxes ---------------------------------------------------------------------------------------------


def _own(person: Person, items: Items, extension: str) -> None:
    if extension not in {item["id"] for item in items}:
        raise Rejected(f"{extension} belongs to somebody else, or does not exist.", status=403)


def _caller_id(number: str | None) -> str:
    if number is not None and number not in telephony.OWN_NUMBERS:
        raise Rejected(f"{number} is no number of this account.", status=403)
    return number or telephony.OWN_NUMBERS[0]


@scoped("sessions:write", "sessions:calls:write")
def click_to_dial(request: HttpRequest, person: Person) -> HttpResponse:
    """Call ``caller`` first, then ``callee``. Only of accounts that are not neo."""
    if person.feature_scope == "NEO_PBX":
        raise Rejected("This needs a Classic PBX account.", status=403)
    body = inputs.body_of(
        request,
        {
            "caller": inputs.CALLER,
            "callee": inputs.NUMBER,
            "deviceId": inputs.TEXT.optional(),
            "callerId": inputs.NUMBER.optional(),
        },
    )
    if body["caller"].startswith("+") and "deviceId" not in body:
        raise Rejected("deviceId must be sent if caller is a telephone number.")
    device = body.get("deviceId") or body["caller"]
    _own(person, telephony.devices(person), device)
    source = _caller_id(body.get("callerId"))
    row = telephony.company_of(person).sent(
        "CALL", source=source, target=body["callee"], extension=device
    )
    return JsonResponse({"sessionId": row["id"]})


@scoped("rtcm:write")
def call(request: HttpRequest, person: Person) -> HttpResponse:
    """Call ``targetNumber`` from a device: neo's way. It is not in the specification, which is older.

    As sipgate says, the history does not show these calls. What it answers is not known: ``callId`` is a guess.
    """
    body = inputs.body_of(
        request,
        {
            "deviceId": inputs.TEXT,
            "targetNumber": inputs.NUMBER,
            "callerId": inputs.NUMBER.optional(),
            "channelId": inputs.TEXT.optional(),
        },
    )
    _own(person, telephony.devices(person), body["deviceId"])
    _caller_id(body.get("callerId"))
    return JsonResponse({"callId": str(uuid.uuid4())})


@scoped("sessions:write", "sessions:sms:write")
def send_sms(request: HttpRequest, person: Person) -> HttpResponse:
    body = inputs.body_of(
        request,
        {
            "smsId": inputs.TEXT,
            "recipient": inputs.NUMBER,
            "message": inputs.TEXT,
            "sendAt": inputs.SECONDS.optional(),
        },
    )
    _own(person, telephony.sms_extensions(person), body["smsId"])
    telephony.company_of(person).sent(
        "SMS",
        source=telephony.OWN_NUMBERS[0],
        target=body["recipient"],
        extension=body["smsId"],
        smsContent=body["message"],
    )
    return HttpResponse(status=DONE)


def _is_base64(value: Any) -> bool:
    try:
        return bool(base64.b64decode(value, validate=True)) and len(value) <= 28_330_000
    except (TypeError, ValueError, binascii.Error):
        return False


@scoped("sessions:write", "sessions:fax:write")
def send_fax(request: HttpRequest, person: Person) -> HttpResponse:
    """Send a fax. ``sessionId`` is the id of its entry in the history, which tells its status."""
    body = inputs.body_of(
        request,
        {
            "faxlineId": inputs.TEXT,
            "recipient": inputs.NUMBER,
            "filename": inputs.TEXT,
            "base64Content": Field("a document in base64, up to 28330000 characters", _is_base64),
        },
    )
    _own(person, telephony.faxlines(person), body["faxlineId"])
    row = telephony.company_of(person).sent(
        "FAX",
        source=telephony.OWN_NUMBERS[0],
        target=body["recipient"],
        extension=body["faxlineId"],
        faxStatusType=telephony.FAX_STATUSES[0],
    )
    return JsonResponse({"sessionId": row["id"]})


@scoped("history:read", "faxlines:read")
def document(request: HttpRequest, person: Person, name: str) -> HttpResponse:
    parts = (b"%PDF-sandbox" * 1024 for _ in range(256))
    return StreamingHttpResponse(parts, content_type="application/pdf")  # type: ignore[return-value]  # a response, too


# --- contacts ---------------------------------------------------------------------------------------------------------

CONTACT = {
    "scope": Field("PRIVATE or SHARED", lambda value: value in ("PRIVATE", "SHARED")),
    "name": inputs.ANY_TEXT.optional(),
    "family": inputs.ANY_TEXT.optional(),
    "given": inputs.ANY_TEXT.optional(),
    "picture": inputs.ANY_TEXT.optional(),
    "emails": inputs.LIST.optional(),
    "numbers": inputs.LIST.optional(),
    "addresses": inputs.LIST.optional(),
    "organization": inputs.LIST.optional(),
}


def _contacts(person: Person) -> Items:
    """Return the shared contacts of the company, and the person's private ones."""
    return [
        row
        for row in telephony.company_of(person).contacts
        if row.get("owner", person.sub) == person.sub
    ]


@scoped("contacts:read", phonenumbers=Many(str), offset=OFFSET, limit=OFFSET)
def contacts(request: HttpRequest, person: Person, query: dict[str, Any]) -> HttpResponse:
    rows = [
        {name: value for name, value in row.items() if name != "owner"}
        for row in _contacts(person)
        if _has_number(row, query.get("phonenumbers"))
    ]
    return JsonResponse({"items": _page(rows, query, limit=5000), "totalCount": len(rows)})


def _has_number(contact: dict[str, Any], wanted: list[str] | None) -> bool:
    return wanted is None or any(one.get("number") in wanted for one in contact["numbers"])


@scoped("contacts:write")
def new_contact(request: HttpRequest, person: Person) -> HttpResponse:
    body = inputs.body_of(request, CONTACT)
    given, family = body.pop("given", None), body.pop("family", None)
    lists: dict[str, Items] = {"emails": [], "numbers": [], "addresses": [], "organization": []}
    name = " ".join(part for part in (given, family) if part)
    row = {"id": str(uuid.uuid4()), "name": name, "picture": None, **lists, **body}
    if body["scope"] == "PRIVATE":
        row["owner"] = person.sub
    telephony.company_of(person).contacts.append(row)
    return HttpResponse(status=201)


@scoped("contacts:write")
def delete_contact(request: HttpRequest, person: Person, contact_id: str) -> HttpResponse:
    found = next((row for row in _contacts(person) if row["id"] == contact_id), None)
    if found is None:
        raise Rejected("There is no such contact.", status=404)
    telephony.company_of(person).contacts.remove(found)
    return HttpResponse(status=DONE)


@csrf_exempt
def nothing(request: HttpRequest, path: str = "") -> HttpResponse:
    return HttpResponse(status=404)
