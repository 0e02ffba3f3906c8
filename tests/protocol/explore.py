"""Exhaustive, breadth-first search: every state that can be reached, the shortest way to a bad one
first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

World = TypeVar("World", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[World]):
    """What a search found: how many states, and the shortest trace to a violation (empty: there is
    none)."""

    states: int
    violation: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = [f"{number:3} {step}" for number, step in enumerate(self.trace, start=1)]
        return "\n".join([f"{self.violation or 'no violation'} ({self.states} states)", *told])


def explore(
    start: World,
    steps: Callable[[World], Iterable[tuple[str, World]]],
    violation: Callable[[World], str],
    *,
    limit: int = 1_000_000,
) -> Found[World]:
    """Visit every state reachable from ``start`` by ``steps`` (label, next state) until one
    violates something.

    Raises:
        RuntimeError: more than ``limit`` states; the scenario is too large.
    """
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    frontier = [start]
    while frontier:
        following = []
        for world in frontier:
            for label, after in steps(world):
                if after in came_from:
                    continue
                came_from[after] = (world, label)
                wrong = violation(after)
                if wrong:
                    return Found(
                        states=len(came_from), violation=wrong, trace=_trace(came_from, after)
                    )
                following.append(after)
        if len(came_from) > limit:
            raise RuntimeError(f"more than {limit} states")
        frontier = following
    return Found(states=len(came_from))


def _trace(came_from: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    labels = []
    while (origin := came_from[world]) is not None:
        world, label = origin
        labels.append(label)
    return tuple(reversed(labels))
