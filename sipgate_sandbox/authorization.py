"""What people see in their browsers: sign-in, consent and logout. Also the server's metadata."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from . import counters, realm, token_endpoint, tokens
from .models import BrowserSession, Consent, Grant
from .people import BY_UID, PEOPLE
from .realm import Client

COOKIE = "browser_session"
"""Key in Django's session (a signed cookie) that names the browser session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """A request of a registered client with a registered redirect URI."""

    client: Client
    redirect_uri: str
    scopes: list[str]
    state: str
    prompt: set[str]
    code_challenge: str
    nonce: str

    def back(self, **answer: str) -> HttpResponse:
        """Send the browser back to the client with ``answer``."""
        query = {**answer, "state": self.state, "iss": settings.SANDBOX_ISSUER}
        return HttpResponseRedirect(f"{self.redirect_uri}?{urlencode(query)}")

    def missing_consent(self, session: BrowserSession) -> list[str]:
        return Consent.missing(session.uid, self.client.id, self.scopes)


def authorize(request: HttpRequest) -> HttpResponse:
    """Serve the authorization endpoint. The forms of its pages post to the address of the page."""
    counters.add("auth")
    get = request.GET.get
    client, redirect_uri = realm.current.client(get("client_id", "")), get("redirect_uri", "")
    known = settings.SANDBOX_REDIRECT_URIS
    if client is None or redirect_uri not in known:
        # The server must not redirect to an address that is not registered.
        context = {"client": client, "came": redirect_uri, "known": known}
        return render(request, "sandbox/problem.html", context, status=400)
    asked = AuthorizationRequest(
        client=client,
        redirect_uri=redirect_uri,
        scopes=list(dict.fromkeys(get("scope", "account:read").split())),
        state=get("state", ""),
        prompt=set(get("prompt", "").split()),
        code_challenge=get("code_challenge", ""),
        nonce=get("nonce", ""),
    )
    if not client.scopes.issuperset(asked.scopes):
        description = f"Invalid scopes: {' '.join(asked.scopes)}"
        return asked.back(error="invalid_scope", error_description=description)
    session = _session_of(request)
    return _answered(request, asked, session) if request.POST else _opened(request, asked, session)


def _opened(
    request: HttpRequest, asked: AuthorizationRequest, session: BrowserSession | None
) -> HttpResponse:
    """Answer the request of a browser that the client has sent here."""
    if "none" in asked.prompt:
        if session is None:
            return asked.back(error="login_required")
        if asked.missing_consent(session):
            return asked.back(error="interaction_required")
        return _code(asked, session)
    if session is None or "login" in asked.prompt:
        return _sign_in_page(request, session)
    return _consent_or_code(request, asked, session)


def _answered(
    request: HttpRequest, asked: AuthorizationRequest, session: BrowserSession | None
) -> HttpResponse:
    """Go on after a person has pressed a button of the sign-in page or the consent page."""
    if "restart" in request.POST:
        if session is not None:
            session.end()
        return _sign_in_page(request, None)
    if "person" in request.POST:
        signed_in = _sign_in(request, session)
        if signed_in is None:
            return _sign_in_page(request, session)
        return _consent_or_code(request, asked, signed_in)
    if session is None:
        return _sign_in_page(request, None)
    if request.POST.get("action") != "grant":
        return asked.back(error="access_denied", error_description="User denied consent")
    consent, _ = Consent.objects.get_or_create(uid=session.uid, client_id=asked.client.id)
    consent.scopes = sorted({*consent.scopes, *asked.scopes})
    consent.save()
    return _code(asked, session)


def _session_of(request: HttpRequest) -> BrowserSession | None:
    """Return the living session of this browser."""
    found = BrowserSession.objects.filter(pk=request.session.get(COOKIE, "")).first()
    if found is None or not found.is_usable or found.uid in realm.current.disabled:
        return None
    return found


def _sign_in(request: HttpRequest, session: BrowserSession | None) -> BrowserSession | None:
    """Sign the chosen person in, unless they are disabled or somebody else is signed in."""
    uid = request.POST["person"]
    if uid not in BY_UID or uid in realm.current.disabled:
        return None
    if session is not None:
        return session if session.uid == uid else None
    session = BrowserSession.objects.create(pk=str(uuid.uuid4()), uid=uid)
    request.session[COOKIE] = session.pk
    return session


def _sign_in_page(request: HttpRequest, session: BrowserSession | None) -> HttpResponse:
    people = PEOPLE if session is None else (session.person,)
    return render(request, "sandbox/sign_in.html", {"people": people, "again": session is not None})


def _consent_or_code(
    request: HttpRequest, asked: AuthorizationRequest, session: BrowserSession
) -> HttpResponse:
    missing = asked.missing_consent(session)
    if not missing and "consent" not in asked.prompt:
        return _code(asked, session)
    context = {"asked": asked, "scopes": missing or asked.scopes, "person": session.person}
    return render(request, "sandbox/consent.html", context)


def _code(asked: AuthorizationRequest, session: BrowserSession) -> HttpResponse:
    grant = Grant.objects.create(
        session=session,
        client_id=asked.client.id,
        scopes=asked.scopes,
        offline="offline_access" in asked.scopes,
        redirect_uri=asked.redirect_uri,
        code_challenge=asked.code_challenge,
        nonce=asked.nonce,
    )
    return asked.back(code=tokens.issue_code(grant), session_state=session.pk)


# --- logout ---------------------------------------------------------------------------------------


def logout(request: HttpRequest) -> HttpResponse:
    """End a session at once if a client posts here. Ask a person first."""
    if request.method == "POST":
        return token_endpoint.logout(request)
    return render(request, "sandbox/log_out.html", {"query": request.GET.urlencode()})


@require_POST
def confirm_logout(request: HttpRequest) -> HttpResponse:
    """End the session of this browser, and redirect to the client if that address is registered."""
    session = _session_of(request)
    if session is not None:
        session.end()
    back = request.GET.get("post_logout_redirect_uri", "")
    client = realm.current.client(request.GET.get("client_id", ""))
    if client is not None and back in settings.SANDBOX_REDIRECT_URIS:
        return HttpResponseRedirect(back)
    return render(request, "sandbox/log_out.html", {"done": True})


# --- metadata -------------------------------------------------------------------------------------


def configuration(request: HttpRequest) -> HttpResponse:
    """Return the server's metadata (OpenID Connect Discovery, RFC 8414)."""
    oidc = f"{settings.SANDBOX_ISSUER}/protocol/openid-connect"
    document = {
        "issuer": settings.SANDBOX_ISSUER,
        "authorization_endpoint": f"{oidc}/auth",
        "token_endpoint": f"{oidc}/token",
        "revocation_endpoint": f"{oidc}/revoke",
        "introspection_endpoint": f"{oidc}/token/introspect",
        "end_session_endpoint": f"{oidc}/logout",
        "jwks_uri": f"{oidc}/certs",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "prompt_values_supported": ["none", "login", "consent"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }
    return JsonResponse(document)


def keys(request: HttpRequest) -> HttpResponse:
    return JsonResponse(tokens.key_set())
