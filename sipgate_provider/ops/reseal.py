"""Changes the key: what was sealed with an older key is sealed again with the first one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from django.db.models import Count

from sipgate_provider.keeper import database, sealing, store
from sipgate_provider.models import SipgateToken


@dataclass(slots=True, kw_only=True)
class Resealed:
    done: int = 0
    changed_meanwhile: int = 0
    unreadable: int = 0
    left: int = 0
    seconds: float = 0.0
    keys: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def reseal(*, batch: int = 500, progress: Callable[[Resealed], None] | None = None) -> Resealed:
    """Seal every token with the first key of the ring; online, resumable, conditional per row.

    A row that changes meanwhile was sealed with the first key by whoever changed it. What does not open is left and
    counted.
    """
    report, started = Resealed(), time.monotonic()
    key, after = sealing.first_key_id(), 0
    old = SipgateToken.objects.using(database.alias()).exclude(key_id=key)
    while rows := list(old.filter(pk__gt=after).order_by("pk")[:batch]):
        after = rows[-1].pk
        done, changed, unreadable = store.reseal(rows)
        report.done += done
        report.changed_meanwhile += changed
        report.unreadable += unreadable
        report.seconds = round(time.monotonic() - started, 3)
        if progress:
            progress(report)
    report.keys = keys_in_use()
    report.left = sum(number for name, number in report.keys.items() if name != key)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def keys_in_use() -> dict[str, int]:
    """Return how many tokens each key seals."""
    rows = SipgateToken.objects.using(database.alias()).order_by().values("key_id").annotate(number=Count("pk"))
    return {row["key_id"]: row["number"] for row in rows}
