"""Reads and writes the rows of tokens. The only other writer is ``lease``. Every change is one
UPDATE with a condition.

If an UPDATE changes no row, somebody else has changed it, and the newer state stays. The lease
decides who may send a refresh token; consent and number decide whose answer counts, whoever has the
lease by then.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from sipgate_provider import database, errors
from sipgate_provider.models import Reason, SipgateToken, State, Version
from sipgate_provider.remote import oauth
from sipgate_provider.remote.oauth import Tokens
from sipgate_provider.tokens import clients, sealing

ASSUMED_LIFETIME = timedelta(seconds=300)
"""Assumed life of an access token whose ``expires_in`` is missing or odd."""
KEEP_SHARE = 0.5
"""Keepalive refreshes an idle connection after this share of its refresh token's life, early enough
to survive outages."""
UNKNOWN_LIFE = timedelta(days=2)
"""Assumed life of a refresh token whose end is unknown, which is then refreshed daily."""
TELLS_NOTHING = timedelta(seconds=10)
"""Two refreshes within this time do not show whether the end moves, because servers count whole
seconds."""
FREE = {"lease_holder": "", "lease_until": None}
WORKS = {
    **FREE,
    "unanswered": False,
    "failing_since": None,
    "last_rejected_at": None,
    "next_attempt_at": None,
    "last_error_code": "",
    "notified_at": None,
}
ASKED = Q(state=State.NEEDS_SIGN_IN, reason=Reason.SIGN_IN_REQUIRED)
"""An administrator has demanded a new sign-in: a refresh under way stores its tokens, but the
demand stays."""


def load(connection_id: int) -> SipgateToken | None:
    """Return the row of a connection, or None. One query."""
    return _only(SipgateToken.objects.all(), connection_id)


def load_to_refresh(connection_id: int) -> SipgateToken | None:
    """As ``load``. The row's attribute ``is_leased`` tells, by the database's clock, whether a
    lease is running. The connection is read as well, so it stays known after a deletion."""
    rows = SipgateToken.objects.select_related("connection")
    return _only(rows.annotate(is_leased=Q(lease_until__gt=Now())), connection_id)


def _only(rows: QuerySet[SipgateToken], connection_id: int) -> SipgateToken | None:
    try:
        return rows.get(pk=connection_id)  # ``first`` would sort and slice, which costs a tenth
    except SipgateToken.DoesNotExist:
        return None


def opened(row: SipgateToken) -> Tokens:
    """Return the tokens of a row.

    Raises:
        errors.NeedsSignIn: it has none (any more).
        sealing.SealError: they do not open.
    """
    if not row.sealed:
        raise errors.NeedsSignIn("This connection was ended.", reason=row.reason)
    return Tokens.from_text(sealing.unseal(row.sealed, place=place(row.version)))


def place(version: Version) -> str:
    return f"tokens {version.connection} {version.number}"


def as_read(row: SipgateToken) -> dict[str, Any]:
    """Return the condition that a row is still as it was read."""
    names = ("consent", "number", "state", "next_attempt_at", "unanswered")
    return {"pk": row.pk, **{name: getattr(row, name) for name in names}}


def note(row: SipgateToken, **changes: Any) -> bool:
    """Record what was found before there was a lease. False: the row has changed."""
    return bool(SipgateToken.objects.filter(**as_read(row)).update(**changes))


# --- tokens ---------------------------------------------------------------------------------------


def store_refreshed(
    new: Version, tokens: Tokens, *, before: SipgateToken | None = None, is_use: bool = False
) -> SipgateToken | None:
    """Store the tokens of a refresh, whoever has the lease by now.

    Args:
        new: the version that these tokens are.
        before: the row that was refreshed, if that is known.
        is_use: the refresh counts as use of the connection.

    Returns the row as it is now; None if it is as new already, of another consent, or gone.
    """
    before = before or load(new.connection)
    if before is None:
        return None
    now = timezone.now()
    values = _columns(new, tokens, before=before)
    values |= {"last_refreshed_at": now, "refresh_count": before.refresh_count + 1}
    if before.state != State.ACTIVE:
        values["state_since"] = now
    if is_use:
        values["last_used_at"] = now
    if not tokens.client_id:
        values = {name: value for name, value in values.items() if name not in clients.OF}
    older = SipgateToken.objects.filter(
        pk=new.connection, consent=new.consent, number__lt=new.number
    )
    if older.exclude(ASKED).update(**values):
        return _changed(before, values)
    # Either somebody was faster, or an administrator has demanded a new sign-in: that demand stays.
    for name in ("state", "reason", "state_since"):
        values.pop(name, None)
    return load(new.connection) if older.update(**values) else None


def store_consent(
    connection: SocialAccount, tokens: Tokens, *, scope: Iterable[str]
) -> tuple[SipgateToken, SipgateToken | None]:
    """Store the tokens of a sign-in or connect: newer than whatever a refresh under way stores
    later.

    Without a ``scope`` in the tokens, what was asked for was granted (RFC 6749 §5.1).

    Returns the row as stored, and as it was before (None at first).
    """
    now, rows = timezone.now(), SipgateToken.objects.filter(pk=connection.pk)
    with transaction.atomic(using=database.using(), savepoint=False):
        before = rows.select_for_update().first()
        if before is None:
            try:
                with transaction.atomic(using=database.using()):
                    new = Version(connection.pk, uuid.uuid4(), 1)
                    values = _consented(new, tokens, scope, now)
                    return SipgateToken.objects.create(connection_id=connection.pk, **values), None
            except IntegrityError:
                # Another tab stored its consent a moment ago: this one replaces it.
                before = rows.select_for_update().get()
        new = Version(connection.pk, uuid.uuid4(), before.number + 1)
        values = _consented(new, tokens, scope, now)
        if before.state == State.ACTIVE:
            values["state_since"] = before.state_since
        rows.update(**values)
    return _changed(before, values), before


def _changed(row: SipgateToken, values: dict[str, Any]) -> SipgateToken:
    """Return a copy of a row with the values that an UPDATE has just given to it."""
    row = copy.copy(row)
    for name, value in values.items():
        setattr(row, name, value)
    return row


def _consented(new: Version, tokens: Tokens, scope: Iterable[str], now: datetime) -> dict[str, Any]:
    granted = tokens.scope if tokens.scope is not None else scope
    return {
        **_columns(new, tokens),
        "scope": " ".join(granted),
        "consent": new.consent,
        "consented_at": now,
        "last_used_at": now,
        "state_since": now,
    }


def forget(row: SipgateToken, *, reason: Reason) -> None:
    """Forget the tokens of a row that the caller has locked; it needs a new sign-in.

    It gets a new consent and number, so that a refresh under way cannot store its answer.
    """
    now = timezone.now()
    SipgateToken.objects.filter(pk=row.pk).update(
        **WORKS,
        sealed="",
        consent=uuid.uuid4(),
        number=F("number") + 1,
        expires_at=now,
        state=State.NEEDS_SIGN_IN,
        reason=reason,
        state_since=row.state_since if row.state == State.NEEDS_SIGN_IN else now,
    )


def require_sign_in(row: SipgateToken) -> None:
    """Put a row that the caller has locked into *needs sign-in* without asking sipgate; the tokens
    stay."""
    SipgateToken.objects.filter(pk=row.pk).update(
        state=State.NEEDS_SIGN_IN,
        reason=Reason.SIGN_IN_REQUIRED,
        state_since=timezone.now(),
        next_attempt_at=None,
    )


def locked(connection_id: int) -> SipgateToken:
    """Return the row, locked until the caller's transaction ends (SQLite locks the whole database
    for that).

    Raises:
        errors.NotConnected: there is none.
    """
    row = SipgateToken.objects.select_for_update().filter(pk=connection_id).first()
    if row is None:
        raise errors.NotConnected("The sipgate connection is gone.")
    return row


def reseal(row: SipgateToken) -> bool:
    """Seal a row's tokens with the first key. This does not disturb a running refresh: the version
    stays.

    Returns False if the row has changed meanwhile: it was sealed then.

    Raises:
        sealing.SealError: they do not open.
    """
    sealed = sealing.resealed(row.sealed, place=place(row.version)) if row.sealed else ""
    as_read = SipgateToken.objects.filter(pk=row.pk, number=row.number, key_id=row.key_id)
    return bool(as_read.update(sealed=sealed, key_id=sealing.key_ids()[0]))


# --- what tokens say ------------------------------------------------------------------------------


def _columns(new: Version, tokens: Tokens, *, before: SipgateToken | None = None) -> dict[str, Any]:
    """Return everything that stored tokens change, after a consent or a refresh."""
    lifetime = timedelta(seconds=tokens.expires_in) if tokens.expires_in else ASSUMED_LIFETIME
    life = _seconds(tokens.refresh_expires_in)
    ends = tokens.issued_at + life if life else None
    sealed = sealing.seal(tokens.to_text(), place=place(new))
    values: dict[str, Any] = {
        **WORKS,
        **clients.recorded(tokens.client_id),
        "sealed": sealed,
        "key_id": sealing.key_of(sealed),
        "issued_at": tokens.issued_at,
        "expires_at": tokens.issued_at + lifetime,
        "refresh_expires_at": ends,
        "keepalive_at": _keepalive_at(tokens.issued_at, life or UNKNOWN_LIFE),
        "number": new.number,
        "state": State.ACTIVE,
        "reason": Reason.NONE,
    }
    if tokens.scope is not None:
        values["scope"] = " ".join(tokens.scope)
    if before is not None and ends is not None and _has_fixed_end(before, tokens.issued_at, ends):
        # Refreshing more often would not help, and the tokens live until then: nothing to do
        # before.
        values |= {"reason": Reason.FIXED_END, "keepalive_at": ends}
        if before.state != State.NEEDS_SIGN_IN:
            # A user who was told of this end is not told again at each refresh.
            del values["notified_at"]
    # From the access token's claims, since the token is at hand here.
    line = oauth.jwt_claims(tokens.access_token).get("featureScope")
    if isinstance(line, str):
        values["product_line"] = line[:40]
    return values


def _has_fixed_end(before: SipgateToken, issued_at: datetime, ends: datetime) -> bool:
    """Tell whether a refresh has not moved the end: then the server limits how long a sign-in
    lasts."""
    if before.refresh_expires_at is None:
        return False
    elapsed = issued_at - before.issued_at
    if elapsed < TELLS_NOTHING:
        return before.has_fixed_end
    return ends - before.refresh_expires_at < elapsed / 2


def _seconds(value: float | None) -> timedelta | None:
    return timedelta(seconds=value) if value else None


def _keepalive_at(issued_at: datetime, life: timedelta) -> datetime:
    # A tenth more or less, so that connections of the same age are not due at the same time.
    return issued_at + life * KEEP_SHARE * random.uniform(0.9, 1.1)  # noqa: S311  # jitter
