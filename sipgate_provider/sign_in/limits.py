"""Limits the cost of visitors who only begin to sign in, who fail, or who wait for a slow sipgate.

Without limits, a slow sipgate would take every thread of the process, a visitor with invented codes
would use up the requests that sipgate allows this site, and passers-by would fill the table of
sessions. (*Refresh now* has its limit in the site's ``ACCOUNT_RATE_LIMITS``.)
"""

from __future__ import annotations

import threading
from contextlib import suppress
from ipaddress import ip_address, ip_network

from allauth import app_settings
from allauth.account.adapter import get_adapter
from django.contrib.auth.signals import user_logged_in
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.dispatch import receiver
from django.http import HttpRequest

from sipgate_provider import conf

places = threading.BoundedSemaphore(conf.callbacks_at_once())
"""One for each callback that may wait for sipgate in this process."""
MOST_FAILURES, WINDOW = 30, 60
"""How many sign-ins from one address may fail in how many seconds. Successes do not count."""
SHORT = "sipgate_short_session"
"""Session key: this session belongs to a visitor who only began to sign in."""
SHORT_LIFE = 3600
"""Seconds that such a session lives; allauth keeps a state for 600."""


def note_failure(request: HttpRequest) -> None:
    """Count a sign-in that failed after the app had asked sipgate."""
    key = _key(request)
    if key and not cache.add(key, 1, WINDOW):
        with suppress(ValueError):  # its window has just ended
            cache.incr(key)


def failed_too_often(request: HttpRequest) -> bool:
    key = _key(request)
    return bool(key) and cache.get(key, 0) >= MOST_FAILURES


def shorten(request: HttpRequest) -> None:
    """Give a new session of a visitor who only begins to sign in a short life."""
    if request.session.is_empty():
        request.session[SHORT] = True
        request.session.set_expiry(SHORT_LIFE)


@receiver(user_logged_in)
def lengthen(request: HttpRequest | None, **_kwargs: object) -> None:
    """Give the session of a user who has signed in, in any way, the usual life."""
    if request is not None and request.session.pop(SHORT, False):
        request.session.set_expiry(None)


def _key(request: HttpRequest) -> str:
    """Return the cache key for the visitor's network; empty if allauth finds no address."""
    try:
        address = ip_address(get_adapter(request).get_client_ip(request))
    except (PermissionDenied, ValueError):
        return ""
    prefix = app_settings.RATE_LIMIT_IPV6_PREFIX if address.version == 6 else 32
    network = ip_network(f"{address}/{prefix}", strict=False).network_address
    return f"sipgate_provider.failed:{network}"
