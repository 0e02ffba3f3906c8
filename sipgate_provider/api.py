"""sipgate's REST API v2: bytes in, values or errors out.

Decides by status code only; bodies are not uniform. Every field may be missing, null, of another type, or new. Must not
know: Django, allauth, where the access token comes from.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, Protocol

import requests

from . import errors, http, metrics, oauth, records
from .api_scopes import OPERATIONS
from .secret import Secret, bare

logger = logging.getLogger(__name__)

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
    return Identity.parse(data(call("GET", base_url, "/authorization/userinfo", access_token)))


def fetch_account(base_url: str, access_token: str) -> Account:
    """Return the account (``account:read``). Raises as ``call``."""
    return Account.parse(data(call("GET", base_url, "/account", access_token)))


def fetch_user(base_url: str, access_token: str, user_id: str) -> User:
    """Return one person of the account (``users:read``). Raises as ``call``."""
    return User.parse(data(call("GET", base_url, f"/users/{user_id}", access_token)))


def call(
    method: str,
    base_url: str,
    path: str,
    access_token: str,
    *,
    params: Any = None,
    json: Any = None,
    limits: http.Limits = http.API,
    stream: bool = False,
    accept: str | None = None,
) -> requests.Response:
    """Ask once (reads: twice at most) and return a successful answer.

    Args:
        path: below ``base_url``, starting with a slash, without query; never a full address.
        stream: leave the body to the caller, who closes the answer; then only silence ends it (see ``Document``).
        accept: media types that are welcome; JSON by default.

    Raises:
        ValueError: the path is not one.
        errors.SipgateError: as the tree in ``errors`` says, by status.
    """
    check_path(path)
    endpoint = endpoint_of(method, path)
    headers: dict[str, str] = {"Authorization": Secret(f"Bearer {access_token}")}
    if accept is not None:
        headers["Accept"] = accept
    started = time.monotonic()
    try:
        response = http.session().request(
            method.upper(),
            f"{base_url}{path}",
            params=params,
            json=json,
            headers=headers,
            timeout=limits,
            stream=stream,  # type: ignore[arg-type]
        )
    except requests.exceptions.InvalidJSONError:
        raise ValueError("The body of the request is not JSON.") from None
    except http.ResponseTooLarge as error:
        _count(method, path, "too_large", started)
        raise errors.UnexpectedResponse("The answer is too large.", endpoint=endpoint) from bare(error)
    except requests.RequestException as error:
        _count(method, path, "timeout" if http.timed_out(error) else "connection", started)
        raise oauth.unavailable(error, endpoint=endpoint) from bare(error)
    _count(method, path, str(response.status_code), started)
    if not 200 <= response.status_code < 300:
        _raise_for_status(response, endpoint, scopes_for(method, path))
    return response


def _count(method: str, path: str, status: str, started: float) -> None:
    """Count and log a request; ``status`` is the answer's, or what there was instead of one."""
    seconds = time.monotonic() - started
    if metrics.API_REQUESTS.is_on:
        # Not endpoint_of: it keeps the words of unknown paths, of which there is no end.
        template = _template(method.upper(), path)
        endpoint = f"{method.upper()} {template}" if template else metrics.OTHER
        metrics.API_REQUESTS.count(endpoint, status)
        metrics.API_SECONDS.observe(seconds, endpoint)
    if logger.isEnabledFor(logging.DEBUG):
        endpoint, milliseconds = endpoint_of(method, path), round(seconds * 1000)
        logger.debug(
            "%s: %s in %s ms",
            endpoint,
            status,
            milliseconds,
            extra=records.fields(
                endpoint=endpoint,
                duration_ms=milliseconds,
                status=int(status) if status.isdigit() else None,
                code="" if status.isdigit() else status,
            ),
        )


def _raise_for_status(response: requests.Response, endpoint: str, scopes: tuple[str, ...]) -> None:
    status = response.status_code
    response.close()
    where: dict[str, Any] = {"endpoint": endpoint, "status": status}
    text = f"sipgate answered {endpoint} with HTTP {status}."
    if status == 401:
        raise errors.AccessRejected(text, reason="rejected", **where)
    if status == 403:
        raise errors.MissingPermission(text, scopes=scopes, **where)
    if status == 429:
        raise errors.RateLimited(text, retry_after=http.retry_after(response), **where)
    if status == 408 or status >= 500:
        raise errors.SipgateUnavailable(text, retry_after=http.retry_after(response), **where)
    if 300 <= status < 400 or status < 200:
        raise errors.UnexpectedResponse(text, **where)
    kinds = {402: errors.PaymentRequired, 404: errors.NotFound, 409: errors.Conflict}
    raise kinds.get(status, errors.RequestFailed)(text, **where)


