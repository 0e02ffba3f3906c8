"""sipgate's REST API v2: bytes in, values or errors out.

Decides by status code only; bodies are not uniform. Every field may be missing, null, of another type, or new. Must not
know: Django, allauth, where the access token comes from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sipgate_provider import errors
from sipgate_provider.remote import rest

BALANCE_UNIT = Decimal(10_000)
"""sipgate counts money in 1/10000 of the currency unit."""


# --- values -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who signed in (``GET /authorization/userinfo``). ``sub`` alone repeats in every company."""

    sub: str
    master_sip_id: str
    domain: str = ""
    locale: str = ""

    @classmethod
    def parse(cls, data: object) -> Identity:
        """Raises ``errors.UnexpectedResponse`` without a sane ``sub`` and ``masterSipId``."""
        fields = _fields(data)
        sub, master = _text(fields.get("sub")), _text(fields.get("masterSipId"))
        if not re.fullmatch(r"[A-Za-z]{1,4}[0-9]{1,12}", sub) or not re.fullmatch(r"[0-9]{1,20}", master):
            raise errors.UnexpectedResponse(
                "sipgate did not say who signed in (sub or masterSipId is missing).",
                endpoint="GET /authorization/userinfo",
            )
        return cls(
            sub=sub, master_sip_id=master, domain=_text(fields.get("domain")), locale=_text(fields.get("locale"))
        )

    @property
    def uid(self) -> str:
        """``masterSipId`` + ``sub``: unique everywhere, and what sipgate's webhooks call the full user id."""
        return f"{self.master_sip_id}{self.sub}"


