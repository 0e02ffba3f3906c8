"""Holds one value of tokens per connection: stores them sealed (encrypted), and refreshes them in time.

This is the only door: no module outside of this folder imports one inside it. A *connection* is allauth's
``SocialAccount`` or its primary key; a *row* is the connection's ``SipgateToken``.

::

    use           token  call  refresh  load  AccessToken
    sign-in       store  declines  discard  cancel_endings  seal_text  open_text
    ending        end  require_sign_in  deliver_endings
    operating     status  journal_waiting  client  pause  key_ids  recover  reseal
    threads       in_thread  refreshes  pages  errands  operations  begin_process  end_process
    database      using  release_connections  own_connections
"""

from __future__ import annotations

from .authorization_server import client
from .consent import declines, discard, end, end_access, require_sign_in
from .consent import record_consent as store
from .database import alias as using
from .database import own_connections, release_connections
from .gate import AccessToken, call, refresh
from .gate import usable as token
from .journal import recover_all as recover
from .journal import waiting as journal_waiting
from .operate import Resealed, Status, key_ids, pause, reseal, status
from .process import begin_process, end_process
from .revocation import deliver_endings, may_have_ended
from .revocation import drop_pending as cancel_endings
from .revocation import sent_since as ended_since
from .rows import load
from .sealing import open_text, seal_text
from .threads import errands, in_thread, operations, pages, refreshes, seconds_under_way

__all__ = [
    "AccessToken",
    "Resealed",
    "Status",
    "begin_process",
    "call",
    "cancel_endings",
    "client",
    "declines",
    "deliver_endings",
    "discard",
    "end",
    "end_access",
    "end_process",
    "ended_since",
    "errands",
    "in_thread",
    "journal_waiting",
    "key_ids",
    "load",
    "may_have_ended",
    "open_text",
    "operations",
    "own_connections",
    "pages",
    "pause",
    "recover",
    "refresh",
    "refreshes",
    "release_connections",
    "require_sign_in",
    "reseal",
    "seal_text",
    "seconds_under_way",
    "status",
    "store",
    "token",
    "using",
]
