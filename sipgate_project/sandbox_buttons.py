"""The account page's three buttons that make something happen at the local sandbox."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import connections as database_connections
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext, gettext_noop
from requests import RequestException

from sipgate_provider import errors, tokens
from sipgate_provider.connections import connections_of

from . import sandbox
from .views import posted

AWAY_FOR = 20
"""How many seconds the sandbox does not answer."""


@posted(instead="account")
@login_required
def try_out(request: HttpRequest) -> HttpResponse:
    """Carry out one of ``BUTTONS`` for this user's connections, then refresh them."""
    if not settings.SANDBOX or request.POST.get("what") not in BUTTONS:
        raise Http404
    happen, said = BUTTONS[request.POST["what"]]
    connections = connections_of(request.user)
    try:
        happen(connections)
    except RequestException:
        messages.error(request, gettext("The sandbox does not answer."))
        return redirect("account")
    _refresh([row.pk for row in connections])
    messages.info(request, gettext(said))
    return redirect("account")


def _expire(connections: list[SocialAccount]) -> None:
    for row in connections:
        sandbox.steer("expire-access", uid=row.uid)


def _take_down(connections: list[SocialAccount]) -> None:
    for place in ("refresh", "api"):
        sandbox.steer("faults", fault="unavailable", on=place, times=None)
    timer = threading.Timer(AWAY_FOR, _bring_back, [[row.pk for row in connections]])
    timer.daemon = True
    timer.start()


def _bring_back(connection_ids: list[int]) -> None:
    with suppress(RequestException):  # the sandbox has been stopped meanwhile
        sandbox.steer("clear")
    _refresh(connection_ids)
    database_connections.close_all()


def _end_session(connections: list[SocialAccount]) -> None:
    for row in connections:
        sandbox.steer("kill-session", uid=row.uid)


def _refresh(connection_ids: list[int]) -> None:
    for pk in connection_ids:
        with suppress(errors.SipgateError):  # the page shows what went wrong
            tokens.refresh(pk, by="sandbox")


BUTTONS: dict[str, tuple[Callable[[list[SocialAccount]], None], str]] = {
    "expire": (
        _expire,
        gettext_noop(
            "The access token expired. This site refreshed the tokens, and sipgate accepted them."
        ),
    ),
    "away": (
        _take_down,
        gettext_noop(
            "sipgate will not answer for 20 seconds. Reload the page to watch the connection "
            "recover on its own."
        ),
    ),
    "end": (
        _end_session,
        gettext_noop("sipgate ended your session, as one of its administrators could."),
    ),
}
