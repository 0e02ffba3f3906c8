"""What ``make mutate`` breaks, by name, and which tests have to notice.

``tokens`` and ``sign_in`` have the rules. ``SIPGATE_BROKEN`` has the words of one: with
``-p tests.mutations`` it is broken from the start of a test process, and in the workers that it
forks. A name that is gone is an error.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

from tests.named import replace

Breaker = Callable[[Any], Any]
"""Takes a part of the app and returns what stands in its place."""
Rules = dict[str, dict[str, dict[str, Breaker]]]
"""Tests, one of which fails → what is wrong, in words → name → how it is broken."""


@dataclass(frozen=True, slots=True)
class Rule:
    """It ``says`` what is wrong once each name in ``breaks`` is broken; one of ``tests`` fails."""

    says: str
    breaks: dict[str, Breaker]
    tests: str
    postgresql: bool
    """Whether only that shows it."""


def rules() -> list[Rule]:
    from tests.mutations import sign_in, tokens

    return [
        Rule(says, breaks, tests, says in tokens.POSTGRESQL)
        for tests, table in [*tokens.RULES.items(), *sign_in.RULES.items()]
        for says, breaks in table.items()
    ]


def pytest_sessionstart() -> None:
    """Break what ``SIPGATE_BROKEN`` names; called by pytest, and by ``tests.prepared``."""
    says = os.environ.get("SIPGATE_BROKEN")
    for rule in rules() if says else ():
        if rule.says == says:
            for name, breaker in rule.breaks.items():
                replace(name, breaker)


# --- ways to break something ----------------------------------------------------------------------


def answers(value: Any = None) -> Breaker:
    """Nothing is done or looked at; ``value`` is the result."""
    return lambda _real: lambda *_args, **_kwargs: value


def told(**arguments: Any) -> Breaker:
    """It is done with other arguments."""
    return lambda real: lambda *args, **kwargs: real(*args, **{**kwargs, **arguments})


def becomes(value: Any) -> Breaker:
    """A constant has another value."""
    return lambda _real: value


def gets_through(_real: Any) -> Any:
    """It returns what it is given."""
    return lambda value, **_kwargs: value


def lacks(*names: str) -> Breaker:
    """The dictionary that it returns lacks some names."""

    def breaker(real: Any) -> Any:
        def broken(*args: Any, **kwargs: Any) -> Any:
            found = real(*args, **kwargs)
            return {name: value for name, value in found.items() if name not in names}

        return broken

    return breaker


def forgets(*columns: str) -> Breaker:
    """Its queries have no condition on some columns."""
    from django.db.models import QuerySet

    def without(ask: Any) -> Any:
        def broken(rows: Any, *args: Any, **kwargs: Any) -> Any:
            kept = {
                name: value
                for name, value in kwargs.items()
                if name.partition("__")[0] not in columns
            }
            others = [one for one in args if not any(column in str(one) for column in columns)]
            # ``exclude`` without a condition would leave nothing.
            return ask(rows, *others, **kept) if others or kept else rows.all()

        return broken

    def breaker(real: Any) -> Any:
        @functools.wraps(real)
        def broken(*args: Any, **kwargs: Any) -> Any:
            with (
                mock.patch.object(QuerySet, "filter", without(QuerySet.filter)),
                mock.patch.object(QuerySet, "exclude", without(QuerySet.exclude)),
            ):
                return real(*args, **kwargs)

        return broken

    return breaker
