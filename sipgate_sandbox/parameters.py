"""What an operation of the REST API may be sent; anything else is a 400 with a sentence.

sipgate may well ignore an unknown name. The sandbox says so, because code that misspells a filter
would pass its tests.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.core.exceptions import BadRequest
from django.http import HttpRequest


class Rule(NamedTuple):
    """What a parameter or field must be: in words, and as a function that tells."""

    wanted: str
    fits: Callable[[Any], bool]
    repeated: bool = False
    """A query may have it several times."""


Rules = Mapping[str, Rule]
"""By name."""


def repeated(rule: Rule) -> Rule:
    return rule._replace(repeated=True)


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


def _is_document(value: Any) -> bool:
    try:
        return len(value) <= 28_330_000 and bool(base64.b64decode(value, validate=True))
    except (TypeError, ValueError):
        return False


TEXT = Rule("text", lambda value: isinstance(value, str) and value != "")
TEXT_OR_NULL = Rule("text or null", lambda value: isinstance(value, str | None))
SWITCH = Rule("true or false", lambda value: isinstance(value, bool))
ROWS = Rule("a list", lambda value: isinstance(value, list))
SECONDS = Rule("seconds since 1970", lambda value: type(value) is int and value > 0)
MOMENT = Rule("a time with its zone, such as 2026-01-01T12:00:00Z", _is_moment)
DOCUMENT = Rule("a document in base64, 1 to 28330000 characters", _is_document)
WHOLE = matching(r"[0-9]{1,9}", "a whole number from 0")
NUMBER = matching(
    r"\+[1-9]\d{4,14}", "a telephone number with country code, such as +4915799912345"
)
CALLER = matching(r"\+[1-9]\d{4,14}|[a-z]\d+", "a device or a telephone number with country code")

QUERY: Rules = {
    "offset": WHOLE,
    "limit": WHOLE,
    "types": repeated(one_of("CALL", "VOICEMAIL", "SMS", "FAX")),
    "directions": repeated(one_of("INCOMING", "OUTGOING", "MISSED_INCOMING", "MISSED_OUTGOING")),
    "connectionIds": repeated(TEXT),
    "starred": repeated(one_of("STARRED", "UNSTARRED")),
    "archived": one_of("true", "false"),
    "from": MOMENT,
    "to": MOMENT,
    "phonenumber": TEXT,
    "phonenumbers": repeated(TEXT),
}
"""Parameters of all operations."""
BODY: Rules = {
    "read": SWITCH,
    "archived": SWITCH,
    "starred": SWITCH,
    "note": TEXT_OR_NULL,
    "caller": CALLER,
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
"""Fields of all operations."""


def of_query(request: HttpRequest, optional: str) -> dict[str, Any]:
    """Return the parameters that were sent, by name; of those that may be repeated a list."""
    _check_names(request.GET, optional)
    found: dict[str, Any] = {}
    for name, values in request.GET.lists():
        rule = QUERY[name]
        if len(values) > 1 and not rule.repeated:
            raise BadRequest(f"{name} must be sent once.")
        for value in values:
            _check(name, rule, value)
        found[name] = values if rule.repeated else values[0]
    return found


def of_body(request: HttpRequest, required: str, optional: str) -> dict[str, Any]:
    """Return the JSON object of a request."""
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
        raise BadRequest(f"{', '.join(unknown)} is not known here. Known are: {names}.")


def _check(name: str, rule: Rule, value: Any) -> None:
    if not rule.fits(value):
        raise BadRequest(f"{name} must be {rule.wanted}.")
