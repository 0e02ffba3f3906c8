"""Ends grants at sipgate that this site no longer needs, from an outbox (a table of requests) after the commit.

The token is moved to the outbox in the transaction that removes the connection. The request to sipgate is sent later
and retried for a day, and the history has every outcome.

*The identity decides.* Keycloak keeps one session per browser and person, and ending an old grant of it ends the
grants of a later sign-in too. So nothing is ended while this site has a connection of the same identity and client.
This is checked directly before the request is sent, and a consent removes what is pending (``drop_pending``). A request
that was sent just before the consent was stored cannot be withdrawn: ``may_have_ended`` tells the callback, which
begins the sign-in again.

Must not know: why somebody disconnected, pages.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from sipgate_provider import conf, errors, metrics
from sipgate_provider.models import Revocation, SipgateToken, TokenEvent
from sipgate_provider.remote import log_fields, oauth
from sipgate_provider.remote.secret import Secret
from sipgate_provider.tokens import database

from . import authorization_server, sealing, threads

logger = logging.getLogger(__name__)
ATTEMPTS = metrics.Counter(
    "revocations_total",
    "Attempts to revoke access at sipgate.",
    {"outcome": ("done", "dropped", "failed", "given_up")},
)

TRY_FOR = timedelta(hours=24)
CLAIM_FOR = timedelta(seconds=90)
"""How long other workers leave a row alone that one is sending; longer than a delivery takes."""
LONGEST_PAUSE = timedelta(minutes=30)
REMEMBERED = timedelta(minutes=10)
"""How long a finished row is kept, so that a sign-in under way can find it."""
WAIT = 20.0
"""Seconds that a consent waits for a revocation that is being sent; the request takes 15 at most."""


def enqueue(
    pair: sealing.Pair,
    *,
    uid: str,
    user: object,
    why: str,
    row: SipgateToken | None = None,
    connection_id: int | None = None,
) -> Revocation | None:
    """Note that the grant of ``pair`` has to be ended, and try it right after the commit.

    Args:
        uid: whose identity it is. Empty for a connection that is gone: ``connection_id`` then finds the note that its
            removal left here.
        user: the site's user, by primary key, for the administrators who read this.
        row: the token row, which knows the client that the pair belongs to.

    Returns None if there is nothing to end it with, or if nobody knows whose grant it is: another connection of the
    same identity might die with it.
    """
    if not pair.refresh_token:
        return None
    rows = Revocation.objects
    connection_id = row.pk if row is not None else connection_id
    former = None
    if not uid and connection_id is not None:
        former = (
            rows.filter(connection_key=connection_id)
            .exclude(uid="")
            .order_by("-created_at")
            .first()
        )
        uid = former.uid if former else ""
    if not uid:
        TokenEvent.objects.add(
            TokenEvent.Kind.REVOCATION_FAILED,
            actor="outbox",
            note=why,
            error_code="unknown_identity",
        )
        return None
    now, pk = timezone.now(), uuid.uuid4()
    source = row or former
    made = rows.create(
        pk=pk,
        uid=uid,
        **({name: getattr(source, name) for name in authorization_server.WHOSE} if source else {}),
        connection_key=connection_id,
        user_key="" if user is None else str(user),
        sealed=sealing.seal(pair.refresh_token.encode(), context=_context(pk)),
        created_at=now,
        give_up_at=now + TRY_FOR,
        next_attempt_at=now,
        why=why[:40],
    )
    transaction.on_commit(partial(_start, pk), using=database.alias())
    return made


def end_late_pair(row: SipgateToken, pair: sealing.Pair) -> None:
    """End the grant of a pair that came too late, if its connection was revoked meanwhile.

    If the connection has a newer pair, nothing is ended.
    """
    if not row.sealed:
        connection = row.connection
        enqueue(
            pair,
            uid=connection.uid,
            user=connection.user_id,
            why="revoked during a refresh",
            row=row,
        )


def drop_pending(uid: str) -> None:
    """Remove what is pending of an identity that has just consented. Runs in the transaction that stores the consent.

    Requests that were sent before are kept for a while, without their tokens, for ``sent_since``. One that is being
    sent at this moment is left to its sender.
    """
    rows = Revocation.objects.filter(uid=uid, next_attempt_at__isnull=False)
    if not rows.exists():  # as usual
        return
    rows.filter(sent_at=None).delete()
    is_sent = Q(answered_at__isnull=False) | Q(next_attempt_at__lte=timezone.now())
    rows.filter(is_sent).update(sealed=b"", next_attempt_at=None)


def may_have_ended(uid: str, *, since: datetime) -> bool:
    """Tell whether a grant of an identity, given ``since``, may have been ended by the revocation of an older one.

    Call this after the consent is committed. It is False for access that its person has ended.
    """
    if not sent_since(since, uid=uid, wait=0):
        return False
    without_pair = SipgateToken.objects.filter(sealed=b"")
    is_ended_here = without_pair.filter(
        connection__provider=conf.PROVIDER_ID, connection__uid=uid
    ).exists()
    return not is_ended_here and sent_since(since, uid=uid)


def sent_since(moment: datetime, *, uid: str = "", wait: float = WAIT) -> bool:
    """Tell whether a revocation may have reached sipgate since ``moment``. A newer pair may then have ended, too.

    To be asked once the consent is committed, with the moment at which the sign-in began: whoever looks for a
    connection after that commit finds one and sends nothing. It waits for one that is under way.

    Args:
        uid: of this identity; empty for any (a code was refused, and nobody knows yet whose it was).
        wait: seconds to wait at most. No database connection is held meanwhile.
    """
    # One without an answer is under way, or its worker was killed: it cannot have lasted longer than its claim.
    is_unanswered = Q(answered_at=None, sent_at__gte=moment - CLAIM_FOR)
    rows = Revocation.objects.filter(is_unanswered | Q(answered_at__gte=moment))
    if uid:
        rows = rows.filter(uid=uid)
    give_up = time.monotonic() + wait
    while time.monotonic() < give_up:
        if not rows.filter(answered_at=None, next_attempt_at__gt=timezone.now()).exists():
            break
        database.release_connections()
        time.sleep(0.05)
    return rows.exists()


def _start(pk: uuid.UUID) -> None:
    # If no thread is free: it is noted, and keepalive delivers it.
    threads.errands.submit_once(("revocation", pk), partial(deliver, pk))


def deliver(pk: uuid.UUID) -> bool:
    """Try one pending revocation now. Return True if no further attempt is needed here: done, given up, or taken."""
    row = _claim(pk)
    if row is None:
        return True
    if _is_connected(row):
        _rows(pk).delete()
        _record(row, TokenEvent.Kind.REVOCATION_DROPPED)
        ATTEMPTS.count("dropped")
        return True
    try:
        token = Secret(sealing.unseal(row.sealed, context=_context(pk)).decode())
        client = authorization_server.client()
        problem, setting = authorization_server.why_not_ours(row, client)
        if problem:
            raise errors.Misconfigured(problem, setting=setting)
        database.release_connections()
        ended_by = oauth.end_grant(client, token)
    except errors.SipgateError as error:
        return _failed(row, error)
    _finish(pk)
    if ended_by is None:
        _record(row, TokenEvent.Kind.REVOCATION_FAILED, error_code="no_endpoint")
        ATTEMPTS.count("given_up")
        logger.error(
            "A grant cannot be ended at sipgate: neither revocation nor logout exists there "
            "(SIPGATE_REVOKE_URL, SIPGATE_LOGOUT_URL)",
            extra=log_fields.fields(outcome="given_up"),
        )
        return True
    _record(row, TokenEvent.Kind.REVOCATION, note=f"{row.why} ({ended_by})")
    ATTEMPTS.count("done")
    logger.info(
        "Ended the grant of %s at sipgate by %s",
        row.uid,
        ended_by,
        extra=log_fields.fields(outcome="done"),
    )
    return True


def _record(row: Revocation, kind: str, *, note: str = "", error_code: str = "") -> None:
    uid = "" if row.why == Revocation.ERASED else row.uid
    TokenEvent.objects.add(
        kind, uid=uid, actor="outbox", note=note or row.why, error_code=error_code
    )


def _rows(pk: uuid.UUID) -> QuerySet[Revocation]:
    return Revocation.objects.filter(pk=pk)


def _claim(pk: uuid.UUID) -> Revocation | None:
    """Take the right to send one, and note that it may be sent from now on. None: finished, or somebody else's."""
    now = timezone.now()
    row = _rows(pk).filter(next_attempt_at__lte=now).first()
    if row is None:
        return None
    claimed = _rows(pk).filter(next_attempt_at=row.next_attempt_at)
    return (
        row
        if claimed.update(next_attempt_at=now + CLAIM_FOR, sent_at=now, answered_at=None)
        else None
    )


