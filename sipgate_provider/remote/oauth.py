"""Asks the token endpoint and the endpoints that end a grant, and classifies each answer as a grant or an error.

RFC 6749 §5 and §6, RFC 7009, and Keycloak's logout. Must not know: Django, allauth, rows.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeGuard

import requests

from sipgate_provider import errors

from . import http
from .secret import Secret, without_frames

LONGEST_TOKEN = 16_384
LONGEST_LIFE = 10 * 365 * 86_400.0
OUR_FAULT = {
    "invalid_client": errors.CLIENT_ID,
    "unauthorized_client": errors.CLIENT_SECRET,
    "unsupported_grant_type": "SIPGATE_TOKEN_URL",
    "invalid_scope": "SIPGATE_SCOPE",
    "invalid_request": "SIPGATE_TOKEN_URL",
}
"""OAuth error codes that concern this site's client, and the Django setting to look at first."""
UNUSABLE = "unusable"
"""Stands in for an access token that is missing or unusable."""
OF_THE_GRANT = frozenset({"invalid_scope", "invalid_request"})
"""Those of them that concern one grant only if they answer a refresh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The site's client at sipgate and where its token endpoint is."""

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str
    logout_url: str | None = None
    revoke_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One answer of the token endpoint. Only ``access_token`` is certain; the rest is ``None`` where absent or odd.

    ``expires_in`` and ``refresh_expires_in`` are seconds from ``issued_at``; Keycloak's ``refresh_expires_in: 0``
    (``offline_access``) says nothing about the end and is ``None`` here.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False, default=None)
    token_type: str = "Bearer"  # noqa: S105  # the name of a kind
    scope: tuple[str, ...] | None = None
    expires_in: float | None = None
    refresh_expires_in: float | None = None
    id_token: str | None = field(repr=False, default=None)
    issued_at: datetime
    client_id: str = ""
    """Whom it was issued to; empty if that is not known."""

    @classmethod
    def parse(cls, data: object, *, issued_at: datetime, client_id: str = "") -> Grant:
        """Read an answer. Only the access token is required, because a new pair must never be thrown away over an
        unimportant field.

        Raises:
            errors.UnexpectedResponse: no JSON object, or no access token in it.
        """
        if not isinstance(data, Mapping) or not _is_token(data.get("access_token")):
            raise errors.UnexpectedResponse(
                "The token endpoint answered without an access token.", endpoint="token"
            )
        kind = data.get("token_type")
        return cls(
            access_token=Secret(data["access_token"]),
            refresh_token=_token_or_none(data.get("refresh_token")),
            token_type=kind if isinstance(kind, str) and kind else "Bearer",
            scope=_scope(data.get("scope")),
            expires_in=_seconds(data.get("expires_in")),
            refresh_expires_in=_seconds(data.get("refresh_expires_in")),
            id_token=_token_or_none(data.get("id_token")),
            issued_at=issued_at,
            client_id=client_id,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able form, secrets included: for sealing only."""
        names = (
            "access_token",
            "refresh_token",
            "token_type",
            "expires_in",
            "refresh_expires_in",
            "id_token",
            "client_id",
        )
        scope = None if self.scope is None else list(self.scope)
        return {
            **{name: getattr(self, name) for name in names},
            "scope": scope,
            "issued_at": self.issued_at.isoformat(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Grant:
        values = dict(data)
        values["issued_at"] = datetime.fromisoformat(values["issued_at"])
        for name in ("access_token", "refresh_token", "id_token"):
            values[name] = None if values.get(name) is None else Secret(values[name])
        values["scope"] = None if values.get("scope") is None else tuple(values["scope"])
        return cls(**values)


def jwt_claims(token: str) -> dict[str, object]:
    """Return a JWT's claims, unverified; ``{}`` for anything else.

    Legitimate for display, and for an id_token that came straight from the token endpoint over TLS (OpenID Connect
    Core §3.1.3.7). They never authenticate anybody.
    """
    parts = token.split(".")
    if len(parts) != 3 or len(token) > LONGEST_TOKEN:
        return {}
    try:
        found = http.json_of(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def refresh(client: Client, refresh_token: str, *, limits: http.Limits = http.TOKEN) -> Grant:
    """Ask once for a new pair (RFC 6749 §6).

    Raises:
        errors.TokenRefused: ``invalid_grant``; and ``invalid_scope`` and ``invalid_request``, which speak of this one
            grant here, since a refresh names no scope (Keycloak: "Client no longer has requested consent from user").
        errors.Misconfigured: sipgate refuses our client, or the address is wrong.
        errors.SipgateUnavailable, errors.RateLimited: no answer, 408, 425, 429 or 5xx.
        errors.UnexpectedResponse: anything else.
        Exception: whatever ``limits.before_sending`` raises; nothing was sent then.
    """
    form = {"grant_type": "refresh_token", "refresh_token": Secret(refresh_token)}
    # Measured before it is sent, so that a token is not taken for younger than it is.
    started = datetime.now(UTC)
    response = _post(client, client.token_url, form, limits, headers={"Connection": "close"})
    try:
        return read_token_answer(response, issued_at=started, client=client)
    except errors.UnexpectedResponse:
        if response.status_code != 200 or not _has_refresh_token(data := _json(response)):
            raise
        # The old refresh token is spent: the new one is kept, and gets another access token at the next use.
        data = {**data, "access_token": UNUSABLE, "expires_in": 0.001}
        return Grant.parse(data, issued_at=started, client_id=client.client_id)
    except errors.Misconfigured as error:
        if error.code in OF_THE_GRANT:
            raise _refusal(response, error.code) from None
        raise


def exchange_code(
    client: Client, *, code: str, redirect_uri: str, code_verifier: str | None
) -> Grant:
    """Exchange the code of a callback for the first pair (RFC 6749 §4.1.3, RFC 7636 §4.5).

    Raises as ``refresh``. A code is never sent twice: Keycloak ends the session of a code that is.
    """
    form = {"grant_type": "authorization_code", "code": Secret(code), "redirect_uri": redirect_uri}
    if code_verifier:
        form["code_verifier"] = Secret(code_verifier)
    started = datetime.now(UTC)
    return read_token_answer(
        _post(client, client.token_url, form, http.TOKEN), issued_at=started, client=client
    )


class EndedBy(StrEnum):
    """How a grant was ended."""

    REVOCATION = "revocation"
    """RFC 7009: of this client alone."""
    LOGOUT = "logout"
    """Keycloak's logout: the person's whole session there, with the grants of other applications."""


def end_grant(client: Client, refresh_token: str) -> EndedBy | None:
    """End the grant of a refresh token, by revocation; by logout only where there is no revocation endpoint.

    A grant that is over already, or a token that nobody knows, counts as ended.

    Returns how it was ended, or None: neither endpoint exists.

    Raises:
        errors.Misconfigured, errors.SipgateUnavailable, errors.RateLimited, errors.UnexpectedResponse: not ended; it
            may be tried again.
    """
    hint: dict[str, str] = {"token": Secret(refresh_token), "token_type_hint": "refresh_token"}
    if client.revoke_url and _is_ended(client, client.revoke_url, hint, "revocation"):
        return EndedBy.REVOCATION
    session: dict[str, str] = {"refresh_token": Secret(refresh_token)}
    if client.logout_url and _is_ended(client, client.logout_url, session, "logout"):
        return EndedBy.LOGOUT
    return None


NO_ENDPOINT = frozenset({404, 405, 501})
"""How a server answers if it does not have an endpoint."""
NOT_FOR_REFRESH_TOKENS = "unsupported_token_type"
"""RFC 7009 §2.2.1: there is an endpoint, but it does not revoke refresh tokens."""


def _is_ended(client: Client, url: str, form: dict[str, str], endpoint: str) -> bool:
    """Ask one endpoint to end a grant. False: there is none, or not for refresh tokens."""
    response = _post(client, url, form, http.API, endpoint=endpoint)
    if response.status_code in {200, 204}:
        return True
    error = _error_of(response, endpoint=endpoint)
    if (
        response.status_code in NO_ENDPOINT
        or getattr(error, "code", None) == NOT_FOR_REFRESH_TOKENS
    ):
        return False
    is_over = isinstance(error, errors.TokenRefused) or (
        isinstance(error, errors.UnexpectedResponse) and response.status_code == 400
    )
    if not is_over:
        raise error
    return True


def read_token_answer(
    response: requests.Response, *, issued_at: datetime, client: Client | None = None
) -> Grant:
    """Return the grant in an answer of the token endpoint, for codes and refreshes alike. Raises as ``refresh``."""
    if response.status_code in {200, 201}:
        client_id = client.client_id if client else ""
        return Grant.parse(_json(response), issued_at=issued_at, client_id=client_id)
    raise _error_of(response, endpoint="token")


def is_unanswered(error: errors.SipgateError) -> bool:
    """Tell whether sipgate may have rotated the pair although we hold no new one.

    An answer is a grant, an error as in RFC 6749, a 429, or a status that says that the endpoint is elsewhere. Anything
    else (5xx, a page of a proxy, a body that is cut, too large or not understood) may hide a rotation: Keycloak can
    answer 500 after it.
    """
    if isinstance(error, errors.RateLimited | errors.Misconfigured):
        return False
    if isinstance(error, errors.SipgateUnavailable):
        return error.sent
    return isinstance(error, errors.UnexpectedResponse)


def authenticated(client: Client, form: Mapping[str, str]) -> dict[str, str]:
    """Return ``form`` with the client's credentials (RFC 6749 §2.3.1, ``client_secret_post``).

    This is the one place that authenticates the client. The credentials go into the form and not into a Basic header:
    the client id contains a colon, which would have to be percent-encoded first, and Keycloak compares it raw.
    """
    return {**form, "client_id": client.client_id, "client_secret": Secret(client.client_secret)}


def _post(
    client: Client,
    url: str,
    form: dict[str, str],
    limits: http.Limits,
    *,
    endpoint: str = "token",
    headers: dict[str, str] | None = None,
) -> requests.Response:
    try:
        return http.send(
            "POST", url, data=authenticated(client, form), limits=limits, headers=headers
        )
    except http.ResponseTooLarge as error:
        raise errors.UnexpectedResponse(
            "The answer is too large.", endpoint=endpoint
        ) from without_frames(error)
    except requests.RequestException as error:
        raise unavailable(error, endpoint=endpoint) from without_frames(error)


def unavailable(error: requests.RequestException, *, endpoint: str) -> errors.SipgateUnavailable:
    """Return the app's error for a failed request."""
    slow = http.timed_out(error)
    text = f"sipgate's {endpoint} endpoint {'did not answer in time' if slow else 'cannot be reached'}."
    return errors.SipgateUnavailable(
        text, sent=http.was_sent(error), endpoint=endpoint, code="timeout" if slow else "connection"
    )


def _error_of(
    response: requests.Response, *, endpoint: str
) -> errors.SipgateError | errors.TokenRefused:
    """Return the error for an unsuccessful answer. This is the one place that classifies."""
    status = response.status_code
    data = _json(response)
    answer = data if isinstance(data, Mapping) else {}
    code = _short(answer.get("error"), 80)
    if 300 <= status < 400 or status in {404, 405}:
        setting = {"logout": "SIPGATE_LOGOUT_URL", "revocation": "SIPGATE_REVOKE_URL"}.get(
            endpoint, "SIPGATE_TOKEN_URL"
        )
        return errors.Misconfigured(
            f"sipgate's {endpoint} endpoint is not at this address (HTTP {status}): correct {setting}.",
            setting=setting,
            endpoint=endpoint,
            status=status,
            code=code or str(status),
        )
    if status == 429:
        return errors.RateLimited(
            "sipgate asks for fewer requests.",
            retry_after=http.retry_after(response),
            endpoint=endpoint,
            status=status,
        )
    if status in {408, 425} or status >= 500:
        return errors.SipgateUnavailable(
            f"sipgate's {endpoint} endpoint answered HTTP {status}.",
            retry_after=http.retry_after(response),
            endpoint=endpoint,
            status=status,
            code=code or None,
        )
    if code == "invalid_grant" and status in {400, 401}:
        return _refusal(response, code)
    if code in OUR_FAULT and status in {400, 401, 403}:
        return errors.Misconfigured(
            f"sipgate refuses this site's client ({code}): check {OUR_FAULT[code]} against sipgate's console.",
            setting=OUR_FAULT[code],
            endpoint=endpoint,
            status=status,
            code=code,
        )
    return errors.UnexpectedResponse(
        f"sipgate's {endpoint} endpoint answered HTTP {status}, which is not understood.",
        endpoint=endpoint,
        status=status,
        code=code or None,
    )


def _refusal(response: requests.Response, code: str) -> errors.TokenRefused:
    data = _json(response)
    description = _short(data.get("error_description"), 300) if isinstance(data, Mapping) else ""
    return errors.TokenRefused(code=code, description=description, status=response.status_code)


def _json(response: requests.Response) -> object:
    try:
        return http.json_of(response.content)
    except ValueError:
        return None


def _is_token(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_TOKEN
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


def _has_refresh_token(data: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(data, Mapping) and _is_token(data.get("refresh_token"))


def _token_or_none(value: object) -> str | None:
    return Secret(value) if _is_token(value) else None


def _scope(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    return None


def _seconds(value: object) -> float | None:
    """Return a positive, finite number of seconds; numeric text counts; anything else is None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return min(number, LONGEST_LIFE) if math.isfinite(number) and number > 0 else None


def _short(value: object, size: int) -> str:
    return "".join(c for c in value if c.isprintable())[:size] if isinstance(value, str) else ""