class Document:
    """A body that is read piece by piece: a fax, a recording. It may be far larger than memory.

    ``size`` is the number of bytes that sipgate announced (None if it did not), ``received`` what has arrived so far.
    """

    def __init__(self, response: requests.Response, *, endpoint: str, silence: float) -> None:
        self._response = response
        self._endpoint = endpoint
        self._silence = silence
        self.content_type = str(response.headers.get("Content-Type") or "")
        announced = str(response.headers.get("Content-Length") or "")
        plain = not response.headers.get("Content-Encoding")
        self.size = int(announced) if plain and announced.isascii() and announced.isdigit() else None
        self.received = 0

    def __repr__(self) -> str:
        return f"<Document {self._endpoint} {self.content_type} {self.received}/{self.size}>"

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in pieces, once.

        Raises:
            errors.SipgateUnavailable: the connection broke, or nothing came for ``silence`` seconds.
        """
        pieces = self._response.iter_content(http.CHUNK)
        while True:
            http.be_patient(self._silence)
            try:
                piece = next(pieces, None)
            except requests.RequestException as error:
                raise oauth.unavailable(error, endpoint=self._endpoint) from bare(error)
            if piece is None:
                return
            self.received += len(piece)
            yield piece

    def copy_to(self, file: SupportsWrite) -> int:
        """Write the body to a binary file; return the number of bytes. Raises as iteration; a part is written then."""
        for piece in self:
            file.write(piece)
        return self.received


class SupportsWrite(Protocol):
    def write(self, data: bytes, /) -> object: ...


def data(response: requests.Response, *, endpoint: str | None = None) -> Any:
    """Return the JSON of an answer, None for an empty one.

    Raises:
        errors.UnexpectedResponse: it is not JSON.
    """
    if not response.content:
        return None
    try:
        return http.json_of(response.content)
    except ValueError:
        raise errors.UnexpectedResponse(
            "sipgate's answer is not JSON.", endpoint=endpoint, status=response.status_code
        ) from None


def check_path(path: str) -> None:
    """Raise ``ValueError`` unless ``path`` stays below the API's base."""
    segments = path.split("/")
    if (
        not path.startswith("/")
        or "//" in path
        or ".." in segments
        or "." in segments
        or re.search(r"[?#\\\s\x00-\x1f\x7f-\x9f%]", path)
    ):
        raise ValueError(
            "A path below the API base is needed, such as '/numbers', without query and host; pass params instead."
        )


def scopes_for(method: str, path: str) -> tuple[str, ...]:
    """Return the scopes that the specification names for an operation; any one suffices. ``()`` if it is unknown."""
    template = _template(method.upper(), path)
    return OPERATIONS[method.upper(), template] if template else ()


def endpoint_of(method: str, path: str) -> str:
    """Return a name for logs and errors: the template of the path, so that no id of a person gets there.

    Of a path that is not in the specification, plain words stay; whatever else is between slashes becomes ``{id}``.
    """
    template = _template(method.upper(), path) or re.sub(r"/(?![A-Za-z-]{1,30}(?:/|$))[^/]+", "/{id}", path)
    return f"{method.upper()} {template}"


@lru_cache(maxsize=1024)
def _template(method: str, path: str) -> str | None:
    if (method, path) in OPERATIONS:
        return path
    return next((template for pattern, template in _patterns(method) if pattern.fullmatch(path)), None)


@lru_cache(maxsize=16)
def _patterns(method: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    # Templates with fewer variables first: /users/{id} before /{userId}/{thing}.
    templates = sorted(
        (path for verb, path in OPERATIONS if verb == method and "{" in path), key=lambda path: path.count("{")
    )
    return tuple((re.compile(re.sub(r"\\\{[^/]*?\\\}", "[^/]+", re.escape(path))), path) for path in templates)


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
