"""The endpoints that clients call directly: tokens, introspection, revocation and logout."""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import unquote

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from . import behaviour, counters, faults, sessions, tokens
from .models import Client, Consent, Credential, Grant, digest

ONE_AT_A_TIME = threading.Lock()
"""One thread at a time rotates tokens. The sandbox is one process, so this makes it strict."""

ClientView = Callable[[HttpRequest, Client], HttpResponse]


class Refused(Exception):
    """The request is answered with an error as RFC 6749 §5.2 describes it."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(error)
        self.answer = JsonResponse(
            {"error": error, "error_description": description}, status=status
        )


def for_clients(view: ClientView) -> Callable[[HttpRequest], HttpResponse]:
    """Pass ``view`` the authenticated client of a POST request; roll back its changes if it raises."""

    @csrf_exempt
    @require_POST
    @wraps(view)
    def handle(request: HttpRequest) -> HttpResponse:
        try:
            client = _authenticated_client(request)
            with ONE_AT_A_TIME, transaction.atomic():
                return view(request, client)
        except Refused as refused:
            return refused.answer

    return handle


def _authenticated_client(request: HttpRequest) -> Client:
    client_id, secret = request.POST.get("client_id", ""), request.POST.get("client_secret", "")
    if not client_id:
        client_id, secret = _basic(request.headers.get("Authorization", ""))
    client = Client.objects.filter(pk=client_id, enabled=True).first()
    if client is None:
        raise Refused("invalid_client", "Invalid client or Invalid client credentials", status=401)
    if client.secret_hash != digest(secret):
        raise Refused(
            "unauthorized_client", "Invalid client or Invalid client credentials", status=401
        )
    return client


def _basic(header: str) -> tuple[str, str]:
    """Return id and secret of HTTP Basic. Both must be percent-encoded: the first colon ends the id."""
    try:
        decoded = base64.b64decode(header.removeprefix("Basic "), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    client_id, _, secret = decoded.partition(":")
    return unquote(client_id), unquote(secret)


@csrf_exempt
def token(request: HttpRequest) -> HttpResponse:
    """The token endpoint: codes and refreshes."""
    counters.add("refresh" if request.POST.get("grant_type") == "refresh_token" else "token")
    response = _token(request)
    response.headers["Cache-Control"] = "no-store"
    return response


@for_clients
def _token(request: HttpRequest, client: Client) -> HttpResponse:
    kind = request.POST.get("grant_type", "")
    if kind == "authorization_code":
        return _exchange(request, client)
    if kind == "refresh_token":
        return _refresh(request, client)
    raise Refused("unsupported_grant_type", "Unsupported grant_type")


def _exchange(request: HttpRequest, client: Client) -> HttpResponse:
    code = Credential.find(request.POST.get("code", ""), Credential.Kind.CODE)
    if code is None or code.grant.client != client:
        raise Refused("invalid_grant", "Code not valid")
    if code.spent:
        if behaviour.current.spent_token_ends_grants:
            return _refused_and_ended(code.grant, "Code not valid")
        raise Refused("invalid_grant", "Code not valid")
    # The first request with a code uses it up, whatever the answer is.
    Credential.objects.filter(pk=code.pk).update(spent=True)
    problem = _problem_of_code(request, code)
    if problem:
        return Refused("invalid_grant", problem).answer
    return JsonResponse(
        faults.changed_grant(tokens.issue_tokens(code.grant, _scopes_for(code.grant)))
    )


def _problem_of_code(request: HttpRequest, code: Credential) -> str:
    verifier = request.POST.get("code_verifier", "")
    challenge = (
        base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    )
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
        raise Refused("invalid_grant", "Invalid refresh token")
    if found.spent:
        counters.add("reuses")
    problem = _problem_of_refresh(found, client)
    if problem:
        raise Refused("invalid_grant", problem)
    grant = found.grant
    if behaviour.current.consent_required and not _has_consent(grant):
        raise Refused("invalid_scope", "Client no longer has requested consent from user")
    if found.spent:
        description = "Maximum allowed refresh token reuse exceeded"
        if behaviour.current.spent_token_ends_grants:
            return _refused_and_ended(grant, description)
        raise Refused("invalid_grant", description)
    Credential.objects.filter(pk=found.pk).update(spent=True)
    counters.add("rotations")
    if behaviour.current.refresh_ends_access_token:
        sessions.drop_access_tokens(grant)
    scopes = _scopes_for(grant, request.POST.get("scope", ""))
    return JsonResponse(faults.changed_grant(tokens.issue_tokens(grant, scopes)))


def _problem_of_refresh(found: Credential, client: Client) -> str:
    grant = found.grant
    if grant.client != client:
        return "Invalid refresh token. Token client and authorized client don't match"
    if found.has_expired:
        return "Token is not active"
    if not grant.offline and not grant.session.is_usable:
        return "Session not active"
    if not grant.alive:
        return (
            "Offline user session not found"
            if grant.offline
            else "Session doesn't have required client"
        )
    if grant.session.person in behaviour.current.disabled_people:
        return "User disabled"
    return "Stale token" if found.is_stale else ""


def _has_consent(grant: Grant) -> bool:
    consent = Consent.objects.filter(person=grant.session.person, client=grant.client).first()
    return consent is not None and set(_scopes_for(grant)) <= set(consent.scopes)


def _scopes_for(grant: Grant, asked: str = "") -> list[str]:
    """Return what the client may have now: granted, still allowed and, if it asks for less, asked for."""
    wanted = set(asked.split()) or set(grant.scopes)
    return [scope for scope in grant.scopes if scope in wanted and scope in grant.client.scopes]


def _refused_and_ended(grant: Grant, description: str) -> HttpResponse:
    """Return the refusal instead of raising it, so that what was ended is not rolled back."""
    sessions.end_grants_of_client(grant)
    return Refused("invalid_grant", description).answer


@for_clients
def logout(request: HttpRequest, client: Client) -> HttpResponse:
    """End the browser session of a refresh token, for every application in it. An offline grant ends alone."""
    counters.add("logout")
    found = Credential.find(request.POST.get("refresh_token", ""), Credential.Kind.REFRESH)
    if found is None or found.grant.client != client:
        raise Refused("invalid_grant", "Invalid refresh token")
    if found.grant.offline:
        sessions.end_grants_of_client(found.grant)
    elif found.grant.session.is_usable:
        sessions.end_session(found.grant.session)
    else:
        raise Refused("invalid_grant", "Session not active")
    return HttpResponse(status=204)


@csrf_exempt
def revoke(request: HttpRequest) -> HttpResponse:
    """The revocation endpoint (RFC 7009), if there is one."""
    return _revoke(request) if behaviour.current.revocation else HttpResponse(status=404)


@for_clients
def _revoke(request: HttpRequest, client: Client) -> HttpResponse:
    """End the client's grants in the browser session that a token belongs to. Those of other clients live on."""
    counters.add("revoke")
    found = Credential.find(
        request.POST.get("token", ""), Credential.Kind.REFRESH, Credential.Kind.ACCESS
    )
    if found is not None and found.grant.client == client:
        sessions.end_grants_of_client(found.grant)
        sessions.end_session_without_grants(found.grant.session)
    return HttpResponse()


@for_clients
def introspect(request: HttpRequest, client: Client) -> HttpResponse:
    """Tell whether an access token of the client is valid (RFC 7662), and whose it is."""
    found = tokens.living_access_token(request.POST.get("token", ""))
    if found is None or found.grant.client != client:
        return JsonResponse({"active": False})
    answer: dict[str, Any] = {
        "active": True,
        "scope": " ".join(found.scopes),
        "client_id": client.pk,
        "username": found.grant.session.person,
        "token_type": "Bearer",
    }
    return JsonResponse(answer)
