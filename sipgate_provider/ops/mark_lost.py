"""Marks connections whose newest token pair is lost, after the database went back: a restored backup, a failover.

The database then has pairs that sipgate has replaced since. The journals have the newer ones, which are taken over
first. A pair that no journal has is taken to be replaced if keepalive must have refreshed it between the backup and the
end, or if its person probably used it. sipgate is not asked, since a spent token may end
the other grants of its person.

Must not know: terminals.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.tokens import database, history, journal, store

ACTOR = "sipgate_mark_lost"
KEEPALIVE_TAKES = timedelta(hours=1)
"""Keepalive has refreshed what was due after this time."""
BATCH = 500


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did, or would do. ``recovered`` from this machine's journal, ``marked`` as lost, ``left`` because
    their pairs may be good."""

    dry_run: bool = False
    recovered: int = 0
    marked: int = 0
    left: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def run(*, until: datetime, used_since: datetime | None = None, dry_run: bool = False) -> Report:
    """Mark what cannot be good.

    Args:
        until: when the newer database last worked.
        used_since: connections that somebody has used since then are taken to have been refreshed after the backup.
        dry_run: only count; the journal is not recovered either.
    """
    started, report = time.monotonic(), Report(dry_run=dry_run)
    if not dry_run:
        report.recovered = journal.recover_all()
    newest = _newest_here()
    rows = (
        SipgateToken.objects.using(database.alias())
        .exclude(state=State.NEEDS_SIGN_IN)
        .exclude(sealed=b"")
    )
    wanted, after = rows.filter(_refreshed_since(until, used_since)), 0
    while batch := list(wanted.filter(pk__gt=after).order_by("pk")[:BATCH]):
        after = batch[-1].pk
        for row in batch:
            # As far as is known, this machine refreshed it last.
            is_newest = newest.get((row.pk, row.consent_id), -1) >= row.generation - 1
            if not is_newest and (dry_run or _mark(row)):
                report.marked += 1
    report.left = rows.count() - (report.marked if dry_run else 0)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _newest_here() -> dict[tuple[int, uuid.UUID], int]:
    """Return the newest generation that this machine has sent, by connection and consent."""
    newest: dict[tuple[int, uuid.UUID], int] = {}
    for entry in journal.entries():
        key = (entry.connection_id, entry.consent_id)
        newest[key] = max(entry.generation, newest.get(key, -1))
    return newest


def _refreshed_since(until: datetime, used_since: datetime | None) -> Q:
    """Return which pairs were replaced before ``until``. A pair with a fixed end is not refreshed before that end."""
    was_due = Q(keepalive_at__lte=until - KEEPALIVE_TAKES) & ~Q(reason=Reason.FIXED_END)
    was_used = Q(last_used_at__gte=used_since) if used_since is not None else Q(pk__in=())
    return Q(issued_at__lte=until) & (was_due | was_used)


def _mark(row: SipgateToken) -> bool:
    now = timezone.now()
    if not store.mark_lost(row, now=now):
        return False
    history.add_event(
        TokenEvent.Kind.STATE,
        row=row,
        actor=ACTOR,
        state=State.NEEDS_SIGN_IN,
        reason=Reason.LOST_ROTATION,
        generation=row.generation,
        at=now,
        note="the database went back",
    )
    return True
