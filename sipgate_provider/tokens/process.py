"""What a process does when it begins and when it ends, so that no tokens are lost between two processes."""

from __future__ import annotations

from . import journal, threads


def begin_process() -> None:
    """Recover in a thread what a killed process left in the journal, and let SIGTERM cancel what is queued.

    For the main thread of a server's worker. Without it, the journal is recovered at the first use of a connection.
    """
    journal.recover_at_start()
    threads.end_at_sigterm()


def end_process() -> None:
    """Cancel the refreshes that are queued and wait for those that were sent (30 s at most)."""
    threads.end()
