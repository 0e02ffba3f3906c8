"""The words of the sandbox's pages, in English and German."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.translation import get_language

ENGLISH = {
    "notice": "This is a local sandbox, not sipgate.",
    "login": "Who are you?",
    "login_hint": "Choose one of these invented people. No password is needed.",
    "consent": "Allow access?",
    "wants": "wants to use the account of",
    "scopes": "It asks for:",
    "allow": "Allow",
    "deny": "Deny",
    "login_again": "Is it still you?",
    "login_again_hint": "The application wants you to sign in again. Nobody else can, while you are signed in.",
    "restart": "Sign out and be another person",
    "log_out": "Do you want to log out?",
    "log_out_hint": "What applications got in this browser ends, unless they have offline access.",
    "log_out_button": "Log out",
    "logged_out": "You are logged out",
    "back": "Afterwards you return to",
    "people": "People",
    "faults": "Faults",
    "clear": "Clear all faults",
    "client": "Client not found",
    "client_cure": "The client id is not known here. Check CLIENT_ID and the realm.",
    "redirect_uri": "Invalid parameter: redirect_uri",
    "redirect_cure": "The redirect URI is not registered exactly like this. Check REDIRECT_URI.",
    "start": "The sipgate sandbox runs",
    "start_hint": (
        "It stands in for sipgate's authorization server and REST API, so that a site can be tried without credentials."
    ),
    "site": "Go to the site",
    "arm": "Let it happen once",
    "none_armed": "None is armed.",
    "account": "account",
    "uid": "id",
}
GERMAN = {
    "notice": "Dies ist eine lokale Sandbox, nicht sipgate.",
    "login": "Wer sind Sie?",
    "login_hint": "Wählen Sie eine dieser erfundenen Personen. Ein Passwort ist nicht nötig.",
    "consent": "Zugriff erlauben?",
    "wants": "möchte das Konto verwenden von",
    "scopes": "Es bittet um:",
    "allow": "Erlauben",
    "deny": "Ablehnen",
    "login_again": "Sind Sie es noch?",
    "login_again_hint": (
        "Die Anwendung möchte, dass Sie sich erneut anmelden. Solange Sie angemeldet sind, kann es niemand sonst."
    ),
    "restart": "Abmelden und eine andere Person sein",
    "log_out": "Möchten Sie sich abmelden?",
    "log_out_hint": "Was Anwendungen in diesem Browser erhalten haben, endet, sofern sie keinen Offline-Zugriff haben.",
    "log_out_button": "Abmelden",
    "logged_out": "Sie sind abgemeldet",
    "back": "Danach geht es zurück zu",
    "people": "Personen",
    "faults": "Störungen",
    "clear": "Alle Störungen beenden",
    "client": "Client nicht gefunden",
    "client_cure": "Diese Client-ID ist hier nicht bekannt. Prüfen Sie CLIENT_ID und den Realm.",
    "redirect_uri": "Ungültiger Parameter: redirect_uri",
    "redirect_cure": "Die Redirect-URI ist nicht genau so eingetragen. Prüfen Sie REDIRECT_URI.",
    "start": "Die sipgate-Sandbox läuft",
    "start_hint": (
        "Sie vertritt sipgates Autorisierungsserver und REST-API, "
        "damit man eine Website ohne Zugangsdaten ausprobieren kann."
    ),
    "site": "Zur Website",
    "arm": "Einmal geschehen lassen",
    "none_armed": "Keine ist aktiv.",
    "account": "Konto",
    "uid": "Kennung",
}


def words(request: HttpRequest) -> dict[str, Any]:
    """Give every template ``words`` and ``language``."""
    german = (get_language() or "en").startswith("de")
    return {"words": GERMAN if german else ENGLISH, "language": "de" if german else "en"}
