"""Counts requests and what was issued; the control API shows it."""

from __future__ import annotations

import threading
from collections import Counter

counts: Counter[str] = Counter()
_lock = threading.Lock()


def reset() -> None:
    with _lock:
        counts.clear()


def add(name: str) -> None:
    with _lock:
        counts[name] += 1
