"""Asks sipgate's endpoints, without a user, whether addresses, client, redirect URI and scopes are right.

The questions change nothing at sipgate: a sign-in is begun with ``prompt=none``, so that it comes straight back; a
token that nobody has issued is refreshed and revoked (RFC 6749 §5.2 tells *invalid_grant* from a refused client); the
API is asked without a token; the discovery document is read.

Must not know: Django, allauth, rows, what to advise.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import requests

from sipgate_provider import errors

from . import http, oauth

NOBODYS = "a-refresh-token-that-nobody-has-issued"
MAX_BYTES = 512 * 1024


class Verdict(StrEnum):
    FINE = "fine"
    CLIENT_ID = "client_id"
    CLIENT_SECRET = "client_secret"  # noqa: S105  # the name of a setting
    REDIRECT_URI = "redirect_uri"
    SCOPE = "scope"
    ADDRESS = "address"
    """Something answers there, but not this endpoint."""
    ABSENT = "absent"
    """The server does not have this endpoint, which it need not."""
    REFUSED = "refused"
    """The endpoint refuses for another reason, see ``detail``."""
    UNAVAILABLE = "unavailable"
    BUSY = "busy"
    ODD = "odd"
    DNS = "dns"
    NO_LISTENER = "no_listener"
    TIMEOUT = "timeout"
    CERTIFICATE = "certificate"
    TLS = "tls"
    PROXY = "proxy"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one endpoint said.

    ``detail`` is a short printable text without secrets; ``issuer`` is who answered, if the answer names it (RFC 9207);
    ``seconds`` is how long it took; ``clock_ahead`` is how many seconds sipgate's clock is ahead of ours, None if that
    is not known.
    """

    endpoint: str
    verdict: Verdict
    status: int | None = None
    detail: str = ""
    issuer: str = ""
    seconds: float = 0.0
    clock_ahead: float | None = None


def limits(timeout: float) -> http.Limits:
    """Return limits for one question that may take ``timeout`` seconds in all."""
    return http.Limits(connect=timeout, read=timeout, total=timeout, max_bytes=MAX_BYTES)


def authorization(
    url: str, *, client_id: str, redirect_uri: str, scope: str, timeout: float
) -> Answer:
    """Begin a sign-in for which nobody may be asked anything (``prompt=none``, OpenID Connect Core §3.1.2.1).

    A server that knows client, redirect URI and every scope answers *login_required*; one that does not know ``prompt``
    shows its login page.
    """
    challenge = (
        base64.urlsafe_b64encode(hashlib.sha256(secrets.token_bytes(32)).digest())
        .decode()
        .rstrip("=")
    )
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": scope,
        "prompt": "none",
        "state": secrets.token_urlsafe(16),
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    address = f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"
    # In English, because the text of the page is read; Keycloak translates its pages.
    headers = {"Accept": "text/html", "Accept-Language": "en"}

    named = ""

    def read(response: requests.Response) -> tuple[Verdict, str]:
        nonlocal named
        query = parse_qs(urlsplit(response.headers.get("Location", "")).query)
        named = _plain(query.get("iss", [""])[0])
        return _authorization_verdict(response, url, redirect_uri)

    answer = _ask(
        "authorization",
        lambda: http.send("GET", address, headers=headers, limits=limits(timeout)),
        read,
    )
    return replace(answer, issuer=named)


def token(client: oauth.Client, *, timeout: float) -> Answer:
    """Ask for a refresh that must be refused with ``invalid_grant``: then id and secret are right."""
    form = {"grant_type": "refresh_token", "refresh_token": NOBODYS}
    body = oauth.authenticated(client, form)
    return _ask(
        "token",
        lambda: http.send("POST", client.token_url, data=body, limits=limits(timeout)),
        _token_verdict,
    )


