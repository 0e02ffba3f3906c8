"""Signals for sites, sent with ``connection`` (allauth's ``SocialAccount``) and ``token`` (``SipgateToken``).

``connected`` and ``disconnected`` are sent in the transaction of the change; ``needs_sign_in`` and ``repaired`` after
it, from a background thread if a refresh found out. A receiver that raises is logged and changes nothing.
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger(__name__)

connected = Signal()
"""A person signed in or connected; ``first`` tells whether this connection had no token before."""
needs_sign_in = Signal()
"""The link needs its person; ``reason`` is a ``models.Reason``. Once per incident."""
repaired = Signal()
"""A link that needed its person, or failed, works again."""
disconnected = Signal()
"""The connection is being deleted; ``token`` still tells its state, not its secrets."""
misconfigured = Signal()
"""sipgate refuses our client; sent with ``code`` and ``setting``, once per incident, without connection and token."""


def announce(signal: Signal, **values: Any) -> None:
    """Send to every receiver; one that raises is logged, since the work that is announced is done already."""
    for receiver, outcome in signal.send_robust(sender=None, **values):
        if isinstance(outcome, Exception):
            logger.error("A receiver of a sipgate signal failed: %r raised %s", receiver, type(outcome).__name__)
