"""The only writer of token rows. Every change is one conditional UPDATE; zero rows means somebody newer is right.

*Fencing.* A grant is stored only onto the generation it grew out of. The lease decides who may ask; the generation
decides whose answer counts. Nothing here takes a lock that outlives its statement, and nothing talks to sipgate.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.db.models import Case, F, Q, Value, When

from sipgate_provider import conf, errors
from sipgate_provider.keeper import database
from sipgate_provider.models import TELL_BEFORE, Reason, SipgateToken, State
from sipgate_provider.remote import oauth

from . import sealing

KEEP_SHARE = 0.5
"""An idle link is renewed when this share of its refresh token's life is over: an outage of days is then survivable."""
KEEP_JITTER = 0.1
"""A night's worth of consents must not come due in the same minute."""
UNKNOWN_LIFE = timedelta(days=2)
"""Assumed life of a refresh token whose end the server does not tell: renewed daily."""
TELLS_NOTHING = timedelta(seconds=10)
"""Within so short a time two refreshes do not tell whether the end moves: servers count whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to refresh one connection once: what it grew out of, who holds it, until when."""

    connection_id: int
    generation: int
    owner: str
    taken_over: bool
    """An earlier lease ran out without being given back: that refresh may have reached sipgate."""


def load(connection_id: int) -> SipgateToken | None:
    """Return the row of a connection, or None. One query."""
    # Not first(): it would order by the key it has just been given.
    return next(iter(SipgateToken.objects.using(database.alias()).filter(pk=connection_id)[:1]), None)


def new_owner() -> str:
    return uuid.uuid4().hex


def claim(row: SipgateToken, *, owner: str, now: datetime) -> Claim | None:
    """Take the lease of ``row``'s connection, if its generation and lease are still as in ``row``.

    Returns None if somebody else was faster, or holds it.
    """
    if row.lease_owner and row.lease_until and row.lease_until > now:
        return None
    taken = (
        SipgateToken.objects.using(database.alias())
        .filter(pk=row.pk, generation=row.generation, lease_owner=row.lease_owner, lease_until=row.lease_until)
        # Ended since it was read, by an administrator: nobody refreshes what waits for its person.
        .exclude(state=State.NEEDS_SIGN_IN)
        .update(lease_owner=owner, lease_until=now + conf.lease())
    )
    if not taken:
        return None
    return Claim(connection_id=row.pk, generation=row.generation, owner=owner, taken_over=bool(row.lease_owner))


def extend(claim: Claim, *, now: datetime) -> bool:
    """Prolong the lease before asking again. False: it is no longer ours."""
    return bool(_held(claim).update(lease_until=now + conf.lease()))


def release(claim: Claim) -> None:
    """Give the lease back without a result."""
    _held(claim).update(lease_owner="", lease_until=None)


def save_refreshed(
    claim: Claim, grant: oauth.Grant, pair: sealing.Pair, *, used: bool, now: datetime, row: SipgateToken | None = None
) -> bool:
    """Store the pair that a refresh brought. False: the generation moved on, the row is gone, or another refresh runs.

    The lease may have run out (a suspended process): our pair is then still the newest, unless somebody else has taken
    the lease or stored something.

    ``row`` is what the claim saw. With it the usual case is a plain statement with few columns, which is what bulk work
    consists of.
    """
    columns = _columns(grant, pair, connection_id=claim.connection_id, generation=claim.generation + 1, before=row)
    columns["last_refreshed_at"] = now
    if used:
        columns["last_used_at"] = now
    rows = SipgateToken.objects.using(database.alias()).filter(pk=claim.connection_id, generation=claim.generation)
    if row is not None and row.state == State.ACTIVE and row.generation == claim.generation:
        changed = {name: value for name, value in columns.items() if name in RESEALED or getattr(row, name) != value}
        changed |= {"lease_owner": "", "lease_until": None, "refresh_count": row.refresh_count + 1}
        if rows.filter(state=State.ACTIVE, lease_owner=claim.owner).update(**changed):
            return True
    values = {
        **columns,
        "refresh_count": F("refresh_count") + 1,
        **_active_unless_asked(now, reason=columns["reason"]),
    }
    # A lease that is over counts as none: whoever held it may have been killed, and nobody would ever give it back.
    ours = Q(lease_owner=claim.owner) | Q(lease_owner="") | Q(lease_until__lte=now)
    return bool(rows.filter(ours).update(**values))


