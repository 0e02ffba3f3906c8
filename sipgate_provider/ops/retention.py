"""Removes data about people that is older than ``SIPGATE_HISTORY_DAYS``: history and last known accounts.

Must not know: pages, sipgate, why somebody leaves (``personal_data``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from sipgate_provider import conf
from sipgate_provider.models import LastKnownAccount, TokenEvent

BATCH = 1_000
"""Rows per statement. A longer statement would keep others from writing."""
BATCHES = 50
"""Statements per call. The next call does the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How many rows a call has removed."""

    events: int
    accounts: int


def work_off(now: datetime | None = None) -> Removed:
    """Remove what is too old, in batches, outside of a transaction. Any number of machines may run it at once.

    Connections and tokens are not removed: their person, sipgate or an administrator ends them.

    Raises:
        DatabaseError: the database does not answer; what was removed before stays removed.
    """
    days = conf.history_days()
    if not days:
        return Removed(events=0, accounts=0)
    before = (now or timezone.now()) - timedelta(days=days)
    events = TokenEvent.objects.filter(at__lt=before).order_by("at")
    accounts = LastKnownAccount.objects.filter(fetched_at__lt=before).order_by("fetched_at")
    return Removed(events=_removed(events), accounts=_removed(accounts))


def _removed(rows: QuerySet[Any]) -> int:
    number = 0
    for _ in range(BATCHES):
        keys = list(rows.values_list("pk", flat=True)[:BATCH])
        if not keys:
            break
        number += rows.model._default_manager.using(rows.db).filter(pk__in=keys).delete()[0]
    return number
