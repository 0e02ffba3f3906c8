"""Counts and times for Prometheus, off unless a site switches it on.

A module that counts declares its instruments at its top, as with ``prometheus-client`` itself; ``INSTRUMENTS`` lists
them all. They always exist, and do nothing until ``switch_on`` has found ``prometheus-client`` (an optional
dependency). So code that counts need not ask whether metrics are on.

Each label has a fixed set of values, or its caller bounds them (endpoint templates); any other value becomes
``other``. No user, connection or secret can become a label.

Must not know: Django (HTTP and REST count here, too), where the numbers are read (``exposition``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

OTHER = "other"
PREFIX = "sipgate_"

ACTORS = frozenset({"gate", "keepalive", "person"})
"""Who caused a refresh; an administrator is ``other``, since administrators are noted by name."""
PATIENT = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 35.0, 60.0)
"""Seconds: up to a refresh that was sent twice."""

Labels = Mapping[str, Iterable[str] | None]
NO_LABELS: Labels = {}
INSTRUMENTS: list[Instrument] = []
"""Every instrument of the modules imported so far."""
_client: Any = None
"""The package ``prometheus_client``, once metrics are on. Instruments that are declared later count at once."""


class Instrument:
    """One metric. ``labels`` names the values that each label may have; None: the caller bounds them."""

    kind = ""

    def __init__(self, name: str, text: str, labels: Labels = NO_LABELS) -> None:
        self.name = f"{PREFIX}{name}"
        self.text = text
        self.labels = {
            name: None if values is None else frozenset(values) for name, values in labels.items()
        }
        self.is_on = False
        self._metric: Any = None
        self._children: dict[tuple[str, ...], Any] = {}
        INSTRUMENTS.append(self)
        if _client is not None:
            self.switch_on(_client)

    def switch_on(self, client: Any) -> None:
        """Begin to count, with ``client``: the package ``prometheus_client``."""
        if self._metric is None:
            self._metric = self._made(client)
            self._show_zeros()
        self.is_on = True

    def _made(self, client: Any) -> Any:
        raise NotImplementedError

    def _show_zeros(self) -> None:
        # The series begins at 0, so that the first failure is an increase.
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
            if (
                bounded == values
            ):  # unknown values are not remembered, because there may be any number of them
                self._children[values] = child
        return child


class Counter(Instrument):
    kind = "counter"

    def _made(self, client: Any) -> Any:
        return client.Counter(self.name.removesuffix("_total"), self.text, tuple(self.labels))

    def count(self, *values: str, number: float = 1) -> None:
        """Add ``number`` (0 or more) for these values of the labels, in the order of the labels."""
        if self.is_on:
            self._child(values).inc(number)


class Histogram(Instrument):
    kind = "histogram"

    def __init__(
        self,
        name: str,
        text: str,
        labels: Labels = NO_LABELS,
        *,
        buckets: tuple[float, ...] = PATIENT,
    ) -> None:
        self._buckets = buckets
        super().__init__(name, text, labels)

    def _made(self, client: Any) -> Any:
        return client.Histogram(self.name, self.text, tuple(self.labels), buckets=self._buckets)

    def observe(self, seconds: float, *values: str) -> None:
        """Note how long something took, for these values of the labels, in the order of the labels."""
        if self.is_on:
            self._child(values).observe(seconds)


def switch_on() -> bool:
    """Begin to count. False: ``prometheus-client`` is not installed, and nothing is counted. Safe to repeat."""
    global _client
    try:
        import prometheus_client
    except ImportError:
        return False
    _client = prometheus_client
    for instrument in INSTRUMENTS:
        instrument.switch_on(prometheus_client)
    return True


def switch_off() -> None:
    """Stop counting; what was counted stays."""
    global _client
    _client = None
    for instrument in INSTRUMENTS:
        instrument.is_on = False


def is_on() -> bool:
    return all(instrument.is_on for instrument in INSTRUMENTS)
