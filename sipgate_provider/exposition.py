"""What Prometheus reads: the counters of ``metrics``, and gauges that are counted on request.

With ``PROMETHEUS_MULTIPROC_DIR`` in the environment, which only prometheus-client reads, an answer
has the counts of all processes; without it, those of the process that answers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.db import DatabaseError
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from sipgate_provider import database
from sipgate_provider.ops import doctor

logger = logging.getLogger(__name__)


class Gauges(Collector):
    """Counts connections, endings and the journal; nothing while the database does not answer."""

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # a registry asks for names at the start, when there may be no database

    def collect(self) -> Iterable[GaugeMetricFamily]:
        try:
            with database.own_connections():
                known = doctor.counts()
        except DatabaseError as error:
            logger.error("Could not count the connections: %s", type(error).__name__)
            return
        yield GaugeMetricFamily(
            "sipgate_journal_entries",
            "Tokens in this machine's journal that the database does not have.",
            known["journal_waiting"],
        )
        connections = GaugeMetricFamily(
            "sipgate_connections", "Connections by state.", labels=["state"]
        )
        for state, number in known["states"].items():
            connections.add_metric([state], number)
        yield connections
        yield GaugeMetricFamily(
            "sipgate_endings_waiting",
            "Grants that are still to be ended at sipgate.",
            known["endings_waiting"],
        )


GAUGES = Gauges()


def register() -> None:
    """Add the gauges to prometheus-client's default registry, where exporters of a site look."""
    REGISTRY.register(GAUGES)


def render(accept: str = "") -> tuple[bytes, str]:
    """Return body and ``Content-Type`` of an answer, in the format that ``accept`` prefers."""
    encode, content_type = choose_encoder(accept)
    return encode(_registry()), content_type


def _registry() -> CollectorRegistry:
    every_process = CollectorRegistry()
    try:
        MultiProcessCollector(every_process)  # type: ignore[no-untyped-call]  # of the client
    except ValueError:  # no folder that processes share
        return REGISTRY
    every_process.register(GAUGES)
    return every_process
