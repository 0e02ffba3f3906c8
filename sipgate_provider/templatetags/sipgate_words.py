"""Words for sipgate's codes and for the events of the history. Unknown values are shown as they are."""

from __future__ import annotations

import json
from typing import Any

from django import template
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sipgate_provider.models import Reason, State, TokenEvent

register = template.Library()

PERMISSIONS = {
    "all": gettext_lazy("do everything you can do at sipgate"),
    "account:read": gettext_lazy("read your company and product"),
    "addresses:read": gettext_lazy("read your addresses"),
    "authorization:oauth:clients:read": gettext_lazy("read your OAuth clients"),
    "balance:read": gettext_lazy("read your balance"),
    "contacts:read": gettext_lazy("read your contacts"),
    "contacts:write": gettext_lazy("change your contacts"),
    "devices:read": gettext_lazy("read your devices"),
    "devices:write": gettext_lazy("change your devices"),
    "faxlines:read": gettext_lazy("read your fax lines"),
    "groups:read": gettext_lazy("read your groups"),
    "history:read": gettext_lazy("read your calls, faxes and messages"),
    "history:write": gettext_lazy("change the list of your calls, faxes and messages"),
    "numbers:read": gettext_lazy("read your telephone numbers"),
    "numbers:write": gettext_lazy("change where your telephone numbers lead"),
    "offline_access": gettext_lazy("stay connected after you sign out of sipgate"),
    "phonelines:read": gettext_lazy("read your phone lines"),
    "phonelines:write": gettext_lazy("change your phone lines"),
    "sessions:calls:write": gettext_lazy("start calls"),
    "sessions:fax:write": gettext_lazy("send faxes"),
    "sessions:sms:write": gettext_lazy("send text messages"),
    "sessions:write": gettext_lazy("start calls and send faxes and text messages"),
    "settings:webhooks:read": gettext_lazy("read your webhooks"),
    "settings:webhooks:write": gettext_lazy("change your webhooks"),
    "sms:read": gettext_lazy("read your text message settings"),
    "users:read": gettext_lazy("read the names and email addresses of your company's users"),
    "voicemails:read": gettext_lazy("read your voicemails"),
}
"""What a scope allows, to be read after "may". https://developer.sipgate.io/rest-api/oauth2-scopes/"""

PRODUCTS = {
    "TEAM": "team",
    "SIMQUADRAT": "simquadrat",
    "BASIC": "basic",
    "TRUNKING": "trunking",
    "NEO": "neo",
}
"""sipgate's own spelling of its products."""


@register.filter
def history_lifetime(value: str) -> str:
    known = {
        "NONE": _("not kept"),
        "THIRTY_DAYS": _("30 days"),
        "UNLIMITED": _("without limit"),
        "": "–",
    }
    return known.get(value, value)


@register.filter
def product(value: str) -> str:
    """Return ``sipgate team`` for ``TEAM``; an unknown product is written in small letters."""
    return f"sipgate {PRODUCTS.get(value, value.replace('_', ' ').lower())}" if value else "–"


@register.filter
def permission(scope: str) -> str:
    return str(PERMISSIONS.get(scope, scope))


@register.filter
def plainly(value: Any) -> str:
    """Return a value of sipgate's JSON for people: texts and numbers unchanged, lists with commas, others as JSON."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list) and all(isinstance(part, str | int | float) for part in value):
        return ", ".join(str(part) for part in value) or "–"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


@register.filter
def happened(event: TokenEvent) -> str:
    """Describe an event of the history in words for the connection's person."""
    if event.kind == TokenEvent.Kind.CONSENT and event.reason == Reason.ENDED_BY_PERSON:
        return _("You signed in. As you wished, this site kept no access.")
    if event.kind == TokenEvent.Kind.STATE:
        return _state_changed(event)
    words = {
        TokenEvent.Kind.CONSENT: _("You signed in at sipgate."),
        TokenEvent.Kind.CONNECTED: _("You connected sipgate."),
        TokenEvent.Kind.REPAIRED: _("The connection works again."),
        TokenEvent.Kind.FAILED: _("The connection could not be renewed."),
        TokenEvent.Kind.RECOVERED: _("A renewal was completed after an interruption of this site."),
        TokenEvent.Kind.DISCONNECTED: _("The connection was removed."),
        TokenEvent.Kind.REVOCATION: _("This site's access was ended at sipgate."),
        TokenEvent.Kind.REVOCATION_FAILED: _(
            "This site's access could not be ended at sipgate; it ends by itself."
        ),
        TokenEvent.Kind.RESEALED: _("The stored tokens were sealed with a new key."),
        TokenEvent.Kind.ADMIN: _("An administrator of this site worked on the connection."),
        TokenEvent.Kind.NOTIFIED: _("A mail was sent to you."),
    }
    text = words.get(TokenEvent.Kind(event.kind)) if event.kind in TokenEvent.Kind.values else None
    text = text or capfirst(event.get_kind_display()) + "."
    return f"{text} {_because(event)}".strip() if event.kind == TokenEvent.Kind.FAILED else text


def _state_changed(event: TokenEvent) -> str:
    if event.reason == Reason.ENDED_BY_PERSON:
        return _("You ended this site's access.")
    words = {
        State.ACTIVE: _("The connection works."),
        State.FAILING: _("The connection could not be renewed; it is tried again."),
        State.NEEDS_SIGN_IN: _("The connection ended, and a new sign-in is needed."),
        State.MISCONFIGURED: _(
            "The connection paused: this site's set-up at sipgate was not accepted."
        ),
    }
    text = words.get(State(event.state), "") if event.state in State.values else ""
    return f"{text} {_because(event)}".strip()


def _because(event: TokenEvent) -> str:
    return _("Reason: %(reason)s.") % {"reason": event.get_reason_display()} if event.reason else ""
