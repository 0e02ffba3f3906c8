"""The authorization server: allauth's, dressed as sipgate's Keycloak.

allauth checks clients, redirect URIs, codes, PKCE and issues tokens; added here are sipgate's paths and Keycloak's
fields, and sessions: a refresh kills what was issued before, and the reuse of a spent refresh token ends the session.
"""

from __future__ import annotations

import json
import threading
import uuid
from typing import Any, cast
from urllib.parse import parse_qs, urlencode, urlsplit

from allauth.idp.oidc import views as allauth_views
from allauth.idp.oidc.adapter import DefaultOIDCAdapter
from allauth.idp.oidc.models import Client, Token
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, QueryDict
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from . import counters, faults
from .models import Issued, KeycloakSession, RememberedConsent, digest
from .people import BY_UID, Person
from .scopes import SCOPES

ONE_AT_A_TIME = threading.Lock()
"""Rotation is decided by one thread at a time: the sandbox is one process, so this makes it strict."""


class Adapter(DefaultOIDCAdapter):
    def get_issuer(self) -> str:
        return str(settings.SANDBOX_ISSUER)

    def get_user_sub(self, client: Client, user: Any) -> str:
        return BY_UID[user.username].keycloak_sub

    def get_user_by_sub(self, client: Client, sub: str) -> Any:
        uid = next((person.uid for person in BY_UID.values() if person.keycloak_sub == sub), "")
        return get_user_model().objects.filter(username=uid).first()

    def get_claims(
        self, purpose: str, user: Any, client: Client, scopes: Any, email: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        person = BY_UID[user.username]
        claims: dict[str, Any] = {"sub": person.keycloak_sub, "preferred_username": person.uid}
        if "email" in scopes and person.email:
            claims |= {"email": person.email, "email_verified": person.email_verified}
        if "profile" in scopes:
            claims |= {"given_name": person.firstname, "family_name": person.lastname, "name": person.name}
        return claims

    def populate_access_token(
        self, access_token: dict[str, Any], *, client: Client, scopes: Any, user: Any, **kwargs: Any
    ) -> None:
        person = BY_UID[user.username]
        access_token |= {
            "typ": "Bearer",
            "azp": client.id,
            "aud": client.id,
            "featureScope": person.feature_scope,
            "realm_access": {"roles": list(scopes)},
            "resource_access": {},
            "allowed-origins": [],
            "acr": "1",
            "session_state": str(uuid.uuid4()),
            "client_session": str(uuid.uuid4()),
        }


def person_of(user: Any) -> Person:
    return BY_UID[user.username]


@method_decorator(csrf_exempt, name="dispatch")
class AuthorizationView(allauth_views.AuthorizationView):
    """sipgate's login and consent."""

    template_name = "sandbox/consent.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        counters.add("auth")
        if request.method == "GET":
            problem = _client_problem(request)
            if problem:
                return render(request, "sandbox/problem.html", {"problem": problem}, status=400)
            if request.GET.get("code_challenge_method", "S256") != "S256":
                return _back(request.GET, error="invalid_request", error_description="Only S256 is supported")
            unknown = sorted(set(request.GET.get("scope", "").split()) - set(SCOPES))
            if unknown:  # Keycloak says so before anybody signs in
                return _back(
                    request.GET, error="invalid_scope", error_description=f"Invalid scopes: {' '.join(unknown)}"
                )
        return self._as_keycloak(cast(HttpResponse, super().dispatch(request, *args, **kwargs)))

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = super().get(request, *args, **kwargs)
        form = getattr(response, "context_data", {}) or {}
        if "form" in form and self._remembered():
            return self._allow_again(form["form"])
        return response

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = super().post(request, *args, **kwargs)
        if request.POST.get("action") == "grant" and response.status_code == 302:
            RememberedConsent.objects.update_or_create(
                user=_user(request),
                client_id=self._request_info["client_id"],
                defaults={"scopes": " ".join(sorted(self._scopes))},
            )
        return response

    def _remembered(self) -> bool:
        if "consent" in (self.request.GET.get("prompt") or ""):
            return False
        scopes = " ".join(sorted(self._scopes))
        rows = RememberedConsent.objects.filter(user=_user(self.request), client_id=self._request_info["client_id"])
        return rows.filter(scopes=scopes).exists()

    def _allow_again(self, form: Any) -> HttpResponse:
        post = QueryDict(mutable=True)
        post.update({"request": form.initial["request"], "action": "grant"})
        post.setlist("scopes", list(self._scopes))
        self.request.method, self.request.POST = "POST", post  # type: ignore[assignment]  # a request of our own making
        # The person's answer was checked when it was given.
        self.request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]  # as Django's test client does
        return self.post(self.request)

    def _as_keycloak(self, response: HttpResponse) -> HttpResponse:
        """Add ``session_state`` and ``iss`` to the way back, and remember whose code it is."""
        target = urlsplit(response.headers.get("Location", ""))
        query = {key: values[0] for key, values in parse_qs(target.query).items()}
        if "code" not in query and "error" not in query:
            return response
        query["iss"] = settings.SANDBOX_ISSUER
        if "code" in query:
            session = _sso_session(self.request)
            Issued.objects.create(hash=digest(query["code"]), kind="code", session=session)
            query["session_state"] = session.pk
        response.headers["Location"] = target._replace(query=urlencode(query)).geturl()
        return response

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        info = self._request_info
        form = self.get_form()
        return {
            **kwargs,
            "form": form,
            "scopes": sorted(self._scopes),
            "client": Client.objects.get(pk=info["client_id"]),
            "person": person_of(self.request.user),
            "redirect_uri": info["redirect_uri"],
        }


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)  # login is required before


