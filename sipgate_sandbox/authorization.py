"""What a person sees in the browser: the authorization endpoint with sign-in and consent, and the logout page."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from . import behaviour, counters, sessions, token_endpoint, tokens
from .models import BrowserSession, Client, Consent, Grant
from .people import BY_UID, PEOPLE
from .scopes import SCOPES

COOKIE = "browser_session"
"""Key in Django's session (a signed cookie) that names the browser session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """A request of a registered client that may be answered by a redirect."""

    client: Client
    redirect_uri: str
    scopes: list[str]
    state: str
    prompt: set[str]
    code_challenge: str
    nonce: str

    def back(self, **answer: str) -> HttpResponse:
        """Send the browser back to the client with ``answer``."""
        query = (
            answer
            | ({"state": self.state} if self.state else {})
            | {"iss": settings.SANDBOX_ISSUER}
        )
        return HttpResponseRedirect(f"{self.redirect_uri}?{urlencode(query)}")

    def error(self, error: str, description: str = "") -> HttpResponse:
        return self.back(error=error, **({"error_description": description} if description else {}))


@require_http_methods(["GET", "POST"])
def authorize(request: HttpRequest) -> HttpResponse:
    """The authorization endpoint. Its pages send their forms to the address they were opened with."""
    counters.add("auth")
    client = Client.objects.filter(pk=request.GET.get("client_id", ""), enabled=True).first()
    redirect_uri = request.GET.get("redirect_uri", "")
    if client is None or redirect_uri not in client.redirect_uris:
        # Never redirect to an address that is not registered.
        problem = "client" if client is None else "redirect_uri"
        known = client.redirect_uris if client is not None else []
        context = {"problem": problem, "came": redirect_uri, "known": known}
        return render(request, "sandbox/problem.html", context, status=400)
    asked = AuthorizationRequest(
        client=client,
        redirect_uri=redirect_uri,
        scopes=list(dict.fromkeys(request.GET.get("scope", "account:read").split())),
        state=request.GET.get("state", ""),
        prompt=set(request.GET.get("prompt", "").split()),
        code_challenge=request.GET.get("code_challenge", ""),
        nonce=request.GET.get("nonce", ""),
    )
    return _refusal(request, asked) or (_answered if request.method == "POST" else _opened)(
        request, asked
    )


def _refusal(request: HttpRequest, asked: AuthorizationRequest) -> HttpResponse | None:
    if request.GET.get("response_type") != "code":
        return asked.error("unsupported_response_type", "Only response_type=code is supported")
    if request.GET.get("code_challenge_method", "S256") != "S256":
        return asked.error("invalid_request", "Only S256 is supported")
    if not set(asked.scopes) <= set(SCOPES) & set(asked.client.scopes):
        return asked.error("invalid_scope", f"Invalid scopes: {' '.join(asked.scopes)}")
    return None


def _opened(request: HttpRequest, asked: AuthorizationRequest) -> HttpResponse:
    session = browser_session(request)
    if "none" in asked.prompt:
        if session is None:
            return asked.error("login_required")
        if _missing_consent(asked, session):
            return asked.error("interaction_required")
        return _code(asked, session)
    if session is None or "login" in asked.prompt:
        return _sign_in_page(request, session)
    return _consent_or_code(request, asked, session)


def _answered(request: HttpRequest, asked: AuthorizationRequest) -> HttpResponse:
    """Go on after somebody has pressed a button of the sign-in or the consent page."""
    session = browser_session(request)
    if "restart" in request.POST:
        if session is not None:
            sessions.end_session(session)
        return _sign_in_page(request, None)
    if "person" in request.POST:
        session = _sign_in(request, session)
        return (
            _consent_or_code(request, asked, session)
            if session
            else _sign_in_page(request, browser_session(request))
        )
    if session is None:
        return _sign_in_page(request, None)
    if request.POST.get("action") != "grant":
        return asked.error("access_denied", "User denied consent")
    consent, _created = Consent.objects.get_or_create(person=session.person, client=asked.client)
    consent.scopes = sorted({*consent.scopes, *asked.scopes})
    consent.save()
    return _code(asked, session)


def browser_session(request: HttpRequest) -> BrowserSession | None:
    """Return the living session of this browser."""
    session = BrowserSession.objects.filter(pk=request.session.get(COOKIE, ""), alive=True).first()
    if (
        session is None
        or not session.is_usable
        or session.person in behaviour.current.disabled_people
    ):
        return None
    return session


def _sign_in(request: HttpRequest, session: BrowserSession | None) -> BrowserSession | None:
    """Sign the chosen person in, unless they are disabled or somebody else is signed in."""
    person = request.POST["person"]
    if person not in BY_UID or person in behaviour.current.disabled_people:
        return None
    if session is not None:
        return session if session.person == person else None
    session = BrowserSession.objects.create(pk=str(uuid.uuid4()), person=person)
    request.session[COOKIE] = session.pk
    return session


def _sign_in_page(request: HttpRequest, session: BrowserSession | None) -> HttpResponse:
    people = PEOPLE if session is None else (BY_UID[session.person],)
    return render(request, "sandbox/sign_in.html", {"people": people, "again": session is not None})


def _consent_or_code(
    request: HttpRequest, asked: AuthorizationRequest, session: BrowserSession
) -> HttpResponse:
    missing = _missing_consent(asked, session)
    if not missing and "consent" not in asked.prompt:
        return _code(asked, session)
    context = {
        "asked": asked,
        "is_ours": asked.client.pk == settings.SANDBOX_CLIENT_ID,
        "scopes": missing or asked.scopes,
        "person": BY_UID[session.person],
    }
    return render(request, "sandbox/consent.html", context)


def _missing_consent(asked: AuthorizationRequest, session: BrowserSession) -> list[str]:
    if not behaviour.current.consent_required:
        return []
    consent = Consent.objects.filter(person=session.person, client=asked.client).first()
    return [scope for scope in asked.scopes if consent is None or scope not in consent.scopes]


def _code(asked: AuthorizationRequest, session: BrowserSession) -> HttpResponse:
    grant = Grant.objects.create(
        session=session,
        client=asked.client,
        scopes=asked.scopes,
        offline="offline_access" in asked.scopes,
        redirect_uri=asked.redirect_uri,
        code_challenge=asked.code_challenge,
        nonce=asked.nonce,
    )
    return asked.back(code=tokens.issue_code(grant), session_state=session.pk)


@csrf_exempt
def logout(request: HttpRequest) -> HttpResponse:
    """End a session: at once for a client's POST; a person is asked first."""
    if request.method == "POST":
        return token_endpoint.logout(request)
    return render(request, "sandbox/log_out.html", {"query": request.GET.urlencode()})


@require_http_methods(["POST"])
def confirm_logout(request: HttpRequest) -> HttpResponse:
    """End the session of this browser, and redirect to the client if that address is registered."""
    session = browser_session(request)
    if session is not None:
        sessions.end_session(session)
    client = Client.objects.filter(pk=request.GET.get("client_id", "")).first()
    back = request.GET.get("post_logout_redirect_uri", "")
    if client is None or back not in client.redirect_uris:
        return render(request, "sandbox/logged_out.html")
    return HttpResponseRedirect(back)
