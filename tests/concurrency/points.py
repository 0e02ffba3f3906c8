"""The named points of the gate, and how a process is made to die at one of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from sipgate_provider.keeper import journal, refreshing, sealing, store
from sipgate_provider.remote import oauth

BEFORE, AFTER = "before", "after"
POINTS: dict[str, tuple[Any, str, str]] = {
    "before the row is read": (store, "load", BEFORE),
    "after the row is read": (store, "load", AFTER),
    "before the claim": (store, "claim", BEFORE),
    "after the claim": (store, "claim", AFTER),
    "after the pair is opened": (sealing, "open_pair", AFTER),
    "before sipgate is asked": (oauth, "refresh", BEFORE),
    "after sipgate has answered": (oauth, "refresh", AFTER),
    "before the journal is written": (journal, "write", BEFORE),
    "after the journal is written": (journal, "write", AFTER),
    "within the store, before the statement": (store, "save_refreshed", BEFORE),
    "within the store, after the statement": (store, "save_refreshed", AFTER),
    "before the journal is cleared": (journal, "done", BEFORE),
    "after the pair is stored": (refreshing, "store_pair", AFTER),
}
UPKEEP: dict[str, tuple[Any, str, str]] = {
    "before many are stored": (store, "keep_many", BEFORE),
    "after many are stored": (store, "keep_many", AFTER),
}
"""Points of bulk work, which stores what several refreshes brought together."""
LOST = ("after sipgate has answered", "before the journal is written")
"""Between sipgate's commit and the journal: a strict server leaves no way back from here."""


def stop_at(name: str) -> None:
    """Let this process die, as by ``kill -9``, when it reaches the point for the first time."""
    module, function, when = {**POINTS, **UPKEEP}[name]
    real: Callable[..., Any] = getattr(module, function)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        if when == AFTER:
            real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, function, deadly)
