"""Everything that can go wrong with sipgate, sorted by what the person in front of the page can do.

::

    SipgateError           catch this to mean "some trouble with sipgate"
    ├─ NotConnected        no sipgate connection yet                → connect
    ├─ NeedsSignIn         the connection ended (see ``reason``)    → sign in again, one click
    │  └─ AccessRejected   the API answered 401 for a fresh token   → sign in again
    ├─ MissingPermission   403, or a scope that was not granted     → sign in again, allow that scope
    │  └─ NotAvailable     403 although the scope was granted       → not booked, or wrong request
    ├─ SipgateUnavailable  network, time-out, 5xx                   → try again later
    │  └─ RateLimited      429                                      → try again after ``retry_after``
    ├─ Misconfigured       this site's client or settings           → the operator: see ``setting``
    │  └─ CallerHoldsLock  SQLite: the caller holds the write lock  → leave the transaction
    ├─ UnexpectedResponse  an answer that is not understood         → apologise; see the log
    └─ RequestFailed       sipgate rejected this request            → depends on the request
       ├─ PaymentRequired  402, balance too low
       ├─ NotFound         404
       └─ Conflict         409

    TokenRejected          not a SipgateError: the token endpoint rejected a token or a code; the
                           refresh and the callback deal with it

No message, ``repr`` or argument of these errors holds a body, a header, a query string or a token:
they name the endpoint and the HTTP status. ``detail`` has the beginning of what sipgate answered.

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
"""No look-alikes: a person reads the reference out over the telephone."""


def new_reference() -> str:
    """Return an eight-character reference that joins an error page and a log record."""
    return "".join(secrets.choice(REFERENCE_ALPHABET) for _ in range(8))


class Kind(StrEnum):
    """Kinds of problems that people are told of. ``problems.TEXTS`` has the words for each, and
    metrics count by it."""

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
    """What a log record may have besides its text: no text of sipgate's, no name, no secret."""

    reference: str
    """The eight characters that an error page shows as well."""
    connection: int | None
    """Primary key."""
    number: int | None
    """Of the version of its tokens."""
    outcome: str
    """Of the work, or what is done next; in the words of the metrics if they have one."""
    kind: str
    """Of the problem that a person was shown."""
    actor: str
    """Who wanted it: caller, user, keepalive or other."""
    endpoint: str | None
    status: int | None
    code: str | None
    duration_ms: int


class Details(TypedDict, total=False):
    """What an error can be given besides its message."""

    endpoint: str | None
    status: int | None
    code: str | None
    detail: str


class SipgateError(Exception):
    """Some trouble with sipgate.

    Args:
        message: one English sentence for the log; says what happened and, where there is one, the
            cure.
        endpoint: name of the sipgate endpoint (``"token"``, ``"GET /account"``), never a URL with a
            query.
        status: HTTP status of sipgate's answer, if there was one.
        code: the OAuth ``error`` code or another short machine-readable cause, if there is one.
        detail: the first few hundred characters of sipgate's answer, for the developer. They may
            quote what was sent, so they stay out of ``str``, ``repr``, pages, logs and metrics.

    ``kind`` says what a person is told. ``reference`` is made on first use and stays the same for
    this error. ``connection_id`` is the key of the connection that it is about, where that is
    known.
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
    """The API answered 401. A newer token is tried once; a second 401 reaches the caller."""


class MissingPermission(SipgateError):
    """A scope is missing. Remedy: sign in again and allow it. ``scopes`` names what may help, any
    one suffices."""

    kind = Kind.MISSING_PERMISSION

    def __init__(
        self, message: str, *, scopes: tuple[str, ...] = (), **details: Unpack[Details]
    ) -> None:
        super().__init__(message, **details)
        self.scopes = scopes


class NotAvailable(MissingPermission):
    """403 although the scope was granted: the feature is not booked, or belongs to another product
    line (``code`` is ``classic_required`` if sipgate says so), or the request itself is wrong: an
    id of somebody else, say.
    """

    kind = Kind.NOT_AVAILABLE


class SipgateUnavailable(SipgateError):
    """No usable answer: network, time-out or 5xx. Remedy: try again later.

    ``sent`` tells whether the request may have reached sipgate (then its effect is unknown).
    ``retry_after`` is sipgate's wish in seconds, if it named one.
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
    """This site's client or settings are wrong; no user can help. ``setting`` names the Django
    setting to look at."""

    kind = Kind.MISCONFIGURED

    def __init__(self, message: str, *, setting: str = "", **details: Unpack[Details]) -> None:
        super().__init__(message, **details)
        self.setting = setting


class CallerHoldsLock(Misconfigured):
    """On SQLite the caller's own open transaction holds the only write lock, so new tokens could
    not be stored.

    Raised before sipgate is asked, so nothing is lost. Remedy: call outside ``transaction.atomic``
    (and without ``ATOMIC_REQUESTS``), or use PostgreSQL.
    """


class UnexpectedResponse(SipgateError):
    """An answer that the app does not understand. Look at the log; probably the code has to
    change."""


class RequestFailed(SipgateError):
    """sipgate understood this one request and rejected it (400, 402, 404, 409 …)."""

    kind = Kind.REJECTED


class PaymentRequired(RequestFailed):
    """402: the balance is too low."""


class NotFound(RequestFailed):
    """404: wrong path, or the object is gone."""


class Conflict(RequestFailed):
    """409: there is one already."""


class TokenRejected(Exception):
    """The token endpoint rejected a refresh token or a code (RFC 6749 §5.2).

    ``description`` is sipgate's text; it is shown to operators, escaped, and never matched on.
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
    """Return ``extra`` for a log call: the record's attribute ``sipgate``, a dict of what is known.

    Reference, endpoint, status and code are those of ``error`` unless they are given.
    """
    fields: dict[str, object] = {**known}
    if error is not None:
        of_error = ("reference", "endpoint", "status", "code")
        fields = {**{name: getattr(error, name) for name in of_error}, **fields}
    return {"sipgate": {name: one for name, one in fields.items() if one not in (None, "")}}
