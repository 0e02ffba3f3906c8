"""Everything that can go wrong with sipgate, sorted by what the user can do about it.

::

    SipgateError           any trouble with sipgate
    ├─ NotConnected        no sipgate connection yet                → connect
    ├─ NeedsSignIn         the connection ended (see ``reason``)    → sign in again, one click
    │  └─ AccessRejected   the API answered 401 for a fresh token   → sign in again
    ├─ MissingPermission   403, or a scope that was not granted     → sign in again and allow it
    │  └─ NotAvailable     403 although the scope was granted       → not booked, or wrong request
    ├─ SipgateUnavailable  network, time-out, 5xx                   → try again later
    │  └─ RateLimited      429                                      → wait ``retry_after`` seconds
    ├─ Misconfigured       this site's client or settings           → the operator: see ``setting``
    │  └─ CallerHoldsLock  SQLite: the caller holds the write lock  → leave the transaction
    ├─ UnexpectedResponse  an answer the app does not understand    → apologise; see the log
    └─ RequestFailed       sipgate rejected this request            → depends on the request
       ├─ PaymentRequired  402, balance too low
       ├─ NotFound         404
       └─ Conflict         409

    TokenRejected          not a SipgateError: the token endpoint rejected a token or a code; the
                           refresh and the callback handle it

No message, ``repr`` or argument of these errors holds a body, a header, a query string or a token:
they name the endpoint and the HTTP status. ``detail`` holds the beginning of sipgate's answer.

Must not know: Django, allauth, HTTP libraries.
"""

from __future__ import annotations

import secrets
from enum import StrEnum
from functools import cached_property
from typing import TypedDict, Unpack

CLIENT_ID = "client_id in SOCIALACCOUNT_PROVIDERS"
CLIENT_SECRET = "secret in SOCIALACCOUNT_PROVIDERS"  # noqa: S105  # the name of a setting
"""Where a Django project keeps its client at sipgate. Errors name Django settings, not environment
variables."""

REFERENCE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""No look-alikes: users read the reference out over the telephone."""


def new_reference() -> str:
    """Return an eight-character reference, which an error page and a log record share."""
    return "".join(secrets.choice(REFERENCE_ALPHABET) for _ in range(8))


class Kind(StrEnum):
    """Kinds of problems shown to users. ``problems.TEXTS`` has the words for each, and a metric
    counts them."""

    NOT_CONNECTED = "not_connected"
    NEEDS_SIGN_IN = "needs_sign_in"
    NOT_AVAILABLE = "not_available"
    MISSING_PERMISSION = "missing_permission"
    UNAVAILABLE = "unavailable"
    MISCONFIGURED = "misconfigured"
    REJECTED = "rejected"
    UNEXPECTED = "unexpected"
    NOT_SIGNED_IN = "not_signed_in"
    # Only at the end of a sign-in:
    EXPIRED = "expired"
    DENIED = "denied"
    STATE = "state"
    BUSY = "busy"


class LogFields(TypedDict, total=False):
    """What a log record may have besides its message: no text of sipgate's, no name, no secret."""

    reference: str
    """As on the error page."""
    connection: int | None
    """Primary key."""
    number: int | None
    """Number of the version of its tokens."""
    outcome: str
    """How the work ended, or what happens next; the label of the metric if there is one."""
    kind: str
    """The ``Kind`` of the problem that a user was shown."""
    actor: str
    """Who asked for it: caller, user, keepalive or other."""
    endpoint: str | None
    status: int | None
    code: str | None
    duration_ms: int


class Details(TypedDict, total=False):
    """What an error takes besides its message."""

    endpoint: str | None
    status: int | None
    code: str | None
    detail: str


