"""Work that runs without a visitor: idle links are renewed before they die, in bulk and politely; keys are changed.

Any number of machines may run it at once: rows are claimed in batches with the gate's own lease, so they never overlap,
neither with each other nor with visitors.

Must not know: terminals, pages.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Self

from django.db import DatabaseError, InterfaceError, connections, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from sipgate_provider import conf, errors, metrics
from sipgate_provider.keeper import authorization_server, database, journal, refreshing, revocation, sealing, store
from sipgate_provider.models import SipgateToken, State
from sipgate_provider.ops import pace
from sipgate_provider.remote import oauth

from . import notices

logger = logging.getLogger(__name__)

RATE = 50.0
"""Refreshes per second unless told otherwise: less than half of what Keycloak publishes for one CPU (120)."""
BATCH = 64
HELD_SECONDS = 20.0
"""Only so many rows are claimed at once as can be started within this time, so that no lease runs out while it waits."""
MISCONFIGURED = "misconfigured client"
STOP_AFTER = 5
"""Transient failures in a row that mean an outage rather than bad luck."""


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
    """Return which rows are due: those whose time (``keepalive_at``) has come, or all. Rows that wait for their person, or for
    their next attempt, never are.
    """
    able = Q(state__in=[State.ACTIVE, State.FAILING, State.MISCONFIGURED])
    able &= Q(next_attempt_at=None) | Q(next_attempt_at__lte=now)
    return able if everything else able & Q(keepalive_at__lte=now)


def run(
    *,
    rate: float = RATE,
    threads: int = 64,
    everything: bool = False,
    limit: int | None = None,
    progress: Callable[[Report], None] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Renew what is due, replay the journal, work off the outbox; return the report. Raises nothing of sipgate's."""
    return Run(rate=rate, threads=threads, everything=everything, limit=limit, progress=progress, stop=stop).go()


def count_due(*, everything: bool = False) -> int:
    return SipgateToken.objects.using(database.alias()).filter(due(now=timezone.now(), everything=everything)).count()


