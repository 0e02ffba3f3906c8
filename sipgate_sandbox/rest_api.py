"""sipgate's REST API v2, as far as sites commonly use it.

A view gets the person whose token was sent, ids from the path, and ``query`` or ``body`` if its
resource has one. It returns JSON, a status, or a whole answer.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

import requests
from django.conf import settings
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponse, HttpResponseBase

from . import counters, faults, reading, telephony, tokens
from .models import Credential
from .people import BY_UID, PEOPLE, Person
from .reading import Readers, Rejected

Json = dict[str, Any]
View = Callable[..., HttpResponseBase]
CREATED, DONE, MISSING = 201, 204, 404


def methods(**views: View) -> View:
    """Return a view that passes a request on to the view of its method."""

    def choose(request: HttpRequest, **ids: str) -> HttpResponseBase:
        route = request.resolver_match.route if request.resolver_match else ""
        counters.add(f"{request.method} {route}")
        view = views.get(request.method or "")
        if view is None:
            return HttpResponse(status=405, headers={"Allow": ", ".join(views)})
        return view(request, **ids)

    return choose


def resource(
    *scopes: str,
    query: Readers | None = None,
    body: Readers | None = None,
    optional: Readers | None = None,
) -> Callable[[Callable[..., Any]], View]:
    """Restrict a view to valid tokens with one of ``scopes`` (or ``all``; none: with any).

    Args:
        query: readers of the parameters; without, there may be none.
        body: readers of the fields that a JSON object must have; ``optional`` of those it may have.
    """

    def decorate(view: Callable[..., Any]) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, **arguments: Any) -> HttpResponseBase:
            try:
                person = _allowed(request, scopes)
                sent = reading.query(request, query or {})
                if query is not None:
                    arguments["query"] = sent
                if body is not None:
                    arguments["body"] = reading.body(request, body, optional or {})
                return _answer(view(person, **arguments))
            except Rejected as rejected:
                return rejected.answer

        return guarded

    return decorate


def _answer(value: HttpResponseBase | Json | int) -> HttpResponseBase:
    if isinstance(value, HttpResponseBase):
        return value
    return HttpResponse(status=value) if isinstance(value, int) else JsonResponse(value)


def _allowed(request: HttpRequest, scopes: tuple[str, ...]) -> Person:
    access = access_of(request)
    if access is None:
        raise Rejected("", status=401)
    person, granted = access
    if scopes and not {*scopes, "all"} & granted:
        raise Rejected("The scope of this token does not allow that.", status=403)
    return person


def access_of(request: HttpRequest) -> tuple[Person, set[str]] | None:
    """Return whose access token a request has, and its scopes; None if it is not good."""
    value = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if settings.SANDBOX_INTROSPECT_URL and value:
        return _introspected(value)
    found = Credential.find_usable(value)
    return None if found is None else (found.grant.session.person, set(found.scopes))


def _introspected(value: str) -> tuple[Person, set[str]] | None:
    """Ask the other authorization server (RFC 7662). ``username`` must be one of our people's."""
    form = {
        "token": value,
        "client_id": settings.SANDBOX_CLIENT_ID,
        "client_secret": settings.SANDBOX_CLIENT_SECRET,
    }
    answer = requests.post(settings.SANDBOX_INTROSPECT_URL, data=form, timeout=10).json()
    person = BY_UID.get(answer.get("username", ""))
    if not answer["active"] or person is None:
        return None
    return person, set(answer.get("scope", "").split())


def _page(items: list[Json], query: Json, *, limit: int) -> list[Json]:
    start = query.get("offset", 0)
    return items[start : start + query.get("limit", limit)]


OFFSET = reading.whole(2**31 - 1)
PAGE = {"offset": OFFSET, "limit": reading.whole(1000)}


# --- who ------------------------------------------------------------------------------------------


@resource("account:read")
def account(person: Person) -> Json:
    return person.account


@resource()
def userinfo(person: Person) -> Json:
    data = {
        "sub": person.sub,
        "domain": person.domain,
        "masterSipId": person.master_sip_id,
        "locale": person.locale,
    }
    return faults.changed(data | person.identity_extra)


def oidc_userinfo(request: HttpRequest) -> HttpResponse:
    access = access_of(request)
    if access is None:
        return JsonResponse({"error": "invalid_token"}, status=401)
    person, scopes = access
    if "openid" not in scopes:
        return JsonResponse({"error": "insufficient_scope"}, status=403)
    return JsonResponse(tokens.claims_of(person, sorted(scopes)))


