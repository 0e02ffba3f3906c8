"""Asks sipgate, without a user, about this site's client, secret, redirect URI and scopes.

Two questions, which change nothing at sipgate: a sign-in with ``prompt=none``, which comes straight
back; and the exchange of an invented code, which sipgate must reject as *invalid_grant*. If the
client is wrong, the answer says so instead (RFC 6749 §5.2).
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

from sipgate_provider import errors
from sipgate_provider.remote import oauth, session


class Verdict(StrEnum):
    FINE = "fine"
    CLIENT_ID = "client_id"
    CLIENT_SECRET = "client_secret"  # noqa: S105  # the name of a setting
    REDIRECT_URI = "redirect_uri"
    SCOPE = "scope"
    ADDRESS = "address"
    """Something answers there, but not this endpoint."""
    UNAVAILABLE = "unavailable"
    """Nothing answers, or it is out of order."""
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one endpoint said: a verdict, and a short printable text without secrets, or none."""

    verdict: Verdict
    detail: str = ""


NEEDS_PERSON = frozenset(
    {"login_required", "interaction_required", "consent_required", "account_selection_required"}
)
"""Answers to ``prompt=none`` when only the user is missing (OpenID Connect Core §3.1.2.6)."""
PAGES = {
    "client not found": Verdict.CLIENT_ID,
    "invalid parameter: redirect_uri": Verdict.REDIRECT_URI,
}
"""What Keycloak's error pages say. A login page may contain any other word."""
CLIENT_ERRORS = {
    "invalid_client": Verdict.CLIENT_ID,
    "unauthorized_client": Verdict.CLIENT_SECRET,
}
NOT_HERE = frozenset({*range(300, 400), 404, 405})
"""Statuses of an address that is not the token or the authorization endpoint."""
TIMEOUT = (10.0, 10.0)
"""Seconds to connect, and seconds of silence."""
LONGEST_DETAIL = 200


def authorization(url: str, *, client_id: str, redirect_uri: str, scope: str) -> Reply:
    """Ask the authorization endpoint whether this client may begin a sign-in with these scopes."""
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": scope,
        "prompt": "none",
        "state": secrets.token_urlsafe(16),
        "code_challenge": secrets.token_urlsafe(32),
        "code_challenge_method": "S256",
    }
    # In English, because this code reads the page's text, which Keycloak translates.
    headers = {"Accept": "text/html", "Accept-Language": "en"}
    options: dict[str, Any] = {"params": query, "headers": headers, "timeout": TIMEOUT}
    try:
        answer = session.send("GET", url, endpoint="authorization", **options)
    except errors.SipgateUnavailable as error:
        return Reply(verdict=Verdict.UNAVAILABLE, detail=error.message)
    except errors.UnexpectedResponse as error:
        return Reply(verdict=Verdict.ADDRESS, detail=error.message)
    if 300 <= answer.status < 400:
        try:
            target = urljoin(url, answer.headers.get("Location", ""))
        except ValueError:  # such as http://[odd
            return Reply(verdict=Verdict.UNCLEAR, detail="it redirects to no address")
        return _of_redirect(target, redirect_uri)
    return _of_page(answer)


def token(client: oauth.Client) -> Reply:
    """Ask the token endpoint whether the client's id and secret are right."""
    code = "a-code-that-nobody-has-issued"
    try:
        oauth.exchange_code(client, code=code, redirect_uri="http://localhost/", code_verifier=None)
    except errors.TokenRejected:
        return Reply(verdict=Verdict.FINE)
    except errors.SipgateUnavailable as error:
        return Reply(verdict=Verdict.UNAVAILABLE, detail=error.message)
    except errors.SipgateError as error:
        if error.status in NOT_HERE:
            return Reply(verdict=Verdict.ADDRESS, detail=f"HTTP {error.status}")
        verdict = CLIENT_ERRORS.get(str(error.code), Verdict.UNCLEAR)
        return Reply(verdict=verdict, detail=error.code or error.message)
    return Reply(verdict=Verdict.UNCLEAR, detail="it accepted an invented code")


def _of_page(answer: session.Answer) -> Reply:
    page, status = _visible_text(answer.body), f"HTTP {answer.status}"
    if answer.status in NOT_HERE:
        return Reply(verdict=Verdict.ADDRESS, detail=status)
    if answer.status == 429 or answer.status >= 500:
        return Reply(verdict=Verdict.UNAVAILABLE, detail=status)
    if answer.status == 200:
        found = next((verdict for words, verdict in PAGES.items() if words in page.lower()), None)
        return Reply(verdict=found or Verdict.FINE)  # else a login page: the server ignores prompt
    if "redirect_uri" in page:  # the name of the parameter is not translated
        return Reply(verdict=Verdict.REDIRECT_URI)
    if "client" in page.lower():
        return Reply(verdict=Verdict.CLIENT_ID)
    return Reply(verdict=Verdict.UNCLEAR, detail=page or status)


def _of_redirect(target: str, redirect_uri: str) -> Reply:
    if target.partition("?")[0] != redirect_uri.partition("?")[0]:
        return Reply(verdict=Verdict.FINE)  # on to a login page
    query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
    code = query.get("error", "")
    if code in NEEDS_PERSON:
        return Reply(verdict=Verdict.FINE)
    verdict = Verdict.SCOPE if code == "invalid_scope" else Verdict.UNCLEAR
    detail = query.get("error_description") or code
    return Reply(verdict=verdict, detail=session.printable(detail, LONGEST_DETAIL))


def _visible_text(body: bytes) -> str:
    """Return the text of an HTML page as a browser shows it: its links quote the query."""
    page = body[:200_000].decode("utf-8", "replace")
    page = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>", " ", page)
    return session.printable(re.sub(r"(?s)<[^>]*>", " ", page), LONGEST_DETAIL)
