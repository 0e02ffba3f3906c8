"""Stores what a person's consent changes: the token row, its history, and the revocations that are still pending."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.db import transaction
from django.db.models.signals import pre_delete
from django.dispatch import receiver
from django.utils import timezone

from sipgate_provider import errors, signals
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import database, journal, revocation, rows, sealing


def record_consent(
    connection: SocialAccount,
    grant: oauth.Grant,
    *,
    scope: Iterable[str] = (),
    seen: SipgateToken | None = None,
) -> SipgateToken:
    """Store the grant of a person's consent, and note it in the history. Runs in the caller's transaction.

    ``scope``: what was asked for; it was granted if the grant names none. ``seen``: the row, if the caller has just read
    it.
    """
    now = timezone.now()
    row, before = rows.consent(connection, grant, scope=scope, now=now, seen=seen)
    broken = before is not None and before.state != State.ACTIVE
    TokenEvent.objects.add(
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
    TokenEvent.objects.add(
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
        row = rows.load(connection.pk)
        if row is None:
            return False
        with transaction.atomic(using=database.alias()):
            if rows.clear(row, reason=Reason.ENDED_BY_PERSON, now=timezone.now()):
                _hand_over(
                    row,
                    uid=connection.uid,
                    user=connection.user_id,
                    why="access ended by its person",
                )
                TokenEvent.objects.add(
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


def discard(
    tokens: oauth.Grant, *, uid: str, user: object, why: str, row: SipgateToken | None = None
) -> None:
    """Put tokens that nobody will use into the outbox, to be ended at sipgate. Runs in the caller's transaction.

    Args:
        uid: the identity that they belong to.
        user: primary key of the site's user, for the administrators who read this; None for nobody.
        why: at most 40 characters, for the history.
        row: the row of that identity's connection, if there is one.
    """
    pair = sealing.Pair(access_token=tokens.access_token, refresh_token=tokens.refresh_token)
    revocation.enqueue(pair, uid=uid, user=user, why=why, row=row)


def end(connection_id: int, *, by: str) -> bool:
    """Forget a connection's tokens at an administrator's request, and put their ending into the outbox.

    Args:
        by: the administrator's name, for the history.

    Returns False if there were no tokens any more.

    Raises:
        errors.NotConnected: there is no row.
        errors.SipgateUnavailable: the connection was being refreshed at each attempt.
    """
    row = rows.load(connection_id)
    if row is not None:
        journal.recover_row(row)  # the newest pair is revoked
    return _end_once(
        connection_id,
        partial(_clear, by=by),
        Reason.REVOKED,
        is_over=lambda row: not row.sealed,
    )


def require_sign_in(connection_id: int, *, by: str) -> bool:
    """Ask for a new sign-in at an administrator's request, without asking sipgate; the tokens stay.

    Arguments, result and errors as ``end``; False if it needs a sign-in already.
    """
    return _end_once(
        connection_id,
        partial(_require, by=by),
        Reason.SIGN_IN_REQUIRED,
        is_over=lambda row: row.state == State.NEEDS_SIGN_IN,
    )


def _end_once(
    connection_id: int,
    change: Callable[[SipgateToken], bool],
    reason: Reason,
    *,
    is_over: Callable[[SipgateToken], bool],
) -> bool:
    for _attempt in range(10):
        row = rows.load(connection_id)
        if row is None:
            raise errors.NotConnected("The sipgate connection is gone.")
        if is_over(row):
            return False
        with transaction.atomic(using=database.alias()):
            changed = change(row)
        if changed:
            if row.state != State.NEEDS_SIGN_IN:
                signals.announce(
                    signals.needs_sign_in,
                    connection=row.connection,
                    token=rows.load(row.pk),
                    reason=reason,
                )
            return True
    raise errors.SipgateUnavailable(
        "The connection was being refreshed at each attempt to end it; try again."
    )


def _clear(row: SipgateToken, *, by: str) -> bool:
    if not rows.clear(row, reason=Reason.REVOKED, now=timezone.now()):
        return False
    connection, note = row.connection, "revoke: done"
    try:
        pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
    except errors.Misconfigured:
        note = (
            "revoke: here only; the key that sealed it is gone, so access at sipgate ends by itself"
        )
    else:
        revocation.enqueue(
            pair,
            uid=connection.uid,
            user=connection.user_id,
            why="revoked by an administrator",
            row=row,
        )
    _note(row, by, note, reason=Reason.REVOKED, generation=row.generation + 1)
    return True


def _require(row: SipgateToken, *, by: str) -> bool:
    if not rows.end(row.pk, row.generation, reason=Reason.SIGN_IN_REQUIRED, now=timezone.now()):
        return False
    _note(
        row,
        by,
        "require_sign_in: done",
        reason=Reason.SIGN_IN_REQUIRED,
        generation=row.generation,
    )
    return True


def _note(row: SipgateToken, by: str, note: str, *, reason: Reason, generation: int) -> None:
    TokenEvent.objects.add(
        TokenEvent.Kind.ADMIN,
        connection=row.connection,
        actor=by,
        note=note,
        state=State.NEEDS_SIGN_IN,
        reason=reason,
        generation=generation,
    )


def _hand_over(row: SipgateToken, *, uid: str, user: int | None, why: str) -> None:
    if not row.sealed:
        return
    try:
        pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
    except errors.Misconfigured:
        return  # sealed with a key that is gone: the grant ends by itself
    revocation.enqueue(pair, uid=uid, user=user, why=why, row=row)


@receiver(pre_delete, sender=SipgateToken, dispatch_uid="sipgate_provider.pre_delete")
def before_row_is_deleted(instance: SipgateToken, **_kwargs: Any) -> None:
    """Hand the grant over to the outbox: the connection or its user is being deleted."""
    row = rows.load(instance.pk) or instance
    connection = SocialAccount.objects.using(database.alias()).filter(pk=row.pk).first()
    uid = connection.uid if connection else ""
    user = connection.user_id if connection else None
    _hand_over(row, uid=uid, user=user, why="disconnected")
    TokenEvent.objects.add(
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
