"""What sipgate's specification says about each operation: its name, and the scopes it needs."""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from pathlib import Path

OPERATIONS: dict[str, tuple[str, ...]] = {
    name: tuple(scopes)
    for name, scopes in json.loads(
        Path(__file__).with_name("required_scopes.json").read_text(encoding="utf-8")
    ).items()
}
"""Scopes by operation, such as ``GET /users/{userId}``; any one suffices, and so does ``all``."""


def scopes_for(method: str, path: str) -> tuple[str, ...]:
    """Return the scopes of an operation; ``()`` if it needs none or is not in the specification."""
    return OPERATIONS.get(_operation(method, path) or "", ())


def endpoint_of(method: str, path: str) -> str:
    """Return a name for logs and errors: the template of the path, without a user's id.

    In a path that is not in the specification, plain words stay; everything else between slashes
    becomes ``{id}``.
    """
    unknown = re.sub(r"/(?![A-Za-z-]{1,30}(?:/|$))[^/]+", "/{id}", path)
    return _operation(method, path) or f"{method.upper()} {unknown}"


@lru_cache(maxsize=1024)
def _operation(method: str, path: str) -> str | None:
    asked = f"{method.upper()} {path}"
    return next((name for pattern, name in _patterns() if pattern.fullmatch(asked)), None)


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    # Those with fewer variables first: /users/{userId} before /{userId}/devices.
    names = sorted(OPERATIONS, key=lambda name: name.count("{"))
    return [(re.compile(re.sub(r"\{\w+\}", "[^/]+", name)), name) for name in names]
