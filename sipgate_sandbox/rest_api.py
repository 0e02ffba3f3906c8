"""sipgate's REST API v2, as far as sites commonly use it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime

from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404, HttpResponse

from . import operations, telephony
from .operations import Json, operation
from .people import BY_UID, PEOPLE, Person

LONGEST_PAGE = 1000
"""Entries of the history, by the specification."""


def _page(items: list[Json], sent: Json, *, limit: int) -> list[Json]:
    start = int(sent.get("offset", 0))
    return items[start : start + int(sent.get("limit", limit))]


# --- who ------------------------------------------------------------------------------------------


@operation("GET", "account", "account:read")
def account(person: Person) -> Json:
    return person.account


@operation("GET", "authorization/userinfo")
def userinfo(person: Person) -> Json:
    return {
        "sub": person.sub,
        "domain": person.domain,
        "masterSipId": person.master_sip_id,
        "locale": person.locale,
    }


@operation("GET", "users", "users:read")
def users(person: Person) -> Json:
    if not person.admin:
        raise PermissionDenied("Only administrators may see other people.")
    colleagues = [one for one in PEOPLE if one.master_sip_id == person.master_sip_id]
    return {"items": [telephony.user(one) for one in colleagues]}


@operation("GET", "users/<user_id>", "users:read")
def user(person: Person, user_id: str) -> Json:
    return telephony.user(_colleague(person, user_id))


def _colleague(person: Person, user_id: str) -> Person:
    """Return somebody of the same company. Only administrators may see anybody but themselves."""
    found = BY_UID.get(f"{person.master_sip_id}{user_id}")
    if found is None:
        raise Http404
    if found is not person and not person.admin:
        raise PermissionDenied("Only administrators may see other people.")
    return found


@operation("GET", "balance", "balance:read")
def balance(person: Person) -> Json:
    return {"amount": 123_400, "currency": "EUR"}


# --- numbers and extensions -----------------------------------------------------------------------


@operation("GET", "numbers", "numbers:read", optional="offset limit")
def numbers(person: Person, sent: Json) -> Json:
    """The specification has neither a total nor a default ``limit`` here."""
    items = telephony.numbers()
    return {"items": _page(items, sent, limit=len(items))}


def _extensions(name: str, items_of: Callable[[Person], list[Json]]) -> None:
    @operation("GET", f"<user_id>/{name}", f"{name}:read")
    def listed(person: Person, user_id: str) -> Json:
        return {"items": items_of(_colleague(person, user_id))}


_extensions("devices", telephony.devices)
_extensions("sms", telephony.sms_extensions)
_extensions("faxlines", telephony.faxlines)


# --- history --------------------------------------------------------------------------------------

FILTERS = "types directions connectionIds starred archived from to phonenumber"


@operation("GET", "history", "history:read", optional=f"{FILTERS} offset limit")
def history(person: Person, sent: Json) -> Json:
    if int(sent.get("limit", 10)) > LONGEST_PAGE:
        raise BadRequest(f"limit must be at most {LONGEST_PAGE}.")
    rows = [row for row in telephony.company_of(person).history if _matches(row, sent)]
    return {"items": _page(rows, sent, limit=10), "totalCount": len(rows)}


def _matches(row: Json, sent: Json) -> bool:
    star = "STARRED" if row["starred"] else "UNSTARRED"
    extensions: list[str] = row["connectionIds"]
    created = row["created"]
    first, at, last = map(
        datetime.fromisoformat, (sent.get("from", created), created, sent.get("to", created))
    )
    return (
        row["archived"] == (sent.get("archived") == "true")
        and row["type"] in sent.get("types", [row["type"]])
        and row["direction"] in sent.get("directions", [row["direction"]])
        and star in sent.get("starred", [star])
        and any(one in sent.get("connectionIds", extensions) for one in extensions)
        and first <= at <= last
        and sent.get("phonenumber", row["source"]) in (row["source"], row["target"])
    )


def _entry(person: Person, entry_id: str) -> Json:
    for row in telephony.company_of(person).history:
        if row["id"] == entry_id:
            return row
    raise Http404


@operation("GET", "history/<entry_id>", "history:read")
def entry(person: Person, entry_id: str) -> Json:
    found = _entry(person, entry_id)
    shown = dict(found)
    telephony.advance(found)
    return shown


@operation("PUT", "history/<entry_id>", "history:write", optional="read archived starred note")
def change_entry(person: Person, entry_id: str, sent: Json) -> HttpResponse:
    _entry(person, entry_id).update(sent)
    return HttpResponse(status=204)


@operation("GET", "documents/<name>", "history:read", "faxlines:read")
def document(person: Person, name: str) -> HttpResponse:
    return HttpResponse(b"%PDF-sandbox" * 1024 * 256, content_type="application/pdf")


# --- calls, SMS and faxes -------------------------------------------------------------------------


def _check_own(items: list[Json], extension: str) -> None:
    if extension not in {item["id"] for item in items}:
        raise PermissionDenied(f"{extension} belongs to somebody else, or does not exist.")


def _caller_id(sent: Json) -> str:
    number = str(sent.get("callerId", telephony.OWN_NUMBERS[0]))
    if number not in telephony.OWN_NUMBERS:
        raise PermissionDenied(f"{number} is no number of this account.")
    return number


@operation(
    "POST",
    "sessions/calls",
    "sessions:write",
    "sessions:calls:write",
    required="caller callee",
    optional="deviceId callerId",
)
def click_to_dial(person: Person, sent: Json) -> Json:
    """Call ``caller`` first, then ``callee``. Accounts of neo cannot."""
    if person.feature_scope == "NEO_PBX":
        raise PermissionDenied("This needs a Classic PBX account.")
    if sent["caller"].startswith("+") and "deviceId" not in sent:
        raise BadRequest("deviceId must be sent if caller is a telephone number.")
    device = str(sent.get("deviceId", sent["caller"]))
    _check_own(telephony.devices(person), device)
    company, source = telephony.company_of(person), _caller_id(sent)
    return {"sessionId": company.send("CALL", device, sent["callee"], source=source)}


@operation(
    "POST", "calls", "rtcm:write", required="deviceId targetNumber", optional="callerId channelId"
)
def call(person: Person, sent: Json) -> Json:
    """Call ``targetNumber`` from a device: neo's way, which the specification is too old to know.

    sipgate says that the history does not show these calls. It does not say what it answers:
    ``callId`` is a guess.
    """
    _check_own(telephony.devices(person), sent["deviceId"])
    _caller_id(sent)
    return {"callId": str(uuid.uuid4())}


@operation(
    "POST",
    "sessions/sms",
    "sessions:write",
    "sessions:sms:write",
    required="smsId recipient message",
    optional="sendAt",
)
def send_sms(person: Person, sent: Json) -> HttpResponse:
    _check_own(telephony.sms_extensions(person), sent["smsId"])
    company, text = telephony.company_of(person), sent["message"]
    company.send("SMS", sent["smsId"], sent["recipient"], smsContent=text)
    return HttpResponse(status=204)


@operation(
    "POST",
    "sessions/fax",
    "sessions:write",
    "sessions:fax:write",
    required="faxlineId recipient filename base64Content",
)
def send_fax(person: Person, sent: Json) -> Json:
    """Send a fax. ``sessionId`` is the id of its entry in the history, which has its status."""
    _check_own(telephony.faxlines(person), sent["faxlineId"])
    company, status = telephony.company_of(person), telephony.FAX_STATUSES[0]
    session = company.send("FAX", sent["faxlineId"], sent["recipient"], faxStatusType=status)
    return {"sessionId": session}


# --- contacts -------------------------------------------------------------------------------------


@operation("GET", "contacts", "contacts:read", optional="phonenumbers offset limit")
def contacts(person: Person, sent: Json) -> Json:
    """Return the contacts of the company. Colleagues see the private ones, too."""
    wanted = sent.get("phonenumbers")
    rows = [
        row
        for row in telephony.company_of(person).contacts
        if wanted is None or any(one.get("number") in wanted for one in row["numbers"])
    ]
    return {"items": _page(rows, sent, limit=5000), "totalCount": len(rows)}


@operation(
    "POST",
    "contacts",
    "contacts:write",
    required="scope",
    optional="name family given picture emails numbers addresses organization",
)
def new_contact(person: Person, sent: Json) -> HttpResponse:
    telephony.company_of(person).contacts.append(telephony.contact(**sent))
    return HttpResponse(status=201)


@operation("DELETE", "contacts/<contact_id>", "contacts:write")
def delete_contact(person: Person, contact_id: str) -> HttpResponse:
    rows = telephony.company_of(person).contacts
    kept = [row for row in rows if row["id"] != contact_id]
    if len(kept) == len(rows):
        raise Http404
    rows[:] = kept
    return HttpResponse(status=204)


urlpatterns = operations.urls()
