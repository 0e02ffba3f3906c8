"""The endpoints that clients call directly: tokens, introspection, revocation and logout."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from functools import wraps
from urllib.parse import unquote

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from . import counters, realm, tokens
from .models import Consent, Credential
from .realm import Client

INVALID_CLIENT = "Invalid client or Invalid client credentials"


class Rejected(Exception):
    """Makes ``for_clients`` answer with an error as RFC 6749 §5.2 describes it."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(error)
        data = {"error": error, "error_description": description}
        self.answer = JsonResponse(data, status=status)


def for_clients(
    view: Callable[[HttpRequest, Client], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Authenticate the client of a POST for ``view``, and answer if it raises ``Rejected``."""

    @require_POST
    @wraps(view)
    def handle(request: HttpRequest) -> HttpResponse:
        try:
            return view(request, _authenticated_client(request))
        except Rejected as rejected:
            return rejected.answer

    return handle


def _authenticated_client(request: HttpRequest) -> Client:
    client_id, secret = request.POST.get("client_id", ""), request.POST.get("client_secret", "")
    if not client_id:
        client_id, secret = _basic(request.headers.get("Authorization", ""))
    client = realm.current.client(client_id)
    if client is None:
        raise Rejected("invalid_client", INVALID_CLIENT, status=401)
    if client.secret != secret:
        raise Rejected("unauthorized_client", INVALID_CLIENT, status=401)
    return client


def _basic(header: str) -> tuple[str, str]:
    """Return the id and secret of HTTP Basic, which are percent-encoded: ids contain colons."""
    try:
        decoded = base64.b64decode(header.removeprefix("Basic "), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    client_id, _, secret = decoded.partition(":")
    return unquote(client_id), unquote(secret)


@never_cache
@for_clients
def token(request: HttpRequest, client: Client) -> HttpResponse:
    """Exchange a code for tokens, or a refresh token for new ones."""
    kind = request.POST.get("grant_type", "")
    if kind == "authorization_code":
        counters.add("token")
        return _exchange(request, client)
    if kind == "refresh_token":
        counters.add("refresh")
        return _refresh(request, client)
    raise Rejected("unsupported_grant_type", "Unsupported grant_type")


def _exchange(request: HttpRequest, client: Client) -> HttpResponse:
    code = Credential.find(request.POST.get("code", ""), Credential.Kind.CODE)
    if code is None or code.grant.client_id != client.id:
        raise Rejected("invalid_grant", "Code not valid")
    if not code.spend():
        code.grant.end()
        raise Rejected("invalid_grant", "Code not valid")
    if problem := _problem_of_code(code, request):
        raise Rejected("invalid_grant", problem)
    return JsonResponse(tokens.issue_tokens(code.grant, code.grant.scopes))


def _problem_of_code(code: Credential, request: HttpRequest) -> str:
    verifier = request.POST.get("code_verifier", "").encode()
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).decode().rstrip("=")
    if code.has_expired:
        return "Code is expired"
    if not code.grant.is_usable:
        return "Session not active"
    if code.grant.redirect_uri != request.POST.get("redirect_uri", ""):
        return "Incorrect redirect_uri"
    if code.grant.code_challenge and code.grant.code_challenge != challenge:
        return "PKCE verification failed: Invalid code verifier"
    return ""


def _refresh(request: HttpRequest, client: Client) -> HttpResponse:
    found = Credential.find(request.POST.get("refresh_token", ""), Credential.Kind.REFRESH)
    if found is None:
        raise Rejected("invalid_grant", "Invalid refresh token")
    if problem := _problem_of_refresh(found, client):
        raise Rejected("invalid_grant", problem)
    grant = found.grant
    allowed = [scope for scope in grant.scopes if scope in client.scopes]
    if Consent.missing(grant.session.uid, client.id, allowed):
        raise Rejected("invalid_scope", "Client no longer has requested consent from user")
    if not found.spend():
        counters.add("reuses")
        grant.end()
        raise Rejected("invalid_grant", "Maximum allowed refresh token reuse exceeded")
    counters.add("rotations")
    # sipgate says so. With Keycloak the older access token lives until it expires.
    Credential.objects.filter(grant=grant, kind=Credential.Kind.ACCESS).delete()
    asked = request.POST.get("scope", "").split() or allowed
    return JsonResponse(tokens.issue_tokens(grant, [one for one in allowed if one in asked]))


def _problem_of_refresh(found: Credential, client: Client) -> str:
    grant = found.grant
    if grant.client_id != client.id:
        return "Invalid refresh token. Token client and authorized client don't match"
    if found.has_expired:
        return "Token is not active"
    if not grant.is_usable:
        return "Offline user session not found" if grant.offline else "Session not active"
    if grant.session.uid in realm.current.disabled:
        return "User disabled"
    return "Stale token" if found.is_stale else ""


@for_clients
def logout(request: HttpRequest, client: Client) -> HttpResponse:
    """End the browser session of a refresh token. An offline grant ends alone."""
    counters.add("logout")
    found = Credential.find(request.POST.get("refresh_token", ""), Credential.Kind.REFRESH)
    if found is None or found.grant.client_id != client.id:
        raise Rejected("invalid_grant", "Invalid refresh token")
    if found.grant.offline:
        found.grant.end()
    elif found.grant.session.is_usable:
        found.grant.session.end()
    else:
        raise Rejected("invalid_grant", "Session not active")
    return HttpResponse(status=204)


@for_clients
def revoke(request: HttpRequest, client: Client) -> HttpResponse:
    """End what the client has in the browser session of a refresh token (RFC 7009)."""
    counters.add("revoke")
    found = Credential.find(request.POST.get("token", ""), Credential.Kind.REFRESH)
    if found is not None and found.grant.client_id == client.id:
        found.grant.end()
        found.grant.session.end_if_unused()
    return HttpResponse()


@for_clients
def introspect(request: HttpRequest, client: Client) -> HttpResponse:
    """Tell whether an access token of the client is valid (RFC 7662)."""
    found = Credential.find_usable(request.POST.get("token", ""))
    return JsonResponse({"active": found is not None and found.grant.client_id == client.id})
