"""Consent and disconnect, as allauth announces them → token rows.

A token is stored when a sign-in or connect is *complete*, not while allauth still checks it: allauth's own storage
happens earlier, so that an anonymous redirect or somebody else's connect can overwrite a row.
"""

from __future__ import annotations

from typing import Any

from allauth.account.signals import user_logged_in, user_signed_up
from allauth.socialaccount.models import SocialAccount, SocialLogin
from allauth.socialaccount.signals import social_account_added, social_account_updated
from django.db.models.signals import pre_delete
from django.utils import timezone

from . import credentials, errors, oauth, revocation, sealing, signals, store
from .models import SipgateToken, State, TokenEvent

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
    pre_delete.connect(_token_goes, sender=SipgateToken, dispatch_uid="sipgate_provider.pre_delete")


def _signed_in(sociallogin: SocialLogin | None = None, **_kwargs: Any) -> None:
    if sociallogin is not None:
        _store(sociallogin)


def _connected(sociallogin: SocialLogin, **_kwargs: Any) -> None:
    _store(sociallogin)


def _reconnected(request: Any, sociallogin: SocialLogin, **_kwargs: Any) -> None:
    # Also sent for sign-ins, before they are allowed, and for a connect that will be refused because the connection
    # is another user's. Only this user's own second connect counts; the rest arrives as user_logged_in.
    user = getattr(request, "user", None)
    is_connect = sociallogin.state.get("process") == "connect"
    if is_connect and user is not None and user.is_authenticated and sociallogin.account.user_id == user.pk:
        _store(sociallogin)


def _store(sociallogin: SocialLogin) -> None:
    if (
        sociallogin.account is None
        or sociallogin.account.provider != credentials.PROVIDER_ID
        or not sociallogin.account.pk
    ):
        return
    grant = attached(sociallogin.token)
    if grant is None:
        return
    setattr(sociallogin.token, GRANT, None)  # sign-up announces itself twice
    requested = sociallogin.state.get("data") or {}
    record_consent(
        sociallogin.account,
        grant,
        requested_scope=requested.get("sipgate_scope", ()) if isinstance(requested, dict) else (),
    )


def record_consent(connection: SocialAccount, grant: oauth.Grant, *, requested_scope: Any = ()) -> SipgateToken:
    """Store what a person's consent brought, and note it in the history. Runs in the caller's transaction."""
    now = timezone.now()
    row, before = store.consent(connection, grant, requested_scope=requested_scope, now=now)
    broken = before is not None and before.state != State.ACTIVE
    store.add_event(
        TokenEvent.Kind.REPAIRED if broken else TokenEvent.Kind.CONSENT if before else TokenEvent.Kind.CONNECTED,
        connection=connection,
        actor="person",
        generation=row.generation,
        at=now,
        note=row.scope,
        reason=before.reason if broken and before else "",
    )
    _end_former_session(connection, row, before)
    signals.announce(signals.connected, connection=connection, token=row, first=before is None)
    if broken:
        signals.announce(signals.repaired, connection=connection, token=row)
    return row


def _end_former_session(connection: SocialAccount, row: SipgateToken, before: SipgateToken | None) -> None:
    # A second sign-in in another browser leaves the first one's session behind at sipgate. It is ended only if it is
    # known to be another one: Keycloak ends whole sessions.
    if before is None or not before.sealed or not before.session_fingerprint or not row.session_fingerprint:
        return
    if before.session_fingerprint == row.session_fingerprint or before.lease_owner:
        return
    try:
        pair = sealing.open_pair(before.sealed, connection_id=before.pk, generation=before.generation)
    except errors.Misconfigured:
        return  # sealed with a key that is gone: nothing can be done with it
    revocation.enqueue(pair, uid=connection.uid, user=connection.user_id, why="replaced by a new sign-in")


def _token_goes(instance: SipgateToken, **_kwargs: Any) -> None:
    """The connection or its user is being deleted, by whomever: hand the session over to the outbox."""
    row = store.load(instance.pk) or instance
    connection = SocialAccount.objects.using(store.database()).filter(pk=row.pk).first()
    uid = connection.uid if connection else ""
    user = connection.user_id if connection else None
    if row.sealed:
        try:
            pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
            revocation.enqueue(pair, uid=uid, user=user, why="disconnected")
        except errors.Misconfigured:
            pass  # sealed with a key that is gone: the session ends by itself
    store.add_event(
        TokenEvent.Kind.DISCONNECTED,
        uid=uid,
        actor="person",
        generation=row.generation,
        state=row.state,
        reason=row.reason,
        note=f"user {user}",
    )
    if connection is not None:
        signals.announce(signals.disconnected, connection=connection, token=row)
