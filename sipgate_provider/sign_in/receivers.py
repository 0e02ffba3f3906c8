"""Receives allauth's signals about consent and disconnect, and lets the keeper change the token rows.

A token is stored when a sign-in or connect is *complete*, not while allauth still checks it. allauth itself stores
tokens earlier, so that an anonymous redirect or somebody else's connect can overwrite a row.
"""

from __future__ import annotations

from typing import Any

from allauth.account.signals import user_logged_in, user_signed_up
from allauth.socialaccount.models import SocialLogin
from allauth.socialaccount.signals import social_account_added, social_account_updated

from sipgate_provider import conf, tokens
from sipgate_provider.remote import oauth

GRANT = "_sipgate_grant"
"""Attribute of a pending ``SocialToken`` that carries the whole grant from the callback to here."""


def attach(token: Any, grant: oauth.Grant) -> None:
    """Let ``grant`` travel with allauth's unsaved token."""
    setattr(token, GRANT, grant)


def attached(token: Any) -> oauth.Grant | None:
    return getattr(token, GRANT, None)


def connect_signals() -> None:
    """Called once, when the app is ready."""
    user_signed_up.connect(_signed_in, dispatch_uid="sipgate_provider.signed_up")
    user_logged_in.connect(_signed_in, dispatch_uid="sipgate_provider.logged_in")
    social_account_added.connect(_connected, dispatch_uid="sipgate_provider.added")
    social_account_updated.connect(_reconnected, dispatch_uid="sipgate_provider.updated")


def _signed_in(sociallogin: SocialLogin | None = None, **_kwargs: Any) -> None:
    if sociallogin is not None:
        _store(sociallogin)


def _connected(sociallogin: SocialLogin, **_kwargs: Any) -> None:
    _store(sociallogin)


def _reconnected(request: Any, sociallogin: SocialLogin, **_kwargs: Any) -> None:
    # Also sent for sign-ins, before they are allowed, and for a connect that will be refused because the connection
    # is another user's. Only this user's own second connect counts; sign-ins arrive as user_logged_in.
    user = getattr(request, "user", None)
    is_connect = sociallogin.state.get("process") == "connect"
    if (
        is_connect
        and user is not None
        and user.is_authenticated
        and sociallogin.account.user_id == user.pk
    ):
        _store(sociallogin)


def _store(sociallogin: SocialLogin) -> None:
    if (
        sociallogin.account is None
        or sociallogin.account.provider != conf.PROVIDER_ID
        or not sociallogin.account.pk
    ):
        return
    grant = attached(sociallogin.token)
    if grant is None:
        return
    setattr(sociallogin.token, GRANT, None)  # sign-up announces itself twice
    row = tokens.load(sociallogin.account.pk)
    if sociallogin.state.get("process") != "connect" and tokens.declines(
        sociallogin.account, grant, row
    ):
        return
    requested = sociallogin.state.get("data") or {}
    tokens.store(
        sociallogin.account,
        grant,
        scope=requested.get("sipgate_scope", ()) if isinstance(requested, dict) else (),
        seen=row,
    )
