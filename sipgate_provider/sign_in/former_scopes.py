"""Makes sure that a sign-in never narrows what was allowed before.

A sign-in cannot know who is coming, so it asks for the configured scopes. If the person had allowed more, the new grant
is stored, and what was allowed before is asked for again in the same visit, with ``prompt=none``: sipgate answers at
once, without a page. If it refuses, the new grant stays, and the person is told what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from allauth.socialaccount.models import SocialAccount, SocialLogin
from allauth.socialaccount.providers.base import AuthProcess
from django.contrib import messages
from django.http import HttpRequest
from django.utils.translation import gettext as _

from sipgate_provider import scopes
from sipgate_provider.models import Reason
from sipgate_provider.remote import oauth

MARK = "sipgate_former"
"""Key in the data of allauth's state: this sign-in asks for former scopes (``lost``) of an identity (``uid``)."""
ENDED_ON_PURPOSE = frozenset({Reason.REVOKED, Reason.ENDED_BY_PERSON})


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What this site knew about an identity before it signed in."""

    domain: str = ""
    user_id: Any = None
    scope: tuple[str, ...] = ()
    """The scope of its living grant, or of the one that ended by itself."""


def known(login: SocialLogin) -> Known:
    """Return what is known of the identity that signs in. One query."""
    rows = SocialAccount.objects.filter(provider=login.account.provider, uid=login.account.uid)
    row = rows.values_list(
        "extra_data", "user_id", "sipgate_token__scope", "sipgate_token__reason"
    ).first()
    if row is None:
        return Known()
    data, user_id, scope, reason = row
    living = "" if reason in ENDED_ON_PURPOSE else scope or ""
    domain = data.get("domain") if isinstance(data, dict) else ""
    return Known(domain=domain or "", user_id=user_id, scope=tuple(living.split()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A new grant beside what was allowed before.

    ``unasked`` were not asked for this time. ``refused`` were asked for and not granted: sipgate's decision.
    """

    unasked: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def compare(
    request: HttpRequest, login: SocialLogin, grant: oauth.Grant, before: Known
) -> Compared:
    """Compare ``grant`` with what was allowed ``before``, if this sign-in is going to replace that."""
    process = login.state.get("process")
    others = process == AuthProcess.CONNECT and before.user_id != request.user.pk
    if process == AuthProcess.REDIRECT or others:
        return Compared()
    requested = requested_scope(login.state)
    lost = scopes.missing(requested if grant.scope is None else grant.scope, needed=before.scope)
    asked = {scope for scope in lost if scopes.suffices(requested, needed=scope)}
    return Compared(
        unasked=tuple(scope for scope in lost if scope not in asked),
        refused=tuple(scope for scope in lost if scope in asked),
    )


def requested_scope(state: dict[str, Any]) -> tuple[str, ...]:
    data = state.get("data")
    return tuple(data.get("sipgate_scope", ())) if isinstance(data, dict) else ()


def tell(request: HttpRequest, lost: Iterable[str]) -> None:
    """Tell the person which scopes are gone."""
    names = ", ".join(lost)
    if names:
        text = _("sipgate no longer allows: %(scopes)s. A page that needs it will ask you.") % {
            "scopes": names
        }
        messages.warning(request, text, fail_silently=True)
