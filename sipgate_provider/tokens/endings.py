"""Ends grants at sipgate that this site no longer needs, from an outbox (a table of requests) after
the commit.

The transaction that removes tokens moves them to the outbox. The request to sipgate follows later
and is retried for a day; the history has its outcome.

*The identity decides.* Keycloak keeps one session per browser and user, and ending an old grant of
it ends the grants of a later sign-in, too. So nothing is ended while this site has a connection of
the same identity and client: the app checks this directly before it sends the request, and a
consent removes pending endings.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone

from sipgate_provider import background, conf, database, errors, metrics
from sipgate_provider.models import Ending, SipgateToken, TokenEvent
from sipgate_provider.remote import oauth
from sipgate_provider.remote.oauth import Tokens
from sipgate_provider.tokens import clients, rows, sealing

logger = logging.getLogger(__name__)
ENDINGS = metrics.counter(
    "endings_total",
    "Attempts to end access at sipgate.",
    {"outcome": ("done", "dropped", "failed", "given_up")},
)

TRY_FOR = timedelta(hours=24)
SENDING = timedelta(seconds=90)
"""How long others leave a row alone while one worker sends it; longer than a delivery takes."""
LONGEST_PAUSE = timedelta(minutes=30)


def add(
    tokens: Tokens, *, uid: str, user: object, why: str, row: SipgateToken | None = None
) -> None:
    """Put the ending of a grant into the outbox, and try it right after the caller's commit.

    Args:
        uid: the identity of the grant.
        user: primary key of the site's user, for administrators.
        why: at most 40 characters.
        row: the connection's row, which records the client of the tokens.
    """
    if not tokens.refresh_token:
        return
    now, pk = timezone.now(), uuid.uuid4()
    of = {name: getattr(row, name) for name in clients.OF} if row is not None else None
    Ending.objects.create(
        pk=pk,
        uid=uid,
        **(of or clients.recorded(tokens.client_id)),
        user_key="" if user is None else str(user),
        sealed=sealing.seal(tokens.to_text(), place=_place(pk)),
        created_at=now,
        give_up_at=now + TRY_FOR,
        next_attempt_at=now,
        why=why[:40],
    )
    transaction.on_commit(partial(_start, pk), using=database.using())


def add_late(row: SipgateToken, tokens: Tokens) -> None:
    """End the grant of tokens that came after their connection was gone or ended; do nothing if it
    has newer ones.

    ``row`` is the row that was refreshed, with its connection.
    """
    present, of = rows.load(row.pk), row.connection
    if present is not None and present.sealed:
        return
    is_deleted = not get_user_model().objects.filter(pk=of.user_id).exists()
    why = Ending.ERASED if is_deleted else "ended during a refresh"
    add(tokens, uid=of.uid, user=None if is_deleted else of.user_id, why=why, row=row)


def cancel(uid: str) -> None:
    """Remove the pending endings of an identity that has just consented, in the transaction that
    stores the consent."""
    Ending.objects.filter(uid=uid).delete()


def _start(pk: uuid.UUID) -> None:
    # If no thread is free, keepalive delivers it from the outbox.
    background.errands.submit_once(("ending", pk), partial(deliver, pk))


def deliver_endings() -> Iterator[bool]:
    """Try each ending that is due, and yield whether it is over. A caller may stop iterating."""
    due = Ending.objects.filter(next_attempt_at__lte=timezone.now()).order_by("next_attempt_at")
    for pk in list(due.values_list("pk", flat=True)[:100]):
        yield deliver(pk)


def deliver(pk: uuid.UUID) -> bool:
    """Try one ending now. Return True if this process need not try again: it is done or given up,
    or another process has it."""
    ending = _taken(pk)
    if ending is None:
        return True
    if _is_connected(ending):
        return _over(ending, "dropped", TokenEvent.Kind.ENDING_DROPPED)
    try:
        tokens = Tokens.from_text(sealing.unseal(ending.sealed, place=_place(pk)))
        client = clients.client(ending)
        foreign = clients.why_not_ours(ending, client)
        if foreign is not None:
            raise foreign
        database.release_connections()
        ended_by = oauth.end_grant(client, tokens.refresh_token or "")
    except errors.SipgateError as error:
        return _failed(ending, error)
    if ended_by is None:
        logger.error(
            "A grant cannot be ended at sipgate: neither revocation nor logout exists there "
            "(SIPGATE_REVOKE_URL, SIPGATE_LOGOUT_URL)",
            extra=errors.log_fields(outcome="given_up"),
        )
        return _over(ending, "given_up", TokenEvent.Kind.ENDING_FAILED, error_code="no_endpoint")
    logger.info(
        "Ended the grant of %s at sipgate by %s",
        ending.uid,
        ended_by,
        extra=errors.log_fields(outcome="done"),
    )
    return _over(ending, "done", TokenEvent.Kind.ENDING, note=f"{ending.why} ({ended_by})")


def _taken(pk: uuid.UUID) -> Ending | None:
    """Take the right to send an ending. None: it is over, or another process has it."""
    now = timezone.now()
    ending = Ending.objects.filter(pk=pk, next_attempt_at__lte=now).first()
    if ending is None:
        return None
    as_read = Ending.objects.filter(pk=pk, next_attempt_at=ending.next_attempt_at)
    return ending if as_read.update(next_attempt_at=now + SENDING) else None


def _is_connected(ending: Ending) -> bool:
    """Tell whether this site still holds tokens of this identity and client, even rejected ones."""
    held = SipgateToken.objects.exclude(sealed="")
    held = held.filter(connection__provider=conf.PROVIDER_ID, connection__uid=ending.uid)
    if ending.client_id:
        held = held.filter(client_id__in=("", ending.client_id))
    return held.exists()


def _over(ending: Ending, outcome: str, kind: str, *, note: str = "", error_code: str = "") -> bool:
    Ending.objects.filter(pk=ending.pk).delete()
    uid = "" if ending.why == Ending.ERASED else ending.uid
    TokenEvent.objects.add(
        kind, uid=uid, actor="outbox", note=note or ending.why, error_code=error_code
    )
    ENDINGS.labels(outcome).inc()
    return True


def _failed(ending: Ending, error: errors.SipgateError) -> bool:
    now = timezone.now()
    code = error.code or (str(error.status) if error.status else type(error).__name__)
    if now >= ending.give_up_at:
        logger.error(
            "Gave up ending a grant at sipgate after %s tries [%s]: %s",
            ending.attempts + 1,
            error.reference,
            error.message,
            extra=errors.log_fields(error, outcome="given_up"),
        )
        return _over(ending, "given_up", TokenEvent.Kind.ENDING_FAILED, error_code=code)
    pause = min(timedelta(seconds=5 * 2 ** min(ending.attempts, 12)), LONGEST_PAUSE)
    Ending.objects.filter(pk=ending.pk).update(
        attempts=ending.attempts + 1, next_attempt_at=now + pause, last_error_code=code[:80]
    )
    ENDINGS.labels("failed").inc()
    logger.warning(
        "A grant at sipgate is not ended yet [%s]: %s",
        error.reference,
        error.message,
        extra=errors.log_fields(error, outcome="failed"),
    )
    return False


def reseal() -> tuple[int, int]:
    """Seal pending endings with the first key. Returns how many were sealed, and how many do not
    open."""
    done, unreadable, first = 0, 0, sealing.key_ids()[0]
    for pk, old in Ending.objects.values_list("pk", "sealed"):
        if sealing.key_of(old) == first:
            continue
        try:
            new = sealing.resealed(old, place=_place(pk))
        except errors.Misconfigured:
            unreadable += 1
        else:
            done += Ending.objects.filter(pk=pk, sealed=old).update(sealed=new)
    return done, unreadable


def keys() -> Iterator[str]:
    """Yield the id of the key of each pending ending."""
    yield from map(sealing.key_of, Ending.objects.values_list("sealed", flat=True))


def _place(pk: uuid.UUID) -> str:
    return f"ending {pk}"