def _is_connected(row: Revocation) -> bool:
    """Tell whether this site has a pair of this identity and client that was not ended here, even if it was refused."""
    pairs = SipgateToken.objects.exclude(sealed=b"")
    pairs = pairs.filter(connection__provider=conf.PROVIDER_ID, connection__uid=row.uid)
    if row.client_id:
        pairs = pairs.filter(client_id__in=("", row.client_id))
    return pairs.exists()


def _finish(pk: uuid.UUID) -> None:
    _rows(pk).update(sealed=b"", next_attempt_at=None, answered_at=timezone.now())


def _failed(row: Revocation, error: errors.SipgateError) -> bool:
    now = timezone.now()
    code = error.code or (str(error.status) if error.status else type(error).__name__)
    if now >= row.give_up_at:
        _finish(row.pk)
        _record(row, TokenEvent.Kind.REVOCATION_FAILED, error_code=code)
        logger.error(
            "Gave up ending a grant at sipgate after %s tries [%s]: %s",
            row.attempts + 1,
            error.reference,
            error.message,
            extra=log_fields.fields(error, outcome="given_up"),
        )
        ATTEMPTS.count("given_up")
        return True
    pause = min(timedelta(seconds=5 * 2 ** min(row.attempts, 12)), LONGEST_PAUSE)
    pending = _rows(row.pk).filter(next_attempt_at__isnull=False)
    pending.update(
        attempts=row.attempts + 1,
        next_attempt_at=now + pause,
        answered_at=now,
        last_error_code=code[:80],
    )
    ATTEMPTS.count("failed")
    logger.warning(
        "A grant at sipgate is not ended yet [%s]: %s",
        error.reference,
        error.message,
        extra=log_fields.fields(error, outcome="failed"),
    )
    return False


