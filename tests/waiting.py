"""Tests wait for an event, not for a time."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from typing import Any

import requests


def wait_for(happened: Callable[[], Any], why: Callable[[], str] = str) -> None:
    """Wait until something has happened; fail after half a minute, and say why if that is known."""
    give_up = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < give_up, why()
        time.sleep(0.02)


def wait_until_served(
    process: subprocess.Popen[Any], url: str, log: Callable[[], str] = str, seconds: float = 60
) -> None:
    """Wait until a server that was started answers; its log is in the failure."""
    give_up = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            if requests.get(url, timeout=5).ok:
                return
        time.sleep(0.05)
    raise AssertionError(f"Nothing answers at {url}. {log()[-3000:]}")
