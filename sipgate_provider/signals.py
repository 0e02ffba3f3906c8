"""Signals for sites, sent with ``connection`` (allauth's ``SocialAccount``) and ``token``
(``SipgateToken``).

``connected`` and ``disconnected`` are sent in the transaction of the change; ``needs_sign_in`` and
``repaired`` after it, from a background thread if a refresh made the change. Django logs a
receiver's exception (``django.dispatch``), which changes nothing.
"""

from __future__ import annotations

from typing import Any

from django.dispatch import Signal

connected = Signal()
"""A user signed in or connected; ``first`` tells whether this connection had no tokens before."""
needs_sign_in = Signal()
"""The connection needs a new sign-in; ``reason`` is a ``models.Reason``. Once per incident."""
repaired = Signal()
"""A connection that needed a new sign-in, or failed, works again."""
disconnected = Signal()
"""The connection is being deleted; ``token`` still has its state, but no secrets."""
misconfigured = Signal()
"""sipgate rejects this site's client. Sent with ``code`` and ``setting`` only, at most once a day."""


def announce(signal: Signal, **values: Any) -> None:
    """Send to every receiver, even if one raises: the work is done already."""
    signal.send_robust(sender=None, **values)
