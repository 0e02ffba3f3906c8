"""The named points of the gate, and how a process is made to die at one of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from sipgate_provider import oauth, refreshing, sealing, store

BEFORE, AFTER = "before", "after"
POINTS: dict[str, tuple[Any, str, str]] = {
    "before the row is read": (store, "load", BEFORE),
    "after the row is read": (store, "load", AFTER),
    "before the claim": (store, "claim", BEFORE),
    "after the claim": (store, "claim", AFTER),
    "after the pair is opened": (sealing, "open_pair", AFTER),
    "before sipgate is asked": (oauth, "refresh", BEFORE),
    "after sipgate has answered": (oauth, "refresh", AFTER),
    "before the pair is stored": (refreshing, "keep", BEFORE),
    "within the store, before the statement": (store, "keep", BEFORE),
    "within the store, after the statement": (store, "keep", AFTER),
    "after the pair is stored": (refreshing, "keep", AFTER),
}
LOST = ("after sipgate has answered", "before the pair is stored", "within the store, before the statement")
"""Between sipgate's commit and our own: a strict server leaves no way back from here but the journal."""


def stop_at(name: str) -> None:
    """Let this process die, as by ``kill -9``, when it reaches the point for the first time."""
    module, function, when = POINTS[name]
    real: Callable[..., Any] = getattr(module, function)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        if when == AFTER:
            real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, function, deadly)