def _sso_session(request: HttpRequest) -> KeycloakSession:
    pk = request.session.get("keycloak_session", "")
    session = KeycloakSession.objects.filter(pk=pk, alive=True, user=_user(request)).first()
    if session is None:
        session = KeycloakSession.objects.create(pk=str(uuid.uuid4()), user=_user(request))
        request.session["keycloak_session"] = session.pk
    return session


def _client_problem(request: HttpRequest) -> str:
    """Return what Keycloak shows as a page of its own: nobody may be sent to an address that is not registered."""
    client = Client.objects.filter(pk=request.GET.get("client_id", "")).first()
    if client is None:
        return "client"
    return "" if request.GET.get("redirect_uri", "") in client.get_redirect_uris() else "redirect_uri"


def _back(query: QueryDict, **values: str) -> HttpResponse:
    values |= {"state": query.get("state", ""), "iss": settings.SANDBOX_ISSUER}
    return HttpResponseRedirect(f"{query['redirect_uri']}?{urlencode(values)}")


@csrf_exempt
@require_POST
def token(request: HttpRequest) -> HttpResponse:
    """The token endpoint: codes and refreshes."""
    kind = request.POST.get("grant_type", "")
    counters.add("refresh" if kind == "refresh_token" else "token")
    refusal = _client_refusal(request)
    if refusal:
        return refusal
    with ONE_AT_A_TIME, transaction.atomic():
        return _refresh(request) if kind == "refresh_token" else _exchange(request)


def _client_refusal(request: HttpRequest) -> HttpResponse | None:
    client = Client.objects.filter(pk=request.POST.get("client_id", "")).first()
    if client is None:
        return oauth_error(401, "invalid_client", "Invalid client or Invalid client credentials")
    if not client.check_secret(request.POST.get("client_secret", "")):
        return oauth_error(401, "unauthorized_client", "Invalid client secret")
    return None


def _exchange(request: HttpRequest) -> HttpResponse:
    code = (
        Issued.objects.filter(hash=digest(request.POST.get("code", "")), kind="code").select_related("session").first()
    )
    if code is None or code.spent or not code.session.alive:
        return oauth_error(400, "invalid_grant", "Code not valid")
    Issued.objects.filter(pk=code.pk).update(spent=True)
    return _issue(request, code.session)