RESEALED = frozenset({"sealed", "key_id", "access_fingerprint", "refresh_fingerprint"})
"""Columns that ``reseal`` changes without a new generation: what was read of them may be over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """A pair to be stored, and the active row that its refresh began with."""

    claim: Claim
    grant: oauth.Grant
    pair: sealing.Pair
    row: SipgateToken


def keep_many(renewed: Sequence[Renewed], *, now: datetime) -> bool:
    """Store many pairs in one transaction, each under the conditions of ``keep``, for upkeep: no use is noted.

    False: one of them does not find its row as it was; then none is stored, and each is to be kept by itself.
    """
    connection = connections[database.alias()]
    quote = connection.ops.quote_name
    fields = {field.attname: field for field in SipgateToken._meta.local_concrete_fields}
    # In the order of ``reseal``: two transactions that lock the same rows in different orders wait for each other.
    renewed = sorted(renewed, key=lambda one: one.claim.connection_id)
    values = [_renewed_columns(one, now=now) for one in renewed]
    names = list(values[0])
    # The ORM has no conditional UPDATE of many rows, each with values of its own.
    statement = (
        f"UPDATE {quote(SipgateToken._meta.db_table)} SET {', '.join(f'{quote(name)} = %s' for name in names)} "  # noqa: S608  # names of columns only
        f"WHERE {' AND '.join(f'{quote(name)} = %s' for name in CONDITIONS)}"
    )
    parameters = []
    for one, columns in zip(renewed, values, strict=True):
        wanted = (one.claim.connection_id, one.claim.generation, one.claim.owner, State.ACTIVE.value)
        parameters.append(
            [fields[name].get_db_prep_save(columns[name], connection) for name in names]
            + [
                fields[name].get_db_prep_value(value, connection)
                for name, value in zip(CONDITIONS, wanted, strict=True)
            ]
        )
    with transaction.atomic(using=database.alias()), connection.cursor() as cursor:
        cursor.executemany(statement, parameters)
        stored = bool(cursor.rowcount == len(parameters))
        if not stored:
            transaction.set_rollback(True, using=database.alias())
    return stored


CONDITIONS = ("connection_id", "generation", "lease_owner", "state")


def _renewed_columns(one: Renewed, *, now: datetime) -> dict[str, Any]:
    columns = _columns(
        one.grant, one.pair, connection_id=one.row.pk, generation=one.claim.generation + 1, before=one.row
    )
    # An answer may leave these out.
    told = ("scope", "issuer", "client_id", "product_line", "notified_at")
    return {
        **{name: getattr(one.row, name) for name in told},
        **columns,
        "last_refreshed_at": now,
        "refresh_count": one.row.refresh_count + 1,
    }


def recover(claim: Claim, grant: oauth.Grant, pair: sealing.Pair, *, now: datetime) -> bool:
    """Store a pair that waited in the journal, over whatever state the connection fell into meanwhile.

    Only the generation decides: nothing newer has been stored, so this pair is the newest. A refresh that runs with the
    spent token loses its lease by it; it can only be refused.
    """
    values = {
        **_columns(grant, pair, connection_id=claim.connection_id, generation=claim.generation + 1),
        "refresh_count": F("refresh_count") + 1,
        "last_refreshed_at": grant.issued_at,
        **_active_unless_asked(now),
    }
    rows = SipgateToken.objects.using(database.alias()).filter(pk=claim.connection_id, generation=claim.generation)
    return bool(rows.update(**values))


def record_failure(
    claim: Claim, *, state: str, reason: str, code: str, next_attempt_at: datetime | None, now: datetime
) -> bool:
    """Note that a refresh failed and give the lease back. The pair stays. False: somebody newer is right."""
    values: dict[str, Any] = {
        "lease_owner": "",
        "lease_until": None,
        "state": state,
        "reason": reason,
        "last_error_code": code[:80],
        "next_attempt_at": next_attempt_at,
    }
    rows = _held(claim)
    row = rows.values("state", "failing_since").first()
    if row is None:
        return False
    if row["state"] != state:
        values["state_since"] = now
    if row["failing_since"] is None:
        values["failing_since"] = now
    return bool(rows.update(**values))


def end(connection_id: int, generation: int, *, reason: str, now: datetime) -> bool:
    """Put a connection into *needs sign-in* without asking sipgate; the pair stays. False: it changed meanwhile.

    A refresh under way keeps its pair and does not undo the wish (``_active_unless_asked``).
    """
    rows = SipgateToken.objects.using(database.alias()).filter(pk=connection_id, generation=generation)
    return bool(
        rows.update(
            state=State.NEEDS_SIGN_IN,
            reason=reason,
            state_since=now,
            lease_owner="",
            lease_until=None,
            next_attempt_at=None,
        )
    )


def clear(row: SipgateToken, *, reason: str, now: datetime) -> bool:
    """Put a connection into *needs sign-in* and forget its pair. False: it changed since ``row`` was read.

    The generation moves on, so that the answer of a running refresh finds no place. The caller sees to it, in the same
    transaction, that the session at sipgate is ended.
    """
    rows = SipgateToken.objects.using(database.alias()).filter(pk=row.pk, generation=row.generation)
    values: dict[str, Any] = {
        "sealed": b"",
        "key_id": sealing.first_key_id(),
        "generation": row.generation + 1,
        "expires_at": now,
        "lease_owner": "",
        "lease_until": None,
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
    connection: SocialAccount, grant: oauth.Grant, *, requested_scope: Iterable[str], now: datetime
) -> tuple[SipgateToken, SipgateToken | None]:
    """Store the pair of a sign-in or connect: the newest truth there is, whatever a running refresh brings later.

    Runs in the caller's transaction, with the connection it belongs to. Without a ``scope`` in the grant, what was
    asked for was granted (RFC 6749 §5.1).

    Returns the row as stored, and as it was before (None at first).
    """
    pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
    for _attempt in range(10):
        row = load(connection.pk)
        generation = row.generation + 1 if row else 1
        values = {
            **_columns(grant, pair, connection_id=connection.pk, generation=generation),
            "consent_id": uuid.uuid4(),
            "consented_at": now,
            "last_used_at": now,
            "state_since": row.state_since if row and row.state == State.ACTIVE else now,
        }
        if grant.scope is None:
            values["scope"] = " ".join(requested_scope)
        if row is None:
            try:
                with transaction.atomic(using=database.alias()):
                    return SipgateToken.objects.using(database.alias()).create(
                        connection_id=connection.pk, **values
                    ), None
            except IntegrityError:
                continue  # another tab stored its consent a moment ago: go on top of it
        rows = SipgateToken.objects.using(database.alias()).filter(pk=connection.pk, generation=row.generation)
        if rows.update(**values):
            before = copy.copy(row)
            for name, value in values.items():
                setattr(row, name, value)
            return row, before
    raise DatabaseError("The token row changed ten times while a consent was stored.")


def import_grant(
    connection: SocialAccount,
    grant: oauth.Grant,
    *,
    assumed_scope: Iterable[str],
    consented_at: datetime,
    reason: str,
    ended_at: datetime,
    now: datetime,
) -> SipgateToken | None:
    """Store the pair that another table kept. None: the connection has a row, which is never overwritten.

    With a ``reason`` the pair has ended, at ``ended_at``, and the connection needs a new sign-in. Runs in the caller's
    transaction, with the removal of what was there.
    """
    pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
    values = {
        **_columns(grant, pair, connection_id=connection.pk, generation=1),
        "consent_id": uuid.uuid4(),
        "consented_at": consented_at,
        "state_since": now,
    }
    if grant.scope is None:
        values["scope"] = " ".join(assumed_scope)
    if reason:
        # Since it ended, not since it was found: nobody is mailed about what is long known.
        values |= {"state": State.NEEDS_SIGN_IN, "reason": reason, "state_since": min(ended_at, now)}
    try:
        with transaction.atomic(using=database.alias()):
            return SipgateToken.objects.using(database.alias()).create(connection_id=connection.pk, **values)
    except IntegrityError:
        return None


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
    quote, names = connection.ops.quote_name, ("sealed", "access_fingerprint", "refresh_fingerprint", "key_id")
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


def not_yet_told(now: datetime) -> Q:
    """Return which connections have ended, or will soon for certain, without their person having been told of that."""
    is_new = Q(notified_at=None) | Q(notified_at__lt=F("state_since"))
    has_ended = Q(state=State.NEEDS_SIGN_IN) & ~Q(reason__in=(Reason.REVOKED, Reason.ENDED_BY_PERSON))
    will_end = Q(state=State.ACTIVE, reason=Reason.FIXED_END, refresh_expires_at__lte=now + TELL_BEFORE)
    return is_new & (has_ended | will_end)


def claim_notice(connection_id: int, *, now: datetime) -> bool:
    """Take it upon oneself to tell the person of this incident. False: it is over, or somebody else tells them."""
    rows = SipgateToken.objects.using(database.alias()).filter(not_yet_told(now), pk=connection_id)
    return bool(rows.update(notified_at=now))


def return_notice(connection_id: int, *, claimed_at: datetime) -> None:
    """The person could not be told: somebody may try again."""
    SipgateToken.objects.using(database.alias()).filter(pk=connection_id, notified_at=claimed_at).update(
        notified_at=None
    )


def _held(claim: Claim) -> Any:
    rows = SipgateToken.objects.using(database.alias())
    return rows.filter(pk=claim.connection_id, generation=claim.generation, lease_owner=claim.owner)


def _active_unless_asked(now: datetime, *, reason: str = Reason.NONE) -> dict[str, Any]:
    """Return what a refreshed pair makes of the state. An administrator's wish for a new sign-in outlives a refresh that
    was under way: its pair is kept, the wish too."""
    asked = Q(state=State.NEEDS_SIGN_IN, reason=Reason.SIGN_IN_REQUIRED)
    return {
        "state": Case(When(asked, then=F("state")), default=Value(State.ACTIVE.value)),
        "reason": Case(When(asked, then=F("reason")), default=Value(str(reason))),
        "state_since": Case(When(asked | Q(state=State.ACTIVE), then=F("state_since")), default=Value(now)),
    }


def _columns(
    grant: oauth.Grant,
    pair: sealing.Pair,
    *,
    connection_id: int,
    generation: int,
    before: SipgateToken | None = None,
) -> dict[str, Any]:
    """Everything that a stored grant changes, whether it came by consent or by refresh. ``before``: what was refreshed."""
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
        "lease_owner": "",
        "lease_until": None,
        "state": State.ACTIVE,
        "reason": Reason.NONE,
        "failing_since": None,
        "next_attempt_at": None,
        "last_error_code": "",
        "notified_at": None,
        "access_fingerprint": sealing.fingerprint(pair.access_token),
        "refresh_fingerprint": sealing.fingerprint(pair.refresh_token),
        **_claims(grant.access_token),
    }
    if grant.scope is not None:
        values["scope"] = " ".join(grant.scope)
    if before is not None and refresh_ends is not None and has_fixed_end(before, grant.issued_at, refresh_ends):
        # Refreshing more often would not help, and the pair lives until then: nothing to do before.
        values |= {"reason": Reason.FIXED_END, "keepalive_at": refresh_ends}
        if before.state != State.NEEDS_SIGN_IN:
            del values["notified_at"]  # whoever was told of this end is not told again with each refresh
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


def _claims(access_token: str) -> dict[str, str]:
    """What is useful to an operator of the access token's claims, read while the token is in hand anyway."""
    claims = oauth.jwt_claims(access_token)
    found = {
        "issuer": (claims.get("iss"), 200),
        "client_id": (claims.get("azp"), 191),
        "product_line": (claims.get("featureScope"), 40),
    }
    return {name: value[:size] for name, (value, size) in found.items() if isinstance(value, str)}
