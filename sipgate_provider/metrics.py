"""What is counted and timed for Prometheus, all in one place. Off unless a site switches it on.

The instruments below always exist; calling one costs a comparison until ``switch_on`` has found ``prometheus-client``
(an optional dependency). So code that counts need not ask whether metrics are on.

Each label has a fixed set of values, or its caller bounds them (endpoint templates); any other value becomes
``other``. No user, connection or secret can become a label.

Must not know: Django (HTTP and REST count here, too), where the numbers are read (``exposition``).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from itertools import product
from typing import Any

from sipgate_provider.errors import Kind

OTHER = "other"
PREFIX = "sipgate_"

ACTORS = frozenset({"gate", "keepalive", "person"})
"""Who caused a refresh; an administrator is ``other``, since administrators are noted by name."""
REFRESH_OUTCOMES = frozenset(
    {
        "refreshed",
        "refused",
        "lost_rotation",
        "expired_idle",
        "fixed_end",
        "no_refresh_token",
        "unavailable",
        "rate_limited",
        "unexpected",
        "misconfigured",
        "paused",
        "superseded",
        "disconnected",
        "not_stored",
        "failed",
    }
)
FRESHNESS = frozenset({"fresh", "advisory", "mandatory", "over", "rejected"})
HANDED_OUT = frozenset({"present", "renewed", "error"})
STATUSES = frozenset({str(status.value) for status in HTTPStatus} | {"timeout", "connection", "too_large"})
QUICK = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)
"""Seconds: from a usual answer of the API to its total deadline."""
PATIENT = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 35.0, 60.0)
"""Seconds: up to a refresh that asked twice."""

Labels = Mapping[str, frozenset[str] | None]
NO_LABELS: Labels = {}


class Instrument:
    """One metric. ``labels`` names the values that each label may have; None: the caller bounds them."""

    kind = ""

    def __init__(self, name: str, text: str, labels: Labels = NO_LABELS) -> None:
        self.name = f"{PREFIX}{name}"
        self.text = text
        self.labels = dict(labels)
        self.is_on = False
        self._metric: Any = None
        self._children: dict[tuple[str, ...], Any] = {}

    def switch_on(self, client: Any) -> None:
        """Begin to count, with ``client``: the package ``prometheus_client``."""
        if self._metric is None:
            self._metric = self._made(client)
            self._show_zeros()
        self.is_on = True

    def _made(self, client: Any) -> Any:
        raise NotImplementedError

    def _show_zeros(self) -> None:
        # A series that begins with its first event has no increase that an alert could see.
        if all(values is not None for values in self.labels.values()):
            for values in product(*(sorted(values or ()) for values in self.labels.values())):
                self._child(values)

    def _child(self, values: tuple[str, ...]) -> Any:
        child = self._children.get(values)
        if child is None:
            bounded = tuple(
                value if known is None or value in known else OTHER
                for value, known in zip(values, self.labels.values(), strict=True)
            )
            child = self._metric.labels(*bounded) if bounded else self._metric
            if bounded == values:  # what is unknown is not remembered: there is no end of it
                self._children[values] = child
        return child


class Counter(Instrument):
    kind = "counter"

    def _made(self, client: Any) -> Any:
        return client.Counter(self.name.removesuffix("_total"), self.text, tuple(self.labels))

    def count(self, *values: str, number: float = 1) -> None:
        """Add ``number`` (0 or more) under these values of the labels, in their order."""
        if self.is_on:
            self._child(values).inc(number)


class Histogram(Instrument):
    kind = "histogram"

    def __init__(
        self, name: str, text: str, labels: Labels = NO_LABELS, *, buckets: tuple[float, ...] = PATIENT
    ) -> None:
        super().__init__(name, text, labels)
        self._buckets = buckets

    def _made(self, client: Any) -> Any:
        return client.Histogram(self.name, self.text, tuple(self.labels), buckets=self._buckets)

    def observe(self, seconds: float, *values: str) -> None:
        """Note that something took so long, under these values of the labels, in their order."""
        if self.is_on:
            self._child(values).observe(seconds)


GATE_REQUESTS = Counter(
    "gate_requests_total",
    "Access tokens asked of the gate, by the state of the token found and what was handed out.",
    {"freshness": FRESHNESS, "result": HANDED_OUT},
)
GATE_WAIT = Histogram(
    "gate_wait_seconds", "How long callers waited for a refreshed access token.", {"result": HANDED_OUT}
)
REFRESHES = Counter(
    "refreshes_total", "Refreshes, by what came of them.", {"outcome": REFRESH_OUTCOMES, "actor": ACTORS}
)
REFRESH_SECONDS = Histogram("refresh_seconds", "Duration of refreshes that asked sipgate, storing included.")
JOURNAL_RECOVERED = Counter("journal_recovered_total", "Token pairs recovered from the journal.")
API_REQUESTS = Counter(
    "api_requests_total",
    "Requests to sipgate's REST API, by template of the path and by status, or what there was instead of an answer.",
    {"endpoint": None, "status": STATUSES},
)
API_SECONDS = Histogram("api_seconds", "Duration of requests to sipgate's REST API.", {"endpoint": None}, buckets=QUICK)
HTTP_RETRIES = Counter("http_retries_total", "Reads that were asked a second time.")
REVOCATIONS = Counter(
    "revocations_total",
    "Attempts to revoke access at sipgate.",
    {"outcome": frozenset({"done", "dropped", "failed", "given_up"})},
)
KEEPALIVE_RUNS = Counter(
    "keepalive_runs_total", "Runs of keepalive.", {"outcome": frozenset({"finished", "stopped", "misconfigured"})}
)
PROBLEMS_SHOWN = Counter("problems_total", "Problems that users were shown.", {"kind": frozenset(Kind)})

INSTRUMENTS: tuple[Instrument, ...] = (
    GATE_REQUESTS,
    GATE_WAIT,
    REFRESHES,
    REFRESH_SECONDS,
    JOURNAL_RECOVERED,
    API_REQUESTS,
    API_SECONDS,
    HTTP_RETRIES,
    REVOCATIONS,
    KEEPALIVE_RUNS,
    PROBLEMS_SHOWN,
)


def switch_on() -> bool:
    """Begin to count. False: ``prometheus-client`` is not installed, and nothing is counted. Safe to repeat."""
    try:
        import prometheus_client
    except ImportError:
        return False
    for instrument in INSTRUMENTS:
        instrument.switch_on(prometheus_client)
    return True


def switch_off() -> None:
    """Stop counting; what was counted stays."""
    for instrument in INSTRUMENTS:
        instrument.is_on = False


def is_on() -> bool:
    return all(instrument.is_on for instrument in INSTRUMENTS)
