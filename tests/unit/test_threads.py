"""Work beside requests: once per key, in bounded number, cancelled or awaited when the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from sipgate_provider import errors
from sipgate_provider.tokens import threads


@pytest.fixture
def flights() -> Iterator[threads.SingleFlight]:
    one = threads.SingleFlight("test", 1)
    yield one
    assert one.wait_idle(10)


def test_the_same_key_is_worked_on_once(flights: threads.SingleFlight) -> None:
    go_on = threading.Event()
    first = flights.submit_once("key", lambda: go_on.wait(10))
    assert flights.submit_once("key", lambda: False) is first
    go_on.set()
    assert first.result(10) is True


def test_the_queue_has_an_end(flights: threads.SingleFlight) -> None:
    go_on = threading.Event()
    for number in range(1 + threads.LONGEST_QUEUE):
        flights.submit_once(number, lambda: go_on.wait(10))
    assert flights.is_busy
    with pytest.raises(errors.SipgateUnavailable) as caught:
        flights.submit_once("one more", lambda: None).result()
    assert not caught.value.sent
    go_on.set()


@pytest.fixture
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the operating system refuse threads from now on."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)


def test_no_thread_to_be_had_is_an_error_of_ours(
    flights: threads.SingleFlight, no_more_threads: Callable[[], None]
) -> None:
    no_more_threads()
    with pytest.raises(errors.SipgateUnavailable):
        flights.submit_once("key", lambda: None).result()
    assert not flights.is_busy


def test_work_waits_for_the_threads_that_there_are(no_more_threads: Callable[[], None]) -> None:
    flights, go_on = threads.SingleFlight("test", 2), threading.Event()
    first = flights.submit_once("first", lambda: go_on.wait(10))
    no_more_threads()
    second = flights.submit_once("second", lambda: "done")
    assert not second.done()
    go_on.set()
    assert (first.result(10), second.result(10)) == (True, "done")


def test_who_waits_for_other_work_gives_its_place_away() -> None:
    """And takes it again: then there is one worker more than places, until it is done."""
    waits, works = threads.SingleFlight("waits", 1), threads.SingleFlight("works", 1)
    go_on = threading.Event()

    def wait() -> bool:
        with threads.while_waiting():
            return works.submit_once("work", lambda: go_on.wait(10)).result()

    first, second = waits.submit_once("first", wait), waits.submit_once("second", wait)
    assert waits.submit_once("third", lambda: "done").result(10) == "done"
    assert not first.done()
    go_on.set()
    assert (first.result(10), second.result(10)) == (True, True)
    assert waits.wait_idle(10)
    assert waits.submit_once("fourth", lambda: "done").result(10) == "done"


def test_so_many_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MOST_WAITING", 1)
    flights, go_on, waits = threads.SingleFlight("test", 1), threading.Event(), threading.Event()

    def wait() -> bool:
        with threads.while_waiting():
            waits.set()
            return go_on.wait(10)

    first = flights.submit_once("first", wait)
    assert waits.wait(10)
    with pytest.raises(errors.SipgateUnavailable):
        flights.submit_once("second", wait).result(10)
    assert flights.submit_once("third", lambda: "done").result(10) == "done"
    go_on.set()
    assert first.result(10)


def test_what_is_queued_is_cancelled_and_what_runs_goes_on(flights: threads.SingleFlight) -> None:
    began, go_on = threading.Event(), threading.Event()

    def work() -> str:
        began.set()
        go_on.wait(10)
        return "done"

    running, queued = flights.submit_once("running", work), flights.submit_once("queued", work)
    assert began.wait(10)
    flights.cancel_queued()
    go_on.set()
    assert running.result(10) == "done"
    with pytest.raises(errors.SipgateUnavailable, match="about to end"):
        queued.result(10)
    assert flights.submit_once("queued", lambda: "anew").result(10) == "anew"


FORKS = """
import os, sys, threading
import django
django.setup()
from sipgate_provider.tokens import threads
go_on = threading.Event()
threads.refreshes.submit_once("key", lambda: go_on.wait(20))
child = os.fork()
if child == 0:
    os._exit(0 if threads.refreshes.submit_once("key", lambda: "done").result(5) == "done" else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
go_on.set()
sys.exit(code)
"""


def test_a_forked_child_does_its_work_itself() -> None:
    """The thread that its parent does it in does not exist in the child."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


PROCESS = """
import os, signal, sys, threading, time
import django
django.setup()
from sipgate_provider.tokens import threads
{first}
def work(number):
    os.write(1, b"begun\\n")
    time.sleep(0.3)
    os.write(1, b"finished\\n")
for number in range(100):
    threads.refreshes.submit_once(number, lambda number=number: work(number))
{last}
"""
ENDS = {
    "the interpreter": ("", ""),
    "SIGTERM": ("threads.end_at_sigterm()", "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(20)"),
    "a handler of its own": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\nthreads.end_at_sigterm()",
        "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(20)",
    ),
    "a handler that first waits for requests": (
        "signal.signal(signal.SIGTERM, lambda *_: None)\nthreads.end_at_sigterm()",
        "os.kill(os.getpid(), signal.SIGTERM)\nthreads.refreshes.wait_idle(20)",
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_process_that_ends_begins_nothing_and_finishes_what_it_has_begun(how: str) -> None:
    first, last = ENDS[how]
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(first=first, last=last)],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    words = done.stdout.split()
    assert 0 < words.count("begun") < 100, done.stderr
    assert words.count("finished") == words.count("begun")
