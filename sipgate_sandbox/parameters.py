"""What an operation of the REST API accepts. It answers anything else with 400 and a sentence.

sipgate may well ignore a name that it does not know. The sandbox rejects it, because code that
misspells a filter would otherwise pass its tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.core.exceptions import BadRequest
from django.http import HttpRequest


class Rule(NamedTuple):
    """What a value must be: in words, and as a test."""

    wanted: str
    fits: Callable[[Any], bool]


def one_of(*known: str) -> Rule:
    return Rule(f"one of {', '.join(known)}", lambda value: value in known)


def matching(pattern: str, wanted: str) -> Rule:
    return Rule(wanted, lambda value: re.fullmatch(pattern, str(value)) is not None)


def _is_moment(value: str) -> bool:
    """A time without a zone means another moment on every machine."""
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


TEXT = Rule("text", lambda value: isinstance(value, str) and value != "")
TEXT_OR_NULL = Rule("text or null", lambda value: isinstance(value, str | None))
SWITCH = Rule("true or false", lambda value: isinstance(value, bool))
ROWS = Rule("a list", lambda value: isinstance(value, list))
SECONDS = Rule("seconds since 1970", lambda value: type(value) is int and value > 0)
MOMENT = Rule("a time with its zone, such as 2026-01-01T12:00:00Z", _is_moment)
DOCUMENT = matching(r"[A-Za-z0-9+/]+={0,2}", "a document in base64")
WHOLE = matching(r"[0-9]{1,9}", "a whole number from 0")
NUMBER = matching(
    r"\+[1-9]\d{4,14}", "a telephone number with country code, such as +4915799912345"
)

QUERY = {
    "offset": WHOLE,
    "limit": WHOLE,
    "types": one_of("CALL", "VOICEMAIL", "SMS", "FAX"),
    "directions": one_of("INCOMING", "OUTGOING", "MISSED_INCOMING", "MISSED_OUTGOING"),
    "connectionIds": TEXT,
    "starred": one_of("STARRED", "UNSTARRED"),
    "archived": one_of("true", "false"),
    "from": MOMENT,
    "to": MOMENT,
    "phonenumber": TEXT,
    "phonenumbers": TEXT,
}
"""The query parameters of all operations."""
REPEATED = {"types", "directions", "connectionIds", "starred", "phonenumbers"}
"""Query parameters that a request may have several times."""
BODY = {
    "read": SWITCH,
    "archived": SWITCH,
    "starred": SWITCH,
    "note": TEXT_OR_NULL,
    "caller": TEXT,
    "callee": NUMBER,
    "callerId": NUMBER,
    "deviceId": TEXT,
    "targetNumber": NUMBER,
    "channelId": TEXT,
    "smsId": TEXT,
    "faxlineId": TEXT,
    "recipient": NUMBER,
    "message": TEXT,
    "sendAt": SECONDS,
    "filename": TEXT,
    "base64Content": DOCUMENT,
    "scope": one_of("PRIVATE", "SHARED"),
    "name": TEXT_OR_NULL,
    "family": TEXT_OR_NULL,
    "given": TEXT_OR_NULL,
    "picture": TEXT_OR_NULL,
    "emails": ROWS,
    "numbers": ROWS,
    "addresses": ROWS,
    "organization": ROWS,
}
"""The fields of all operations' bodies."""


def of_query(request: HttpRequest, known: str) -> dict[str, Any]:
    """Return the query's parameters by name: a list for each in ``REPEATED``, else a string."""
    _check_names(request.GET, known)
    found: dict[str, Any] = {}
    for name, values in request.GET.lists():
        if len(values) > 1 and name not in REPEATED:
            raise BadRequest(f"{name} must be sent once.")
        for value in values:
            _check(name, QUERY[name], value)
        found[name] = values if name in REPEATED else values[0]
    return found


def of_body(request: HttpRequest, required: str, optional: str) -> dict[str, Any]:
    """Return the JSON object in the body."""
    try:
        data = json.loads(request.body)
    except ValueError:
        data = None
    if request.content_type != "application/json" or not isinstance(data, dict):
        raise BadRequest("The body must be a JSON object, its Content-Type application/json.")
    _check_names(data, f"{required} {optional}")
    for name in [*required.split(), *data]:
        _check(name, BODY[name], data.get(name))
    return data


def _check_names(sent: Mapping[str, Any], known: str) -> None:
    if unknown := sorted(set(sent) - set(known.split())):
        names = ", ".join(known.split()) or "none"
        raise BadRequest(f"Unknown here: {', '.join(unknown)}. Known: {names}.")


def _check(name: str, rule: Rule, value: Any) -> None:
    if not rule.fits(value):
        raise BadRequest(f"{name} must be {rule.wanted}.")
