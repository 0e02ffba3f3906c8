"""Rounds, samples, ratios, targets: what a case is made of, and its form as table and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

PER_SECOND = "/s"
MS = "ms"


def percentile(values: list[float], share: float) -> float:
    """Return the value below which ``share`` (0 to 1) of ``values`` lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


@dataclass
class Contender:
    """One way of doing the work, and its samples: a list per round."""

    name: str
    unit: str
    rounds: list[list[float]]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def medians(self) -> list[float]:
        return [statistics.median(samples) for samples in self.rounds]

    @property
    def median(self) -> float:
        """The median of the rounds' medians."""
        return statistics.median(self.medians)

    def at(self, share: float) -> float:
        """Return a percentile over the samples of all rounds."""
        return percentile([value for samples in self.rounds for value in samples], share)

    @property
    def number(self) -> int:
        return sum(map(len, self.rounds))

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "p50": self.at(0.5),
            "p99": self.at(0.99),
            "lowest_round": min(self.medians),
            "highest_round": max(self.medians),
            "samples": self.number,
            "round_medians": self.medians,
            **self.extra,
        }


@dataclass(frozen=True)
class Ratio:
    """How many times as fast the first contender is as another, round by round."""

    name: str
    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def as_dict(self) -> dict[str, Any]:
        return {"against": self.name, "median": self.median, "lowest": min(self.rounds), "highest": max(self.rounds)}


@dataclass(frozen=True)
class Target:
    """A promise with a number. ``at_most``: the value must not be above the limit; else not below."""

    name: str
    value: float
    limit: float
    unit: str
    at_most: bool = True

    @property
    def reached(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "limit": self.limit,
            "unit": self.unit,
            "sense": "at most" if self.at_most else "at least",
            "reached": self.reached,
        }


@dataclass
class Case:
    """One comparison on one database. The first contender is ours."""

    name: str
    title: str
    database: str
    contenders: list[Contender]
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Contender:
        return next(contender for contender in self.contenders if contender.name == name)

    def ratio(self, name: str) -> Ratio:
        ours, other = self.contenders[0], self[name]
        pairs = list(zip(ours.medians, other.medians, strict=False))
        if ours.unit == PER_SECOND:
            return Ratio(name, [mine / theirs for mine, theirs in pairs if theirs])
        return Ratio(name, [theirs / mine for mine, theirs in pairs if mine])

    @property
    def ratios(self) -> list[Ratio]:
        return [self.ratio(other.name) for other in self.contenders[1:] if other.unit == self.contenders[0].unit]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "database": self.database,
            "ratios": [ratio.as_dict() for ratio in self.ratios],
            "targets": [target.as_dict() for target in self.targets],
            "contenders": [contender.as_dict() for contender in self.contenders],
            "notes": self.notes,
        }


def in_turns(
    rounds: int, contenders: Mapping[str, Callable[[], list[float]]], *, unit: str = MS, warm_up: bool = True
) -> list[Contender]:
    """Run all contenders once to warm up, then in ``rounds`` rounds, the order turned each time (A B, B A, A B …)."""
    if warm_up:
        for run in contenders.values():
            run()
    samples: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        for name in names:
            samples[name].append(contenders[name]())
    return [Contender(name, unit, taken) for name, taken in samples.items()]


# --- tables -----------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Return three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def table(rows: list[list[str]], *, left: int = 1) -> str:
    """Return rows (the first is the head) as aligned text; the last ``left`` columns are words, the others numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    words = len(widths) - left
    lines = []
    for position, row in enumerate(rows):
        cells = [
            cell.rjust(width) if at < words else cell for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
        if position == 0:
            lines.append("  " + "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def case_table(case: Case) -> str:
    ratios = {ratio.name: ratio for ratio in case.ratios}
    rows = [["ours is", "(rounds)", "median", "(rounds)", "p50", "p99", "samples", f"{case.title} – {case.database}"]]
    for position, one in enumerate(case.contenders):
        ratio = ratios.get(one.name)
        rows.append(
            [
                f"{number(ratio.median)} ×" if ratio else ("ours" if position == 0 else ""),
                f"{number(min(ratio.rounds))}–{number(max(ratio.rounds))}" if ratio else "",
                f"{number(one.median)} {one.unit}",
                f"{number(min(one.medians))}–{number(max(one.medians))}",
                number(one.at(0.5)),
                number(one.at(0.99)),
                str(one.number),
                one.name,
            ]
        )
    return "\n".join([table(rows), *(f"  · {note}" for note in case.notes)])


def target_table(cases: list[Case]) -> str:
    rows = [["", "measured", "target", "", "promise"]]
    for case in cases:
        for target in case.targets:
            sign = "≤" if target.at_most else "≥"
            rows.append(
                [
                    "reached" if target.reached else "MISSED",
                    f"{number(target.value)} {target.unit}",
                    f"{sign} {number(target.limit)} {target.unit}",
                    case.database,
                    target.name,
                ]
            )
    return table(rows, left=2) if len(rows) > 1 else "  no targets in this run"
