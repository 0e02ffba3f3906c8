"""What Prometheus reads: the counters of ``metrics``, and gauges computed from ``ops.statistics``.

With ``PROMETHEUS_MULTIPROC_DIR`` in its environment, which only ``prometheus-client`` reads, one answer has the counts
of every process; without it, those of the process that answers.

Needs ``prometheus-client``: import it only if ``metrics.is_on()``. Must not know: pages, who may read this.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from django.utils import timezone
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from sipgate_provider import conf, problems, tokens
from sipgate_provider.ops import journal_folder, keepalive, statistics
from sipgate_provider.ops.bounded import Bounded
from sipgate_provider.remote import http, rest

logger = logging.getLogger(__name__)

COUNTING = (http, keepalive, problems, rest, tokens)
"""The modules that count. They are imported here so that their series begin at zero: a series that begins with its
first event has no increase that an alert could see."""

REMEMBERED_FOR = 15.0
"""Seconds: the usual interval of Prometheus. Several of them may ask, and any process may answer."""
PATIENCE = 1.5
"""Seconds that an answer waits for the database: Prometheus gives up after ten, and then loses the counters, too."""
ENDING_WITHIN = 7


@dataclass(frozen=True, slots=True)
class Gauge:
    name: str
    text: str
    labels: tuple[str, ...] = ()


CONNECTIONS = Gauge("sipgate_connections", "Connections by state.", ("state",))
CONNECTIONS_ENDING = Gauge(
    "sipgate_connections_ending",
    f"Connections that end within {ENDING_WITHIN} days unless refreshed.",
)
CONNECTIONS_OVERDUE = Gauge(
    "sipgate_connections_overdue",
    "Connections that keepalive should have refreshed more than a day ago.",
)
FAILING_SECONDS = Gauge(
    "sipgate_failing_seconds", "How long the refresh of one connection has been failing, at most."
)
REVOCATIONS_PENDING = Gauge("sipgate_revocations_pending", "Pending revocations.")
REVOCATION_SECONDS = Gauge("sipgate_revocations_oldest_seconds", "Age of the oldest of them.")
JOURNAL_ENTRIES = Gauge("sipgate_journal_entries", "Pairs that wait in this machine's journal.")
JOURNAL_WRITABLE = Gauge(
    "sipgate_journal_writable", "1 if this machine's journal can take a pair; absent without one."
)
CLIENT_PAUSED = Gauge(
    "sipgate_client_paused", "1 while no refresh is tried because sipgate refuses the client."
)
STATISTICS_UP = Gauge(
    "sipgate_statistics_up",
    "1 if the gauges could be counted; 0: database or cache does not answer.",
)

GAUGES = (
    CONNECTIONS,
    CONNECTIONS_ENDING,
    CONNECTIONS_OVERDUE,
    FAILING_SECONDS,
    REVOCATIONS_PENDING,
    REVOCATION_SECONDS,
    JOURNAL_ENTRIES,
    JOURNAL_WRITABLE,
    CLIENT_PAUSED,
    STATISTICS_UP,
)

Found = list[tuple[Gauge, tuple[str, ...], float]]


def _journal() -> Found:
    """Read the journal each time. Several machines may share the statistics, but each has a journal of its own."""
    folder = conf.journal_directory()
    if folder is None:
        return [(JOURNAL_ENTRIES, (), 0.0)]
    if journal_folder.why_not_writable(folder):
        return [(JOURNAL_WRITABLE, (), 0.0)]
    return [
        (JOURNAL_ENTRIES, (), float(tokens.journal_waiting())),
        (JOURNAL_WRITABLE, (), 1.0),
    ]


def _counted() -> Found:
    now = timezone.now()
    try:
        with tokens.own_connections():
            known, details = statistics.current(), statistics.details(now)
    except Exception as error:  # monitoring needs an answer most when something is broken
        logger.error("The connections could not be counted: %s", type(error).__name__)
        return [(STATISTICS_UP, (), 0.0)]
    failing, oldest = details.oldest_failing_since, known.oldest_revocation
    single = {
        CONNECTIONS_ENDING: details.ending[ENDING_WITHIN],
        CONNECTIONS_OVERDUE: details.overdue,
        FAILING_SECONDS: (now - failing).total_seconds() if failing else 0.0,
        REVOCATIONS_PENDING: known.revocations,
        REVOCATION_SECONDS: (now - oldest).total_seconds() if oldest else 0.0,
        CLIENT_PAUSED: float(any(pause.until > now for pause in known.pauses)),
        STATISTICS_UP: 1.0,
    }
    states = [(CONNECTIONS, (state,), float(number)) for state, number in known.states.items()]
    return [*states, *((gauge, (), float(value)) for gauge, value in single.items())]


class StatisticsCollector(Collector):
    """Counts when Prometheus asks, at most once in ``REMEMBERED_FOR``. If the database does not answer in time, only
    the gauges are missing from the answer."""

    def __init__(self) -> None:
        self._counting = Bounded(_counted)
        self._found: Found = []
        self._until = 0.0

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the names without counting: a registry asks for them at start-up."""
        return _families([])

    def collect(self) -> Iterable[GaugeMetricFamily]:
        if time.monotonic() >= self._until:
            try:
                self._found = self._counting.ask(PATIENCE)
                self._until = time.monotonic() + REMEMBERED_FOR
            except TimeoutError:  # the count continues, for the next scrape
                logger.error("The connections could not be counted within %s s", PATIENCE)
                self._found = [(STATISTICS_UP, (), 0.0)]
        return _families([*self._found, *_journal()])

    def forget(self) -> None:
        """Count anew at the next scrape."""
        self._until = 0.0


COLLECTOR = StatisticsCollector()


def register() -> None:
    """Add the gauges to prometheus-client's default registry, where exporters of a site find them. Once per process."""
    if COLLECTOR not in _registered:
        REGISTRY.register(COLLECTOR)
        _registered.append(COLLECTOR)


_registered: list[Collector] = []


def render(accept: str = "") -> tuple[bytes, str]:
    """Return body and ``Content-Type`` of an answer to Prometheus, in the format that its ``Accept`` header prefers."""
    encode, content_type = choose_encoder(accept)
    return encode(_registry()), content_type


def _registry() -> CollectorRegistry:
    every_process = CollectorRegistry(auto_describe=False)
    try:
        MultiProcessCollector(every_process)  # type: ignore[no-untyped-call]  # of prometheus-client
    except ValueError:  # no folder that processes share
        return REGISTRY
    every_process.register(COLLECTOR)
    return every_process


def _families(found: Found) -> Iterable[GaugeMetricFamily]:
    for gauge in GAUGES:
        family = GaugeMetricFamily(gauge.name, gauge.text, labels=gauge.labels)
        for one, labels, value in found:
            if one is gauge:
                family.add_metric(labels, value)
        yield family