@resource("users:read")
def users(person: Person) -> Json:
    if not person.admin:
        raise Rejected("Only administrators may see other people.", status=403)
    colleagues = [one for one in PEOPLE if one.master_sip_id == person.master_sip_id]
    return {"items": [telephony.user(one) for one in colleagues]}


@resource("users:read")
def user(person: Person, user_id: str) -> Json:
    return telephony.user(_colleague(person, user_id))


def _colleague(person: Person, user_id: str) -> Person:
    """Return a person of the same company, whom administrators and themselves may see."""
    found = BY_UID.get(f"{person.master_sip_id}{user_id}")
    if found is None:
        raise Rejected("There is no such user.", status=404)
    if found is not person and not person.admin:
        raise Rejected("Only administrators may see other people.", status=403)
    return found


@resource("balance:read")
def balance(person: Person) -> Json:
    return {"amount": 123_400, "currency": "EUR"}


# --- numbers and extensions -----------------------------------------------------------------------


@resource("numbers:read", query=PAGE)
def numbers(person: Person, query: Json) -> Json:
    """The specification has neither a total nor a usual ``limit`` here."""
    items = telephony.numbers(person)
    return {"items": _page(items, query, limit=len(items))}


def of_user(scope: str, items_of: Callable[[Person], list[Json]]) -> View:
    """Return the view of a list that each person has."""

    @resource(scope)
    def listed(person: Person, user_id: str) -> Json:
        return {"items": items_of(_colleague(person, user_id))}

    return listed


# --- history --------------------------------------------------------------------------------------

FILTERS: Readers = {
    "types": [reading.one_of("CALL", "VOICEMAIL", "SMS", "FAX")],
    "directions": [reading.one_of("INCOMING", "OUTGOING", "MISSED_INCOMING", "MISSED_OUTGOING")],
    "connectionIds": [reading.text],
    "starred": [reading.one_of("STARRED", "UNSTARRED")],
    "archived": reading.flag,
    "from": reading.moment,
    "to": reading.moment,
    "phonenumber": reading.text,
}


@resource("history:read", query={**FILTERS, **PAGE})
def history(person: Person, query: Json) -> Json:
    rows = [row for row in telephony.company_of(person).history if _matches(row, query)]
    return {"items": _page(rows, query, limit=10), "totalCount": len(rows)}


def _matches(row: Json, query: Json) -> bool:
    created = datetime.fromisoformat(row["created"])
    star = "STARRED" if row["starred"] else "UNSTARRED"
    extensions: list[str] = row["connectionIds"]
    return (
        row["archived"] == query.get("archived", False)
        and row["type"] in query.get("types", [row["type"]])
        and row["direction"] in query.get("directions", [row["direction"]])
        and star in query.get("starred", [star])
        and any(one in query.get("connectionIds", extensions) for one in extensions)
        and query.get("from", created) <= created <= query.get("to", created)
        and query.get("phonenumber", row["source"]) in (row["source"], row["target"])
    )


def _entry(person: Person, entry_id: str) -> Json:
    for row in telephony.company_of(person).history:
        if row["id"] == entry_id:
            return row
    raise Rejected("There is no such entry.", status=404)


@resource("history:read")
def entry(person: Person, entry_id: str) -> Json:
    """One entry. A fax that is on its way goes one status further with each look."""
    found = _entry(person, entry_id)
    shown = dict(found)
    telephony.go_on(found)
    return shown


@resource(
    "history:write",
    body={},
    optional={
        "read": reading.switch,
        "archived": reading.switch,
        "starred": reading.switch,
        "note": reading.text_or_null,
    },
)
def change_entry(person: Person, entry_id: str, body: Json) -> int:
    _entry(person, entry_id).update(body)
    return DONE


# --- calls, SMS and faxes -------------------------------------------------------------------------


def _check_own(items: list[Json], extension: str) -> None:
    if extension not in {item["id"] for item in items}:
        raise Rejected(f"{extension} belongs to somebody else, or does not exist.", status=403)


def _caller_id(body: Json) -> str:
    number = str(body.get("callerId", telephony.OWN_NUMBERS[0]))
    if number not in telephony.OWN_NUMBERS:
        raise Rejected(f"{number} is no number of this account.", status=403)
    return number


