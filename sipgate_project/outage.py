"""Answers pages at once while the database is away.

Each page would wait for a connection and hold a thread that the others, and probes, need. So a page that failed because
of the database starts a thread that checks it. Until the database answers again, other pages are answered at once.

Must not know: users, what pages show.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from django.core.signals import got_request_exception
from django.db import Error as DatabaseProblem
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.template import loader
from django.utils.cache import add_never_cache_headers

from sipgate_provider import errors, tokens
from sipgate_provider.remote.per_process import PerProcess

from . import database

Next = Callable[[HttpRequest], HttpResponse]

logger = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds between two checks of a database that is away."""
CONNECT_TIMEOUT = 2


class Outage:
    """Whether the database is known to be away. ``reference`` is that of the incident; empty if all is well."""

    def __init__(self) -> None:
        self.reference = ""
        self._lock = threading.Lock()
        self._is_looking = False

    def suspect(self) -> None:
        """Check the database in a thread, until it answers."""
        with self._lock:
            if self._is_looking:
                return
            self._is_looking = True
        try:
            threading.Thread(target=self._look, name="sipgate-outage", daemon=True).start()
        except RuntimeError:  # no thread can be started now: the next page that fails tries again
            self._is_looking = False

    def _look(self) -> None:
        try:
            while trouble := _trouble():
                if not self.reference:
                    reference = errors.new_reference()
                    logger.error("Pages are answered with 503 [%s]: %s", reference, trouble)
                    self.reference = reference
                time.sleep(PAUSE)
            if self.reference:
                logger.warning("The database is back; pages are shown again [%s]", self.reference)
        finally:
            self.reference, self._is_looking = "", False


def _trouble() -> str:
    """Return what is wrong. A query is tried as well, because the pool takes a moment longer to come back."""
    told = database.trouble(CONNECT_TIMEOUT)
    if told:
        return told
    try:
        with tokens.own_connections(), connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseProblem as error:
        return f"a query fails ({type(error).__name__})"
    return ""


outage = PerProcess(Outage)


def _suspect(**_: Any) -> None:
    if isinstance(sys.exc_info()[1], DatabaseProblem):
        outage.get().suspect()


got_request_exception.connect(_suspect, dispatch_uid="sipgate_project.outage")


def guard(get_response: Next) -> Next:
    """Answer 503 while the database is known to be away."""

    def middleware(request: HttpRequest) -> HttpResponse:
        reference = outage.get().reference
        if not reference:
            return get_response(request)
        page = loader.render_to_string("500.html", {"reference": reference})
        response = HttpResponse(page, status=503, headers={"Retry-After": "5"})
        add_never_cache_headers(response)
        response._has_been_logged = True  # type: ignore[attr-defined]  # Django's mark; the incident was logged once
        return response

    return middleware
