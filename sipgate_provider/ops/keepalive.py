"""Does regular work without a visitor: it refreshes idle connections before they end, at a rate that sipgate accepts.

What is due is listed; each row is refreshed by the function that visitors use. Any number of machines may run this at
once: they share the work, since a row that somebody else refreshes is left to them.

Must not know: terminals, pages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import chain, islice

from django.db import DatabaseError, InterfaceError, connections
from django.db.models import Q, QuerySet
from django.utils import timezone

from sipgate_provider import errors, metrics, tokens
from sipgate_provider.models import SipgateToken, State
from sipgate_provider.ops import notices, pace, retention
from sipgate_provider.remote import oauth

RUNS = metrics.Counter(
    "keepalive_runs_total",
    "Runs of keepalive.",
    {"outcome": ("finished", "stopped", "misconfigured")},
)

RATE = 50.0
"""Refreshes per second unless told otherwise: less than half of what Keycloak publishes for one CPU (120)."""
BATCH = 500
"""Rows that one query lists."""
MISCONFIGURED = "misconfigured client"
STOP_AFTER = 5
"""So many failures in succession mean an outage."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did. ``stopped`` names why it ended early, if it did."""

    due: int = 0
    refreshed: int = 0
    failed: int = 0
    needs_sign_in: int = 0
    skipped: int = 0
    recovered: int = 0
    revocations_done: int = 0
    revocations_waiting: int = 0
    notified: int = 0
    seconds: float = 0.0
    stopped: str = ""
    errors: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    @property
    def ended(self) -> int:
        return self.refreshed + self.failed + self.needs_sign_in + self.skipped

    @property
    def is_misconfigured(self) -> bool:
        return self.stopped.startswith(MISCONFIGURED)


def due(*, now: datetime, everything: bool = False) -> Q:
    """Return which rows are due: those whose time (``keepalive_at``) has come, or all. Rows that wait for their next
    attempt or for their person are not due."""
    able = (Q(next_attempt_at=None) | Q(next_attempt_at__lte=now)) & ~Q(state=State.NEEDS_SIGN_IN)
    return able if everything else able & Q(keepalive_at__lte=now)


def refused(*, now: datetime) -> Q:
    """Return which refused rows are to be tried again: the refusal may have been taken back."""
    return Q(state=State.NEEDS_SIGN_IN, next_attempt_at__lte=now)