@resource(
    "sessions:write",
    "sessions:calls:write",
    body={"caller": reading.caller, "callee": reading.number},
    optional={"deviceId": reading.text, "callerId": reading.number},
)
def click_to_dial(person: Person, body: Json) -> Json:
    """Call ``caller`` first, then ``callee``. Not for accounts of neo."""
    if person.feature_scope == "NEO_PBX":
        raise Rejected("This needs a Classic PBX account.", status=403)
    if body["caller"].startswith("+") and "deviceId" not in body:
        raise Rejected("deviceId must be sent if caller is a telephone number.")
    device = str(body.get("deviceId", body["caller"]))
    _check_own(telephony.devices(person), device)
    return _sent(person, "CALL", device, body["callee"], source=_caller_id(body))


@resource(
    "rtcm:write",
    body={"deviceId": reading.text, "targetNumber": reading.number},
    optional={"callerId": reading.number, "channelId": reading.text},
)
def call(person: Person, body: Json) -> Json:
    """Call ``targetNumber`` from a device: neo's way, which the specification is too old to know.

    As sipgate says, the history does not show these calls. What it answers is not known: ``callId``
    is a guess.
    """
    _check_own(telephony.devices(person), body["deviceId"])
    _caller_id(body)
    return {"callId": str(uuid.uuid4())}


@resource(
    "sessions:write",
    "sessions:sms:write",
    body={"smsId": reading.text, "recipient": reading.number, "message": reading.text},
    optional={"sendAt": reading.seconds},
)
def send_sms(person: Person, body: Json) -> int:
    _check_own(telephony.sms_extensions(person), body["smsId"])
    _sent(person, "SMS", body["smsId"], body["recipient"], smsContent=body["message"])
    return DONE


@resource(
    "sessions:write",
    "sessions:fax:write",
    body={
        "faxlineId": reading.text,
        "recipient": reading.number,
        "filename": reading.text,
        "base64Content": reading.document,
    },
)
def send_fax(person: Person, body: Json) -> Json:
    """Send a fax. ``sessionId`` is the id of its entry in the history, which tells its status."""
    _check_own(telephony.faxlines(person), body["faxlineId"])
    status = telephony.FAX_STATUSES[0]
    return _sent(person, "FAX", body["faxlineId"], body["recipient"], faxStatusType=status)


def _sent(person: Person, kind: str, extension: str, target: str, **more: Any) -> Json:
    row = telephony.sent(kind, extension, target) | more
    telephony.company_of(person).history.insert(0, row)
    return {"sessionId": row["id"]}


@resource("history:read", "faxlines:read")
def document(person: Person, name: str) -> StreamingHttpResponse:
    parts = (b"%PDF-sandbox" * 1024 for _ in range(256))
    return StreamingHttpResponse(parts, content_type="application/pdf")


# --- contacts -------------------------------------------------------------------------------------


def _contacts(person: Person) -> list[Json]:
    """Return the shared contacts of the company, and the person's private ones."""
    everybodys = telephony.company_of(person).contacts
    return [row for row in everybodys if row["owner"] in (None, person.sub)]


@resource(
    "contacts:read", query={"phonenumbers": [reading.text], "offset": OFFSET, "limit": OFFSET}
)
def contacts(person: Person, query: Json) -> Json:
    wanted = query.get("phonenumbers")
    rows = [
        {name: value for name, value in row.items() if name != "owner"}
        for row in _contacts(person)
        if wanted is None or any(one.get("number") in wanted for one in row["numbers"])
    ]
    return {"items": _page(rows, query, limit=5000), "totalCount": len(rows)}


@resource(
    "contacts:write",
    body={"scope": reading.one_of("PRIVATE", "SHARED")},
    optional={
        **dict.fromkeys(("name", "family", "given", "picture"), reading.text_or_null),
        **dict.fromkeys(("emails", "numbers", "addresses", "organization"), reading.rows),
    },
)
def new_contact(person: Person, body: Json) -> int:
    owner = person.sub if body["scope"] == "PRIVATE" else None
    telephony.company_of(person).contacts.append(telephony.contact(owner=owner, **body))
    return CREATED


@resource("contacts:write")
def delete_contact(person: Person, contact_id: str) -> int:
    for row in _contacts(person):
        if row["id"] == contact_id:
            telephony.company_of(person).contacts.remove(row)
            return DONE
    return MISSING


def nothing(request: HttpRequest, path: str = "") -> HttpResponse:
    return HttpResponse(status=404)
