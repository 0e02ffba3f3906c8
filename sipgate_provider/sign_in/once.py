"""Uses each state once, however often its callback comes (reload, double click, prefetch, *Back*).

The request that inserts the row sends the code. A later request begins the sign-in again, once, if
it carries the session cookie of the first, as a browser does that dropped the first answer. After
that, the cookie is useless, since signing in replaces the session.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from allauth.socialaccount.providers.base import AuthProcess
from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils import timezone

from sipgate_provider import database
from sipgate_provider.models import SipgateToken, UsedState

STASHED = "socialaccount_states"
"""Session key of allauth's states, by id: (what the sign-in asks for, when, of which provider).

allauth offers no way to look at a state without removing it.
"""
KEPT_FOR = timedelta(hours=1)
"""How long the app recognises a repeated callback."""


def begun(request: HttpRequest, state_id: str) -> dict[str, Any] | None:
    """Return what this browser's session holds for an unused state, and leave it there."""
    stashed = request.session.get(STASHED, {}).get(state_id)
    return dict(stashed[0]) if stashed else None


def use(request: HttpRequest, state_id: str, asked: dict[str, Any]) -> bool:
    """Use a state, and commit. False: another request has used it already."""
    kept = ("process", "next", "data", "headless")
    row = UsedState(
        state_hash=_digest(state_id),
        session_hash=_of_session(request),
        used_at=timezone.now(),
        asked={name: asked[name] for name in kept if name in asked},
    )
    try:
        with transaction.atomic(using=database.using()):
            row.save(using=database.using(), force_insert=True)
    except IntegrityError:
        return False
    return True


def used(state_id: str) -> UsedState | None:
    """Return the row of a used state; None for any other."""
    return UsedState.objects.filter(pk=_digest(state_id)).first()


def may_begin_again(request: HttpRequest, row: UsedState) -> bool:
    """Tell whether the sign-in may begin again: once, in the browser that began it."""
    if _has_connected(request, row):
        return False
    mine = UsedState.objects.filter(pk=row.pk, session_hash=_of_session(request))
    return bool(mine.exclude(session_hash="").update(session_hash=""))


def _has_connected(request: HttpRequest, row: UsedState) -> bool:
    """Tell whether the first callback connected something to the user of this session."""
    if row.asked.get("process") != AuthProcess.CONNECT or not request.user.is_authenticated:
        return False
    connected = SipgateToken.objects.filter(connection__user=request.user.pk)
    return connected.filter(consented_at__gte=row.used_at).exists()


def forget_old() -> None:
    """Delete the rows of states that are too old to come back."""
    UsedState.objects.filter(used_at__lt=timezone.now() - KEPT_FOR).delete()


def _of_session(request: HttpRequest) -> str:
    return _digest(request.COOKIES.get(settings.SESSION_COOKIE_NAME, ""))


def _digest(value: str) -> str:
    """Return the hash to store. States and cookies are random, so it needs no salt."""
    return hashlib.sha256(value.encode()).hexdigest() if value else ""
