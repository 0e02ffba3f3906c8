"""Rounds, samples and targets: what a case is made of, and its form as table and JSON. All times are milliseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Samples = list[float]


def timed(work: Callable[[], object], number: int) -> Samples:
    """Return how long each of ``number`` calls took."""
    samples = []
    for _ in range(number):
        began = time.perf_counter()
        work()
        samples.append((time.perf_counter() - began) * 1000)
    return samples


def spent(work: Callable[[], object], number: int) -> Samples:
    """Return how much of the processor each of ``number`` calls took in this thread."""
    samples = []
    for _ in range(number):
        began = time.thread_time()
        work()
        samples.append((time.thread_time() - began) * 1000)
    return samples


@dataclass
class Contender:
    """One way of doing the work, and its samples."""

    name: str
    samples: Samples

    def at(self, share: float) -> float:
        """Return the value below which ``share`` (0 to 1) of the samples lie, by the nearest rank."""
        ordered = sorted(self.samples)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "p50": self.median,
            "p99": self.at(0.99),
            "samples": len(self.samples),
        }


@dataclass(frozen=True)
class Target:
    """A promise with a number: ``value`` must not be above ``limit``."""

    name: str
    value: float
    limit: float
    unit: str = "ms"

    @property
    def reached(self) -> bool:
        return self.value <= self.limit


@dataclass
class Case:
    """What one case measured: this project first, then its baselines."""

    title: str
    contenders: list[Contender]
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "contenders": [one.as_dict() for one in self.contenders],
            "targets": [{**asdict(target), "reached": target.reached} for target in self.targets],
            "notes": self.notes,
        }


def in_turns(rounds: int, contenders: Mapping[str, Callable[[], Samples]]) -> list[Contender]:
    """Run all contenders once to warm up, then in ``rounds`` rounds, the order turned each time (A B, B A, A B …)."""
    for run in contenders.values():
        run()
    taken: dict[str, Samples] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders) if number % 2 == 0 else reversed(contenders):
            taken[name] += contenders[name]()
    return [Contender(name, samples) for name, samples in taken.items()]


def number(value: float) -> str:
    """Return three digits that mean something."""
    return (
        f"{value:,.0f}"
        if abs(value) >= 100
        else f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.3g}"
    )


def table(rows: list[list[str]]) -> str:
    """Return rows (the first is the head) as aligned text; the last column is words."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False))
        for row in rows
    ]
    return "\n".join(f"  {line}  {row[-1]}" for line, row in zip(lines, rows, strict=True))


def case_table(case: Case) -> str:
    rows = [["p50 ms", "p99 ms", "samples", case.title]]
    rows += [
        [number(one.median), number(one.at(0.99)), str(len(one.samples)), one.name]
        for one in case.contenders
    ]
    return "\n".join([table(rows), *(f"  · {note}" for note in case.notes)])


def target_table(cases: list[Case]) -> str:
    rows = [["", "measured", "at most", "promise"]]
    for target in (target for case in cases for target in case.targets):
        limit = f"{number(target.limit)} {target.unit}".strip()
        rows.append(
            ["reached" if target.reached else "MISSED", number(target.value), limit, target.name]
        )
    return table(rows)
