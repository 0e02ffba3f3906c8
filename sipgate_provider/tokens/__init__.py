"""Keeps the tokens of each connection: stores them sealed (encrypted), and refreshes them in time.

This is the only door: no module outside of this folder imports one inside it. A *connection* is
allauth's ``SocialAccount`` or its primary key; a *row* is the connection's ``SipgateToken``.

::

    use           token  call  refresh  load  AccessToken
    sign-in       store  declines  discard  cancel_endings  seal_text  open_text
    ending        end  require_sign_in  deliver_endings
    operating     status  journal_waiting  client  check_not_paused  key_ids  recover  reseal
    process       begin_process
"""

from __future__ import annotations

from .access import AccessToken, begin_process, call, refresh, token
from .clients import check_not_paused, client
from .consent import declines, discard, end, require_sign_in, store
from .endings import cancel as cancel_endings
from .endings import deliver_endings
from .journal import recover_all as recover
from .journal import waiting as journal_waiting
from .rows import load
from .sealing import key_ids
from .sealing import seal as seal_text
from .sealing import unseal as open_text
from .status import Resealed, Status, reseal, status

__all__ = [
    "AccessToken",
    "Resealed",
    "Status",
    "begin_process",
    "call",
    "cancel_endings",
    "check_not_paused",
    "client",
    "declines",
    "deliver_endings",
    "discard",
    "end",
    "journal_waiting",
    "key_ids",
    "load",
    "open_text",
    "recover",
    "refresh",
    "require_sign_in",
    "reseal",
    "seal_text",
    "status",
    "store",
    "token",
]
