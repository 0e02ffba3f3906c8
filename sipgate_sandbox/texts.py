"""The words of the sandbox's pages, in English and German."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.translation import get_language

from . import faults

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
    "restart": "Sign out and choose another person",
    "log_out": "Do you want to log out?",
    "log_out_hint": "The access of all applications in this browser ends, unless they have offline access.",
    "log_out_button": "Log out",
    "logged_out": "You are logged out",
    "back": "Afterwards you return to",
    "people": "The people",
    "people_hint": "Each stands for a case of real accounts. The buttons take effect at once.",
    "expire": "Let the access token expire",
    "kill": "End the session",
    "faults": "Let something happen at sipgate",
    "clear": "End all",
    "once": "Once",
    "lasting": "Until I end it",
    "armed": "Faults that are on",
    "times_once": "at the next request",
    "times_lasting": "until you end it",
    "fired": "happened so far:",
    "more": "All faults",
    "what": "What",
    "where": "Where",
    "done": "Done.",
    "redirect_came": "Received:",
    "redirect_known": "Registered:",
    "your_site": "Your site",
    "other_site": "Another application",
    "client": "Client not found",
    "client_cure": "The client id is not known here. Check CLIENT_ID and the realm.",
    "redirect_uri": "Invalid parameter: redirect_uri",
    "redirect_cure": "The redirect URI is not registered exactly like this. Check REDIRECT_URI.",
    "start": "The sipgate sandbox is running",
    "start_hint": (
        "It stands in for sipgate's authorization server and REST API, so that a site can be tried without credentials."
    ),
    "site": "Go to the site",
    "none_armed": "None: sipgate works as usual.",
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
    "restart": "Abmelden und eine andere Person wählen",
    "log_out": "Möchten Sie sich abmelden?",
    "log_out_hint": "Der Zugriff aller Anwendungen in diesem Browser endet, außer bei Offline-Zugriff.",
    "log_out_button": "Abmelden",
    "logged_out": "Sie sind abgemeldet",
    "back": "Danach geht es zurück zu",
    "people": "Die Personen",
    "people_hint": "Jede steht für einen Fall, der bei echten Konten vorkommt. Die Schaltflächen wirken sofort.",
    "expire": "Zugriffstoken ablaufen lassen",
    "kill": "Sitzung beenden",
    "faults": "Etwas bei sipgate geschehen lassen",
    "clear": "Alles beenden",
    "once": "Einmal",
    "lasting": "Bis ich es beende",
    "armed": "Eingeschaltete Störungen",
    "times_once": "bei der nächsten Anfrage",
    "times_lasting": "bis Sie es beenden",
    "fired": "bisher geschehen:",
    "more": "Alle Störungen",
    "what": "Was",
    "where": "Wo",
    "done": "Erledigt.",
    "redirect_came": "Erhalten:",
    "redirect_known": "Eingetragen:",
    "your_site": "Ihre Website",
    "other_site": "Eine andere Anwendung",
    "client": "Client nicht gefunden",
    "client_cure": "Diese Client-ID ist hier nicht bekannt. Prüfen Sie CLIENT_ID und den Realm.",
    "redirect_uri": "Ungültiger Parameter: redirect_uri",
    "redirect_cure": "Die Redirect-URI ist nicht genau so eingetragen. Prüfen Sie REDIRECT_URI.",
    "start": "Die sipgate-Sandbox läuft",
    "start_hint": (
        "Sie steht für Autorisierungsserver und REST-API von sipgate, "
        "damit man eine Website ohne Zugangsdaten ausprobieren kann."
    ),
    "site": "Zur Website",
    "none_armed": "Keine: sipgate funktioniert wie gewohnt.",
}

HAPPENINGS = (
    ("unavailable", "all", "sipgate is down", "sipgate ist nicht erreichbar"),
    (
        "slow",
        "api",
        "sipgate answers only after 5 seconds",
        "sipgate antwortet erst nach 5 Sekunden",
    ),
    (
        "too-many",
        "api",
        "sipgate says that there are too many requests",
        "sipgate meldet zu viele Anfragen",
    ),
    (
        "unavailable",
        "token",
        "A sign-in cannot be completed",
        "Eine Anmeldung lässt sich nicht abschließen",
    ),
    (
        "lose-answer",
        "refresh",
        "The new tokens are lost on the way",
        "Die neuen Token gehen unterwegs verloren",
    ),
    (
        "invalid-grant",
        "refresh",
        "sipgate refuses to renew a connection",
        "sipgate lehnt es ab, eine Verbindung zu erneuern",
    ),
    (
        "unauthorized-client",
        "refresh",
        "sipgate does not accept your site's client secret",
        "sipgate nimmt das Client-Secret Ihrer Website nicht an",
    ),
    ("forbidden", "api", "sipgate does not allow something", "sipgate erlaubt etwas nicht"),
    (
        "malformed-json",
        "api",
        "sipgate's answer makes no sense",
        "sipgates Antwort ist unverständlich",
    ),
)
"""Faults that have buttons of their own: fault, place, and both in words."""
PLACES_ENGLISH = {
    "auth": "sign-in page",
    "token": "code exchange",
    "refresh": "refresh",
    "logout": "logout",
    "revoke": "revocation",
    "account": "account",
    "userinfo": "identity",
    "users": "users",
    "api": "whole REST API",
    "all": "everywhere",
}
PLACES_GERMAN = {
    "auth": "Anmeldeseite",
    "token": "Einlösen des Codes",
    "refresh": "Erneuerung",
    "logout": "Abmeldung",
    "revoke": "Widerruf",
    "account": "Konto",
    "userinfo": "Identität",
    "users": "Benutzer",
    "api": "gesamte REST-API",
    "all": "überall",
}
FAULTS_GERMAN = {
    "unauthorized": "401 ohne Inhalt",
    "forbidden": "403 ohne Inhalt",
    "forbidden-text": "403 mit einem Text",
    "payment-required": "402 ohne Inhalt",
    "too-many": "429 mit Retry-After (Sekunden)",
    "unknown-error": '500 mit {"error": "unknown_error"}',
    "bad-gateway": "502 mit einer HTML-Seite",
    "unavailable": "503",
    "invalid-grant": "400 invalid_grant",
    "invalid-client": "401 invalid_client",
    "unauthorized-client": "401 unauthorized_client, wie bei einem falschen Secret",
    "malformed-json": "200 mit einem halben JSON-Objekt",
    "json-list": "200 mit einer JSON-Liste",
    "redirect": "307 zu einer anderen Adresse (value)",
    "huge": "200 mit 50 MB",
    "missing-sub": "Identität ohne sub",
    "missing-master": "Identität ohne masterSipId",
    "slow": "die richtige Antwort, nach einigen Sekunden",
    "hang": "einige Sekunden Stille, dann das Ende",
    "drip": "die richtige Antwort, Byte für Byte (Sekunden dazwischen)",
    "cut": "die Verbindung endet mitten im Inhalt",
    "cut-headers": "die Verbindung endet mitten in den Kopfzeilen",
    "reset": "die Verbindung wird abgebrochen, bevor etwas geschieht",
    "lose-answer": "es geschieht (die Token sind erneuert!), dann endet die Verbindung",
    "wrong-type": "der richtige Inhalt als text/html",
    "no-type": "der richtige Inhalt ohne Content-Type",
    "misdated": "die richtige Antwort, um so viele Sekunden vordatiert",
    "null-access-token": "access_token ist null",
    "null-refresh-token": "refresh_token ist null",
    "no-refresh-token": "refresh_token fehlt",
    "odd-expires": "expires_in ist seltsam (value)",
    "no-scope-field": "scope fehlt",
    "scope-less": "weniger scope als erbeten",
}


def is_german() -> bool:
    return (get_language() or "en").startswith("de")


def happenings() -> list[dict[str, str]]:
    """Return the faults that have buttons of their own, each with its ``text``."""
    return [
        {"fault": fault, "on": place, "text": german if is_german() else english}
        for fault, place, english, german in HAPPENINGS
    ]


def known_faults() -> dict[str, str]:
    """Return every fault with its description."""
    return FAULTS_GERMAN if is_german() else faults.KNOWN


def places() -> dict[str, str]:
    return PLACES_GERMAN if is_german() else PLACES_ENGLISH


def armed() -> list[dict[str, Any]]:
    """Return the armed faults with ``text`` and ``place`` in words."""
    own = {(row["fault"], row["on"]): row["text"] for row in happenings()}
    return [
        {
            **fault,
            "text": own.get((fault["fault"], fault["on"])) or known_faults()[fault["fault"]],
            "place": places()[fault["on"]],
        }
        for fault in faults.armed()
    ]


def words(request: HttpRequest) -> dict[str, Any]:
    """Give every template ``words`` and ``language``."""
    return {"words": GERMAN if is_german() else ENGLISH, "language": "de" if is_german() else "en"}
