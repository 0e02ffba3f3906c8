"""Changes the key: what is sealed with an older key is sealed again with the first one.

That is the token rows with their fingerprints, the pending revocations, and the journal of this machine. What was
begun in a browser (a sign-in that is under way) is sealed in its session and cannot be reached.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from django.db.models import Count

from sipgate_provider.models import SipgateToken
from sipgate_provider.tokens import database, journal, revocation, sealing, store


@dataclass(slots=True, kw_only=True)
class Resealed:
    """What a run did. ``done``: token rows; ``left``: values that another key still seals, ``keys`` tells which."""

    done: int = 0
    revocations: int = 0
    journal: int = 0
    changed_meanwhile: int = 0
    unreadable: int = 0
    left: int = 0
    seconds: float = 0.0
    keys: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def reseal(*, batch: int = 500, progress: Callable[[Resealed], None] | None = None) -> Resealed:
    """Seal everything with the first key of the ring. It may run while the site is in use, be interrupted and be
    repeated. A value that changes meanwhile is left to whoever changed it. A value that does not open is left and
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
        if progress:
            progress(report)
    report.revocations, of_revocations = revocation.reseal()
    report.journal, of_journal = journal.reseal()
    report.unreadable += of_revocations + of_journal
    report.keys = keys_in_use()
    report.left = sum(number for name, number in report.keys.items() if name != key)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def keys_in_use() -> dict[str, int]:
    """Return how many values each key seals: tokens, pending revocations, and the journal of this machine."""
    rows = SipgateToken.objects.using(database.alias()).exclude(sealed=b"").order_by()
    used = Counter(
        {row["key_id"]: row["number"] for row in rows.values("key_id").annotate(number=Count("pk"))}
    )
    used.update(revocation.key_ids())
    used.update(filter(None, map(journal.key_id, journal.entries())))
    return dict(used)
