"""Writes token rows, which no other module does. Every change is one conditional UPDATE.

If an UPDATE changes no row, the row has changed meanwhile, and the newer state stays.

*Fencing.* The lease decides who may send a refresh token; consent and generation decide whose answer counts, no
matter which process has the lease by then. Nothing here takes a lock that outlives its statement, and nothing talks to
sipgate.
"""

from __future__ import annotations

import copy
import random
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connections,
    transaction,
)
from django.db.models import Case, Exists, F, Q, Value, When

from sipgate_provider import conf, errors
from sipgate_provider.models import ClientPause, Reason, SipgateToken, State
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import database

from . import authorization_server, sealing, statements

KEEP_SHARE = 0.5
"""An idle connection is refreshed when this share of its refresh token's life is over; it then survives outages."""
KEEP_JITTER = 0.1
"""Jitter, so that connections made at the same time are not due at the same time."""
UNKNOWN_LIFE = timedelta(days=2)
"""Assumed life of a refresh token whose end is unknown, which is then refreshed daily."""
TELLS_NOTHING = timedelta(seconds=10)
"""Two refreshes within this time do not show whether the end moves, because servers count whole seconds."""
AS_SEEN = ("consent_id", "generation", "state", "next_attempt_at", "lease_owner", "mark_owner")
"""Columns that must be as they were read when a lease is taken."""
SOME_PAUSE = Exists(ClientPause.objects.all())
ONE_MORE = F("refresh_count") + 1
NOT_IN_USE = {"lease_owner": "", "lease_until": None, "mark_owner": "", "mark_until": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Names a refresh token that was sent, or is about to be: that of this generation of this consent."""

    connection_id: int
    consent_id: uuid.UUID
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Sent):
    """The right to send one refresh token once."""

    owner: str
    """``machine.boot.random``; machine and boot are empty without a lock (see ``machine``)."""
    is_marked: bool
    """The token may have been sent before."""


def load(connection_id: int) -> SipgateToken | None:
    """Return the row of a connection, or None. One query."""
    return statements.get(SipgateToken, connection_id)


def load_with_clock(connection_id: int) -> SipgateToken | None:
    """As ``load``; ``database_now`` of the row is the database's clock, by which leases are judged, and
    ``is_some_client_paused`` tells whether it pays to look at ``pauses``."""
    return statements.get(
        SipgateToken,
        connection_id,
        database_now=statements.database_time(),
        is_some_client_paused=SOME_PAUSE,
    )


def is_free(row: SipgateToken, *, place: str) -> bool:
    """Tell whether the lease of a row (``load_with_clock``) may be taken by somebody at ``place``.

    ``place`` is ``machine.boot`` of the lock that the caller holds, or will hold when it claims; empty without one. A
    lease taken under the same lock is over, since its holder has lost the lock. Any other is over by time, and that of
    another machine only after its grace: its journal may hold the pair. So is another machine's mark.
    """
    is_foreign = _is_foreign(row.mark_owner, place)
    if is_foreign and not _is_over(row, row.mark_owner, row.mark_until, conf.grace()):
        return False
    if not row.lease_owner or (place and row.lease_owner.rpartition(".")[0] == place):
        return True
    grace = conf.grace() if _is_foreign(row.lease_owner, place) else timedelta()
    return _is_over(row, row.lease_owner, row.lease_until, grace)


def _is_foreign(owner: str, place: str) -> bool:
    machine = owner.partition(".")[0]
    return bool(machine) and machine != place.partition(".")[0]


_first_seen: dict[tuple[int, str, datetime], float] = {}
"""When this process first saw a lease or mark."""


def _is_over(row: Any, owner: str, until: datetime | None, grace: timedelta) -> bool:
    """Tell whether a lease or mark and its grace are over, by the database's clock or because this process has looked
    at the same one for as long as it may last at most: a clock that was wrong when it was written must not block a
    row."""
    if until is None or until + grace <= row.database_now:
        return True
    now = time.monotonic()
    if len(_first_seen) > 10_000:
        _first_seen.clear()
    since = _first_seen.setdefault((row.pk, owner, until), now)
    return now - since >= (conf.lease() + grace).total_seconds()


def new_owner(place: str) -> str:
    """Return a name for a lease that nobody has had before."""
    return f"{place or '.'}.{uuid.uuid4().hex[:16]}"


def claim(row: SipgateToken, *, owner: str) -> Claim | None:
    """Take the lease of a row for which ``is_free`` holds, if it is still as it was read. None: it is not.

    A lease that was not returned, and is taken over, leaves a mark: its token may have been sent.
    """
    values: dict[str, Any] = {
        "lease_owner": owner,
        "lease_until": statements.database_time(conf.lease()),
    }
    if row.lease_owner:
        values |= {"mark_owner": row.lease_owner, "mark_until": row.lease_until}
    seen = {name: getattr(row, name) for name in AS_SEEN}
    try:
        taken = statements.update(SipgateToken, {"connection": row.pk, **seen}, values)
    except (OperationalError, InterfaceError):
        if connections[database.alias()].in_atomic_block:
            raise
        # Either the statement failed, or only its confirmation was lost. A new connection shows which.
        connections[database.alias()].close()
        taken = SipgateToken.objects.filter(pk=row.pk, lease_owner=owner).count()
        if not taken:
            raise
    if not taken:
        return None
    return Claim(
        connection_id=row.pk,
        consent_id=row.consent_id,
        generation=row.generation,
        owner=owner,
        is_marked=bool(row.lease_owner or row.mark_owner),
    )


def give_back(claim: Claim, **changes: Any) -> bool:
    """Return the lease, with what else is to be noted; a mark stays. False: it is no longer ours, or an administrator
    has asked for a new sign-in meanwhile. Then nothing is noted but a mark."""
    rows = SipgateToken.objects.filter(pk=claim.connection_id, lease_owner=claim.owner)
    free: dict[str, Any] = {"lease_owner": "", "lease_until": None}
    asked = Q(state=State.NEEDS_SIGN_IN, reason=Reason.SIGN_IN_REQUIRED)
    if rows.exclude(asked).update(**free, **changes):
        return True
    marks = {name: value for name, value in changes.items() if name in {"mark_owner", "mark_until"}}
    rows.update(**free, **marks)
    return False


def mark(claim: Claim) -> dict[str, Any]:
    """Return what notes that the token of a claim was sent and not answered."""
    return {"mark_owner": claim.owner, "mark_until": statements.database_time()}


def note_fault(row: SipgateToken, **changes: Any) -> bool:
    """Note what keeps a row from being refreshed, found before anything was claimed. False: it has changed."""
    seen = {name: getattr(row, name) for name in AS_SEEN}
    return bool(SipgateToken.objects.filter(pk=row.pk, **seen).update(**changes))


def save_refreshed(
    sent: Sent,
    grant: oauth.Grant,
    pair: sealing.Pair,
    *,
    now: datetime,
    is_use: bool = False,
    before: SipgateToken | None = None,
) -> SipgateToken | None:
    """Store the pair that a refresh token was exchanged for, whoever has the lease by now.

    ``before``: what was refreshed, if that is known. ``is_use``: somebody uses the connection now.

    Returns the row as it is now; None if it is newer, or of another consent, or gone.
    """
    columns = _columns(
        grant, pair, connection_id=sent.connection_id, generation=sent.generation + 1, before=before
    )
    values = {
        **{
            name: value
            for name, value in columns.items()
            if value or name not in authorization_server.WHOSE
        },
        "last_refreshed_at": now,
        "refresh_count": ONE_MORE,
    }
    if is_use:
        values["last_used_at"] = now
    not_newer = {
        "connection": sent.connection_id,
        "consent_id": sent.consent_id,
        "generation__lte": sent.generation,
    }
    # The usual case has a statement of its own, because the conditional assignments of the other one are slow.
    if statements.update(SipgateToken, {**not_newer, "state": State.ACTIVE}, values):
        if before is None:
            return load(sent.connection_id)
        return _changed(before, {**values, "refresh_count": before.refresh_count + 1})
    values |= _active_unless_asked(now, reason=values["reason"])
    rows = SipgateToken.objects.filter(**not_newer)
    return load(sent.connection_id) if rows.update(**values) else None


def _changed(row: SipgateToken, values: dict[str, Any]) -> SipgateToken:
    """Return a copy of a row with the values that were just written, so that it need not be read again."""
    changed = copy.copy(row)
    for name, value in values.items():
        setattr(changed, name, value)
    return changed


def end(connection_id: int, generation: int, *, reason: str, now: datetime) -> bool:
    """Put a connection into *needs sign-in* without asking sipgate; the pair stays. False: it changed meanwhile.

    A refresh under way keeps its pair and does not undo the wish (``_active_unless_asked``).
    """
    rows = SipgateToken.objects.filter(pk=connection_id, generation=generation)
    return bool(
        rows.update(
            state=State.NEEDS_SIGN_IN,
            reason=reason,
            state_since=now,
            next_attempt_at=None,
        )
    )


def clear(row: SipgateToken, *, reason: str, now: datetime) -> bool:
    """Put a connection into *needs sign-in* and forget its pair. False: it changed since ``row`` was read.

    Consent and generation move on, so that the answer of a running refresh finds no place. The caller sees to it, in
    the same transaction, that the session at sipgate is ended.
    """
    rows = SipgateToken.objects.filter(pk=row.pk, generation=row.generation)
    values: dict[str, Any] = {
        "sealed": b"",
        "key_id": sealing.first_key_id(),
        "consent_id": uuid.uuid4(),
        "generation": row.generation + 1,
        "expires_at": now,
        **NOT_IN_USE,
        "state": State.NEEDS_SIGN_IN,
        "reason": reason,
        "failing_since": None,
        "next_attempt_at": None,
        "access_fingerprint": "",
        "refresh_fingerprint": "",
    }
    if row.state != State.NEEDS_SIGN_IN:
        values["state_since"] = now
    return bool(rows.update(**values))


def consent(
    connection: SocialAccount,
    grant: oauth.Grant,
    *,
    scope: Iterable[str],
    now: datetime,
    seen: SipgateToken | None = None,
) -> tuple[SipgateToken, SipgateToken | None]:
    """Store the pair of a sign-in or connect. It is newer than whatever a running refresh stores later.

    Runs in the caller's transaction, with the connection it belongs to. Without a ``scope`` in the grant, what was
    asked for was granted (RFC 6749 §5.1). ``seen``: the row, if the caller has just read it (saves a query).

    Returns the row as stored, and as it was before (None at first).
    """
    pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
    for _attempt in range(10):
        row, seen = seen or load(connection.pk), None
        generation = row.generation + 1 if row else 1
        values = {
            **_columns(grant, pair, connection_id=connection.pk, generation=generation),
            "consent_id": uuid.uuid4(),
            "consented_at": now,
            "last_used_at": now,
            "state_since": row.state_since if row and row.state == State.ACTIVE else now,
        }
        if grant.scope is None:
            values["scope"] = " ".join(scope)
        if row is None:
            try:
                with transaction.atomic(using=database.alias()):
                    return SipgateToken.objects.create(connection_id=connection.pk, **values), None
            except IntegrityError:
                continue  # another tab stored its consent a moment ago: go on top of it
        rows = SipgateToken.objects.filter(pk=connection.pk, generation=row.generation)
        if rows.update(**values):
            return _changed(row, values), row
    raise DatabaseError("The token row changed ten times while a consent was stored.")


def reseal(rows: Iterable[SipgateToken]) -> tuple[int, int, int]:
    """Seal pairs with the first key of the ring, in one go.

    Returns how many were sealed anew, how many changed meanwhile (whoever changed them sealed them with the first key),
    and how many do not open. A refresh that runs is not disturbed: the generation stays.
    """
    first, changes, unreadable, number = sealing.first_key_id(), [], 0, 0
    for row in rows:
        number += 1
        try:
            changes.append((*_resealed(row), first, row.pk, row.generation, row.key_id))
        except errors.Misconfigured:
            unreadable += 1
    connection = connections[database.alias()]
    quote, names = (
        connection.ops.quote_name,
        ("sealed", "access_fingerprint", "refresh_fingerprint", "key_id"),
    )
    assignments = ", ".join(f"{quote(name)} = %s" for name in names)
    # The ORM has no conditional UPDATE of many rows, each with values of its own.
    statement = (
        f"UPDATE {quote(SipgateToken._meta.db_table)} SET {assignments} "  # noqa: S608  # names of columns only
        f"WHERE {quote('connection_id')} = %s AND {quote('generation')} = %s AND {quote('key_id')} = %s"
    )
    done = 0
    if changes:
        with transaction.atomic(using=database.alias()), connection.cursor() as cursor:
            cursor.executemany(statement, changes)
            done = cursor.rowcount
    return done, number - unreadable - done, unreadable


def _resealed(row: SipgateToken) -> tuple[bytes, str, str]:
    if not row.sealed:  # revoked: there is nothing to seal
        return b"", "", ""
    pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
    return (
        sealing.seal_pair(pair, connection_id=row.pk, generation=row.generation),
        sealing.fingerprint(pair.access_token),
        sealing.fingerprint(pair.refresh_token),
    )


def _active_unless_asked(now: datetime, *, reason: str) -> dict[str, Any]:
    """Return what a refreshed pair makes of the state. An administrator's wish for a new sign-in outlives a refresh
    that was under way: its pair is kept, the wish too."""
    asked = Q(state=State.NEEDS_SIGN_IN, reason=Reason.SIGN_IN_REQUIRED)
    return {
        "state": Case(When(asked, then=F("state")), default=Value(State.ACTIVE.value)),
        "reason": Case(When(asked, then=F("reason")), default=Value(str(reason))),
        "state_since": Case(
            When(asked | Q(state=State.ACTIVE), then=F("state_since")), default=Value(now)
        ),
    }


def _columns(
    grant: oauth.Grant,
    pair: sealing.Pair,
    *,
    connection_id: int,
    generation: int,
    before: SipgateToken | None = None,
) -> dict[str, Any]:
    """Everything that a stored grant changes, by consent or by refresh. ``before``: what was refreshed."""
    lifetime = timedelta(seconds=grant.expires_in) if grant.expires_in else conf.assumed_lifetime()
    refresh_ends = None
    if grant.refresh_expires_in:
        refresh_ends = grant.issued_at + timedelta(seconds=grant.refresh_expires_in)
    sealed = sealing.seal_pair(pair, connection_id=connection_id, generation=generation)
    values: dict[str, Any] = {
        "sealed": sealed,
        "key_id": sealing.key_id(sealed),
        "token_type": grant.token_type[:40],
        "issued_at": grant.issued_at,
        "expires_at": grant.issued_at + lifetime,
        "refresh_expires_at": refresh_ends,
        "keepalive_at": _keepalive_at(grant),
        "generation": generation,
        **NOT_IN_USE,
        "state": State.ACTIVE,
        "reason": Reason.NONE,
        "failing_since": None,
        "last_refused_at": None,
        "next_attempt_at": None,
        "last_error_code": "",
        "notified_at": None,
        "access_fingerprint": sealing.fingerprint(pair.access_token),
        "refresh_fingerprint": sealing.fingerprint(pair.refresh_token),
        **authorization_server.recorded(grant.client_id),
    }
    if grant.scope is not None:
        values["scope"] = " ".join(grant.scope)
    if (
        before is not None
        and refresh_ends is not None
        and has_fixed_end(before, grant.issued_at, refresh_ends)
    ):
        # Refreshing more often would not help, and the pair lives until then: nothing to do before.
        values |= {"reason": Reason.FIXED_END, "keepalive_at": refresh_ends}
        if before.state != State.NEEDS_SIGN_IN:
            del values[
                "notified_at"
            ]  # whoever was told of this end is not told again with each refresh
    # Of the access token's claims, read while it is in hand anyway.
    line = oauth.jwt_claims(grant.access_token).get("featureScope")
    if isinstance(line, str):
        values["product_line"] = line[:40]
    return values


def has_fixed_end(before: SipgateToken, issued_at: datetime, refresh_ends: datetime) -> bool:
    """Tell whether a refresh has not moved the end of a connection: then the server limits how long a sign-in lasts.

    Args:
        before: the row that was refreshed.
        issued_at, refresh_ends: of the pair that came back.
    """
    if before.refresh_expires_at is None:
        return False
    elapsed = issued_at - before.issued_at
    if elapsed < TELLS_NOTHING:
        return before.has_fixed_end
    return refresh_ends - before.refresh_expires_at < elapsed / 2


def _keepalive_at(grant: oauth.Grant) -> datetime:
    life = timedelta(seconds=grant.refresh_expires_in) if grant.refresh_expires_in else UNKNOWN_LIFE
    return grant.issued_at + life * KEEP_SHARE * random.uniform(1 - KEEP_JITTER, 1 + KEEP_JITTER)  # noqa: S311  # jitter
