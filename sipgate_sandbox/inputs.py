"""Reads queries and bodies of the REST API, and rejects what sipgate's specification does not know.

sipgate may well ignore an unknown name. The sandbox says so, because code that misspells a filter would pass its tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse


class Rejected(Exception):
    """The request is answered with an error. ``sentence`` is for people."""

    def __init__(self, sentence: str, *, status: int = 400) -> None:
        super().__init__(sentence)
        self.sentence, self.status = sentence, status

    @property
    def answer(self) -> HttpResponse:
        if self.status == 400:
            return JsonResponse(
                {"name": "PARAMETER_INVALID", "message": self.sentence}, status=self.status
            )
        return HttpResponse(self.sentence, status=self.status, content_type="text/plain")


# --- queries ----------------------------------------------------------------------------------------------------------

Reader = Callable[[str], Any]
"""Returns the value of a parameter. Raises ``ValueError`` that says what is wanted."""


@dataclass(frozen=True, slots=True)
class Many:
    """A parameter that may be repeated."""

    reader: Reader


def one_of(*known: str) -> Reader:
    def read(text: str) -> str:
        if text not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return text

    return read


def whole(most: int) -> Reader:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > most:
            raise ValueError(f"a whole number from 0 to {most}")
        return int(text)

    return read


def flag(text: str) -> bool:
    return bool(one_of("true", "false")(text) == "true")


def moment(text: str) -> datetime:
    """Read ISO 8601. A time without a zone means another moment on every machine, and is rejected."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("a time with its zone, such as 2026-01-01T12:00:00Z")
    return found


def query_of(request: HttpRequest, readers: dict[str, Reader | Many]) -> dict[str, Any]:
    """Return the parameters that were sent, by name; of those that may be repeated a list."""
    unknown = sorted(set(request.GET) - set(readers))
    if unknown:
        known = ", ".join(readers) or "none"
        raise Rejected(f"{', '.join(unknown)}: unknown parameter. Known are: {known}.")
    found = {}
    for name in request.GET:
        reader, texts = readers[name], request.GET.getlist(name)
        try:
            if isinstance(reader, Many):
                found[name] = [reader.reader(text) for text in texts]
            elif len(texts) == 1:
                found[name] = reader(texts[0])
            else:
                raise ValueError("sent once")
        except ValueError as wanted:
            raise Rejected(f"{name} must be {wanted}.") from None
    return found


# --- bodies -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a JSON object: what it must be, in words and as a test."""

    what: str
    accepts: Callable[[Any], bool]
    required: bool = True

    def optional(self) -> Field:
        return Field(self.what, self.accepts, required=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\+[1-9]\d{4,14}", value) is not None


TEXT = Field("text", lambda value: isinstance(value, str) and value != "")
ANY_TEXT = Field("text or null", lambda value: value is None or isinstance(value, str))
SWITCH = Field("true or false", lambda value: isinstance(value, bool))
LIST = Field("a list", lambda value: isinstance(value, list))
SECONDS = Field("seconds since 1970", lambda value: type(value) is int and value > 0)
NUMBER = Field("a telephone number with country code, such as +4915799912345", _is_number)
CALLER = Field(
    "a device or a telephone number with country code",
    lambda value: (
        _is_number(value)
        or (isinstance(value, str) and re.fullmatch(r"[a-z]\d+", value) is not None)
    ),
)


def body_of(request: HttpRequest, fields: dict[str, Field]) -> dict[str, Any]:
    """Return the JSON object of a request."""
    if request.content_type != "application/json":
        raise Rejected("Content-Type must be application/json.", status=415)
    try:
        body = json.loads(request.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Rejected("The body must be a JSON object.")
    unknown = sorted(set(body) - set(fields))
    if unknown:
        raise Rejected(f"{', '.join(unknown)}: unknown field. Known are: {', '.join(fields)}.")
    for name, field in fields.items():
        if (field.required or name in body) and not field.accepts(body.get(name)):
            raise Rejected(f"{name} must be {field.what}.")
    return body
