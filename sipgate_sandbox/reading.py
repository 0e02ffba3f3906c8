"""Reads queries and bodies of the REST API, and rejects what sipgate's specification does not know.

sipgate may well ignore an unknown name. The sandbox says so, because code that misspells a filter
would pass its tests.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

Reader = Callable[[Any], Any]
"""Returns the value of a parameter or field. Raises ``ValueError`` that says what is wanted."""
Readers = Mapping[str, Reader | list[Reader]]
"""By name; in a query, a list with a reader stands for a parameter that may be repeated."""


class Rejected(Exception):
    """The request is answered with an error and a sentence."""

    def __init__(self, sentence: str, *, status: int = 400) -> None:
        super().__init__(sentence)
        self.answer: HttpResponse = HttpResponse(sentence, status=status, content_type="text/plain")
        if status == 400:
            data = {"name": "PARAMETER_INVALID", "message": sentence}
            self.answer = JsonResponse(data, status=status)


def whole(most: int) -> Reader:
    def read(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) > most:
            raise ValueError(f"a whole number from 0 to {most}")
        return int(value)

    return read


def flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("true or false")
    return value == "true"


def moment(value: str) -> datetime:
    """Read ISO 8601. A time without a zone means another moment on every machine: rejected."""
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("a time with its zone, such as 2026-01-01T12:00:00Z")
    return found


def such(wanted: str, is_good: Callable[[Any], bool]) -> Reader:
    """Return a reader of JSON values, which are taken as they are."""

    def read(value: Any) -> Any:
        if not is_good(value):
            raise ValueError(wanted)
        return value

    return read


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\+[1-9]\d{4,14}", value) is not None


def _is_document(value: Any) -> bool:
    try:
        return len(value) <= 28_330_000 and bool(base64.b64decode(value, validate=True))
    except (TypeError, ValueError):
        return False


def one_of(*known: str) -> Reader:
    return such(f"one of {', '.join(known)}", lambda value: value in known)


text = such("text", lambda value: isinstance(value, str) and value != "")
text_or_null = such("text or null", lambda value: isinstance(value, str | None))
switch = such("true or false", lambda value: isinstance(value, bool))
rows = such("a list", lambda value: isinstance(value, list))
seconds = such("seconds since 1970", lambda value: type(value) is int and value > 0)
number = such("a telephone number with country code, such as +4915799912345", _is_number)
caller = such(
    "a device or a telephone number with country code",
    lambda value: _is_number(value) or re.fullmatch(r"[a-z]\d+", str(value)) is not None,
)
document = such("a document in base64, 1 to 28330000 characters", _is_document)


def query(request: HttpRequest, readers: Readers) -> dict[str, Any]:
    """Return the parameters that were sent, by name; of those that may be repeated a list."""
    _check_names(request.GET, readers)
    found: dict[str, Any] = {}
    for name, values in request.GET.lists():
        reader = readers[name]
        if isinstance(reader, list):
            found[name] = [_read(name, reader[0], value) for value in values]
        elif len(values) == 1:
            found[name] = _read(name, reader, values[0])
        else:
            raise Rejected(f"{name} must be sent once.")
    return found


def body(request: HttpRequest, required: Readers, optional: Readers) -> dict[str, Any]:
    """Return the JSON object of a request."""
    if request.content_type != "application/json":
        raise Rejected("Content-Type must be application/json.", status=415)
    try:
        data = json.loads(request.body)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise Rejected("The body must be a JSON object.")
    known: dict[str, Any] = {**required, **optional}
    _check_names(data, known)
    return {
        name: _read(name, reader, data.get(name))
        for name, reader in known.items()
        if name in required or name in data
    }


def _check_names(sent: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    if unknown := sorted(set(sent) - set(known)):
        names = ", ".join(known) or "none"
        raise Rejected(f"{', '.join(unknown)} is not known here. Known are: {names}.")


def _read(name: str, reader: Reader, value: Any) -> Any:
    try:
        return reader(value)
    except ValueError as wanted:
        raise Rejected(f"{name} must be {wanted}.") from None