def _refresh(request: HttpRequest) -> HttpResponse:
    found = (
        Issued.objects.filter(hash=digest(request.POST.get("refresh_token", "")), kind="refresh")
        .select_related("session")
        .first()
    )
    if found is None:
        return oauth_error(400, "invalid_grant", "Invalid refresh token")
    if found.spent:
        counters.add("reuses")
        if not settings.SANDBOX_LENIENT_REUSE:
            end_session(found.session)
        return oauth_error(400, "invalid_grant", "Maximum allowed refresh token reuse exceeded")
    if not found.session.alive:
        return oauth_error(400, "invalid_grant", "Session not active")
    response = _issue(request, found.session)
    if response.status_code == 200:
        Issued.objects.filter(pk=found.pk).update(spent=True)
        counters.add("rotations")
    return response


def _issue(request: HttpRequest, session: KeycloakSession) -> HttpResponse:
    answer = cast(HttpResponse, allauth_views.token(request))
    data = json.loads(answer.content)
    if answer.status_code != 200:
        return oauth_error(
            400, data.get("error", "invalid_request"), data.get("error_description", "The request is not valid")
        )
    _drop_access_tokens(session)
    Issued.objects.bulk_create(
        [
            Issued(hash=digest(data["access_token"]), kind="access", session=session),
            Issued(hash=digest(data["refresh_token"]), kind="refresh", session=session),
        ]
    )
    counters.add("issued")
    data |= {
        "token_type": "Bearer",
        "not-before-policy": 0,
        "session_state": session.pk,
        "refresh_expires_in": settings.IDP_OIDC_REFRESH_TOKEN_EXPIRES_IN,
    }
    scopes = str(data.get("scope", "")).split()
    if "openid" not in scopes:
        data.pop("id_token", None)
    if "offline_access" in scopes:
        data["refresh_expires_in"] = 0
        Token.objects.filter(hash=digest(data["refresh_token"])).update(expires_at=None)
    return JsonResponse(faults.changed_grant(data))


def _drop_access_tokens(session: KeycloakSession) -> None:
    rows = Issued.objects.filter(session=session, kind="access")
    Token.objects.filter(type=Token.Type.ACCESS_TOKEN, hash__in=list(rows.values_list("hash", flat=True))).delete()
    rows.delete()


def end_session(session: KeycloakSession) -> None:
    """End a session as Keycloak does: nothing issued in it works any more."""
    KeycloakSession.objects.filter(pk=session.pk).update(alive=False)
    _drop_access_tokens(session)


@csrf_exempt
@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    counters.add("logout")
    return _client_refusal(request) or _end_of(
        request.POST.get("refresh_token", ""), unknown=oauth_error(400, "invalid_grant", "Invalid refresh token")
    )


@csrf_exempt
@require_POST
def revoke(request: HttpRequest) -> HttpResponse:
    counters.add("revoke")
    return _client_refusal(request) or _end_of(
        request.POST.get("token", ""), unknown=HttpResponse(), done=HttpResponse()
    )


def _end_of(value: str, *, unknown: HttpResponse, done: HttpResponse | None = None) -> HttpResponse:
    found = Issued.objects.filter(hash=digest(value)).select_related("session").first()
    if found is None or not found.session.alive:
        return unknown
    end_session(found.session)
    return done or HttpResponse(status=204)


def oauth_error(status: int, error: str, description: str) -> JsonResponse:
    return JsonResponse({"error": error, "error_description": description}, status=status)


def bearer(request: HttpRequest) -> Token | None:
    """Return the living access token of a request, or None."""
    value = request.headers.get("Authorization", "").removeprefix("Bearer ")
    row = Issued.objects.filter(hash=digest(value), kind="access", session__alive=True).exists()
    return Token.objects.lookup(Token.Type.ACCESS_TOKEN, value) if row else None
