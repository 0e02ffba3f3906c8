"""The named points of a refresh, and how a process is made to die or to pause at one of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.named import replace

POINTS = {
    "before the row is read": "before tokens.rows.load_to_refresh",
    "read": "after tokens.rows.load_to_refresh",
    "opened": "after tokens.rows.opened",
    "before connecting": "before remote.line.connect",
    "connected": "after remote.line.connect",
    "locked": "before tokens.lease.take",
    "leased": "after tokens.lease.take",
    "looked": "after tokens.journal.newer",
    "checked": "before remote.oauth.refresh",
    "sent": "after remote.line.Line.send",
    "answered": "after remote.oauth.refresh",
    "before the journal is written": "before tokens.journal.write",
    "journaled": "after tokens.journal.write",
    "before the tokens are stored": "before tokens.rows.store_refreshed",
    "stored": "after tokens.rows.store_refreshed",
    "told": "after tokens.journal.forget_older",
}
"""Before or after which function of the app each point lies."""
OF_KEY_CHANGE = {
    "some rows were sealed anew": "after tokens.rows.reseal",
    "before the endings": "before tokens.endings.reseal",
    "an entry has taken its place": "after tokens.journal.Path.replace",
}
OF_OUTAGE = {"not stored": "after tokens.journal.sync"}
LOST = ("sent", "answered", "before the journal is written")
"""Between sending and the journal: whoever is killed here has lost the tokens."""
KILL, PAUSE = "kill", "pause"
SIGNALS = {KILL: signal.SIGKILL, PAUSE: signal.SIGSTOP}


@contextmanager
def stopping(point: str, how: str) -> Iterator[None]:
    """Let this process die, as by ``kill -9``, or stop, when it first reaches a point."""
    when, _, name = (POINTS | OF_KEY_CHANGE | OF_OUTAGE)[point].partition(" ")
    is_reached = False

    def reach(moment: str) -> None:
        nonlocal is_reached
        if moment == when and not is_reached:
            is_reached = True
            # To this thread: another one might take a moment to stop all of them.
            signal.pthread_kill(threading.get_ident(), SIGNALS[how])

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            reach("before")
            result = real(*args, **kwargs)
            reach("after")
            return result

        return wrapper

    undo = replace(name, watched)
    try:
        yield
    finally:
        undo()
