"""Values of sipgate's REST API v2: an answer's JSON in, a typed value out.

sipgate may omit any field, send null or another type, or add fields. What cannot be read is empty
or None; ``raw`` has all that sipgate sent. A field's annotation decides how it is read. Its name in
JSON is its own in camel case, unless its ``metadata`` says otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Self, get_args, get_origin

from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override

from sipgate_provider import errors

BALANCE_UNIT = Decimal(10_000)
"""sipgate counts money in 1/10000 of the currency unit."""


class EntryType(StrEnum):
    CALL = "CALL"
    VOICEMAIL = "VOICEMAIL"
    SMS = "SMS"
    FAX = "FAX"


class Direction(StrEnum):
    INCOMING = "INCOMING"
    OUTGOING = "OUTGOING"
    MISSED_INCOMING = "MISSED_INCOMING"
    MISSED_OUTGOING = "MISSED_OUTGOING"


class CallStatus(StrEnum):
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REJECTED = "REJECTED"
    REJECTED_DND = "REJECTED_DND"
    VOICEMAIL_NO_MESSAGE = "VOICEMAIL_NO_MESSAGE"
    BUSY_ON_BUSY = "BUSY_ON_BUSY"
    BUSY = "BUSY"
    MISSED = "MISSED"


class FaxStatus(StrEnum):
    PENDING = "PENDING"
    SENDING = "SENDING"
    FAILED = "FAILED"
    SENT = "SENT"
    SCHEDULED = "SCHEDULED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """The answer of an endpoint, or a part of one."""

    endpoint: ClassVar[str | None] = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What sipgate sent, under its own names."""

    @classmethod
    def parse(cls, data: object) -> Self:
        """Return the value of a JSON object.

        Raises:
            errors.UnexpectedResponse: ``data`` is not a JSON object, or lacks a required field.
        """
        if not isinstance(data, Mapping):
            raise errors.UnexpectedResponse(
                "sipgate's answer is not a JSON object.", endpoint=cls.endpoint
            )
        try:
            return _converter.structure(data, cls)
        except KeyError as missing:
            raise errors.UnexpectedResponse(
                f"sipgate's answer has no {missing}.", endpoint=cls.endpoint
            ) from None

    @property
    def extra(self) -> dict[str, Any]:
        """Fields that are newer than this code."""
        known = {_key(one) for one in fields(self)}
        return {key: value for key, value in self.raw.items() if key not in known}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(Value):
    """Who signed in (``GET /authorization/userinfo``). ``sub`` alone repeats in every company."""

    endpoint = "GET /authorization/userinfo"
    sub: str
    master_sip_id: str
    domain: str = ""
    locale: str = ""

    def __post_init__(self) -> None:
        """Raises ``errors.UnexpectedResponse`` unless the two parts of the uid are there."""
        master, sub = r"[0-9]{1,20}", r"[A-Za-z]{1,4}[0-9]{1,12}"
        if not re.fullmatch(master, self.master_sip_id) or not re.fullmatch(sub, self.sub):
            raise errors.UnexpectedResponse(
                "sipgate did not say who signed in (sub or masterSipId is missing).",
                endpoint=self.endpoint,
            )

    @property
    def uid(self) -> str:
        """``masterSipId`` + ``sub``: unique everywhere; webhooks call it the full user id."""
        return f"{self.master_sip_id}{self.sub}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Value):
    """``GET /account``: company, product, verification. It contains no id and no user."""

    endpoint = "GET /account"
    company: str = ""
    main_product_type: str = ""
    logo_url: str = ""
    verified: bool | None = None
    history_lifetime: str = field(default="", metadata={"key": "historyLifeTime"})

    @property
    def is_former(self) -> bool:
        return self.main_product_type.startswith("FORMER_")

    @property
    def product(self) -> str:
        """The product without ``FORMER_``, as sipgate writes it (``TEAM``)."""
        return self.main_product_type.removeprefix("FORMER_")


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Value):
    """A user of the account (``GET /users/{id}``), whose email address may be unverified."""

    id: str = ""
    firstname: str = ""
    lastname: str = ""
    email: str = ""
    default_device: str = ""
    busy_on_busy: bool | None = None
    address_id: str = ""
    direct_dial_ids: tuple[str, ...] = ()
    timezone: str = ""
    admin: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance(Value):
    """``GET /balance``, in units of the currency (not sipgate's ten-thousandths)."""

    endpoint = "GET /balance"
    amount: Decimal
    currency: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Value):
    """A telephone number of the account (``GET /numbers``); ``number`` is E.164."""

    id: str = ""
    number: str = ""
    localized: str = ""
    type: str = ""
    endpoint_id: str = ""
    endpoint_alias: str = ""
    endpoint_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(Value):
    """A telephone (``GET /{userId}/devices``). ``raw`` may have its SIP credentials and PUKs."""

    id: str = ""
    alias: str = ""
    type: str = ""
    """``REGISTER``, ``MOBILE`` or ``EXTERNAL``; unknown ones are passed on."""
    online: bool | None = None
    dnd: bool | None = None
    number: str = ""
    """Of an external telephone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording(Value):
    """Of a call. ``SipgateClient.download`` takes ``url``."""

    id: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry(Value):
    """A call, fax, SMS or voicemail (``GET /history``). ``repr`` leaves out what was said.

    The specification lacks the fields from ``call_id`` on; sipgate's own client library has them.
    """

    endpoint = "GET /history/{entryId}"
    id: str = ""
    type: EntryType | str = ""
    direction: Direction | str = ""
    source: str = ""
    source_alias: str = ""
    target: str = ""
    target_alias: str = ""
    status: str = ""
    created: datetime | None = None
    last_modified: datetime | None = None
    incoming: bool | None = None
    read: bool | None = None
    archived: bool | None = None
    starred: bool | None = None
    connection_ids: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    endpoints: tuple[Mapping[str, Any], ...] = ()
    note: str = field(default="", repr=False)
    call_id: str = ""
    call_status: CallStatus | str = ""
    duration: int | None = None
    """Of a call or voicemail, in seconds."""
    recordings: tuple[Recording, ...] = ()
    fax_status: FaxStatus | str = field(default="", metadata={"key": "faxStatusType"})
    document_url: str = ""
    """Of a fax. ``SipgateClient.download`` takes this one and the next two."""
    report_url: str = ""
    recording_url: str = ""
    sms_content: str = field(default="", repr=False)
    transcription: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactNumber(Value):
    number: str = ""
    type: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactEmail(Value):
    email: str = ""
    type: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact(Value):
    """An entry of the address book (``GET /contacts``)."""

    id: str = ""
    name: str = ""
    scope: str = ""
    """``PRIVATE``, ``SHARED`` or ``INTERNAL``."""
    numbers: tuple[ContactNumber, ...] = ()
    emails: tuple[ContactEmail, ...] = ()


# --- reading --------------------------------------------------------------------------------------


def _text(value: object, _type: object = None) -> str:
    """Return a string, also for a number: the specification's examples mix them. Else empty."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _flag(value: object, _type: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: object, _type: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _moment(value: object, _type: object) -> datetime | None:
    """Return an aware datetime; sipgate writes UTC."""
    try:
        moment = datetime.fromisoformat(_text(value))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _amount(value: object, _type: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise errors.UnexpectedResponse("The balance has no amount.", endpoint=Balance.endpoint)
    return Decimal(str(value)) / BALANCE_UNIT


def _member(kind: type[StrEnum]) -> Callable[[object, object], str]:
    """Return a reader of an enumeration, which keeps words that are newer than this code."""
    known = {str(member): member for member in kind}
    return lambda value, _type: known.get(_text(value), _text(value))


def _several(value: object, kind: Any) -> tuple[Any, ...]:
    """Return those items of a list that can be read."""
    item, *_ = get_args(kind)
    items = value if isinstance(value, list) else []
    if item is str:
        return tuple(filter(None, map(_text, items)))
    objects = [one for one in items if isinstance(one, Mapping)]
    return tuple(one if get_origin(item) else item.parse(one) for one in objects)


def _key(described: Field[Any]) -> str:
    camel_case = re.sub(r"_(\w)", lambda found: found[1].upper(), described.name)
    return str(described.metadata.get("key", camel_case))


def _reader(cls: type[Value]) -> Callable[[Mapping[str, Any], object], Value]:
    names: Any = {one.name: override(rename=_key(one)) for one in fields(cls)}
    read = make_dict_structure_fn(cls, _converter, **{**names, "raw": override(omit=True)})
    return lambda data, _type: replace(read(data, cls), raw=dict(data))


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


_converter = Converter(detailed_validation=False)
"""Reads fields by annotation. An annotation without a hook fails at the first value."""
_converter.register_structure_hook(str, _text)
_converter.register_structure_hook(bool | None, _flag)
_converter.register_structure_hook(int | None, _number)
_converter.register_structure_hook(datetime | None, _moment)
_converter.register_structure_hook(Decimal, _amount)
for _kind in (EntryType, Direction, CallStatus, FaxStatus):
    _converter.register_structure_hook(_kind | str, _member(_kind))
_converter.register_structure_hook_func(_is_tuple, _several)
_converter.register_structure_hook_factory(is_dataclass, _reader)