def revocation(client: oauth.Client, url: str, *, timeout: float) -> Answer:
    """Revoke a token that nobody has issued: 200 is right (RFC 7009 §2.2)."""
    body = oauth.authenticated(client, {"token": NOBODYS, "token_type_hint": "refresh_token"})
    return _ask(
        "revocation",
        lambda: http.send("POST", url, data=body, limits=limits(timeout)),
        _revocation_verdict,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What a discovery document says (OpenID Connect Discovery §3, RFC 8414 §2); empty or None where it is silent."""

    issuer: str
    endpoints: dict[str, str]
    """By the names of the document, such as ``token_endpoint``."""
    has_s256: bool | None
    names_issuer: bool | None
    """Whether callbacks carry ``iss``."""


def discovery(issuer: str, *, timeout: float) -> tuple[Answer, Discovery | None]:
    """Read the discovery document of an issuer. None: there is none, or it is no such document."""
    url, found = f"{issuer.rstrip('/')}/.well-known/openid-configuration", None

    def read(response: requests.Response) -> tuple[Verdict, str]:
        nonlocal found
        if response.status_code == 404:
            return Verdict.ABSENT, ""
        if response.status_code != 200:
            return _plain_verdict(response)
        found = _discovery_of(response)
        return (Verdict.FINE, "") if found else (Verdict.ODD, "this is no discovery document")

    return _ask("discovery", lambda: http.send("GET", url, limits=limits(timeout)), read), found


def _discovery_of(response: requests.Response) -> Discovery | None:
    try:
        data = http.json_of(response.content)
    except ValueError:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("issuer"), str):
        return None
    methods = data.get("code_challenge_methods_supported")
    names_issuer = data.get("authorization_response_iss_parameter_supported")
    return Discovery(
        issuer=_plain(data["issuer"]),
        endpoints={
            name: _plain(value, 500)
            for name, value in data.items()
            if isinstance(name, str) and name.endswith("_endpoint") and isinstance(value, str)
        },
        has_s256="S256" in methods if isinstance(methods, list) else None,
        names_issuer=names_issuer if isinstance(names_issuer, bool) else None,
    )


def api(url: str, *, timeout: float) -> Answer:
    """Ask for the account without a token: 401 is right."""
    return _ask(
        "API", lambda: http.send("GET", f"{url}/account", limits=limits(timeout)), _api_verdict
    )


def _ask(
    endpoint: str,
    question: Callable[[], requests.Response],
    read: Callable[[requests.Response], tuple[Verdict, str]],
) -> Answer:
    began, clock = time.monotonic(), time.time()
    try:
        response = question()
    except requests.RequestException as error:
        verdict, detail = _of_failure(error)
        return Answer(
            endpoint=endpoint, verdict=verdict, detail=detail, seconds=time.monotonic() - began
        )
    seconds = time.monotonic() - began
    verdict, detail = read(response)
    return Answer(
        endpoint=endpoint,
        verdict=verdict,
        status=response.status_code,
        detail=detail,
        seconds=seconds,
        clock_ahead=_clock_ahead(response, clock, seconds),
    )


def _of_failure(error: requests.RequestException) -> tuple[Verdict, str]:
    """Return why nothing was answered. The session's errors read ``kind of error: words of the operating system``."""
    kind, _, words = str(error).partition(": ")
    if isinstance(error, requests.exceptions.ProxyError):
        return Verdict.PROXY, words
    if isinstance(error, requests.exceptions.SSLError):
        return (Verdict.CERTIFICATE if kind == "SSLCertVerificationError" else Verdict.TLS), _plain(
            words
        )
    if isinstance(error, requests.Timeout):
        return Verdict.TIMEOUT, ""
    if isinstance(error, http.ResponseTooLarge):
        return Verdict.ODD, "the answer is too large"
    if isinstance(error, requests.exceptions.ConnectionError):
        verdict = {"gaierror": Verdict.DNS, "NameResolutionError": Verdict.DNS}.get(
            kind, Verdict.BROKEN
        )
        return (Verdict.NO_LISTENER if kind == "ConnectionRefusedError" else verdict), _plain(words)
    return Verdict.ADDRESS, "this is no address"


def _authorization_verdict(
    response: requests.Response, url: str, redirect_uri: str
) -> tuple[Verdict, str]:
    status = response.status_code
    if 300 <= status < 400:
        return _of_redirect(urljoin(url, response.headers.get("Location", "")), url, redirect_uri)
    if status in {404, 405}:
        return Verdict.ADDRESS, ""
    if status == 429 or status >= 500:
        return _of_trouble(status)
    text = visible_text(response.text)
    if status == 200:
        # Only these exact words: a login page may contain anything.
        verdict = next(
            (verdict for words, verdict in ERROR_PAGES.items() if words in text.lower()),
            Verdict.FINE,
        )
        return verdict, ""
    if "redirect_uri" in text.lower():  # the name of the parameter is not translated
        return Verdict.REDIRECT_URI, ""
    if "client" in text.lower():
        return Verdict.CLIENT_ID, ""
    return Verdict.REFUSED, text[:120]


ERROR_PAGES = {
    "client not found": Verdict.CLIENT_ID,
    "invalid parameter: redirect_uri": Verdict.REDIRECT_URI,
}


NEEDS_PERSON = frozenset(
    {"login_required", "interaction_required", "consent_required", "account_selection_required"}
)
"""What ``prompt=none`` is answered with when everything but the person is there."""


def _of_redirect(target: str, url: str, redirect_uri: str) -> tuple[Verdict, str]:
    if target.partition("?")[0] == redirect_uri.partition("?")[0]:
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        code, description = query.get("error", ""), _plain(query.get("error_description", ""))
        if code in NEEDS_PERSON:
            return Verdict.FINE, ""
        verdict = {
            "invalid_scope": Verdict.SCOPE,
            "server_error": Verdict.UNAVAILABLE,
            "temporarily_unavailable": Verdict.UNAVAILABLE,
        }.get(code, Verdict.REFUSED)
        shown = _plain(code) or "it leads straight back, without an error"
        return verdict, f"{shown}: {description}" if description else shown
    before, after = urlsplit(url), urlsplit(target)
    if after.path.rpartition("/")[2] == before.path.rpartition("/")[2] and (
        after.netloc,
        after.path,
    ) != (
        before.netloc,
        before.path,
    ):
        return Verdict.ADDRESS, f"it has moved to {address_of(target)}"
    return Verdict.FINE, ""  # on to a login page


def _token_verdict(response: requests.Response) -> tuple[Verdict, str]:
    try:
        oauth.read_token_answer(response, issued_at=datetime.now(UTC))
    except errors.TokenRefused:
        return Verdict.FINE, ""
    except errors.Misconfigured as error:
        code = error.code or ""
        if error.setting == "SIPGATE_TOKEN_URL" and not 400 <= (error.status or 0) < 404:
            moved = response.headers.get("Location", "")
            return (
                Verdict.ADDRESS,
                f"it leads to {address_of(urljoin(response.url, moved))}" if moved else "",
            )
        known = {errors.CLIENT_ID: Verdict.CLIENT_ID, errors.CLIENT_SECRET: Verdict.CLIENT_SECRET}
        return known.get(error.setting, Verdict.REFUSED), code
    except errors.RateLimited:
        return Verdict.BUSY, ""
    except errors.SipgateUnavailable as error:
        return Verdict.UNAVAILABLE, error.code or ""
    except errors.UnexpectedResponse as error:
        return Verdict.ODD, error.code or "the answer is not that of a token endpoint"
    return Verdict.ODD, "it issued tokens for a refresh token that nobody has issued"


def _revocation_verdict(response: requests.Response) -> tuple[Verdict, str]:
    if response.status_code in {200, 204}:
        return Verdict.FINE, ""
    if response.status_code in oauth.NO_ENDPOINT:
        return Verdict.ABSENT, ""
    verdict, detail = _token_verdict(response)
    if (
        response.status_code == 400 and verdict is Verdict.ODD
    ):  # it does not know the token, which is true
        return (Verdict.ABSENT if detail == oauth.NOT_FOR_REFRESH_TOKENS else Verdict.FINE), ""
    return verdict, detail


def _api_verdict(response: requests.Response) -> tuple[Verdict, str]:
    if response.status_code == 401:
        return Verdict.FINE, ""
    verdict, detail = _plain_verdict(response)
    return verdict, "without a token, 401 was expected" if verdict is Verdict.ODD else detail


def _plain_verdict(response: requests.Response) -> tuple[Verdict, str]:
    """Judge an unexpected answer by its status alone."""
    status = response.status_code
    if status == 429 or status >= 500:
        return _of_trouble(status)
    if 300 <= status < 400:
        moved = response.headers.get("Location", "")
        return (
            Verdict.ADDRESS,
            f"it leads to {address_of(urljoin(response.url, moved))}" if moved else "",
        )
    if status in {404, 405}:
        return Verdict.ADDRESS, ""
    return Verdict.ODD, ""


def _of_trouble(status: int) -> tuple[Verdict, str]:
    return (Verdict.BUSY, "") if status == 429 else (Verdict.UNAVAILABLE, "")


def _clock_ahead(response: requests.Response, asked_at: float, seconds: float) -> float | None:
    """Return by how many seconds the answer's Date is ahead; 0 if that is within its precision."""
    if "Age" in response.headers:  # from a cache: its date is old
        return None
    try:
        date = parsedate_to_datetime(response.headers.get("Date", ""))
        ahead = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - (
            asked_at + seconds / 2
        )
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return 0.0 if abs(ahead) <= 1 + seconds / 2 else ahead


def visible_text(page: str) -> str:
    """Return the text of an HTML page without what a browser does not show, such as links, which quote the query."""
    page = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>", " ", page[:200_000])
    return _plain(re.sub(r"(?s)<[^>]*>", " ", page), 2_000)


def address_of(url: str) -> str:
    """Return scheme, host and path of an address: never its query, never a user name."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:200]


def _plain(text: str, size: int = 200) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:size]
