"""Hands the tokens of a completed sign-in to ``tokens.store``.

allauth completes a sign-in in four ways: it saves a new user, signs a known one in, or connects a
new or a known identity to the signed-in user. Nothing is stored before, so an anonymous redirect or
another user's connect changes no row. ``adapter.save_user`` stores the tokens of new users.
"""

from __future__ import annotations

import logging
from typing import Any

from allauth.account.signals import user_logged_in
from allauth.socialaccount.models import SocialLogin
from allauth.socialaccount.providers.base import AuthProcess
from allauth.socialaccount.signals import social_account_added, social_account_updated
from django.db import transaction
from django.dispatch import receiver
from django.http import HttpRequest

from sipgate_provider import conf, database, errors, scopes, tokens
from sipgate_provider.models import SipgateToken, State

from . import oauth
from .asked import Asked

logger = logging.getLogger(__name__)


@receiver([user_logged_in, social_account_added])
def _completed(sociallogin: SocialLogin | None = None, **_kwargs: Any) -> None:
    if sociallogin is not None:
        store(sociallogin)


@receiver(social_account_updated)
def _reconnected(request: HttpRequest, sociallogin: SocialLogin, **_kwargs: Any) -> None:
    # allauth also sends this for sign-ins, before it allows them, and for connections of other
    # users. Only this user's own second connect counts; sign-ins arrive as user_logged_in.
    is_connect = sociallogin.state.get("process") == AuthProcess.CONNECT
    is_own = request.user.is_authenticated and sociallogin.account.user_id == request.user.pk
    if is_connect and is_own:
        store(sociallogin)


def store(login: SocialLogin) -> None:
    """Store the tokens of ``login``, and remove them from it: allauth may announce a login twice.

    Tokens that allow less than those of a working connection are not stored, unless the sign-in
    asked for the rest. If allauth only found the user by email, nothing is connected, and the grant
    is ended.
    """
    if login.account.provider != conf.PROVIDER_ID or login.token is None:
        return
    if not login.account.pk:
        discard(login, why="signed in by email only")
        return
    sealed, login.token = login.token.token, None
    try:
        grant = oauth.opened(sealed)
    except errors.Misconfigured as error:
        # The key has gone since the sign-up form was shown. The user signs in once more.
        logger.error(
            "The tokens of a pending sign-up do not open [%s]: %s",
            error.reference,
            error,
            extra=errors.log_fields(error),
        )
        return
    requested = Asked.of(login.state).scope
    granted = requested if grant.scope is None else grant.scope
    with transaction.atomic(using=database.using(), savepoint=False):
        row = tokens.load(login.account.pk)
        is_connect = login.state.get("process") == AuthProcess.CONNECT
        if not is_connect and tokens.declines(login.account, grant, row):
            return
        if not _narrows(row, granted, requested):
            tokens.store(login.account, grant, scope=requested)


def discard(login: SocialLogin, *, why: str) -> None:
    """End the grant of ``login``. ``why``: at most 40 characters, for the history."""
    if login.token is not None:
        sealed, login.token = login.token.token, None
        tokens.discard(oauth.opened(sealed), uid=login.account.uid, user=None, why=why)


def _narrows(
    row: SipgateToken | None, granted: tuple[str, ...], requested: tuple[str, ...]
) -> bool:
    """Tell whether tokens lack scopes of a working row, although the sign-in did not ask for those
    scopes."""
    if row is None or row.state != State.ACTIVE:
        return False
    lost = scopes.missing(granted, needed=row.scopes)
    return bool(scopes.missing(requested, needed=lost))
