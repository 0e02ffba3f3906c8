"""Does the regular work that no visitor causes: above all, it refreshes idle connections in time.

Any number of machines may run it at once: one refresh of a connection serves them all.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from django.db import Error as DatabaseFault
from django.db import connections
from django.db.models import Q, QuerySet
from django.utils import timezone

from sipgate_provider import conf, database, errors, metrics, tokens
from sipgate_provider.models import LastKnownAccount, SipgateToken, State, TokenEvent
from sipgate_provider.ops import notices

RUNS = metrics.counter(
    "keepalive_runs_total",
    "Runs of keepalive.",
    {"outcome": ("finished", "stopped", "misconfigured")},
)

THREADS = 4
"""Refreshes under way at the same time. If a run is killed, no more connections than these can lose
their tokens."""
MOST = 10_000
"""Rows that one run refreshes; the next run continues."""
MOST_FORGOTTEN = 1_000
"""Old rows that one run removes from each table."""
STOP_AFTER = 5
"""Consecutive failures that count as an outage."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did. ``stopped``: why it ended early, if it did."""

    refreshed: int = 0
    failed: int = 0
    needs_sign_in: int = 0
    recovered: int = 0
    endings_done: int = 0
    endings_waiting: int = 0
    mails: int = 0
    forgotten: int = 0
    seconds: float = 0.0
    stopped: str = ""
    is_misconfigured: bool = False
    errors: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class Stopped(Exception):
    """The run ends early; its text says why."""


def run(*, stop: threading.Event | None = None) -> Report:
    """Recover the journal, end grants, email users, forget old data, and refresh what is due.

    Setting ``stop`` ends the run early, after the refreshes that are under way.
    """
    report, stop, began = Report(), stop or threading.Event(), time.monotonic()
    try:
        report.recovered = tokens.recover()
        _end_grants(report, stop)
        report.mails = notices.tell_users(stop)
        report.forgotten = forget_old()
        _refresh_due(report, stop)
    except errors.Misconfigured as error:
        report.stopped, report.is_misconfigured = error.message, True
    except Stopped as reason:
        report.stopped = str(reason)
    except DatabaseFault as error:
        connections[database.using()].close()  # it may be dead; the next run needs a new one
        report.stopped = f"The database does not answer ({type(error).__name__})."
    report.seconds = round(time.monotonic() - began, 3)
    RUNS.labels(
        "misconfigured" if report.is_misconfigured else "stopped" if report.stopped else "finished"
    ).inc()
    return report


def _end_grants(report: Report, stop: threading.Event) -> None:
    for is_over in tokens.deliver_endings():
        if is_over:
            report.endings_done += 1
        else:
            report.endings_waiting += 1
        if stop.is_set():
            return


def forget_old() -> int:
    """Delete old history and last known accounts (``SIPGATE_HISTORY_DAYS``), some in each run."""
    if not conf.history_days():
        return 0
    before = timezone.now() - timedelta(days=conf.history_days())
    removed = 0
    for model, moment in ((TokenEvent, "at"), (LastKnownAccount, "fetched_at")):
        old = model.objects.filter(**{f"{moment}__lt": before}).order_by(moment)
        keys = list(old.values_list("pk", flat=True)[:MOST_FORGOTTEN])
        removed += model.objects.filter(pk__in=keys).delete()[0]
    return removed


# --- refreshes ----------------------------------------------------------------------------------


def idle(now: datetime) -> QuerySet[SipgateToken]:
    """Return the connections that would end because no one uses them, the most urgent first."""
    may_be_tried = Q(next_attempt_at=None) | Q(next_attempt_at__lte=now)
    rows = SipgateToken.objects.filter(may_be_tried, keepalive_at__lte=now)
    return rows.exclude(state=State.NEEDS_SIGN_IN).order_by("keepalive_at", "pk")


def rejected(now: datetime) -> QuerySet[SipgateToken]:
    """Return rejected connections to try again: sipgate may accept them by now."""
    rows = SipgateToken.objects.filter(state=State.NEEDS_SIGN_IN, next_attempt_at__lte=now)
    return rows.order_by("state_since", "pk")


def _due() -> list[tuple[int, int]]:
    """Return the connections to refresh, each with its present version number."""
    now, columns = timezone.now(), ("pk", "number")
    return [
        *idle(now).values_list(*columns)[:MOST],
        *rejected(now).values_list(*columns)[:MOST],
    ]


def _refresh_due(report: Report, stop: threading.Event) -> None:
    _check_client()
    due, in_a_row = _due(), 0
    database.release_connections()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="sipgate-keepalive") as pool:
        for start in range(0, len(due), THREADS):
            if stop.is_set():
                return
            for error in pool.map(_refresh, due[start : start + THREADS]):
                in_a_row = _count(report, error, in_a_row)


def _refresh(due: tuple[int, int]) -> errors.SipgateError | None:
    connection_id, version = due
    with database.own_connections():
        try:
            tokens.refresh(connection_id, by="keepalive", seen=version, force=False)
        except errors.SipgateError as error:
            return error
    return None


def _count(report: Report, error: errors.SipgateError | None, in_a_row: int) -> int:
    """Count a result, and return the number of consecutive failures. Raise ``Stopped`` in an
    outage."""
    if error is None:
        report.refreshed += 1
        return 0
    if isinstance(error, errors.NotConnected):
        return in_a_row
    if isinstance(error, errors.NeedsSignIn):
        report.needs_sign_in += 1
        return 0
    report.failed += 1
    code = error.code or type(error).__name__
    report.errors[code] = report.errors.get(code, 0) + 1
    if isinstance(error, errors.Misconfigured):
        _check_client()  # the fault of a single row is no reason to stop
        return in_a_row
    if isinstance(error, errors.RateLimited) or in_a_row + 1 >= STOP_AFTER:
        raise Stopped(f"sipgate does not answer: {error.message}")
    return in_a_row + 1


def _check_client() -> None:
    """Raise ``errors.Misconfigured`` without key or client, or if sipgate rejects the client."""
    tokens.key_ids()
    tokens.check_not_paused(tokens.client())
