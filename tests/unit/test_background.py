"""Work in the background: once per key, not longer queued than anybody waits, and ended in
order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from sipgate_provider import background, errors
from sipgate_provider.background import Queue
from tests.processes import run_program


def test_the_same_key_is_worked_on_once(queue, go_on):
    first = queue.submit_once("key", wait_to_go_on)
    assert queue.submit_once("key", wait_to_go_on) is first
    go_on()
    assert first.result(10) == "done"
    assert queue.submit_once("key", lambda: "anew").result(10) == "anew"


def test_the_queue_has_an_end(queue, go_on):
    several = [queue.submit_once(n, wait_to_go_on) for n in range(1 + background.LONGEST_QUEUE)]
    with pytest.raises(errors.SipgateUnavailable, match="Too many") as caught:
        queue.submit_once("one more", wait_to_go_on).result(1)
    assert (caught.value.sent, caught.value.code) == (False, background.BUSY)
    go_on()
    assert {future.result(10) for future in several} == {"done"}


def test_what_is_queued_is_cancelled_and_what_runs_goes_on(queue, go_on, monkeypatch):
    running, queued = (queue.submit_once(key, wait_to_go_on) for key in ("running", "queued"))
    assert BEGAN.wait(10)
    monkeypatch.setattr(background, "_is_ending", False)
    background.begin_ending()
    go_on()
    assert running.result(10) == "done"
    with pytest.raises(errors.SipgateUnavailable, match="about to end"):
        queued.result(10)


def test_a_queue_that_is_made_while_the_process_ends_begins_nothing(monkeypatch):
    monkeypatch.setattr(background, "_is_ending", True)
    late = Queue("test-late", 1)
    assert background.is_ending()
    with pytest.raises(errors.SipgateUnavailable, match="about to end"):
        late.submit_once("key", lambda: "sent").result(10)


def test_no_thread_to_be_had_is_an_error_of_ours(queue, monkeypatch):
    def no_thread(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(errors.SipgateUnavailable, match="No thread") as caught:
            queue.submit_once("key", lambda: "done").result(10)
    assert caught.value.sent is False
    assert queue.submit_once("key", lambda: "done").result(10) == "done"


def test_a_forked_child_does_its_work_itself():
    """The thread that its parent does it in does not exist in the child."""
    assert run_program(FORKS).returncode == 0


@pytest.mark.parametrize("how", ["SIGTERM", "its own handler", "a server's"])
def test_a_process_that_ends_begins_nothing_and_finishes_what_it_has_begun(how):
    first, last = ENDS[how]
    words = run_program(PROCESS.format(first=first, last=last)).stdout.split()
    assert 0 < words.count("begun") < 100
    assert words.count("finished") == words.count("begun")


BEGAN, GO_ON = threading.Event(), threading.Event()


def wait_to_go_on() -> str:
    BEGAN.set()
    assert GO_ON.wait(20)
    return "done"


@pytest.fixture
def queue() -> Iterator[Queue]:
    BEGAN.clear()
    GO_ON.clear()
    one = Queue("test", 1)
    yield one
    GO_ON.set()
    assert one.wait_idle(10)


@pytest.fixture
def go_on() -> Callable[[], None]:
    return GO_ON.set


FORKS = """
import os, sys, threading
import django
django.setup()
from sipgate_provider import background
go_on = threading.Event()
background.refreshes.submit_once("key", lambda: go_on.wait(20))
child = os.fork()
if child == 0:
    done = background.refreshes.submit_once("key", lambda: "done").result(5)
    os._exit(0 if done == "done" else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
go_on.set()
sys.exit(code)
"""
PROCESS = """
import os, signal, sys, threading, time
import django
django.setup()
from sipgate_provider import background
{first}
def work(number):
    os.write(1, b"begun\\n")
    time.sleep(0.3)
    os.write(1, b"finished\\n")
for number in range(100):
    background.refreshes.submit_once(number, lambda number=number: work(number))
{last}
"""
TERMINATED = "os.kill(os.getpid(), signal.SIGTERM)\n"
ENDS = {
    "SIGTERM": ("background.end_at_sigterm()", f"{TERMINATED}time.sleep(20)"),
    "its own handler": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\nbackground.end_at_sigterm()",
        f"{TERMINATED}time.sleep(20)",
    ),
    "a server's": (
        "signal.signal(signal.SIGTERM, lambda *_: None)\nbackground.end_at_sigterm()",
        f"{TERMINATED}background.refreshes.wait_idle(20)",
    ),
}
