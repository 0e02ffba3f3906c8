"""Runs work that must outlive the request that asked for it, once per key and process.

A refresh runs here and not in the caller's thread, because the caller's transaction may roll back, its browser may go
away and its async task may be cancelled: the pair has to be stored all the same. When the process ends in an orderly
way, what is queued is cancelled and what runs is waited for; ``end_at_sigterm`` lets that begin early.

Rejected: an own connection alias in the caller's thread (still cancelled with it), a task queue (needs a broker for
something that takes 100 ms).

Must not know: what the work is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Hashable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

from sipgate_provider import errors
from sipgate_provider.keeper import database
from sipgate_provider.remote.per_process import PerProcess

P = ParamSpec("P")
Result = TypeVar("Result")

THREADS = 32
"""Enough for 32 connections that wait for a slow sipgate at once in one process; the rest queue."""
LONGEST_QUEUE = 256
"""More would wait for longer than any caller does."""

BEGAN = "sipgate_began"


def seconds_under_way(future: Future[Any]) -> float:
    """Return how long ago a piece of work was asked for."""
    return time.monotonic() - float(getattr(future, BEGAN))


class SingleFlight:
    """One running piece of work per key; whoever asks for the same key meanwhile gets the same future."""

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self._threads = threads
        self._start_over()
        os.register_at_fork(after_in_child=self._start_over)

    def _start_over(self) -> None:
        global _is_ending
        _is_ending = False
        # After a fork the parent's threads do not exist in the child: neither pool nor running work may be inherited.
        self._lock = threading.Lock()
        self._running: dict[Hashable, Future[Any]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def submit_once(self, key: Hashable, work: Callable[[], Result]) -> Future[Result]:
        """Start ``work`` unless work with the same key runs already; return its future.

        Raises:
            errors.SipgateUnavailable: too much is queued, no thread can be started, or the process ends.
        """
        with self._lock:
            running = self._running.get(key)
            if running is not None:
                return running
            if len(self._running) >= self._threads + LONGEST_QUEUE:
                raise _not_begun("Too much of this process waits for sipgate already.")
            try:
                if self._pool is None:
                    _end_with_the_process()
                    self._pool = ThreadPoolExecutor(max_workers=self._threads, thread_name_prefix=self._name)
                future = self._pool.submit(self._run, key, work)
            except RuntimeError:  # no thread to be had, or the interpreter ends
                raise _not_begun("No thread can be started for this.") from None
            setattr(future, BEGAN, time.monotonic())
            self._running[key] = future
            return future

    def _run(self, key: Hashable, work: Callable[[], Result]) -> Result:
        try:
            with database.own_connections():
                return work()
        finally:
            with self._lock:
                self._running.pop(key, None)

    @property
    def is_busy(self) -> bool:
        """Whether more work would have to queue."""
        return len(self._running) >= self._threads

    def cancel_queued(self) -> None:
        """Let nothing begin any more; whoever waits for it gets ``CancelledError``."""
        with self._lock:
            for key, future in list(self._running.items()):
                if future.cancel():
                    del self._running[key]

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing runs or queues; False if that takes longer. For tests, and for a command about to end."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            with self._lock:
                running = list(self._running.values())
            if not running:
                return True
            futures.wait(running, timeout=max(give_up - time.monotonic(), 0))
        return False


refreshes = SingleFlight("sipgate-refresh", THREADS)
pages = SingleFlight("sipgate-page", THREADS)
errands = SingleFlight("sipgate-errand", 4)
operations = SingleFlight("sipgate-operation", 8)
"""What an operator asked for. It waits for ``refreshes``, so it has threads of its own."""


_is_ending = False


def _not_begun(message: str) -> errors.SipgateUnavailable:
    return errors.SipgateUnavailable(message, sent=False, code="busy")


def is_ending() -> bool:
    return _is_ending


def refuse_when_ending() -> None:
    """Raise ``errors.SipgateUnavailable`` if the process is about to end: nothing is sent any more."""
    if _is_ending:
        raise _not_begun("This process is about to end.")


def begin_ending() -> None:
    """Cancel what is queued, and let nothing be sent any more. What was sent goes on."""
    global _is_ending
    _is_ending = True
    for flights in (refreshes, pages, operations, errands):
        flights.cancel_queued()


def end() -> None:
    """Cancel what is queued and wait for what was sent: for a process that ends without waiting for its threads."""
    begin_ending()
    for flights in (refreshes, errands):
        flights.wait_idle(LONGEST_END)


LONGEST_END = 30.0
"""Seconds: longer than an answer and its storing take."""


def end_at_sigterm() -> None:
    """Let ``begin_ending`` be called at SIGTERM, before the handler that is there; in the main thread only.

    A web server first waits for its own requests, and those for refreshes that are only queued: it would be killed in
    the middle of the last ones.
    """
    before = signal.getsignal(signal.SIGTERM)

    def handler(number: int, frame: Any) -> None:
        # Not here: the signal may have interrupted a thread that holds one of the locks.
        threading.Thread(target=begin_ending, name="sipgate-end").start()
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            sys.exit(128 + number)

    signal.signal(signal.SIGTERM, handler)


def _end_with_the_process() -> None:
    """See to it that ``end`` is called. The interpreter waits for its threads, but lets all that is queued begin first;
    billiard, in Celery's workers, does not wait at all."""
    if _registered.get():
        return
    _registered.get().append(True)
    threading._register_atexit(end)  # type: ignore[attr-defined]  # atexit is too late: it comes after the threads
    billiard = sys.modules.get("billiard.util")
    if billiard is not None:
        billiard.Finalize(None, end, exitpriority=100)


_registered: PerProcess[list[bool]] = PerProcess(list)


ASYNC_THREADS = 32
"""Asynchronous calls of one process that wait for sipgate at once; the rest queue."""
_async_pool = PerProcess(lambda: ThreadPoolExecutor(max_workers=ASYNC_THREADS, thread_name_prefix="sipgate-async"))


def in_thread(work: Callable[P, Result]) -> Callable[P, Coroutine[Any, Any, Result]]:
    """Return ``work`` as a coroutine function that runs in a thread of a pool of its own, and gives its database
    connections back.

    Not asgiref's main thread: that one is shared by all requests, and would wait for sipgate. Not the loop's default
    pool: it is small, and others use it.
    """

    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        with database.own_connections():
            return work(*args, **kwargs)

    return sync_to_async(run, thread_sensitive=False, executor=_async_pool.get())
