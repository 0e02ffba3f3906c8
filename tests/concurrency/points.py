"""The named points of a refresh, and how a process is made to die or to pause at one of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sipgate_provider.remote import http, oauth
from sipgate_provider.tokens import journal, machine, revocation, rows, sealing
from sipgate_provider.tokens.refresh import _Refresh

BEFORE, AFTER = "before", "after"
POINTS: dict[str, tuple[Any, str, str]] = {
    "before the row is read": (rows, "load_with_clock", BEFORE),
    "after the row is read": (rows, "load_with_clock", AFTER),
    "after the pair is opened": (sealing, "open_pair", AFTER),
    "before connecting": (oauth, "refresh", BEFORE),
    "connected": (machine, "lock", BEFORE),
    "locked": (machine, "lock", AFTER),
    "before the claim": (rows, "claim", BEFORE),
    "claimed": (rows, "claim", AFTER),
    "before the journal is looked into": (journal, "proof", BEFORE),
    "the journal was looked into": (journal, "proof", AFTER),
    "the time was checked": (_Refresh, "_check_time", AFTER),
    "half sent": (http._Stamped, "send", AFTER),
    "sent": (http._Stamped, "getresponse", BEFORE),
    "answered": (oauth, "refresh", AFTER),
    "before the journal is written": (journal, "write", BEFORE),
    "journaled": (journal, "write", AFTER),
    "before the pair is stored": (rows, "save_refreshed", BEFORE),
    "stored": (rows, "save_refreshed", AFTER),
    "before the journal is told": (journal, "confirm", BEFORE),
    "the journal was told": (journal, "confirm", AFTER),
}
OF_KEY_CHANGE: dict[str, tuple[Any, str, str]] = {
    "some rows were sealed anew": (rows, "reseal", AFTER),
    "before the revocations": (revocation, "reseal", BEFORE),
    "before an entry takes its place": (Path, "rename", BEFORE),
    "an entry has taken its place": (Path, "rename", AFTER),
}
LOST = ("sent", "answered", "before the journal is written")
"""Between sending and the journal: a strict server leaves no way back to somebody who is killed here."""
KILL, PAUSE = "kill", "pause"
SIGNALS = {KILL: signal.SIGKILL, PAUSE: signal.SIGSTOP}


@contextmanager
def stopping(name: str, how: str) -> Iterator[None]:
    """Within it, let this process die, as by ``kill -9``, or stop, when it reaches the point for the first time."""
    owner, function, when = (POINTS | OF_KEY_CHANGE)[name]
    real: Callable[..., Any] = getattr(owner, function)
    reached = False

    def stop() -> None:
        nonlocal reached
        if not reached:
            reached = True
            # To this thread: another one might take a moment to stop all of them.
            signal.pthread_kill(threading.get_ident(), SIGNALS[how])

    def watched(*args: Any, **kwargs: Any) -> Any:
        if when == BEFORE:
            stop()
        result = real(*args, **kwargs)
        if when == AFTER:
            stop()
        return result

    setattr(owner, function, watched)
    try:
        yield
    finally:
        setattr(owner, function, real)
