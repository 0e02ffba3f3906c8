"""What the site does while the database is away. The whole of it, with servers and processes: ``tests/outage``."""

from __future__ import annotations

import threading

import pytest

from sipgate_project import outage


def test_a_thread_that_cannot_start_does_not_stop_the_look_at_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    one, looked = outage.Outage(), threading.Event()
    monkeypatch.setattr(outage, "_trouble", looked.set)
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        one.suspect()
    one.suspect()
    assert looked.wait(10)
