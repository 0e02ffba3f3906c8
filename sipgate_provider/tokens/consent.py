"""Stores tokens at a sign-in, and ends access for a user, an administrator or a disconnect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.db import transaction
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from sipgate_provider import database, errors, signals
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.remote.oauth import Tokens
from sipgate_provider.tokens import endings, journal, rows

USER = "user"
"""Who ends access: the connection's own user. Any other text is an administrator's name."""


def store(connection: SocialAccount, tokens: Tokens, *, scope: Iterable[str] = ()) -> SipgateToken:
    """Store the tokens of a consent, add it to the history, and send the signals, in the caller's
    transaction.

    Args:
        scope: what the sign-in asked for; it counts as granted if the tokens name no scope.
    """
    row, before = rows.store_consent(connection, tokens, scope=scope)
    broken = before is not None and before.state != State.ACTIVE
    kind = TokenEvent.Kind.CONSENT if before else TokenEvent.Kind.CONNECTED
    TokenEvent.objects.add(
        TokenEvent.Kind.REPAIRED if broken else kind,
        connection=connection,
        actor=USER,
        number=row.number,
        at=row.consented_at,
        note=row.scope,
        reason=before.reason if broken and before else "",
    )
    endings.cancel(connection.uid)
    signals.announce(signals.connected, connection=connection, token=row, first=before is None)
    if broken:
        signals.announce(signals.repaired, connection=connection, token=row)
    return row


def declines(connection: SocialAccount, tokens: Tokens, row: SipgateToken | None) -> bool:
    """Tell whether the user has ended this site's access and only signs in. If so, end the grant of
    ``tokens``.

    Runs in the caller's transaction. A connect, which only the signed-in user can begin, allows
    access again.
    """
    if row is None or row.reason != Reason.ENDED_BY_USER:
        return False
    discard(tokens, uid=connection.uid, user=connection.user_id, why="signed in only", row=row)
    TokenEvent.objects.add(
        TokenEvent.Kind.CONSENT,
        connection=connection,
        actor=USER,
        reason=row.reason,
        number=row.number,
    )
    return True


def discard(
    tokens: Tokens, *, uid: str, user: object, why: str, row: SipgateToken | None = None
) -> None:
    """Put tokens that the site will not use into the outbox, so that their grant is ended at
    sipgate. Runs in the caller's transaction.

    Args:
        uid: the identity that they belong to.
        user: primary key of the site's user, for administrators; None if there is none.
        why: at most 40 characters, for the history.
        row: the row of that identity's connection, if there is one.
    """
    endings.add(tokens, uid=uid, user=user, why=why, row=row)


def end(connection: SocialAccount | int, *, by: str) -> bool:
    """Forget a connection's tokens, and put their ending into the outbox. Sign-ins still work.

    Args:
        by: ``"user"`` for the connection's own user, or an administrator's name; for the history.

    Returns False if the row had no tokens.

    Raises:
        errors.NotConnected: there is no row.
    """
    connection_id = connection if isinstance(connection, int) else connection.pk
    present = rows.load(connection_id)
    newer = journal.newer(present) if present is not None else None
    if newer is not None:
        journal.try_to_recover(newer)  # so that the newest tokens are ended
    by_user = by == USER
    reason = Reason.ENDED_BY_USER if by_user else Reason.REVOKED
    with transaction.atomic(using=database.using()):
        row = rows.locked(connection_id)
        if not row.sealed:
            return False
        why = "access ended by its user" if by_user else "ended by an administrator"
        is_ended = _hand_over(row, row.connection, why)
        rows.forget(row, reason=reason)
        note = "" if by_user else "revoke: done" if is_ended else "revoke: here only, a key is gone"
        _note(row, by, reason, note, number=row.number + 1)
    if not by_user:
        _tell(row, reason)
    return True


def require_sign_in(connection: SocialAccount | int, *, by: str) -> bool:
    """Demand a new sign-in, without asking sipgate; the tokens stay. Arguments and errors are those
    of ``end``.

    Returns False if the connection needs a sign-in already.
    """
    connection_id = connection if isinstance(connection, int) else connection.pk
    with transaction.atomic(using=database.using()):
        row = rows.locked(connection_id)
        if row.state == State.NEEDS_SIGN_IN:
            return False
        rows.require_sign_in(row)
        _note(row, by, Reason.SIGN_IN_REQUIRED, "require_sign_in: done", number=row.number)
    _tell(row, Reason.SIGN_IN_REQUIRED)
    return True


def _note(row: SipgateToken, by: str, reason: Reason, note: str, *, number: int) -> None:
    TokenEvent.objects.add(
        TokenEvent.Kind.STATE if by == USER else TokenEvent.Kind.ADMIN,
        connection=row.connection,
        actor=by,
        note=note,
        state=State.NEEDS_SIGN_IN,
        reason=reason,
        number=number,
    )


def _tell(row: SipgateToken, reason: Reason) -> None:
    if row.state != State.NEEDS_SIGN_IN:
        signals.announce(
            signals.needs_sign_in,
            connection=row.connection,
            token=rows.load(row.pk),
            reason=reason,
        )


def _hand_over(row: SipgateToken, connection: SocialAccount | None, why: str) -> bool:
    """Put the ending of a row's tokens into the outbox. False: there are none, or they do not open,
    and access ends only when it expires."""
    try:
        tokens = rows.opened(row)
    except (errors.NeedsSignIn, errors.Misconfigured):
        return False
    uid, user = (connection.uid, connection.user_id) if connection else ("", None)
    endings.add(tokens, uid=uid, user=user, why=why, row=row)
    return True


@receiver(pre_delete, sender=SipgateToken, dispatch_uid="sipgate_provider.pre_delete")
def before_row_is_deleted(instance: SipgateToken, **_kwargs: Any) -> None:
    """End the grant: the connection or its user is being deleted."""
    row = rows.load(instance.pk) or instance
    connection = SocialAccount.objects.using(database.using()).filter(pk=row.pk).first()
    _hand_over(row, connection, "disconnected")
    TokenEvent.objects.add(
        TokenEvent.Kind.DISCONNECTED,
        uid=connection.uid if connection else "",
        actor=USER,
        number=row.number,
        state=row.state,
        reason=row.reason,
        note=f"user {connection.user_id if connection else None}",
    )
    if connection is not None:
        signals.announce(signals.disconnected, connection=connection, token=row)
