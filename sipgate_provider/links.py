"""Builds and reads the address at which a sign-in begins.

::

    /accounts/sipgate/login/?process=connect&next=/sms&sipgate_scopes=…&repair=…

*Scopes* beyond the configured ones are signed for one user, because a crafted link could otherwise
ask a user for everything. The connection to *repair* is signed without a user: whoever follows the
link in an email is not signed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.core import signing
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode

from sipgate_provider import conf, database

SCOPES = "sipgate_scopes"
REPAIR = "repair"
ANOTHER = "another"
PROMPT = "prompt"
"""As in OpenID Connect Core §3.1.2.1: ``login`` lets sipgate ask who signs in, even if somebody is
signed in there."""
SIGNED_FOR = 86_400
"""Seconds that a button works on a page that stays open."""


def sign_in_url(
    next_url: str,
    *,
    process: str = "",
    wish: str = "",
    repairs: int | None = None,
    another: str = "",
) -> str:
    """Return the address that begins a sign-in: GET asks first, POST goes to sipgate.

    Args:
        next_url: where the user comes back to.
        process: allauth's: ``"connect"`` connects the signed-in user, ``""`` and ``"login"`` sign
            in.
        wish: further scopes, as ``signed_scopes`` returns them.
        repairs: primary key of a connection. If another account signs in at sipgate, nothing
            changes, and a page says so.
        another: ``"1"``, or what ``signed_name`` returns: first show the page that says how to use
            another sipgate account.
    """
    try:
        url = reverse("sipgate_login")
    except NoReverseMatch:
        return ""
    named = _signer().sign(str(repairs)) if repairs is not None else ""
    query = {"process": process, "next": next_url, SCOPES: wish, REPAIR: named, ANOTHER: another}
    words = urlencode({name: value for name, value in query.items() if value})
    return f"{url}?{words}" if words else url


def signed_scopes(request: HttpRequest, wanted: Iterable[str]) -> str:
    """Return a parameter that asks this user for ``wanted``, beyond the configured scopes."""
    return signing.dumps([_whose(request), *sorted(set(wanted))], salt=SCOPES)


def wanted_scopes(request: HttpRequest) -> tuple[str, ...] | None:
    """Return the scopes that this address or form asks for; None if not signed for this user."""
    value = request.POST.get(SCOPES) or request.GET.get(SCOPES)
    if not value:
        return None
    try:
        whose, *wanted = signing.loads(value, salt=SCOPES, max_age=SIGNED_FOR)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    return tuple(str(scope) for scope in wanted) if whose == _whose(request) else None


def signed_name(name: str) -> str:
    """Return a value of ``another`` that tells the page which account came back from sipgate."""
    return signing.dumps(name, salt=ANOTHER)


def name_met(request: HttpRequest) -> str:
    """Return the name that ``signed_name`` signed; empty if there is none."""
    try:
        return str(signing.loads(request.GET.get(ANOTHER, ""), salt=ANOTHER))
    except signing.BadSignature:
        return ""


def to_repair(request: HttpRequest) -> SocialAccount | None:
    """Return the connection that this address names; None if it names none, or it is gone."""
    try:
        pk = int(_signer().unsign(request.GET.get(REPAIR, "")))
    except (signing.BadSignature, ValueError):
        return None
    rows = SocialAccount.objects.using(database.using()).filter(provider=conf.PROVIDER_ID, pk=pk)
    rows = rows.select_related("sipgate_account", "sipgate_token")
    return rows.defer("sipgate_token__sealed").first()


def _signer() -> signing.Signer:
    """Signs a connection's primary key, without expiry: whoever follows the link must sign in."""
    return signing.Signer(salt="sipgate_provider.repair")


def _whose(request: HttpRequest) -> str:
    user: Any = getattr(request, "user", None)
    return str(user.pk) if user is not None and user.pk is not None else ""