def run(
    *,
    rate: float = RATE,
    threads: int = 64,
    everything: bool = False,
    limit: int | None = None,
    progress: Callable[[Report], None] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Refresh what is due, recover the journal, deliver the outbox; return the report. Raises no error of sipgate."""
    return Run(
        rate=rate, threads=threads, everything=everything, limit=limit, progress=progress, stop=stop
    ).go()


def count_due(*, everything: bool = False) -> int:
    now, rows = timezone.now(), SipgateToken.objects
    return (
        rows.filter(due(now=now, everything=everything)).count()
        + rows.filter(refused(now=now)).count()
    )


class Run:
    """One run of the keeper."""

    def __init__(
        self,
        *,
        rate: float,
        threads: int,
        everything: bool,
        limit: int | None,
        progress: Callable[[Report], None] | None,
        stop: threading.Event | None,
    ) -> None:
        self.report = Report()
        self._pace = pace.Pace(rate=rate)
        self._threads = threads
        self._everything = everything
        self._limit = limit
        self._progress = progress or (lambda report: None)
        self._stop = pace.Halt(stop)
        self._started_at = timezone.now()
        self._in_a_row = 0
        self._lock = threading.Lock()

    def go(self) -> Report:
        started = time.monotonic()
        try:
            self.report.recovered = tokens.recover()
            self._deliver_revocations()
            self._tell_people()
            retention.work_off()
            tokens.key_ids()
            client = tokens.client()
            self._end_if_paused(client)
            self._refresh_all(client)
        except errors.Misconfigured as error:
            self._end(f"{MISCONFIGURED}: {error.message}")
        except (DatabaseError, InterfaceError) as error:
            connections[
                tokens.using()
            ].close()  # it may be dead, and this thread's next run would use it
            self._end(f"the database does not answer ({type(error).__name__})")
        self.report.seconds = round(time.monotonic() - started, 3)
        self._progress(self.report)
        how = "stopped" if self.report.stopped else "finished"
        RUNS.count("misconfigured" if self.report.is_misconfigured else how)
        return self.report

    def _deliver_revocations(self) -> None:
        for is_over in tokens.deliver_endings():
            if is_over:
                self.report.revocations_done += 1
            else:
                self.report.revocations_waiting += 1
            self._pace.wait(self._stop)
            if self._stop.is_set():
                return

    def _tell_people(self) -> None:
        self.report.notified += notices.tell_people(self._stop.is_set)

    def _refresh_all(self, client: oauth.Client) -> None:
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="sipgate-keepalive") as pool:
            for pk, generation in self._due():
                if len(running) >= self._threads:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                if self._stop.is_set():
                    break
                self.report.due += 1
                running.add(pool.submit(self._one_in_thread, client, pk, generation))
            for future in running:
                future.result()

    def _due(self) -> Iterator[tuple[int, int]]:
        """Yield connections and generations of what is due, most urgent first, then of what sipgate has refused."""
        now = timezone.now()
        wanted = due(now=now, everything=self._everything)
        if self._everything:
            wanted &= Q(
                issued_at__lt=self._started_at
            )  # what this run has refreshed is not due a second time
        yield from islice(
            chain(listed(wanted), listed(refused(now=now), by="state_since")), self._limit
        )

    def _one_in_thread(self, client: oauth.Client, pk: int, generation: int) -> None:
        # Otherwise a thread's connection is closed by the garbage collector, and Python 3.13 warns about that.
        with tokens.own_connections():
            self._one(client, pk, generation)

    def _one(self, client: oauth.Client, pk: int, generation: int) -> None:
        self._pace.wait(self._stop)
        if self._stop.is_set():
            self._count("skipped")
            return
        try:
            tokens.refresh(pk, by="keepalive", seen=generation, force=False)
        except errors.NeedsSignIn:
            self._count("needs_sign_in")
        except errors.NotConnected:
            self._count("skipped")
        except (DatabaseError, InterfaceError) as error:
            self._count("failed")
            self._end(f"the database does not answer ({type(error).__name__})")
        except errors.Misconfigured as error:
            self._count("failed", error)
            self._end_if_paused(client)
        except errors.SipgateError as error:
            self._count("failed", error)
            if error.code not in oauth.OF_THE_GRANT:
                self._after_trouble(error)
        else:
            self._count("refreshed")
            self._pace.speed_up()

    def _end_if_paused(self, client: oauth.Client) -> None:
        """End the run if our client is rejected. A fault of one row is no reason to stop."""
        pause = tokens.pause(client)
        if pause is not None:
            self._end(
                f"{MISCONFIGURED}: sipgate refuses this site's client ({pause.error_code}): see {pause.setting}."
            )

    def _after_trouble(self, error: errors.SipgateError) -> None:
        if isinstance(error, errors.RateLimited) or error.status == 503:
            self._pace.slow_down(getattr(error, "retry_after", None))
        with self._lock:
            self._in_a_row += 1
            outage = self._in_a_row >= STOP_AFTER
        if outage:
            self._end(f"sipgate does not answer: {error.message}")

    def _count(self, what: str, error: errors.SipgateError | None = None) -> None:
        with self._lock:
            setattr(self.report, what, getattr(self.report, what) + 1)
            if error is not None:
                code = error.code or type(error).__name__
                self.report.errors[code] = self.report.errors.get(code, 0) + 1
            if what in {"refreshed", "needs_sign_in"}:
                self._in_a_row = 0
        self._progress(self.report)

    def _end(self, why: str) -> None:
        self.report.stopped = self.report.stopped or why
        self._stop.set()


def in_order(condition: Q, by: str = "keepalive_at") -> QuerySet[SipgateToken]:
    """Return the rows of a condition, earliest moment in the column ``by`` first. There is an index for each of both
    orders that are used."""
    return SipgateToken.objects.filter(condition).order_by(by, "pk")


def listed(condition: Q, by: str = "keepalive_at") -> Iterator[tuple[int, int]]:
    """Yield connections and generations of such rows, a batch a query."""
    rows = following = in_order(condition, by)
    while batch := list(following.values_list("pk", "generation", by)[:BATCH]):
        tokens.release_connections()
        yield from ((pk, generation) for pk, generation, _ in batch)
        pk, _, at = batch[-1]
        following = rows.filter(
            Q(**{by: at, "pk__gt": pk}) | Q(**{f"{by}__gt": at}), **{f"{by}__gte": at}
        )
