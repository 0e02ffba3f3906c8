"""Tells operators how the tokens are kept, and seals them anew after a change of keys."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from django.db.models import Count
from django.utils import timezone

from sipgate_provider import errors
from sipgate_provider.models import ClientPause, Revocation, SipgateToken
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import (
    authorization_server,
    journal,
    pauses,
    revocation,
    rows,
    sealing,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What an operator wants to know of this machine and the database.

    ``keys`` counts sealed values by the id of their key; ``keys_missing`` are those of them that this site does not
    have. ``pauses`` are clients that sipgate rejects now.
    """

    journal_waiting: int
    keys: dict[str, int]
    keys_missing: tuple[str, ...]
    pauses: tuple[ClientPause, ...]
    endings_waiting: int


def status() -> Status:
    """Count now: four queries, and the files of the journal. Without a usable key, all keys are missing."""
    used = keys_in_use()
    known: tuple[str, ...] = ()
    with suppress(errors.Misconfigured):
        known = key_ids()
    return Status(
        journal_waiting=journal.waiting(),
        keys=used,
        keys_missing=tuple(sorted(set(used) - set(known))),
        pauses=tuple(ClientPause.objects.filter(until__gt=timezone.now()).order_by("since")),
        endings_waiting=Revocation.objects.filter(next_attempt_at__isnull=False).count(),
    )


def key_ids() -> tuple[str, ...]:
    """Return the ids (eight hex digits) of the site's keys; the first seals.

    Raises:
        errors.Misconfigured: there is no key, or one is malformed.
    """
    return sealing.known_key_ids()


def pause(client: oauth.Client) -> ClientPause | None:
    """Return the pause of a client that sipgate rejects now, or None."""
    found = pauses.pause(authorization_server.fingerprint(client))
    return found if found is not None and found.until > timezone.now() else None


@dataclass(slots=True, kw_only=True)
class Resealed:
    """What a run did. ``done``: rows; ``left``: values that another key still seals, ``keys`` tells which."""

    done: int = 0
    revocations: int = 0
    journal: int = 0
    changed_meanwhile: int = 0
    unreadable: int = 0
    left: int = 0
    seconds: float = 0.0
    keys: dict[str, int] = field(default_factory=dict)


def reseal(*, batch: int = 500, progress: Callable[[Resealed], None] | None = None) -> Resealed:
    """Seal everything with the first key: rows, pending endings, and the journal of this machine.

    It may run while the site is in use, be interrupted and be repeated. A value that changes meanwhile is left to
    whoever changed it. A value that does not open is left and counted.
    """
    report, started = Resealed(), time.monotonic()
    key, after = sealing.first_key_id(), 0
    old = SipgateToken.objects.exclude(key_id=key)
    while found := list(old.filter(pk__gt=after).order_by("pk")[:batch]):
        after = found[-1].pk
        done, changed, unreadable = rows.reseal(found)
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
    """Return how many values each key seals: rows, pending endings, and the journal of this machine."""
    stored = SipgateToken.objects.exclude(sealed=b"").order_by()
    used = Counter(
        {
            row["key_id"]: row["number"]
            for row in stored.values("key_id").annotate(number=Count("pk"))
        }
    )
    used.update(revocation.key_ids())
    used.update(filter(None, map(journal.key_id, journal.entries())))
    return dict(used)
