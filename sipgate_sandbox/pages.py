"""The sandbox's pages: login, start page, static files; all say that this is not sipgate."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import get_language
from django.views.decorators.http import require_GET

from . import counters, faults
from .people import BY_UID, PEOPLE

STATIC = Path(__file__).parent / "static"

ENGLISH = {
    "notice": "This is a local sandbox, not sipgate.", "login": "Who are you?",
    "login_hint": "Choose one of these invented people. No password is needed.",
    "consent": "Allow access?", "wants": "wants to use the account of", "scopes": "It asks for:", "allow": "Allow", "deny": "Deny",
    "other": "Use another person", "back": "Afterwards you return to", "people": "People", "faults": "Faults", "clear": "Clear all faults",
    "client": "Client not found", "client_cure": "The client id is not known here. Check CLIENT_ID and the realm.",
    "redirect_uri": "Invalid parameter: redirect_uri", "redirect_cure": "The redirect URI is not registered exactly like this. Check REDIRECT_URI.",
    "start": "The sipgate sandbox runs", "start_hint": "It stands in for sipgate's authorization server and REST API, so that a site can be tried without credentials.",
    "site": "Go to the site", "arm": "Let it happen once", "none_armed": "None is armed.", "account": "account", "uid": "id",
}  # fmt: skip
GERMAN = {
    "notice": "Dies ist eine lokale Sandbox, nicht sipgate.", "login": "Wer sind Sie?",
    "login_hint": "Wählen Sie eine dieser erfundenen Personen. Ein Passwort ist nicht nötig.",
    "consent": "Zugriff erlauben?", "wants": "möchte das Konto verwenden von", "scopes": "Es bittet um:", "allow": "Erlauben", "deny": "Ablehnen",
    "other": "Andere Person wählen", "back": "Danach geht es zurück zu", "people": "Personen", "faults": "Störungen", "clear": "Alle Störungen beenden",
    "client": "Client nicht gefunden", "client_cure": "Diese Client-ID ist hier nicht bekannt. Prüfen Sie CLIENT_ID und den Realm.",
    "redirect_uri": "Ungültiger Parameter: redirect_uri", "redirect_cure": "Die Redirect-URI ist nicht genau so eingetragen. Prüfen Sie REDIRECT_URI.",
    "start": "Die sipgate-Sandbox läuft", "start_hint": "Sie vertritt sipgates Autorisierungsserver und REST-API, damit man eine Website ohne Zugangsdaten ausprobieren kann.",
    "site": "Zur Website", "arm": "Einmal geschehen lassen", "none_armed": "Keine ist aktiv.", "account": "Konto", "uid": "Kennung",
}  # fmt: skip


def words(request: HttpRequest) -> dict[str, Any]:
    german = (get_language() or "en").startswith("de")
    return {"words": GERMAN if german else ENGLISH, "language": "de" if german else "en"}


def headers(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Allow nothing but the sandbox's own style; a form may lead back to the registered sites."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        sites = " ".join(sorted({_origin(uri) for uri in settings.SANDBOX_REDIRECT_URIS}))
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self' {sites}; frame-ancestors 'none'; base-uri 'none'"
        )
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    return middleware


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


def sign_in(request: HttpRequest) -> HttpResponse:
    """One click signs a person in; the session then remembers, as sipgate's does."""
    target = request.POST.get("next") or request.GET.get("next") or "/"
    if not url_has_allowed_host_and_scheme(target, allowed_hosts={request.get_host()}):
        target = "/"
    person = BY_UID.get(request.POST.get("person", ""))
    if request.method == "POST" and person is not None:
        user = get_user_model().objects.get(username=person.uid)
        login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        request.session.pop("keycloak_session", None)
        return HttpResponseRedirect(target)
    return render(request, "sandbox/login.html", {"people": PEOPLE, "next": target})


@require_GET
def start(request: HttpRequest) -> HttpResponse:
    site = _origin(settings.SANDBOX_REDIRECT_URIS[0]) if settings.SANDBOX_REDIRECT_URIS else ""
    context = {
        "people": PEOPLE,
        "site": site,
        "known": faults.KNOWN.items(),
        "armed": faults.armed(),
        "places": faults.PLACES,
    }
    return render(request, "sandbox/start.html", {**context, "counts": counters.state()})


@require_GET
def static(request: HttpRequest, name: str) -> HttpResponse:
    path = (STATIC / name).resolve()
    if not path.is_relative_to(STATIC) or not path.is_file():
        return HttpResponse(status=404)
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return HttpResponse(path.read_bytes(), content_type=kind, headers={"Cache-Control": "max-age=300"})
