"""Uses each state once, even if its callback comes more than once (reload, double click, prefetch, *Back*).

The first request inserts a row and sends the code. Later requests, of the same browser only, wait for the first and are
redirected to the same page. The same browser is one with the cookie that was set when the sign-in began. The session
does not help: signing in replaces it, and the browser may not have received the answer with the new one.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from sipgate_provider import tokens
from sipgate_provider.models import UsedState

COOKIE = "sipgate_browser"
STASHED = "socialaccount_states"
"""Where allauth keeps states in the session: (what was asked for, when, by which provider) by the state's id. allauth
offers no way to look at one without taking it out."""
KEPT_FOR = timedelta(hours=1)
"""How long a repeated callback is recognised, and how long the cookie lives."""
WAIT = 5.0
"""Seconds for which a repeated callback waits for the first one."""
POLL = 0.15
HEAD_START = 0.3
"""Seconds by which the first answer, with the session's cookie, may arrive earlier than those that waited."""
SESSION_KEY = "sipgate_completed_states"
MOST_COMPLETED = 10

Outcome = UsedState.Outcome


def digest(value: str) -> str:
    """Return the hash of a state or cookie, which is stored. They are random, so a plain hash suffices."""
    return hashlib.sha256(value.encode()).hexdigest() if value else ""


def new_browser(request: HttpRequest) -> str:
    """Return the value of this browser's cookie, a new one if it has none."""
    return request.COOKIES.get(COOKIE) or secrets.token_urlsafe(24)


def set_browser(response: HttpResponse, value: str) -> None:
    """Let the browser keep ``value``. Lax, because the browser has to send it with sipgate's redirect."""
    response.set_cookie(
        COOKIE,
        value,
        max_age=KEPT_FOR,
        path=settings.SESSION_COOKIE_PATH,
        domain=settings.SESSION_COOKIE_DOMAIN,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def begun_here(request: HttpRequest, state_id: str) -> dict[str, Any] | None:
    """Return what this browser's session knows about a state that was not used yet, and leave it there."""
    stashed = request.session.get(STASHED, {}).get(state_id)
    return dict(stashed[0]) if stashed else None


def begun_at(request: HttpRequest, state_id: str) -> datetime:
    """Return when a sign-in in this browser's session was begun; now, if that is not known."""
    stashed = request.session.get(STASHED, {}).get(state_id)
    return datetime.fromtimestamp(stashed[1], tz=UTC) if stashed else timezone.now()


def use(request: HttpRequest, state_id: str) -> bool:
    """Use a state that was begun here, and commit. False: another request has used it."""
    asked = begun_here(request, state_id) or {}
    row = UsedState(
        state_hash=digest(state_id),
        browser_hash=digest(request.COOKIES.get(COOKIE, "")),
        used_at=timezone.now(),
        asked={
            name: asked.get(name)
            for name in ("process", "next", "data", "headless")
            if asked.get(name)
        },
    )
    try:
        with transaction.atomic(using=tokens.using()):
            row.save(using=tokens.using(), force_insert=True)
    except IntegrityError:
        return False
    return True


def finish(
    state_id: str,
    *,
    outcome: str,
    location: str = "",
    former: dict[str, Any] | None = None,
    destination: str = "",
) -> None:
    """Tell those who wait how the sign-in ended, and which scopes will be asked for before the person arrives."""
    rows = UsedState.objects.filter(pk=digest(state_id))
    rows.update(outcome=outcome, location=location, former=former or {}, destination=destination)


def used(request: HttpRequest, state_id: str) -> UsedState | None:
    """Return the row of a state that this browser began and used; None for any other."""
    browser = digest(request.COOKIES.get(COOKIE, ""))
    if not state_id or not browser:
        return None
    rows = UsedState.objects.filter(pk=digest(state_id), browser_hash=browser)
    return next(iter(rows[:1]), None)


def wait(row: UsedState) -> None:
    """Wait until the first request has finished, for ``WAIT`` seconds at most, without a database connection."""
    deadline, waited = time.monotonic() + WAIT, False
    while row.outcome == Outcome.UNDER_WAY and time.monotonic() < deadline:
        tokens.release_connections()
        time.sleep(POLL)
        waited = True
        try:
            row.refresh_from_db(using=tokens.using(), fields=["outcome"])
        except UsedState.DoesNotExist:
            return
    if waited:
        tokens.release_connections()
        time.sleep(HEAD_START)


def note_completed(request: HttpRequest, state_id: str) -> None:
    """Note in the session that it has the outcome of this sign-in: a user, or a sign-up to be completed."""
    earlier = request.session.get(SESSION_KEY, [])
    request.session[SESSION_KEY] = [*earlier, digest(state_id)][-MOST_COMPLETED:]


def holds(request: HttpRequest, row: UsedState) -> bool:
    """Tell whether this browser has the outcome of the sign-in, so that it can be redirected to the same page."""
    if row.outcome == Outcome.COMPLETED and row.pk in request.session.get(SESSION_KEY, []):
        return True
    # A user who connects was signed in before, and still is.
    reached = row.outcome == Outcome.COMPLETED or row.asked.get("process") == "connect"
    return reached and row.outcome != Outcome.FAILED and request.user.is_authenticated


def begin_again(row: UsedState) -> bool:
    """Let the sign-in begin again, which is possible once per state. False: that was done already."""
    rows = UsedState.objects.filter(pk=row.pk, begun_again_at=None)
    return bool(rows.update(begun_again_at=timezone.now()))


def forget_old() -> None:
    """Delete the rows of states that are too old to come back."""
    UsedState.objects.filter(used_at__lt=timezone.now() - KEPT_FOR).delete()


def leave_session_alone(request: HttpRequest) -> None:
    """Keep this answer from storing a session or touching its cookie.

    The session that this request named may have been replaced meanwhile: storing it would fail, and deleting its cookie
    would delete that of the session that replaced it.
    """
    request.session = request.session.__class__()
    request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)
