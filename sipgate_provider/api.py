"""Values of sipgate's REST API v2: an answer's JSON in, a typed value out.

Every field may be missing, null, of another type, or new. Fields are read by ``Value.parse``: the name in JSON is the
field's in camel case, unless its ``metadata`` says otherwise, and the annotation says what is accepted (``READERS``).

Must not know: Django, allauth, where the access token comes from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from decimal import Decimal
from typing import Any, ClassVar, Self

from sipgate_provider import errors
from sipgate_provider.remote import rest

BALANCE_UNIT = Decimal(10_000)
"""sipgate counts money in 1/10000 of the currency unit."""
MASTER_SIP_ID, SUB = r"[0-9]{1,20}", r"[A-Za-z]{1,4}[0-9]{1,12}"


# --- reading ----------------------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    """Return text; numbers count as text (the specification's examples mix them), anything else is empty."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text for text in map(_text, value) if text) if isinstance(value, list) else ()


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _rows(value: object) -> tuple[Mapping[str, Any], ...]:
    """Return the JSON objects of a list, and leave out everything else."""
    return (
        tuple(row for row in value if isinstance(row, Mapping)) if isinstance(value, list) else ()
    )


def _routes(value: object) -> tuple[Route, ...]:
    return tuple(map(Route.parse, _rows(value)))


READERS: dict[Any, Callable[[object], Any]] = {
    "str": _text,
    "bool | None": _flag,
    "tuple[str, ...]": _texts,
    "tuple[Mapping[str, Any], ...]": _rows,
    "tuple[Route, ...]": _routes,
}
"""How a field is read, by its annotation. A field of another type is filled by its own class."""


def _named(key: str, **options: Any) -> Any:
    """Return a text field with another name in JSON than its own in camel case."""
    return field(default="", metadata={"key": key}, **options)


def _key(described: Field[Any]) -> str:
    camel_case = re.sub(r"_(\w)", lambda found: found[1].upper(), described.name)
    return str(described.metadata.get("key", camel_case))


class Value:
    """The answer of an endpoint. Subclasses are dataclasses."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    endpoint: str | None = None

    @classmethod
    def parse(cls, data: object) -> Self:
        """Raises ``errors.UnexpectedResponse`` if ``data`` is not a JSON object, or lacks a required field."""
        if not isinstance(data, Mapping):
            raise errors.UnexpectedResponse(
                "sipgate's answer is not a JSON object.", endpoint=cls.endpoint
            )
        return cls(**cls.values_of(data))

    @classmethod
    def values_of(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that a JSON object has for the constructor."""
        return {one.name: READERS[one.type](data.get(_key(one))) for one in cls._known()}

    @classmethod
    def _known(cls) -> list[Field[Any]]:
        return [one for one in fields(cls) if one.type in READERS]


# --- values -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(Value):
    """Who signed in (``GET /authorization/userinfo``). ``sub`` alone repeats in every company."""

    endpoint = "GET /authorization/userinfo"
    sub: str
    master_sip_id: str
    domain: str = ""
    locale: str = ""

    @classmethod
    def values_of(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        values = super(Identity, cls).values_of(data)
        if not re.fullmatch(MASTER_SIP_ID, values["master_sip_id"]) or not re.fullmatch(
            SUB, values["sub"]
        ):
            raise errors.UnexpectedResponse(
                "sipgate did not say who signed in (sub or masterSipId is missing).",
                endpoint=cls.endpoint,
            )
        return values

    @property
    def uid(self) -> str:
        """``masterSipId`` + ``sub``: unique everywhere, and what sipgate's webhooks call the full user id."""
        return f"{self.master_sip_id}{self.sub}"


def is_uid(text: str) -> bool:
    """Tell whether a text has the form of ``Identity.uid``."""
    return re.fullmatch(MASTER_SIP_ID + SUB, text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Value):
    """``GET /account``: company, product, verification. Has no id and no person."""

    endpoint = "GET /account"
    company: str = ""
    main_product_type: str = ""
    logo_url: str = ""
    verified: bool | None = None
    history_lifetime: str = _named("historyLifeTime")
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields that are newer than this code."""

    @classmethod
    def values_of(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        known = {_key(one) for one in cls._known()}
        extra = {str(key): value for key, value in data.items() if key not in known}
        return {**super(Account, cls).values_of(data), "extra": extra}

    def to_dict(self) -> dict[str, Any]:
        """Return sipgate's own field names; ``parse`` reads them back."""
        return {**self.extra, **{_key(one): getattr(self, one.name) for one in self._known()}}

    @property
    def is_former(self) -> bool:
        return self.main_product_type.startswith("FORMER_")

    @property
    def product(self) -> str:
        """The product without ``FORMER_``, as sipgate writes it (``TEAM``); unknown ones are passed on."""
        return self.main_product_type.removeprefix("FORMER_")


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Value):
    """A person in the account (``GET /users/{id}``). sipgate does not say whether the address is verified."""

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
    currency: str

    @classmethod
    def values_of(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        amount = data.get("amount")
        if (
            isinstance(amount, bool)
            or not isinstance(amount, int | float)
            or not math.isfinite(amount)
        ):
            raise errors.UnexpectedResponse("The balance has no amount.", endpoint=cls.endpoint)
        return {
            **super(Balance, cls).values_of(data),
            "amount": Decimal(str(amount)) / BALANCE_UNIT,
        }


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
class Route(Value):
    """A line or group that a device rings for."""

    id: str = ""
    alias: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(Value):
    """A telephone (``GET /{userId}/devices``). Which fields are filled depends on ``type``.

    ``secrets`` holds what sipgate sends of SIP credentials and PUKs, ``registered`` from where the telephone registered
    itself; both stay out of ``repr``.
    """

    id: str = ""
    alias: str = ""
    type: str = ""
    """``REGISTER``, ``MOBILE`` or ``EXTERNAL``; unknown ones are passed on."""
    online: bool | None = None
    dnd: bool | None = None
    active_phonelines: tuple[Route, ...] = ()
    active_groups: tuple[Route, ...] = ()
    emergency_address_id: str = ""
    address_url: str = ""
    sim_state: str = ""
    esim: bool | None = None
    number: str = ""
    incoming_call_display: str = _named("incomingCallDisplayState")
    registered: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    secrets: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def values_of(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **super(Device, cls).values_of(data),
            "secrets": {key: data[key] for key in DEVICE_SECRETS if key in data},
        }


DEVICE_SECRETS = ("credentials", "sipCredentials", "puk", "puk1", "puk2", "esimData")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry(Value):
    """A call, fax, SMS or voicemail (``GET /history``).

    What was said or written, and ``raw`` with everything sipgate sent, stay out of ``repr``.
    """

    id: str = ""
    type: str = ""
    """``CALL``, ``VOICEMAIL``, ``SMS`` or ``FAX``; unknown ones are passed on."""
    direction: str = ""
    source: str = ""
    source_alias: str = ""
    target: str = ""
    target_alias: str = ""
    status: str = ""
    created: str = ""
    """ISO 8601, as sipgate writes it."""
    last_modified: str = ""
    incoming: bool | None = None
    read: bool | None = None
    archived: bool | None = None
    starred: bool | None = None
    connection_ids: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    endpoints: tuple[Mapping[str, Any], ...] = ()
    # The next four, and two of the texts, are not in the specification; sipgate's own client libraries read them.
    document_url: str = ""
    """Of a fax: what ``SipgateClient.download`` takes."""
    report_url: str = ""
    recording_url: str = ""
    fax_status: str = _named("faxStatusType")
    note: str = field(default="", repr=False)
    sms_content: str = field(default="", repr=False)
    transcription: str = field(default="", repr=False)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def values_of(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        return {**super(HistoryEntry, cls).values_of(data), "raw": dict(data)}


# --- calls ------------------------------------------------------------------------------------------------------------


def fetch_identity(base_url: str, access_token: str) -> Identity:
    """Return whom the token belongs to; any granted scope suffices. Raises as ``call``."""
    return Identity.parse(rest.call("GET", base_url, "/authorization/userinfo", access_token))


def fetch_account(base_url: str, access_token: str) -> Account:
    """Return the account (``account:read``). Raises as ``call``."""
    return Account.parse(rest.call("GET", base_url, "/account", access_token))


def fetch_user(base_url: str, access_token: str, user_id: str) -> User:
    """Return one person of the account (``users:read``). Raises as ``call``."""
    return User.parse(rest.call("GET", base_url, f"/users/{user_id}", access_token))
