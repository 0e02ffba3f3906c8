"""Runs work that must outlive the request that asked for it, once per key and process.

A refresh runs here and not in the caller's thread, because the caller's transaction may roll back, its browser may go
away and its async task may be cancelled: the pair has to be stored all the same. When the process ends in an orderly
way, what is queued is cancelled and what runs is waited for; ``end_at_sigterm`` lets that begin early.

Rejected: an own connection alias in the caller's thread (still cancelled with it), a task queue (needs a broker for
something that takes 100 ms).

Must not know: what the work is.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

from sipgate_provider import errors
from sipgate_provider.remote.per_process import PerProcess
from sipgate_provider.tokens import database

P = ParamSpec("P")
Result = TypeVar("Result")

THREADS = 32
"""Enough for 32 connections that wait for a slow sipgate at once in one process; the rest queue."""
LONGEST_QUEUE = 256
"""Callers would give up before a longer queue is done."""
MOST_WAITING = 256
"""Calls of one pool that wait for refreshes at once. Each has a thread, which costs little memory and no processor."""

TOO_MUCH = "Too much of this process waits for sipgate already."
ENDING = "This process is about to end."
BUSY = "busy"
"""``code`` of an error: this process could not begin the work."""
BEGAN = "sipgate_began"


def seconds_under_way(future: Future[Any]) -> float:
    """Return how long ago a piece of work was asked for."""
    return time.monotonic() - float(getattr(future, BEGAN))


class Pool:
    """Does ``most`` pieces of work at once and queues the rest, in threads that end when there is nothing to do.

    It does two things that ``ThreadPoolExecutor`` does not: work that waits for a refresh (``while_waiting``) gives its
    place to other work, and work is queued if no further thread can be started while one runs.
    """

    def __init__(self, name: str, most: int, *, longest_queue: float = LONGEST_QUEUE) -> None:
        self._name = name
        self._most = most
        self._longest_queue = longest_queue
        self._lock = threading.Lock()
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._working = 0
        self._waiting = 0

    def submit(
        self, work: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[Result]:
        """Begin or queue ``work``; return its future.

        The future fails with ``errors.SipgateUnavailable`` if too much is queued or no thread can be started, and when
        the process ends before the work begins.
        """
        future: Future[Result] = Future()
        piece = future, partial(work, *args, **kwargs)
        with self._lock:
            if self._has_begun(*piece):
                pass
            elif not self._working:
                future.set_exception(_not_begun("No thread can be started for this."))
            elif len(self._queue) >= self._longest_queue:
                future.set_exception(_not_begun(TOO_MUCH))
            else:
                self._queue.append(piece)
        return future

    def _has_begun(self, future: Future[Any], work: Callable[[], Any]) -> bool:
        if self._working >= self._most:
            return False
        try:
            _end_with_the_process()
            threading.Thread(target=self._work, args=(future, work), name=self._name).start()
        except RuntimeError:  # no thread to be had, or the interpreter ends
            return False
        self._working += 1
        return True

    def _work(self, future: Future[Any], work: Callable[[], Any]) -> None:
        _of_this_thread.pool = self
        while True:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            del future, work  # else an exception and its future would keep each other
            with self._lock:
                if not self._queue or self._working > self._most:
                    self._working -= 1
                    return
                future, work = self._queue.popleft()

    def cancel_queued(self) -> None:
        """Cancel what has not begun. Its future fails with ``errors.SipgateUnavailable``."""
        with self._lock:
            cancelled, self._queue = self._queue, deque()
        for future, _work in cancelled:
            if future.set_running_or_notify_cancel():
                future.set_exception(_not_begun(ENDING))

    @contextmanager
    def place_given_away(self) -> Iterator[None]:
        """See ``while_waiting``."""
        with self._lock:
            if self._waiting >= MOST_WAITING:
                raise _not_begun(TOO_MUCH)
            self._waiting += 1
            self._working -= 1
            if self._queue and self._has_begun(*self._queue[0]):
                self._queue.popleft()
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                self._working += 1


class _OfThisThread(threading.local):
    pool: Pool | None = None


_of_this_thread = _OfThisThread()


@contextmanager
def while_waiting() -> Iterator[None]:
    """Within it, this thread waits for work of another pool; if it belongs to a pool itself, others may use its place.

    Raises:
        errors.SipgateUnavailable: too many of the pool wait already.
    """
    pool = _of_this_thread.pool
    if pool is None:
        yield
        return
    with pool.place_given_away():
        yield


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
        self._pool = Pool(self._name, self._threads)

    def submit_once(self, key: Hashable, work: Callable[[], Result]) -> Future[Result]:
        """Start ``work`` unless work with the same key runs already; return its future.

        The future fails with ``errors.SipgateUnavailable`` if too much is queued or no thread can be started, and when
        the process ends before the work begins.
        """
        with self._lock:
            running = self._running.get(key)
            if running is not None:
                return running
            future = self._pool.submit(self._run, key, work)
            setattr(future, BEGAN, time.monotonic())
            if (
                not future.done()
            ):  # else it was refused: what has begun needs the lock before it is done
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
        """See ``Pool.cancel_queued``."""
        self._pool.cancel_queued()
        with self._lock:
            self._running = {
                key: future for key, future in self._running.items() if not future.done()
            }

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
"""For operators' work. It waits for ``refreshes``, so it has threads of its own."""


