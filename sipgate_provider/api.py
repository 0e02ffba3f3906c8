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
from functools import lru_cache
from typing import Any

import requests

from . import errors, http, oauth
from .api_scopes import OPERATIONS
from .secret import Secret, bare

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
    timezone: str = ""
    admin: bool | None = None

    @classmethod
    def parse(cls, data: object) -> User:
        fields = _fields(data)
        admin = fields.get("admin")
        return cls(
            id=_text(fields.get("id")), firstname=_text(fields.get("firstname")), lastname=_text(fields.get("lastname")),
            email=_text(fields.get("email")), default_device=_text(fields.get("defaultDevice")),
            timezone=_text(fields.get("timezone")), admin=admin if isinstance(admin, bool) else None,
        )  # fmt: skip


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

    @classmethod
    def parse(cls, data: object) -> Number:
        fields = _fields(data)
        return cls(
            id=_text(fields.get("id")), number=_text(fields.get("number")), localized=_text(fields.get("localized")),
            type=_text(fields.get("type")), endpoint_id=_text(fields.get("endpointId")),
            endpoint_alias=_text(fields.get("endpointAlias")),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A telephone. ``secrets`` holds what sipgate sends of SIP credentials and PUKs; it stays out of ``repr``."""

    id: str = ""
    alias: str = ""
    type: str = ""
    online: bool | None = None
    dnd: bool | None = None
    secrets: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, data: object) -> Device:
        fields = _fields(data)
        online, dnd = fields.get("online"), fields.get("dnd")
        kept = ("credentials", "sipCredentials", "puk", "puk1", "puk2", "esimData", "simState")
        return cls(
            id=_text(fields.get("id")), alias=_text(fields.get("alias")), type=_text(fields.get("type")),
            online=online if isinstance(online, bool) else None, dnd=dnd if isinstance(dnd, bool) else None,
            secrets={key: fields[key] for key in kept if key in fields},
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """A call, fax, SMS or voicemail (``GET /history``). ``raw`` has everything sipgate sent, out of ``repr``."""

    id: str = ""
    type: str = ""
    direction: str = ""
    source: str = ""
    target: str = ""
    status: str = ""
    created: str = ""
    incoming: bool | None = None
    read: bool | None = None
    note: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, data: object) -> HistoryEntry:
        fields = _fields(data)
        incoming, read = fields.get("incoming"), fields.get("read")
        texts = {
            name: _text(fields.get(name))
            for name in ("id", "type", "direction", "source", "target", "status", "created", "note")
        }
        return cls(
            **texts, incoming=incoming if isinstance(incoming, bool) else None, read=read if isinstance(read, bool) else None,
            raw=dict(fields),
        )  # fmt: skip


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
) -> requests.Response:
    """Ask once (reads: twice at most) and return a successful answer.

    Args:
        path: below ``base_url``, starting with a slash, without query; never a full address.

    Raises:
        ValueError: the path is not one.
        errors.SipgateError: as the tree in ``errors`` says, by status.
    """
    check_path(path)
    endpoint = endpoint_of(method, path)
    headers = {"Authorization": Secret(f"Bearer {access_token}")}
    try:
        response = http.session().request(
            method.upper(), f"{base_url}{path}", params=params, json=json, headers=headers, timeout=limits, stream=stream,  # type: ignore[arg-type]
        )  # fmt: skip
    except requests.exceptions.InvalidJSONError:
        raise ValueError("The body of the request is not JSON.") from None
    except http.ResponseTooLarge as error:
        raise errors.UnexpectedResponse("The answer is too large.", endpoint=endpoint) from bare(error)
    except requests.RequestException as error:
        raise oauth.unavailable(error, endpoint=endpoint) from bare(error)
    if not 200 <= response.status_code < 300:
        _raise_for_status(response, endpoint, scopes_for(method, path))
    return response


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


def data(response: requests.Response) -> Any:
    """Return the JSON of an answer, None for an empty one.

    Raises:
        errors.UnexpectedResponse: it is not JSON.
    """
    if not response.content:
        return None
    try:
        return http.json_of(response.content)
    except ValueError:
        raise errors.UnexpectedResponse("sipgate's answer is not JSON.", status=response.status_code) from None


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


def _text(value: object) -> str:
    """Return text; numbers count as text (the specification's examples mix them), anything else is empty."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)
