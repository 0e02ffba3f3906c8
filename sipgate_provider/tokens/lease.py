"""The lease: the right to refresh one connection, for a limited time.

It excludes other machines; ``lock`` excludes the threads and processes of this one. It ends by the
clock of the database, which all machines share, so a killed process holds up the others only until
then. Taking it records that the refresh token may be spent (*unanswered*).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now

from sipgate_provider.models import SipgateToken
from sipgate_provider.tokens import rows

LENGTH = timedelta(seconds=45)
"""Longer than it takes to get the answer and to write it to the journal."""


def take(row: SipgateToken, holder: str) -> bool:
    """Take the lease and set *unanswered*, if the row is unchanged and no lease is running.

    ``holder`` names this attempt among all processes.
    """
    is_free = Q(lease_until=None) | Q(lease_until__lte=Now())
    as_read = SipgateToken.objects.filter(is_free, **rows.as_read(row))
    return bool(as_read.update(lease_holder=holder, lease_until=Now() + LENGTH, unanswered=True))


def give_back(row: SipgateToken, holder: str, *, unanswered: bool, **changes: Any) -> bool:
    """Give the lease back, and store ``changes`` in the row.

    Returns False, without storing ``changes``, if another holder has it, or if an administrator has
    demanded a new sign-in.
    """
    held = SipgateToken.objects.filter(pk=row.pk, lease_holder=holder)
    if held.exclude(rows.ASKED).update(**rows.FREE, unanswered=unanswered, **changes):
        return True
    held.update(**rows.FREE, unanswered=unanswered)
    return False