class Together:
    """Stores the pairs of many refreshes with few statements: one thread takes what has come while it was storing.

    Each pair is in the journal before it queues here, so nothing more is at stake than without. Without a journal, and
    for whatever is not the usual case, pairs are kept one by one. *Why at all:* a statement of its own for each pair was
    the larger half of a bulk refresh.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[store.Renewed, Future[bool]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="sipgate-keepalive-store")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._queue.put(None)
        self._thread.join()

    def keep(
        self, claim: store.Claim, grant: oauth.Grant, pair: sealing.Pair, *, used: bool, row: SipgateToken
    ) -> SipgateToken:
        """Store a rotated pair; as ``refreshing.store_pair``, but that the row returned may be the one given."""
        entry = journal.write(claim, grant, pair) if row.state == State.ACTIVE and not used else None
        if entry is not None:
            stored: Future[bool] = Future()
            self._queue.put((store.Renewed(claim=claim, grant=grant, pair=pair, row=row), stored))
            if stored.result():
                journal.done(entry)
                return row
        kept = refreshing.store_pair(claim, grant, pair, used=used, row=row)
        journal.done(entry)
        return kept

    def _work(self) -> None:
        with database.own_connections():
            while (first := self._queue.get()) is not None:
                batch, ended = [first], False
                while len(batch) < BATCH and not self._queue.empty():
                    following = self._queue.get()
                    if following is None:
                        ended = True
                        break
                    batch.append(following)
                self._store(batch)
                database.release_connections()  # the next pair may take as long as sipgate does
                if ended:
                    return

    def _store(self, batch: list[tuple[store.Renewed, Future[bool]]]) -> None:
        try:
            stored = store.keep_many([renewed for renewed, _ in batch], now=timezone.now())
        except Exception as error:  # whatever it is: each by itself finds out, and does what is to be done
            logger.warning("Pairs could not be stored together (%s)", type(error).__name__)
            stored = False
            with contextlib.suppress(Exception):
                connections[database.alias()].close()
        for _, future in batch:
            future.set_result(stored)


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
        self._together = Together()

    def go(self) -> Report:
        started = time.monotonic()
        try:
            self.report.recovered = journal.replay()
            self._deliver_revocations()
            self._tell_people()
            client = authorization_server.client()
            refreshing.respect_pause(client)
            self._renew(client)
        except errors.Misconfigured as error:
            self._end(f"{MISCONFIGURED}: {error.message}")
        except (DatabaseError, InterfaceError) as error:
            connections[database.alias()].close()  # it may be dead, and the next run of this thread would get it
            self._end(f"the database does not answer ({type(error).__name__})")
        self.report.seconds = round(time.monotonic() - started, 3)
        self._progress(self.report)
        how = "stopped" if self.report.stopped else "finished"
        metrics.KEEPALIVE_RUNS.count("misconfigured" if self.report.is_misconfigured else how)
        return self.report

    def _deliver_revocations(self) -> None:
        revocation.forget_finished()
        for pk in revocation.due():
            if self._stop.is_set():
                return
            self._pace.wait(self._stop)
            if revocation.deliver(pk):
                self.report.revocations_done += 1
            else:
                self.report.revocations_waiting += 1

    def _tell_people(self) -> None:
        for pk in notices.due():
            if self._stop.is_set():
                return
            self.report.notified += notices.tell_person(pk)

    def _renew(self, client: oauth.Client) -> None:
        with self._together:
            self._renew_all(client)

    def _renew_all(self, client: oauth.Client) -> None:
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="sipgate-keepalive") as pool:
            for row, claim, claimed_at in self._claimed():
                running.add(pool.submit(self._one_in_thread, client, row, claim, claimed_at))
                if len(running) >= self._threads:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in running:
                future.result()

    def _batch_size(self) -> int:
        size = BATCH if not self._pace.rate else min(BATCH, max(int(self._pace.rate * HELD_SECONDS), 1))
        return size if self._limit is None else min(size, self._limit - self.report.due)

    def _claimed(self) -> Iterator[tuple[SipgateToken, store.Claim, float]]:
        while not self._stop.is_set():
            size, claimed_at = self._batch_size(), time.monotonic()
            batch = claim_batch(size, started_at=self._started_at, everything=self._everything) if size > 0 else []
            database.release_connections()
            if not batch:
                return
            self.report.due += len(batch)
            for number, (row, claim) in enumerate(batch):
                if self._stop.is_set():
                    for _row, unused in batch[number:]:
                        store.release(unused)
                    self.report.skipped += len(batch) - number
                    return
                yield row, claim, claimed_at

    def _one_in_thread(self, client: oauth.Client, row: SipgateToken, claim: store.Claim, claimed_at: float) -> None:
        # Else what a thread has opened is left to the garbage collector, which Python 3.13 remarks on.
        with database.own_connections():
            self._one(client, row, claim, claimed_at)

    def _one(self, client: oauth.Client, row: SipgateToken, claim: store.Claim, claimed_at: float) -> None:
        self._pace.wait(self._stop)
        # Counted from the claim, not from here: with few threads, or a slow sipgate, a row waits for a thread as well,
        # and a visitor may have renewed it since its lease ran out.
        late = time.monotonic() - claimed_at > HELD_SECONDS
        if self._stop.is_set() or (late and not store.extend(claim, now=timezone.now())):
            store.release(claim)
            self._count("skipped")
            return
        order = refreshing.RefreshRequest(
            connection_id=row.pk, seen_generation=row.generation, patience=0, actor="keepalive", used=False
        )
        try:
            refreshing.refresh_claimed(row, claim, order, client=client, keep=self._together.keep)
        except errors.NeedsSignIn:
            self._count("needs_sign_in")
        except errors.NotConnected:
            self._count("skipped")
        except (DatabaseError, InterfaceError) as error:
            self._count("failed")
            self._end(f"the database does not answer ({type(error).__name__})")
        except errors.Misconfigured as error:
            self._count("failed", error)
            self._end(f"{MISCONFIGURED}: {error.message}")
        except errors.SipgateError as error:
            self._count("failed", error)
            self._after_trouble(error)
        else:
            self._count("refreshed")
            self._pace.speed_up()
        finally:
            database.release_connections()

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


def claimable(*, now: datetime, started_at: datetime, everything: bool = False) -> QuerySet[SipgateToken]:
    """Return due rows whose lease is free, most urgent first; the index ``sipgate_token_due`` has this order."""
    free = Q(lease_owner="") | Q(lease_until__lte=now)
    wanted = due(now=now, everything=everything) & free
    if everything:
        wanted &= Q(issued_at__lt=started_at)  # what this run has renewed already is not due a second time
    return SipgateToken.objects.using(database.alias()).filter(wanted).order_by("keepalive_at", "pk")


def claim_batch(size: int, *, started_at: datetime, everything: bool = False) -> list[tuple[SipgateToken, store.Claim]]:
    """Take the leases of up to ``size`` due rows in one go; others that claim at the same moment get other rows."""
    now = timezone.now()
    owner = store.new_owner()
    rows = claimable(now=now, started_at=started_at, everything=everything)
    with transaction.atomic(using=database.alias()):
        if connections[database.alias()].features.has_select_for_update_skip_locked:
            rows = rows.select_for_update(skip_locked=True, of=("self",))
        chosen = list(rows[:size])
        claimed = []
        SipgateToken.objects.using(database.alias()).filter(pk__in=[row.pk for row in chosen]).update(
            lease_owner=owner, lease_until=now + conf.lease() * 2
        )
        for row in chosen:
            claimed.append(
                (
                    row,
                    store.Claim(
                        connection_id=row.pk, generation=row.generation, owner=owner, taken_over=bool(row.lease_owner)
                    ),
                )
            )
    return claimed


# --- changing keys ----------------------------------------------------------------------------------------------------
