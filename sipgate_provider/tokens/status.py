"""Counts for operators how tokens are sealed, and seals them anew after a change of keys."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from django.db.models import Count

from sipgate_provider import errors
from sipgate_provider.models import Ending, SipgateToken
from sipgate_provider.tokens import endings, journal, rows, sealing


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What an operator wants to know about this machine and the database.

    ``keys`` counts sealed values by the id of their key; ``keys_missing`` are those of them that
    this site does not have.
    """

    journal_waiting: int
    keys: dict[str, int]
    keys_missing: tuple[str, ...]
    endings_waiting: int


def status() -> Status:
    """Count now: three queries, and the files of the journal. Without a usable key, all keys are
    missing."""
    used, known = keys_in_use(), set[str]()
    with suppress(errors.Misconfigured):
        known = {*sealing.key_ids()}
    return Status(
        journal_waiting=journal.waiting(),
        keys=used,
        keys_missing=tuple(sorted(set(used) - known)),
        endings_waiting=Ending.objects.count(),
    )


@dataclass(slots=True, kw_only=True)
class Resealed:
    """How many values a run has sealed anew, how many did not open, and how many are ``left`` that
    another key seals."""

    tokens: int = 0
    endings: int = 0
    journal: int = 0
    unreadable: int = 0
    left: int = 0


def reseal() -> Resealed:
    """Seal everything with the first key: rows, pending endings, and the journal of this machine.

    It may run while the site is in use, be interrupted and be repeated. A value that changes while
    it runs is left to whoever changed it. A value that does not open is left and counted.
    """
    report, key, after = Resealed(), sealing.key_ids()[0], 0
    old = SipgateToken.objects.exclude(key_id=key).order_by("pk")
    while found := list(old.filter(pk__gt=after)[:500]):
        after = found[-1].pk
        for row in found:
            try:
                report.tokens += rows.reseal(row)
            except errors.Misconfigured:
                report.unreadable += 1
    report.endings, of_endings = endings.reseal()
    report.journal, of_journal = journal.reseal()
    report.unreadable += of_endings + of_journal
    report.left = sum(number for name, number in keys_in_use().items() if name != key)
    return report


def keys_in_use() -> dict[str, int]:
    """Return how many values each key seals: rows, pending endings, and the journal of this
    machine."""
    stored = SipgateToken.objects.exclude(sealed="").order_by()
    used = Counter(dict(stored.values_list("key_id").annotate(number=Count("pk"))))
    used.update(endings.keys())
    used.update(journal.keys())
    return dict(used)
