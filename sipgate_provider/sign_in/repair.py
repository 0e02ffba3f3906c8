"""A sign-in that repairs one connection: its address names the connection, and the identity is compared on return.

If somebody else comes back from sipgate, nobody is connected, signed in or signed up: a page says who is still needed.
"""

from __future__ import annotations

import time
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib import messages
from django.core import signing
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.utils.translation import gettext as _

from sipgate_provider import conf, tokens

FIELD = "repair"
"""Query parameter of the sign-in's address. Signed: a link in a mail is followed by somebody who is not signed in."""
MARK = "sipgate_repair"
"""Key in the data of allauth's state: which connection this sign-in is to repair."""
MET = "sipgate_met"
"""Session key: who came back from sipgate instead."""
REMEMBERED = 600
"""Seconds for which that page is shown."""


def signed(connection_id: int) -> str:
    """Return a connection's signed name for an address. It does not expire: whoever follows it has to sign in."""
    return _signer().sign(str(connection_id))


def named(request: HttpRequest) -> SocialAccount | None:
    """Return the connection that this address names; None if it names none, or if that is gone."""
    try:
        pk = int(_signer().unsign(request.GET.get(FIELD, "")))
    except (signing.BadSignature, ValueError):
        return None
    rows = _connections().filter(pk=pk).select_related("sipgate_account", "sipgate_token")
    found: SocialAccount | None = rows.defer("sipgate_token__sealed").first()
    return found


def is_for(connection_id: int | None, uid: str) -> bool:
    """Tell whether ``uid`` is the one to sign in. Call it in the transaction that completes the sign-in."""
    if connection_id is None:
        return True
    return bool(_connections().select_for_update().filter(pk=connection_id, uid=uid).exists())


def asked_for(state: dict[str, Any]) -> int | None:
    """Return the key of the connection that a sign-in is to repair, from what allauth's state remembers."""
    data = state.get("data")
    return data.get(MARK) if isinstance(data, dict) else None


def note_met(request: HttpRequest, connection_id: int, name: str) -> None:
    """Remember who came back instead of the person of ``connection_id``."""
    request.session[MET] = {
        "connection": connection_id,
        "name": name,
        "until": time.time() + REMEMBERED,
    }


def met(request: HttpRequest, connection_id: int) -> str:
    """Return the name of who came back instead, a moment ago; empty if nobody did."""
    known = request.session.get(MET)
    if (
        not isinstance(known, dict)
        or known["connection"] != connection_id
        or known["until"] < time.time()
    ):
        return ""
    return str(known["name"])


def forget_met(request: HttpRequest) -> bool:
    """Forget who came back instead. Tell whether somebody did: they may have signed out of sipgate since."""
    return request.session.pop(MET, None) is not None


def gone(request: HttpRequest) -> HttpResponse:
    """Answer an address whose connection does not exist (any more). An ordinary sign-in would create a new account."""
    text = _("This link is about a connection that no longer exists. Nothing was changed.")
    messages.warning(request, text, fail_silently=True)
    is_signed_in = request.user.is_authenticated
    return HttpResponseRedirect(
        resolve_url(settings.LOGIN_REDIRECT_URL if is_signed_in else settings.LOGIN_URL)
    )


def _connections() -> Any:
    return SocialAccount.objects.using(tokens.using()).filter(provider=conf.PROVIDER_ID)


def _signer() -> signing.Signer:
    return signing.Signer(salt="sipgate_provider.repair")
