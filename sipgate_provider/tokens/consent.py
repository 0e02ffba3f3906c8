"""Stores what a person's consent changes: the token row, its history, and the revocations that are still pending."""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.db import transaction
from django.utils import timezone

from sipgate_provider import errors, signals
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import database, history, revocation, sealing, store


def record_consent(
    connection: SocialAccount,
    grant: oauth.Grant,
    *,
    requested_scope: Any = (),
    seen: SipgateToken | None = None,
) -> SipgateToken:
    """Store the grant of a person's consent, and note it in the history. Runs in the caller's transaction.

    ``seen``: the row, if the caller has just read it.
    """
    now = timezone.now()
    row, before = store.consent(
        connection, grant, requested_scope=requested_scope, now=now, seen=seen
    )
    broken = before is not None and before.state != State.ACTIVE
    history.add_event(
        TokenEvent.Kind.REPAIRED
        if broken
        else TokenEvent.Kind.CONSENT
        if before
        else TokenEvent.Kind.CONNECTED,
        connection=connection,
        actor="person",
        generation=row.generation,
        at=now,
        note=row.scope,
        reason=before.reason if broken and before else "",
    )
    revocation.drop_pending(connection.uid)
    signals.announce(signals.connected, connection=connection, token=row, first=before is None)
    if broken:
        signals.announce(signals.repaired, connection=connection, token=row)
    return row


def declines(connection: SocialAccount, grant: oauth.Grant, row: SipgateToken | None) -> bool:
    """Tell whether the person ended this site's access and only signs in. The grant is then handed to the outbox.

    Runs in the caller's transaction. A connect, which only the signed-in person can begin, allows access again.
    """
    if row is None or row.reason != Reason.ENDED_BY_PERSON:
        return False
    pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
    revocation.enqueue(
        pair, uid=connection.uid, user=connection.user_id, why="signed in only", row=row
    )
    history.add_event(
        TokenEvent.Kind.CONSENT,
        connection=connection,
        actor="person",
        reason=row.reason,
        generation=row.generation,
    )
    return True


def end_access(connection: SocialAccount) -> bool:
    """Delete the pair at the person's request and hand its grant to the outbox; sign-ins go on. False: there is no row.

    Raises:
        errors.SipgateUnavailable: the pair was being refreshed all the time.
    """
    for _attempt in range(10):
        row = store.load(connection.pk)
        if row is None:
            return False
        with transaction.atomic(using=database.alias()):
            if store.clear(row, reason=Reason.ENDED_BY_PERSON, now=timezone.now()):
                _hand_over(
                    row,
                    uid=connection.uid,
                    user=connection.user_id,
                    why="access ended by its person",
                )
                history.add_event(
                    TokenEvent.Kind.STATE,
                    connection=connection,
                    actor="person",
                    state=State.NEEDS_SIGN_IN,
                    reason=Reason.ENDED_BY_PERSON,
                    generation=row.generation + 1,
                )
                return True
    raise errors.SipgateUnavailable(
        "The connection was refreshed each time its access was to be ended; try again."
    )


def _hand_over(row: SipgateToken, *, uid: str, user: int | None, why: str) -> None:
    if not row.sealed:
        return
    try:
        pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
    except errors.Misconfigured:
        return  # sealed with a key that is gone: the grant ends by itself
    revocation.enqueue(pair, uid=uid, user=user, why=why, row=row)


def before_row_is_deleted(instance: SipgateToken, **_kwargs: Any) -> None:
    """Hand the grant over to the outbox: the connection or its user is being deleted."""
    row = store.load(instance.pk) or instance
    connection = SocialAccount.objects.using(database.alias()).filter(pk=row.pk).first()
    uid = connection.uid if connection else ""
    user = connection.user_id if connection else None
    _hand_over(row, uid=uid, user=user, why="disconnected")
    history.add_event(
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
