"""Makes the counters and histograms for Prometheus; ``exposition`` lets Prometheus read them.

Each metric is declared in the module that counts. Gauges are in ``exposition``.

Each label has a fixed set of values, or its caller limits them (endpoint templates). No user,
connection or secret can become a label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

from prometheus_client import Counter, Histogram

OTHER = "other"
ACTORS = ("caller", "user", "keepalive", OTHER)
"""Who asked for a refresh: code that needed a token, a user who pressed a button, keepalive, or
somebody else, such as an administrator."""
PATIENT = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 35.0, 60.0)
"""Bucket limits in seconds; the last ones cover a repeated refresh."""

Labels = Mapping[str, Iterable[str]]
"""The values of each label; none if the caller bounds them."""
NONE: Labels = {}


def counter(name: str, text: str, labels: Labels = NONE) -> Counter:
    """Return a counter ``sipgate_…``. Its series begin at 0, so that Prometheus sees the first
    event as an increase."""
    made = Counter(f"sipgate_{name.removesuffix('_total')}", text, tuple(labels))
    _begin(made, labels)
    return made


def histogram(
    name: str, text: str, labels: Labels = NONE, *, buckets: tuple[float, ...] = PATIENT
) -> Histogram:
    """Return a histogram ``sipgate_…`` of seconds. Its series begin at 0."""
    made = Histogram(f"sipgate_{name}", text, tuple(labels), buckets=buckets)
    _begin(made, labels)
    return made


def _begin(made: Counter | Histogram, labels: Labels) -> None:
    if labels:
        for values in product(*labels.values()):
            made.labels(*values)


def one_of(value: str, known: Iterable[str]) -> str:
    """Return ``value`` if it is among the known ones, else ``other``."""
    return value if value in known else OTHER
