"""Scopes: what a page wants beyond the configured ones, and whether what was granted suffices."""

from __future__ import annotations

import time
from collections.abc import Iterable

from django.http import HttpRequest

SESSION_KEY = "sipgate_wanted_scopes"
WANTED_FOR = 600
"""Seconds for which a page's wish is remembered: as long as allauth remembers a state."""


def suffices(granted: Iterable[str], *, needed: str) -> bool:
    """Tell whether ``needed`` is covered: by itself, by a parent (``sessions:write`` ⊃ ``sessions:sms:write``), or ``all``."""
    have = set(granted)
    if "all" in have or needed in have:
        return True
    *path, action = needed.split(":")
    parents = (":".join([*path[:length], action]) for length in range(1, len(path)))
    return any(parent in have for parent in parents)


def missing(granted: Iterable[str], *, needed: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``needed`` that ``granted`` does not cover, sorted."""
    have = tuple(granted)
    return tuple(sorted(scope for scope in needed if not suffices(have, needed=scope)))


def want(request: HttpRequest, wanted: Iterable[str]) -> None:
    """Let the next sign-in of this session ask for ``wanted`` as well. Only the site's own code can say so."""
    request.session[SESSION_KEY] = {"scopes": sorted(set(wanted)), "until": time.time() + WANTED_FOR}


def pending(request: HttpRequest) -> tuple[str, ...]:
    """Return what ``want`` left, if it is not too old."""
    wish = request.session.get(SESSION_KEY)
    if not isinstance(wish, dict) or wish.get("until", 0) < time.time():
        return ()
    return tuple(str(scope) for scope in wish.get("scopes", ()))
