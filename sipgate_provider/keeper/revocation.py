"""Ends sessions at sipgate that nobody here needs any more: an outbox that is worked off after the commit.

The local secret is sealed away in the same transaction that removes the connection; the remote call happens later,
is retried for a day, and every outcome is in the history.

Must not know: why somebody disconnected, pages.
"""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta
from functools import partial

from django.db import transaction
from django.utils import timezone

from sipgate_provider import errors, metrics
from sipgate_provider.keeper import database, history
from sipgate_provider.models import Revocation, SipgateToken, TokenEvent
from sipgate_provider.remote import log_fields, oauth
from sipgate_provider.remote.secret import Secret

from . import authorization_server, sealing, threads

logger = logging.getLogger(__name__)

TRY_FOR = timedelta(hours=24)
CLAIM_FOR = timedelta(seconds=90)
"""Longer than one delivery takes: another worker leaves the row alone for so long."""
LONGEST_PAUSE = timedelta(minutes=30)


def enqueue(pair: sealing.Pair, *, uid: str, user: object, why: str) -> Revocation | None:
    """Note that the session of ``pair`` is to be ended; try it at once after the commit. None: nothing to end it with."""
    if not pair.refresh_token:
        return None
    now = timezone.now()
    pk = uuid.uuid4()
    row = Revocation.objects.using(database.alias()).create(
        pk=pk,
        uid=uid,
        user_key="" if user is None else str(user),
        sealed=sealing.seal(pair.refresh_token.encode(), context=_context(pk)),
        created_at=now,
        give_up_at=now + TRY_FOR,
        next_attempt_at=now,
        why=why[:40],
    )
    transaction.on_commit(partial(_start, pk), using=database.alias())
    return row


def give_up_orphan(row: SipgateToken, grant: oauth.Grant, pair: sealing.Pair) -> None:
    """End the session of a pair that came too late, unless it is the session the newer pair lives in.

    Keycloak ends whole sessions: ending the one of a second sign-in in the same browser would kill the newer pair too.
    """
    if not row.sealed:
        connection = row.connection
        enqueue(pair, uid=connection.uid, user=connection.user_id, why="revoked during a refresh")
        return
    ours = sealing.fingerprint(grant.session_state)
    if row.access_fingerprint == sealing.fingerprint(pair.access_token):
        return  # our own write, whose confirmation was lost
    if ours and row.session_fingerprint and ours != row.session_fingerprint:
        connection = row.connection
        enqueue(pair, uid=connection.uid, user=connection.user_id, why="superseded by a new sign-in")


def _start(pk: uuid.UUID) -> None:
    threads.errands.submit_once(("revocation", pk), partial(deliver, pk))


def deliver(pk: uuid.UUID) -> bool:
    """Try one pending revocation now. Returns True when it needs no further try (done, given up, or somebody else's)."""
    now = timezone.now()
    rows = Revocation.objects.using(database.alias())
    row = rows.filter(pk=pk).first()
    if row is None:
        return True
    if not rows.filter(pk=pk, next_attempt_at=row.next_attempt_at).update(next_attempt_at=now + CLAIM_FOR):
        return True
    try:
        token = Secret(sealing.unseal(row.sealed, context=_context(pk)).decode())
        client = authorization_server.client()
        database.release_connections()
        _end_session(client, token)
    except errors.SipgateError as error:
        return _failed(row, error)
    rows.filter(pk=pk).delete()
    _note(row, TokenEvent.Kind.REVOCATION)
    metrics.REVOCATIONS.count("done")
    logger.info(
        "Ended the session of %s at sipgate", row.uid or "a removed connection", extra=log_fields.fields(outcome="done")
    )
    return True


def _end_session(client: oauth.Client, token: str) -> None:
    if client.revoke_url:
        oauth.revoke(client, token)
    if client.logout_url:
        oauth.logout(client, token)


def _failed(row: Revocation, error: errors.SipgateError) -> bool:
    now = timezone.now()
    code = error.code or (str(error.status) if error.status else type(error).__name__)
    rows = Revocation.objects.using(database.alias()).filter(pk=row.pk)
    if now >= row.give_up_at:
        rows.delete()
        _note(row, TokenEvent.Kind.REVOCATION_FAILED, error_code=code)
        logger.error(
            "Gave up ending a session at sipgate after %s tries [%s]: %s",
            row.attempts + 1,
            error.reference,
            error.message,
            extra=log_fields.fields(error, outcome="given_up"),
        )
        metrics.REVOCATIONS.count("given_up")
        return True
    pause = min(timedelta(seconds=5 * 2 ** min(row.attempts, 12)), LONGEST_PAUSE)
    rows.update(attempts=row.attempts + 1, next_attempt_at=now + pause, last_error_code=code[:80])
    metrics.REVOCATIONS.count("failed")
    logger.warning(
        "A session at sipgate is not ended yet [%s]: %s",
        error.reference,
        error.message,
        extra=log_fields.fields(error, outcome="failed"),
    )
    return False


def due(limit: int = 100) -> list[uuid.UUID]:
    """Return the ids of revocations whose time has come, oldest first."""
    rows = Revocation.objects.using(database.alias()).filter(next_attempt_at__lte=timezone.now())
    return list(rows.order_by("next_attempt_at").values_list("pk", flat=True)[:limit])


def _note(row: Revocation, kind: str, *, error_code: str = "") -> None:
    history.add_event(kind, uid=row.uid, actor="outbox", note=row.why, error_code=error_code)


def _context(pk: uuid.UUID) -> str:
    return f"sipgate_provider.revocation:{pk}"