class SipgateError(Exception):
    """Any trouble with sipgate.

    Args:
        message: one English sentence for the log: what happened and, if there is one, the cure.
        endpoint: name of the sipgate endpoint (``"token"``, ``"GET /account"``), never a URL with a
            query.
        status: HTTP status of sipgate's answer, if there was one.
        code: the OAuth ``error`` code or another short machine-readable cause, if there is one.
        detail: the first few hundred characters of sipgate's answer, for the developer. They may
            quote what was sent, so they stay out of ``str``, ``repr``, pages, logs and metrics.

    ``kind`` decides what users are told. ``reference`` is made on first use and then stays the
    same. ``connection_id`` is the primary key of the connection concerned, if it is known.
    """

    kind = Kind.UNEXPECTED
    connection_id: int | None = None

    def __init__(
        self,
        message: str,
        *,
        endpoint: str | None = None,
        status: int | None = None,
        code: str | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.endpoint = endpoint
        self.status = status
        self.code = code
        self.detail = detail

    @cached_property
    def reference(self) -> str:
        return new_reference()


class NotConnected(SipgateError):
    """This user has no sipgate connection. Remedy: connect one."""

    kind = Kind.NOT_CONNECTED


class NeedsSignIn(SipgateError):
    """The connection ended. Remedy: sign in at sipgate again; the same connection then works again.

    ``reason`` is one of ``models.Reason``'s values (``"rejected"``, ``"lost_rotation"`` …).
    """

    kind = Kind.NEEDS_SIGN_IN

    def __init__(self, message: str, *, reason: str = "", **details: Unpack[Details]) -> None:
        super().__init__(message, **details)
        self.reason = reason


class AccessRejected(NeedsSignIn):
    """The API answered 401. The client tries once more after a refresh; a second 401 reaches the
    caller."""


class MissingPermission(SipgateError):
    """A scope is missing. Remedy: sign in again and allow it. Any one of ``scopes`` suffices."""

    kind = Kind.MISSING_PERMISSION

    def __init__(
        self, message: str, *, scopes: tuple[str, ...] = (), **details: Unpack[Details]
    ) -> None:
        super().__init__(message, **details)
        self.scopes = scopes


class NotAvailable(MissingPermission):
    """403 although the scope was granted: the feature is not booked, or belongs to another product
    line (``code`` is ``classic_required`` if sipgate says so), or the request itself is wrong, for
    example with somebody else's id.
    """

    kind = Kind.NOT_AVAILABLE


class SipgateUnavailable(SipgateError):
    """No usable answer: network, time-out or 5xx. Remedy: try again later.

    ``sent`` tells whether the request may have reached sipgate; its effect is then unknown.
    ``retry_after`` is how many seconds sipgate asks to wait, if it says so.
    """

    kind = Kind.UNAVAILABLE

    def __init__(
        self,
        message: str,
        *,
        sent: bool = True,
        retry_after: float | None = None,
        **details: Unpack[Details],
    ) -> None:
        super().__init__(message, **details)
        self.sent = sent
        self.retry_after = retry_after


class RateLimited(SipgateUnavailable):
    """429. Remedy: wait ``retry_after`` seconds."""


class Misconfigured(SipgateError):
    """This site's client or settings are wrong, which no user can correct. ``setting`` names the
    Django setting to look at."""

    kind = Kind.MISCONFIGURED

    def __init__(self, message: str, *, setting: str = "", **details: Unpack[Details]) -> None:
        super().__init__(message, **details)
        self.setting = setting


class CallerHoldsLock(Misconfigured):
    """On SQLite, the caller's own open transaction holds the only write lock, so the app could not
    store new tokens.

    Raised before anything is sent, so nothing is lost. Remedy: call outside ``transaction.atomic``
    (and without ``ATOMIC_REQUESTS``), or use PostgreSQL.
    """


class UnexpectedResponse(SipgateError):
    """The app does not understand the answer. See the log; probably the code has to change."""


class RequestFailed(SipgateError):
    """sipgate understood this one request and rejected it (400, 402, 404, 409 …)."""

    kind = Kind.REJECTED


class PaymentRequired(RequestFailed):
    """402: the balance is too low."""


class NotFound(RequestFailed):
    """404: the path is wrong, or the object is gone."""


class Conflict(RequestFailed):
    """409: the object exists already."""


class TokenRejected(Exception):
    """The token endpoint rejected a refresh token or a code (RFC 6749 §5.2).

    ``description`` is sipgate's text. Pages show it, escaped; no code depends on it.
    """

    kind = Kind.EXPIRED

    def __init__(self, *, code: str, description: str = "", status: int | None = None) -> None:
        super().__init__(f"The token endpoint rejected what it was sent ({code}).")
        self.code = code
        self.description = description
        self.status = status


def log_fields(
    error: SipgateError | None = None, **known: Unpack[LogFields]
) -> dict[str, dict[str, object]]:
    """Return ``extra`` for a log call, which gives the record an attribute ``sipgate``: a dict.

    Reference, endpoint, status and code are those of ``error`` unless they are given.
    """
    fields: dict[str, object] = {**known}
    if error is not None:
        of_error = ("reference", "endpoint", "status", "code")
        fields = {**{name: getattr(error, name) for name in of_error}, **fields}
    return {"sipgate": {name: one for name, one in fields.items() if one not in (None, "")}}