def is_uid(text: str) -> bool:
    """Tell whether a text has the form of ``Identity.uid``."""
    return re.fullmatch(r"[0-9]{1,20}[A-Za-z]{1,4}[0-9]{1,12}", text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """``GET /account``: company, product, verification. Has no id and no person."""

    company: str = ""
    main_product_type: str = ""
    logo_url: str = ""
    verified: bool | None = None
    history_lifetime: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields that are newer than this code."""

    @classmethod
    def parse(cls, data: object) -> Account:
        """Raises ``errors.UnexpectedResponse`` if it is no JSON object."""
        fields = _fields(data, endpoint="GET /account")
        return cls.from_dict(fields)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Account:
        verified = fields.get("verified")
        return cls(
            company=_text(fields.get("company")),
            main_product_type=_text(fields.get("mainProductType")),
            logo_url=_text(fields.get("logoUrl")),
            verified=verified if isinstance(verified, bool) else None,
            history_lifetime=_text(fields.get("historyLifeTime")),
            extra={str(key): value for key, value in fields.items() if key not in KNOWN_ACCOUNT_FIELDS},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return sipgate's own field names; ``from_dict`` reads them back."""
        return {
            **self.extra,
            "company": self.company,
            "mainProductType": self.main_product_type,
            "logoUrl": self.logo_url,
            "verified": self.verified,
            "historyLifeTime": self.history_lifetime,
        }

    @property
    def is_former(self) -> bool:
        return self.main_product_type.startswith("FORMER_")

    @property
    def product(self) -> str:
        """The product without ``FORMER_``, as sipgate writes it (``TEAM``); unknown ones are passed on."""
        return self.main_product_type.removeprefix("FORMER_")


KNOWN_ACCOUNT_FIELDS = frozenset({"company", "mainProductType", "logoUrl", "verified", "historyLifeTime"})


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
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

    @classmethod
    def parse(cls, data: object) -> User:
        fields = _fields(data)
        return cls(
            id=_text(fields.get("id")),
            firstname=_text(fields.get("firstname")),
            lastname=_text(fields.get("lastname")),
            email=_text(fields.get("email")),
            default_device=_text(fields.get("defaultDevice")),
            busy_on_busy=_flag(fields.get("busyOnBusy")),
            address_id=_text(fields.get("addressId")),
            direct_dial_ids=_texts(fields.get("directDialIds")),
            timezone=_text(fields.get("timezone")),
            admin=_flag(fields.get("admin")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """``GET /balance``, in units of the currency (not sipgate's ten-thousandths)."""

    amount: Decimal
    currency: str

    @classmethod
    def parse(cls, data: object) -> Balance:
        """Raises ``errors.UnexpectedResponse`` without a number."""
        fields = _fields(data, endpoint="GET /balance")
        amount = fields.get("amount")
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount):
            raise errors.UnexpectedResponse("The balance has no amount.", endpoint="GET /balance")
        return cls(amount=Decimal(str(amount)) / BALANCE_UNIT, currency=_text(fields.get("currency")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A telephone number of the account (``GET /numbers``); ``number`` is E.164."""

    id: str = ""
    number: str = ""
    localized: str = ""
    type: str = ""
    endpoint_id: str = ""
    endpoint_alias: str = ""
    endpoint_url: str = ""

    @classmethod
    def parse(cls, data: object) -> Number:
        fields = _fields(data)
        return cls(
            id=_text(fields.get("id")),
            number=_text(fields.get("number")),
            localized=_text(fields.get("localized")),
            type=_text(fields.get("type")),
            endpoint_id=_text(fields.get("endpointId")),
            endpoint_alias=_text(fields.get("endpointAlias")),
            endpoint_url=_text(fields.get("endpointUrl")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A line or group that a device rings for."""

    id: str = ""
    alias: str = ""

    @classmethod
    def parse(cls, data: object) -> Route:
        fields = _fields(data)
        return cls(id=_text(fields.get("id")), alias=_text(fields.get("alias")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
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
    incoming_call_display: str = ""
    registered: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    secrets: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, data: object) -> Device:
        fields = _fields(data)
        kept = ("credentials", "sipCredentials", "puk", "puk1", "puk2", "esimData")
        return cls(
            id=_text(fields.get("id")),
            alias=_text(fields.get("alias")),
            type=_text(fields.get("type")),
            online=_flag(fields.get("online")),
            dnd=_flag(fields.get("dnd")),
            active_phonelines=tuple(Route.parse(row) for row in _rows(fields.get("activePhonelines"))),
            active_groups=tuple(Route.parse(row) for row in _rows(fields.get("activeGroups"))),
            emergency_address_id=_text(fields.get("emergencyAddressId")),
            address_url=_text(fields.get("addressUrl")),
            sim_state=_text(fields.get("simState")),
            esim=_flag(fields.get("esim")),
            number=_text(fields.get("number")),
            incoming_call_display=_text(fields.get("incomingCallDisplayState")),
            registered=_rows(fields.get("registered")),
            secrets={key: fields[key] for key in kept if key in fields},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
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
    document_url: str = ""
    """Of a fax: what ``SipgateClient.download`` takes."""
    report_url: str = ""
    recording_url: str = ""
    fax_status: str = ""
    note: str = field(default="", repr=False)
    sms_content: str = field(default="", repr=False)
    transcription: str = field(default="", repr=False)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, data: object) -> HistoryEntry:
        fields = _fields(data)
        values: dict[str, Any] = {name: _text(fields.get(key)) for name, key in HISTORY_TEXTS.items()}
        values |= {name: _flag(fields.get(name)) for name in ("incoming", "read", "archived", "starred")}
        return cls(
            **values,
            connection_ids=_texts(fields.get("connectionIds")),
            labels=_texts(fields.get("labels")),
            endpoints=_rows(fields.get("endpoints")),
            raw=dict(fields),
        )


HISTORY_TEXTS = {
    "id": "id",
    "type": "type",
    "direction": "direction",
    "source": "source",
    "source_alias": "sourceAlias",
    "target": "target",
    "target_alias": "targetAlias",
    "status": "status",
    "created": "created",
    "last_modified": "lastModified",
    "note": "note",
    # Not in the specification; sipgate's own client libraries read them.
    "document_url": "documentUrl",
    "report_url": "reportUrl",
    "recording_url": "recordingUrl",
    "fax_status": "faxStatusType",
    "sms_content": "smsContent",
    "transcription": "transcription",
}


# --- calls ------------------------------------------------------------------------------------------------------------


def fetch_identity(base_url: str, access_token: str) -> Identity:
    """Return who the token belongs to; works with any granted scope. Raises as ``call``."""
    return Identity.parse(rest.data(rest.call("GET", base_url, "/authorization/userinfo", access_token)))


def fetch_account(base_url: str, access_token: str) -> Account:
    """Return the account (``account:read``). Raises as ``call``."""
    return Account.parse(rest.data(rest.call("GET", base_url, "/account", access_token)))


def fetch_user(base_url: str, access_token: str, user_id: str) -> User:
    """Return one person of the account (``users:read``). Raises as ``call``."""
    return User.parse(rest.data(rest.call("GET", base_url, f"/users/{user_id}", access_token)))


def _fields(data: object, *, endpoint: str | None = None) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise errors.UnexpectedResponse("sipgate answered with something that is no JSON object.", endpoint=endpoint)
    return data


def _rows(value: object) -> tuple[Mapping[str, Any], ...]:
    """Return the JSON objects of a list; what is none is left out."""
    return tuple(row for row in value if isinstance(row, Mapping)) if isinstance(value, list) else ()


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text for text in map(_text, value) if text) if isinstance(value, list) else ()


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: object) -> str:
    """Return text; numbers count as text (the specification's examples mix them), anything else is empty."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)
