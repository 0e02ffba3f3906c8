"""What a company has at sipgate: numbers, extensions, history and contacts.

All of it is invented, kept in this process, and as new after ``reset``. Extensions end in the number of their person:
``e1`` is a telephone of ``w1``.
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
"""Type, direction and status of the history's entries, again and again."""
EXTENSIONS = {"CALL": "p", "SMS": "s", "FAX": "f", "VOICEMAIL": "v"}
NEWEST = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOT_ARCHIVED, ARCHIVED = 23, 7
FAX_STATUSES = ("PENDING", "SENDING", "SENT")
"""A fax that was sent goes one further whenever it is looked at, so that no test has to sleep."""
FAILING_FAX = "+4921100000000"
"""Faxes to this number fail."""


class Company:
    """What changes: ``history`` (newest first) and ``contacts``."""

    def __init__(self) -> None:
        self.history = [_entry_of_kind(i) for i in range(NOT_ARCHIVED + ARCHIVED)]
        self.contacts = [_first_contact()]

    def entry(self, entry_id: str) -> Row | None:
        return next((row for row in self.history if row["id"] == entry_id), None)

    def sent(self, kind: str, *, source: str, target: str, extension: str, **more: Any) -> Row:
        """Note what a person has just sent, and return it."""
        row = _entry(
            str(uuid.uuid4()), kind, "OUTGOING", source, target, datetime.now(UTC), extension
        )
        row |= more
        self.history.insert(0, row)
        return row


_companies: dict[str, Company] = {}


def company_of(person: Person) -> Company:
    return _companies.setdefault(person.master_sip_id, Company())


def reset() -> None:
    _companies.clear()


def extension(letter: str, person: Person) -> str:
    return f"{letter}{person.sub[1:]}"


def numbers(person: Person) -> list[Row]:
    """Return the numbers of a person's company. All belong to the line of its first person."""
    return [
        {
            "id": f"n{i}",
            "number": number,
            "localized": f"0211 {number[6:]}",
            "type": "LANDLINE",
            "endpointId": "p0",
            "endpointAlias": "Line 0",
            "endpointUrl": f"https://api.sipgate.com/v2/{person.sub}/phonelines/p0",
        }
        for i, number in enumerate(OWN_NUMBERS)
    ]


def devices(person: Person) -> list[Row]:
    shared = {"dnd": False, "activeGroups": []}
    line = {"id": extension("p", person), "alias": f"Line {person.sub[1:]}"}
    desk = {
        "id": extension("e", person),
        "alias": "Desk",
        "type": "REGISTER",
        "online": True,
        "activePhonelines": [line],
        "registered": [],
        "credentials": {
            "username": f"{person.master_sip_id}{extension('e', person)}",
            "password": "sandbox-sip-password",
            "sipServer": "sipgate.example",
            "outboundProxy": "proxy.sipgate.example",
            "sipServerWebsocketUrl": "wss://sipgate.example",
        },
    }
    mobile = {
        "id": extension("y", person),
        "alias": "Mobile",
        "type": "MOBILE",
        "online": False,
        "activePhonelines": [],
        "simState": "ACTIVE",
        "esim": False,
        "credentials": {"simId": "1234567", "puk1": "11112222", "puk2": "33334444"},
    }
    return [desk | shared, mobile | shared]


def sms_extensions(person: Person) -> list[Row]:
    alias = f"SMS of {person.name}"
    return [{"id": extension("s", person), "alias": alias, "callerId": OWN_NUMBERS[0]}]


def faxlines(person: Person) -> list[Row]:
    alias, tagline = f"Fax of {person.name}", person.account.get("company") or ""
    return [
        {
            "id": extension("f", person),
            "alias": alias,
            "tagline": tagline,
            "canSend": True,
            "canReceive": True,
        }
    ]


def goes_on(fax: Row) -> None:
    """Move a fax that was sent one status further."""
    status = fax.get("faxStatusType")
    if status in FAX_STATUSES[:-1]:
        further = FAX_STATUSES[FAX_STATUSES.index(status) + 1]
        failed = further == "SENT" and fax["target"] == FAILING_FAX
        fax["faxStatusType"] = "FAILED" if failed else further


def _first_contact() -> Row:
    return {
        "id": str(uuid.uuid4()),
        "name": "Ada Lovelace",
        "picture": None,
        "emails": [{"email": "ada@lovelace.example", "type": []}],
        "numbers": [{"number": CUSTOMER, "type": ["cell"]}],
        "addresses": [],
        "organization": [["Analytical Engines Ltd"]],
        "scope": "SHARED",
    }


def _entry_of_kind(i: int) -> Row:
    kind, direction, status = KINDS[i % len(KINDS)]
    ends = (CUSTOMER, OWN_NUMBERS[1])
    source, target = ends if "INCOMING" in direction else reversed(ends)
    created = NEWEST - timedelta(hours=i)
    row = _entry(str(1000 + i), kind, direction, source, target, created, f"{EXTENSIONS[kind]}0")
    row |= {"status": status, "archived": i >= NOT_ARCHIVED}
    return row | {"starred": i % 5 == 0, "read": i % 3 > 0}


def _entry(
    entry_id: str,
    kind: str,
    direction: str,
    source: str,
    target: str,
    created: datetime,
    extension: str,
) -> Row:
    written = created.strftime("%Y-%m-%dT%H:%M:%SZ")
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
