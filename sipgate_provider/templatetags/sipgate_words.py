"""Words for sipgate's codes and the history's events. Unknown values are shown as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django import template
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sipgate_provider.models import Reason, State, TokenEvent

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise

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
    "history:write": gettext_lazy("change your list of calls, faxes and messages"),
    "numbers:read": gettext_lazy("read your telephone numbers"),
    "numbers:write": gettext_lazy("change where your telephone numbers are routed"),
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
"""What a scope allows, after "may": https://developer.sipgate.io/rest-api/oauth2-scopes/"""

HISTORY_LIFETIMES = {
    "": "–",
    "NONE": gettext_lazy("not kept"),
    "THIRTY_DAYS": gettext_lazy("30 days"),
    "UNLIMITED": gettext_lazy("without limit"),
}

HAPPENED: dict[str, StrPromise] = {
    TokenEvent.Kind.CONSENT: gettext_lazy("You signed in at sipgate."),
    TokenEvent.Kind.CONNECTED: gettext_lazy("You connected sipgate."),
    TokenEvent.Kind.REPAIRED: gettext_lazy("The connection works again."),
    TokenEvent.Kind.FAILED: gettext_lazy("This site could not refresh the connection."),
    TokenEvent.Kind.RECOVERED: gettext_lazy("This site completed a refresh after an interruption."),
    TokenEvent.Kind.DISCONNECTED: gettext_lazy("The connection was removed."),
    TokenEvent.Kind.ENDING: gettext_lazy("This site ended its access at sipgate."),
    TokenEvent.Kind.ENDING_FAILED: gettext_lazy(
        "This site could not end its access at sipgate. The access will expire."
    ),
    TokenEvent.Kind.RESEALED: gettext_lazy("This site encrypted the tokens with a new key."),
    TokenEvent.Kind.ADMIN: gettext_lazy("An administrator of this site acted on the connection."),
    TokenEvent.Kind.NOTIFIED: gettext_lazy("This site sent you an email."),
}

CHANGED: dict[str, StrPromise] = {
    State.ACTIVE: gettext_lazy("The connection works."),
    State.FAILING: gettext_lazy("This site could not refresh the connection, and keeps trying."),
    State.NEEDS_SIGN_IN: gettext_lazy("The connection ended: sign in again to repair it."),
    State.MISCONFIGURED: gettext_lazy(
        "The connection is paused: this site is not set up correctly."
    ),
}


@register.filter
def history_lifetime(value: str) -> str:
    return str(HISTORY_LIFETIMES.get(value, value))


@register.filter
def product(value: str) -> str:
    """Return ``sipgate team`` for ``TEAM``: sipgate writes its products in small letters."""
    return f"sipgate {value.replace('_', ' ').lower()}" if value else "–"


@register.filter
def permission(scope: str) -> str:
    return str(PERMISSIONS.get(scope, scope))


@register.filter
def plainly(value: Any) -> str:
    """Return a value of sipgate's JSON in a readable form."""
    if value is None or value in ("", []):
        return "–"
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list) and all(isinstance(part, str | int | float) for part in value):
        return ", ".join(str(part) for part in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


@register.filter
def happened(event: TokenEvent) -> str:
    """Describe an event of the history to the connection's user."""
    kind, is_change = event.kind, event.kind == TokenEvent.Kind.STATE
    if event.reason == Reason.ENDED_BY_USER and kind == TokenEvent.Kind.CONSENT:
        return _("You signed in. This site kept no access, as you asked.")
    if event.reason == Reason.ENDED_BY_USER and is_change:
        return _("You ended this site's access.")
    if is_change:
        text = str(CHANGED.get(event.state, ""))
    else:
        text = str(HAPPENED.get(kind, f"{capfirst(event.get_kind_display())}."))
    if event.reason and (is_change or kind == TokenEvent.Kind.FAILED):
        text += " " + _("Reason: %(reason)s.") % {"reason": event.get_reason_display()}
    return text.strip()
