"""Puts something else in the place of a part of the app, by its dotted name."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable
from typing import Any

APP = "sipgate_provider"


def replace(name: str, make: Callable[[Any], Any]) -> Callable[[], None]:
    """Put ``make(real)`` in the place of what has this name, wherever the app has imported it.

    ``name`` is that within the app: ``tokens.rows.load``, or ``models.SipgateToken.opened``.

    Returns what undoes it. Raises ``ImportError`` or ``AttributeError`` if there is no such name.
    """
    path, _, attribute = f"{APP}.{name}".rpartition(".")
    owner = pkgutil.resolve_name(path)
    real, kept = getattr(owner, attribute), vars(owner)[attribute]
    other = make(real)
    if isinstance(kept, (classmethod, staticmethod)):
        other = staticmethod(other)
    changed = [(owner, attribute, kept)]
    if callable(real):
        changed += [
            (module, word, real)
            for path, module in list(sys.modules.items())
            if path.startswith(APP)
            for word, value in list(vars(module).items())
            if value is real and (module, word) != (owner, attribute)
        ]
    for place, word, _ in changed:
        setattr(place, word, other)

    def undo() -> None:
        for place, word, before in changed:
            setattr(place, word, before)

    return undo