def deliver_endings() -> Iterator[bool]:
    """Try each ending whose time has come, and yield whether it is over. A caller that stops iterating stops here."""
    forget_finished()
    for pk in due():
        yield deliver(pk)


def due(limit: int = 100) -> list[uuid.UUID]:
    """Return the ids of revocations whose time has come, oldest first."""
    rows = Revocation.objects.filter(next_attempt_at__lte=timezone.now())
    return list(rows.order_by("next_attempt_at").values_list("pk", flat=True)[:limit])


def reseal() -> tuple[int, int]:
    """Seal what is pending with the first key of the ring. Whoever changes a row meanwhile wins.

    Returns how many were sealed anew, and how many do not open.
    """
    done, unreadable = 0, 0
    for pk, old in _sealed():
        if sealing.key_id(old) != sealing.first_key_id():
            try:
                new = sealing.seal(sealing.unseal(old, context=_context(pk)), context=_context(pk))
            except errors.Misconfigured:
                unreadable += 1
            else:
                done += _rows(pk).filter(sealed=old).update(sealed=new)
    return done, unreadable


def key_ids() -> list[str]:
    """Return the id of the key of each pending revocation."""
    return [sealing.key_id(sealed) for _pk, sealed in _sealed()]


def _sealed() -> list[tuple[uuid.UUID, bytes]]:
    rows = Revocation.objects.exclude(sealed=b"").order_by()
    return [(pk, bytes(sealed)) for pk, sealed in rows.values_list("pk", "sealed")]


def forget_finished() -> None:
    """Delete the rows that no sign-in under way can need any more."""
    rows = Revocation.objects.filter(next_attempt_at=None)
    rows.filter(sent_at__lt=timezone.now() - REMEMBERED).delete()


def _context(pk: uuid.UUID) -> str:
    return f"sipgate_provider.revocation:{pk}"
