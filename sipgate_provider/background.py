"""Runs work that must outlive the request that asked for it, once per key and process.

A refresh runs here and not in the caller's thread, because the caller's transaction may roll back,
its browser may go away and its async task may be cancelled: the new tokens must be stored all the
same. On SIGTERM (``begin_process``), the process cancels queued work and waits for running work. An
interpreter that ends without a signal finishes the queue as well.
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

from sipgate_provider import database, errors

P = ParamSpec("P")
Result = TypeVar("Result")

LONGEST_QUEUE = 256
"""Callers would give up before the end of a longer queue."""
LONGEST_END = 30.0
"""Seconds: longer than an answer and its storing take."""
BUSY = "busy"
"""``code`` of an error: this process could not begin the work."""


def after_fork(function: Callable[[], None]) -> Callable[[], None]:
    """Call ``function`` in each forked child. Windows has no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
    return function


_is_ending = False


def is_ending() -> bool:
    """Tell whether this process is stopping."""
    return _is_ending


def check_not_ending() -> None:
    """Raise ``errors.SipgateUnavailable`` if this process is stopping, so that it sends nothing
    more."""
    if _is_ending:
        raise _not_begun("This process is about to end.")


def _not_begun(message: str) -> errors.SipgateUnavailable:
    return errors.SipgateUnavailable(message, sent=False, code=BUSY)


class Queue:
    """Threads for work of one kind. All who submit a key while its work is under way get the same
    future."""

    def __init__(self, name: str, threads: int) -> None:
        self._name, self._threads = name, threads
        self._start_over()
        after_fork(self._start_over)

    def _start_over(self) -> None:
        # The threads of a parent do not exist in its child.
        self._lock = threading.Lock()
        self._known: dict[Hashable, Future[Any]] = {}
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)

    def submit_once(self, key: Hashable, work: Callable[[], Result]) -> Future[Result]:
        """Start ``work`` unless work with the same key is under way; return its future.

        The future fails with ``errors.SipgateUnavailable`` if the queue is full, and if the process
        ends before the work begins.
        """
        with self._lock:
            if key in self._known:
                return self._known[key]
            if len(self._known) >= self._threads + LONGEST_QUEUE:
                return _failed("Too many calls in this process are waiting for sipgate.")
            try:
                future = self._pool.submit(self._do, key, work)
            except RuntimeError:  # no thread to be had, or the interpreter ends
                return _failed("No thread can be started for this.")
            self._known[key] = future
            return future

    def _do(self, key: Hashable, work: Callable[[], Result]) -> Result:
        try:
            check_not_ending()
            with database.own_connections():
                return work()
        finally:
            # Before the future is done, so that the next submission starts the work anew.
            with self._lock:
                self._known.pop(key, None)

    @property
    def is_busy(self) -> bool:
        """Whether more work would have to queue."""
        return len(self._known) >= self._threads

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing runs or is queued; False if that takes longer."""
        give_up = time.monotonic() + seconds
        while known := list(self._known.values()):
            if time.monotonic() > give_up:
                return False
            futures.wait(known, timeout=max(give_up - time.monotonic(), 0))
        return True


def _failed(message: str) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(_not_begun(message))
    return future


refreshes = Queue("sipgate-refresh", 32)
pages = Queue("sipgate-page", 64)
"""For data that pages show. This work may wait for ``refreshes``, so it has more threads."""
errands = Queue("sipgate-errand", 4)


def begin_ending() -> None:
    """Stop sending, and start no queued work. Refreshes that were sent continue."""
    global _is_ending
    _is_ending = True


def end_process() -> None:
    """Cancel queued refreshes, and wait at most 30 s for those that were sent."""
    begin_ending()
    for queue in (refreshes, errands):
        queue.wait_idle(LONGEST_END)


def end_at_sigterm() -> None:
    """Let ``begin_ending`` be called at SIGTERM, before the handler that is there; in the main
    thread only.

    A web server first waits for its own requests, and those for refreshes that are only queued: it
    would be killed in the middle of the last ones.
    """
    before = signal.getsignal(signal.SIGTERM)

    def handler(number: int, frame: Any) -> None:
        begin_ending()
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            sys.exit(128 + number)

    signal.signal(signal.SIGTERM, handler)


def in_thread(work: Callable[P, Result]) -> Callable[P, Coroutine[Any, Any, Result]]:
    """Return ``work`` as a coroutine function that runs in a thread, and returns its database
    connections.

    Not asgiref's main thread: that one is shared by all requests, and would wait for sipgate. Not
    the loop's default pool: it is small, and others use it.
    """

    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        check_not_ending()
        with database.own_connections():
            return work(*args, **kwargs)

    return sync_to_async(run, thread_sensitive=False, executor=_async_calls)


_async_calls: ThreadPoolExecutor


@after_fork
def _begin() -> None:
    """A child of a process that ends does not end with it, and has none of its threads."""
    global _async_calls, _is_ending
    _is_ending = False
    _async_calls = ThreadPoolExecutor(128, thread_name_prefix="sipgate-async")
    celery = sys.modules.get("celery.signals")
    if celery is not None:  # its worker processes do not wait for threads
        celery.worker_process_shutdown.connect(_end_with_celery, dispatch_uid=__name__)


def _end_with_celery(**_kwargs: Any) -> None:
    end_process()


_begin()
