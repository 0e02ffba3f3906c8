"""Work beside requests: once per key, in bounded number, cancelled or awaited when the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from sipgate_provider import errors
from sipgate_provider.keeper import threads


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


def test_the_queue_has_an_end(flights: threads.SingleFlight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LONGEST_QUEUE", 2)
    go_on = threading.Event()
    for number in range(3):
        flights.submit_once(number, lambda: go_on.wait(10))
    assert flights.is_busy
    with pytest.raises(errors.SipgateUnavailable) as caught:
        flights.submit_once("one more", lambda: None)
    assert not caught.value.sent
    go_on.set()


def test_no_thread_to_be_had_is_an_error_of_ours(
    flights: threads.SingleFlight, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(errors.SipgateUnavailable):
        flights.submit_once("key", lambda: None)
    monkeypatch.undo()
    flights.cancel_queued()


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
    with pytest.raises(CancelledError):
        queued.result(10)
    assert flights.submit_once("queued", lambda: "anew").result(10) == "anew"


PROCESS = """
import os, signal, sys, threading, time
import django
django.setup()
from sipgate_provider.keeper import threads
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
    "a child of Celery's": (
        "from billiard import Process, util",
        "threads.begin_ending()\n"
        "def child():\n    threads.refreshes.submit_once('c', lambda: work('c'))\n    time.sleep(0.1)\n"
        "p = Process(target=child); p.start(); p.join()",
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
