"""Tests wait for an event, not for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_for(happened: Callable[[], Any], why: Callable[[], str] = str) -> None:
    """Wait until something has happened; fail after half a minute, and say why if that is known."""
    give_up = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < give_up, why()
        time.sleep(0.02)