_is_ending = False


def _not_begun(message: str) -> errors.SipgateUnavailable:
    return errors.SipgateUnavailable(message, sent=False, code=BUSY)


def is_ending() -> bool:
    return _is_ending


def refuse_when_ending() -> None:
    """Raise ``errors.SipgateUnavailable`` if the process is about to end: nothing is sent any more."""
    if _is_ending:
        raise _not_begun(ENDING)


def begin_ending() -> None:
    """Cancel what is queued, and let nothing be sent any more. What was sent goes on."""
    global _is_ending
    _is_ending = True
    for queue in (refreshes, pages, operations, errands, _async_calls.get()):
        queue.cancel_queued()


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
        with suppress(RuntimeError):  # no thread to be had: what is queued begins, too
            threading.Thread(target=begin_ending, name="sipgate-end").start()
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            sys.exit(128 + number)

    signal.signal(signal.SIGTERM, handler)


def _end_with_the_process() -> None:
    """Make sure that ``end`` is called. The interpreter waits for its threads, but lets all that is queued begin first;
    Celery's worker processes do not wait at all."""
    if _registered.get():
        return
    _registered.get().append(True)
    threading._register_atexit(end)  # type: ignore[attr-defined]  # atexit is too late: it comes after the threads
    celery = sys.modules.get("celery.signals")
    if celery is not None:
        celery.worker_process_shutdown.connect(_end_with_celery, weak=False)


def _end_with_celery(**_kwargs: Any) -> None:
    end()


_registered: PerProcess[list[bool]] = PerProcess(list)


ASYNC_THREADS = 32
"""Asynchronous calls of one process that ask the database or sipgate at once. The rest queue: each has a task that
awaits it, so there is no more of them than the site has tasks."""
_async_calls = PerProcess(lambda: Pool("sipgate-async", ASYNC_THREADS, longest_queue=math.inf))


def in_thread(work: Callable[P, Result]) -> Callable[P, Coroutine[Any, Any, Result]]:
    """Return ``work`` as a coroutine function that runs in a thread of a pool of its own, and gives its database
    connections back.

    Not asgiref's main thread: that one is shared by all requests, and would wait for sipgate. Not the loop's default
    pool: it is small, and others use it. A call that waits for a refresh does not keep others from running.
    """

    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        with database.own_connections():
            return work(*args, **kwargs)

    pool: Any = (
        _async_calls.get()
    )  # annotated as ThreadPoolExecutor, of which only ``submit`` is called
    return sync_to_async(run, thread_sensitive=False, executor=pool)
