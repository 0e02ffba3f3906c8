"""What a company has at sipgate: users, numbers, extensions, a history and contacts.

All of it is invented. It lives in this process; ``reset`` restores it. An extension has the number
of its user: ``e1`` is a telephone of ``w1``.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from .people import Person

Row = dict[str, Any]

OWN_NUMBERS = [f"+4921199{i:04d}" for i in range(25)]
CUSTOMER = "+491700000001"
KINDS = (
    ("CALL", "INCOMING", "PICKUP"),
    ("SMS", "OUTGOING", "PICKUP"),
    ("FAX", "INCOMING", "PICKUP"),
    ("CALL", "MISSED_INCOMING", "NOPICKUP"),
    ("CALL", "OUTGOING", "PICKUP"),
    ("VOICEMAIL", "INCOMING", "NOPICKUP"),
    ("FAX", "OUTGOING", "PICKUP"),
    ("SMS", "INCOMING", "PICKUP"),
    ("CALL", "MISSED_OUTGOING", "NOPICKUP"),
)
"""Type, direction and status of the entries of a history, over and over."""
NEWEST = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOT_ARCHIVED, ARCHIVED = 23, 7
FAX_STATUSES = ("PENDING", "SENDING", "SENT")


class Company:
    """What requests can change: ``history`` (newest first) and ``contacts``."""

    def __init__(self) -> None:
        self.history = [_earlier(i) for i in range(NOT_ARCHIVED + ARCHIVED)]
        number = {"number": CUSTOMER, "type": ["cell"]}
        self.contacts = [contact(name="Ada Lovelace", scope="SHARED", numbers=[number])]

    def send(self, kind: str, extension: str, target: str, **more: Any) -> str:
        """Put what a person sends from an ``extension`` into the history; return the entry's id."""
        ends = OWN_NUMBERS[0], target
        row = _entry(str(uuid.uuid4()), kind, "OUTGOING", ends, datetime.now(UTC), extension)
        self.history.insert(0, row | more)
        return str(row["id"])


_companies: dict[str, Company] = {}


def company_of(person: Person) -> Company:
    return _companies.setdefault(person.master_sip_id, Company())


def reset() -> None:
    _companies.clear()


# --- users, numbers, extensions -------------------------------------------------------------------


def user(person: Person) -> Row:
    return {
        "id": person.sub,
        "firstname": person.firstname,
        "lastname": person.lastname,
        "email": person.email,
        "defaultDevice": extension("e", person),
        "busyOnBusy": False,
        "addressId": "1",
        "directDialIds": [],
        "timezone": "Europe/Berlin",
        "admin": person.admin,
    }


def extension(letter: str, person: Person) -> str:
    return f"{letter}{person.sub[1:]}"


def numbers() -> list[Row]:
    """Return a company's numbers. All belong to the line of its first user."""
    line = {"type": "LANDLINE", "endpointId": "p0", "endpointAlias": "Line 0"}
    line["endpointUrl"] = "https://api.sipgate.com/v2/w0/phonelines/p0"
    return [
        {"id": f"n{i}", "number": number, "localized": f"0211 {number[6:]}", **line}
        for i, number in enumerate(OWN_NUMBERS)
    ]


def devices(person: Person) -> list[Row]:
    desk, mobile = extension("e", person), extension("y", person)
    shared = {"dnd": False, "activePhonelines": [], "activeGroups": []}
    return [
        {"id": desk, "alias": "Desk", "type": "REGISTER", "online": True, **shared},
        {"id": mobile, "alias": "Mobile", "type": "MOBILE", "online": False, **shared},
    ]


def sms_extensions(person: Person) -> list[Row]:
    alias = f"SMS of {person.name}"
    return [{"id": extension("s", person), "alias": alias, "callerId": OWN_NUMBERS[0]}]


def faxlines(person: Person) -> list[Row]:
    alias = f"Fax of {person.name}"
    rights = {"tagline": "", "canSend": True, "canReceive": True}
    return [{"id": extension("f", person), "alias": alias, **rights}]


# --- history and contacts -------------------------------------------------------------------------


def advance(fax: Row) -> None:
    """Move a sent fax to its next status. Each look does so, so that no test has to wait."""
    status = fax.get("faxStatusType")
    if status in FAX_STATUSES[:-1]:
        fax["faxStatusType"] = FAX_STATUSES[FAX_STATUSES.index(status) + 1]


def _earlier(i: int) -> Row:
    """Return the entry that is ``i`` hours older than the newest one."""
    kind, direction, status = KINDS[i % len(KINDS)]
    ends = (CUSTOMER, OWN_NUMBERS[1])
    if "OUTGOING" in direction:
        ends = ends[::-1]
    letter = {"CALL": "p", "SMS": "s", "FAX": "f", "VOICEMAIL": "v"}[kind]
    at = NEWEST - timedelta(hours=i)
    row = _entry(str(1000 + i), kind, direction, ends, at, f"{letter}0")
    row |= {"status": status, "archived": i >= NOT_ARCHIVED}
    return row | {"starred": i % 5 == 0, "read": i % 3 > 0}


def _entry(
    entry_id: str, kind: str, direction: str, ends: tuple[str, str], at: datetime, extension: str
) -> Row:
    source, target = ends
    written = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    of_kind: dict[str, Row] = {
        "CALL": {"callId": entry_id, "duration": 61, "callStatus": "SUCCESS", "recordings": []},
        "SMS": {"smsContent": "Hello!"},
        "FAX": {"faxStatusType": "SENT", "documentUrl": "/v2/documents/fax.pdf", "reportUrl": None},
        "VOICEMAIL": {
            "transcription": "Please call back.",
            "recordingUrl": "/v2/documents/voicemail.mp3",
            "duration": 12,
        },
    }
    return {
        "id": entry_id,
        "source": source,
        "sourceAlias": "",
        "target": target,
        "targetAlias": "",
        "type": kind,
        "created": written,
        "lastModified": written,
        "direction": direction,
        "incoming": "INCOMING" in direction,
        "status": "PICKUP",
        "connectionIds": [extension],
        "read": True,
        "archived": False,
        "starred": False,
        "note": None,
        "endpoints": [],
        "labels": [],
        **of_kind[kind],
    }


def contact(**fields: Any) -> Row:
    return {
        "id": str(uuid.uuid4()),
        "name": "",
        "picture": None,
        "emails": [],
        "numbers": [],
        "addresses": [],
        "organization": [],
        **fields,
    }
