"""Asks the token endpoint and the endpoints that end a grant, and reads each answer as tokens or as
an error.

RFC 6749 §5 and §6, RFC 7009, and Keycloak's logout.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sipgate_provider import errors
from sipgate_provider.remote import session
from sipgate_provider.remote.line import Line
from sipgate_provider.remote.secret import Secret

LONGEST_TOKEN = 16_384
LONGEST_LIFE = 10 * 365 * 86_400.0
ANSWER_SECONDS = 20.0
"""How long a refresh waits for the answer. Giving up early would turn a slow answer into a lost
one."""
CLIENT_FAULTS = {
    "invalid_client": errors.CLIENT_ID,
    "unauthorized_client": errors.CLIENT_SECRET,
    "unsupported_grant_type": "SIPGATE_TOKEN_URL",
    "invalid_scope": "SIPGATE_SCOPE",
    "invalid_request": "SIPGATE_TOKEN_URL",
}
"""OAuth error codes that concern this site's client, and the Django setting to look at first."""
OF_THE_GRANT = frozenset({"invalid_scope", "invalid_request"})
"""Those of them that concern one grant only if they answer a refresh, which names no scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The site's client at sipgate and where its token endpoint is."""

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str
    logout_url: str | None = None
    revoke_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What the token endpoint gave for a code or a refresh token. What was absent or odd is
    ``None``.

    ``expires_in`` and ``refresh_expires_in`` are seconds from ``issued_at``; Keycloak's
    ``refresh_expires_in: 0`` (``offline_access``) says nothing about the end and is ``None`` here.
    """

    access_token: str = field(repr=False)
    """Empty if a refresh brought none that can be used: the refresh token must not be lost for
    that."""
    refresh_token: str | None = field(repr=False, default=None)
    scope: tuple[str, ...] | None = None
    expires_in: float | None = None
    refresh_expires_in: float | None = None
    id_token: str | None = field(repr=False, default=None)
    issued_at: datetime
    client_id: str = ""
    """Whom they were issued to; empty if that is not known."""

    @classmethod
    def parse(cls, data: object, *, issued_at: datetime, client_id: str = "") -> Tokens:
        """Read an answer.

        Raises:
            errors.UnexpectedResponse: no JSON object, or no token in it.
        """
        answer: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        access, refresh = _token(answer.get("access_token")), _token(answer.get("refresh_token"))
        if not access and not refresh:
            raise errors.UnexpectedResponse(
                "The token endpoint answered without an access token.", endpoint="token"
            )
        return cls(
            access_token=access or Secret(""),
            refresh_token=refresh,
            scope=_scope(answer.get("scope")),
            expires_in=_seconds(answer.get("expires_in")) if access else 0.001,
            refresh_expires_in=_seconds(answer.get("refresh_expires_in")),
            id_token=_token(answer.get("id_token")),
            issued_at=issued_at,
            client_id=client_id,
        )

    def to_text(self) -> Secret:
        """Return everything but the ``id_token`` as text, for sealing."""
        known = {
            name: getattr(self, name)
            for name in ("access_token", "refresh_token", "scope", "expires_in")
        }
        known |= {"refresh_expires_in": self.refresh_expires_in, "client_id": self.client_id}
        return Secret(json.dumps({**known, "issued_at": self.issued_at.isoformat()}))

    @classmethod
    def from_text(cls, text: str) -> Tokens:
        """Return what ``to_text`` wrote.

        Raises:
            ValueError, LookupError, TypeError: it did not write this.
        """
        known = json.loads(text)
        known["issued_at"] = datetime.fromisoformat(known["issued_at"])
        known["access_token"] = Secret(known["access_token"])
        refresh, scope = known["refresh_token"], known["scope"]
        known["refresh_token"] = None if refresh is None else Secret(refresh)
        known["scope"] = None if scope is None else tuple(scope)
        return cls(**known)


def jwt_claims(token: str) -> dict[str, object]:
    """Return a JWT's claims, unverified; ``{}`` for anything else.

    Legitimate for display, and for an id_token that came straight from the token endpoint over TLS
    (OpenID Connect Core §3.1.3.7). They never authenticate anybody.
    """
    parts = token.split(".")
    if len(parts) != 3 or len(token) > LONGEST_TOKEN:
        return {}
    try:
        found = session.json_of(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


Failure = errors.SipgateError | errors.TokenRejected


def refresh(line: Line, client: Client, refresh_token: str) -> Tokens | Failure:
    """Send a refresh token once over a line; return new tokens, or the error that the answer, or
    its lack, means.

    The error is ``errors.TokenRejected`` for ``invalid_grant``, and for ``invalid_scope`` and
    ``invalid_request``, which speak of this one grant here (Keycloak: "Client no longer has
    requested consent from user"); ``errors.Misconfigured`` if sipgate rejects our client or the
    address is wrong; ``errors.RateLimited``, ``errors.SipgateUnavailable`` or
    ``errors.UnexpectedResponse`` otherwise.
    """
    form = {"grant_type": "refresh_token", "refresh_token": Secret(refresh_token)}
    # Measured before it is sent, so that a token is not taken for younger than it is.
    started = datetime.now(UTC)
    try:
        line.send(authenticated(client, form), seconds=ANSWER_SECONDS)
        answer = line.answer()
        return read(answer, issued_at=started, client_id=client.client_id)
    except errors.Misconfigured as error:
        return _rejection(answer, str(error.code)) if error.code in OF_THE_GRANT else error
    except (errors.SipgateError, errors.TokenRejected) as error:
        return error


def exchange_code(
    client: Client, *, code: str, redirect_uri: str, code_verifier: str | None
) -> Tokens:
    """Exchange the code of a callback for the first tokens (RFC 6749 §4.1.3, RFC 7636 §4.5).

    A code is never sent twice: Keycloak ends the session of a code that is.

    Raises:
        errors.TokenRejected: the code is not good (any more).
        errors.Misconfigured: sipgate rejects our client, or the address is wrong.
        errors.SipgateUnavailable, errors.UnexpectedResponse: there are no tokens.
    """
    form = {"grant_type": "authorization_code", "code": Secret(code), "redirect_uri": redirect_uri}
    if code_verifier:
        form["code_verifier"] = Secret(code_verifier)
    started = datetime.now(UTC)
    answer = _post(client, client.token_url, form, endpoint="token")
    tokens = read(answer, issued_at=started, client_id=client.client_id)
    if not tokens.access_token:
        raise errors.UnexpectedResponse(
            "The token endpoint answered without an access token.", endpoint="token"
        )
    return tokens


class EndedBy(StrEnum):
    """How a grant was ended."""

    REVOCATION = "revocation"
    """RFC 7009: of this client alone."""
    LOGOUT = "logout"
    """Keycloak's logout: the user's whole session there, with the grants of other applications."""


def end_grant(client: Client, refresh_token: str) -> EndedBy | None:
    """End the grant of a refresh token by revocation, or by logout if there is no revocation
    endpoint.

    A grant that is over already, or an unknown token, counts as ended.

    Returns how it was ended, or None: neither endpoint exists.

    Raises:
        errors.Misconfigured, errors.SipgateUnavailable, errors.UnexpectedResponse: it is not ended;
            it may be tried again.
    """
    hint: dict[str, str] = {"token": Secret(refresh_token), "token_type_hint": "refresh_token"}
    if client.revoke_url and _is_ended(client, client.revoke_url, hint, "revocation"):
        return EndedBy.REVOCATION
    of_session: dict[str, str] = {"refresh_token": Secret(refresh_token)}
    if client.logout_url and _is_ended(client, client.logout_url, of_session, "logout"):
        return EndedBy.LOGOUT
    return None


NO_ENDPOINT = frozenset({404, 405, 501})
"""How a server answers if it does not have an endpoint."""
NOT_FOR_REFRESH_TOKENS = "unsupported_token_type"
"""RFC 7009 §2.2.1: there is an endpoint, but it does not revoke refresh tokens."""


def _is_ended(client: Client, url: str, form: dict[str, str], endpoint: str) -> bool:
    """Ask one endpoint to end a grant. False: there is none, or not for refresh tokens."""
    answer = _post(client, url, form, endpoint=endpoint)
    if answer.status in {200, 204}:
        return True
    error = error_of(answer, endpoint=endpoint)
    if answer.status in NO_ENDPOINT or getattr(error, "code", None) == NOT_FOR_REFRESH_TOKENS:
        return False
    is_odd = isinstance(error, errors.UnexpectedResponse) and answer.status == 400
    if not is_odd and not isinstance(error, errors.TokenRejected):
        raise error
    return True


def read(answer: session.Answer, *, issued_at: datetime, client_id: str = "") -> Tokens:
    """Return the tokens in an answer of the token endpoint, or raise as ``exchange_code``."""
    if answer.status in {200, 201}:
        return Tokens.parse(_json(answer), issued_at=issued_at, client_id=client_id)
    raise error_of(answer, endpoint="token")


def is_unanswered(error: Failure) -> bool:
    """Tell whether sipgate may have rotated the refresh token although we hold no new one.

    An answer is tokens, an error as in RFC 6749, a 429, or a status that says that the endpoint is
    elsewhere. Anything else (5xx, a page of a proxy, a body that is cut, too large or not
    understood) may hide a rotation: Keycloak can answer 500 after it.
    """
    if isinstance(error, errors.RateLimited):
        return False
    if isinstance(error, errors.SipgateUnavailable):
        return error.sent
    return isinstance(error, errors.UnexpectedResponse)


def authenticated(client: Client, form: Mapping[str, str]) -> dict[str, str]:
    """Return ``form`` with the client's credentials (RFC 6749 §2.3.1, ``client_secret_post``).

    This is the one place that authenticates the client. The credentials go into the form and not
    into a Basic header: the client id contains a colon, which would have to be percent-encoded
    first, and Keycloak compares it raw.
    """
    return {**form, "client_id": client.client_id, "client_secret": Secret(client.client_secret)}


def _post(client: Client, url: str, form: dict[str, str], *, endpoint: str) -> session.Answer:
    return session.send("POST", url, endpoint=endpoint, form=authenticated(client, form))


SETTING_OF = {"logout": "SIPGATE_LOGOUT_URL", "revocation": "SIPGATE_REVOKE_URL"}


def error_of(answer: session.Answer, *, endpoint: str) -> Failure:
    """Return the error for an unsuccessful answer. This is the one place that classifies."""
    status, data = answer.status, _json(answer)
    code = _short(data.get("error"), 80) if isinstance(data, Mapping) else ""
    told: errors.Details = {"endpoint": endpoint, "status": status, "code": code or None}
    if 300 <= status < 400 or status in {404, 405}:
        setting = SETTING_OF.get(endpoint, "SIPGATE_TOKEN_URL")
        text = f"sipgate's {endpoint} endpoint is not at this address (HTTP {status})"
        told["code"] = code or str(status)
        return errors.Misconfigured(f"{text}: correct {setting}.", setting=setting, **told)
    wish = session.retry_after(answer.headers)
    if status == 429:
        return errors.RateLimited("sipgate asks for fewer requests.", retry_after=wish, **told)
    if status in {408, 425} or status >= 500:
        text = f"sipgate's {endpoint} endpoint answered HTTP {status}."
        return errors.SipgateUnavailable(text, retry_after=wish, **told)
    if code == "invalid_grant" and status in {400, 401}:
        return _rejection(answer, code)
    if code in CLIENT_FAULTS and status in {400, 401, 403}:
        setting = CLIENT_FAULTS[code]
        text = f"sipgate rejects this site's client ({code})"
        cure = f"check {setting} against sipgate's console"
        return errors.Misconfigured(f"{text}: {cure}.", setting=setting, **told)
    text = f"sipgate's {endpoint} endpoint answered HTTP {status}, which is not understood."
    return errors.UnexpectedResponse(text, **told)


def _rejection(answer: session.Answer, code: str) -> errors.TokenRejected:
    data = _json(answer)
    description = _short(data.get("error_description"), 300) if isinstance(data, Mapping) else ""
    return errors.TokenRejected(code=code, description=description, status=answer.status)


def _json(answer: session.Answer) -> object:
    try:
        return answer.json()
    except ValueError:
        return None


def _token(value: object) -> Secret | None:
    is_token = (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_TOKEN
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )
    return Secret(value) if is_token else None


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
