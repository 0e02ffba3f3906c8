"""Answers probes and Prometheus: whether this process lives, whether it can serve, and what it has counted.

They address a process by IP and use plain http, so ``probes`` is the outermost middleware: it answers before any other
checks host, scheme or session.

Must not know: users, pages.
"""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.db import Error as DatabaseProblem
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseNotFound,
    JsonResponse,
)
from django.utils.cache import add_never_cache_headers
from django.utils.crypto import constant_time_compare

from sipgate_provider import errors, tokens
from sipgate_provider import metrics as counting
from sipgate_provider.ops.bounded import Bounded

Next = Callable[[HttpRequest], HttpResponse]

PATIENCE = 1.5
"""Seconds that ``/readyz`` waits for the database. Probes usually give up after two or three."""


def probes(get_response: Next) -> Next:
    """Answer ``/livez``, ``/readyz`` and ``/metrics``; pass everything else on."""

    def middleware(request: HttpRequest) -> HttpResponse:
        answer = ANSWERS.get(request.path)
        if answer is None:
            return get_response(request)
        response = (
            answer(request)
            if request.method in {"GET", "HEAD"}
            else HttpResponseNotAllowed(["GET", "HEAD"])
        )
        add_never_cache_headers(response)
        # Django's mark. Otherwise a probe would write an ERROR to the log every few seconds.
        response._has_been_logged = True  # type: ignore[attr-defined]
        return response

    return middleware


def livez(_request: HttpRequest) -> HttpResponse:
    """Say that this process answers. The database is not asked: a restart of the process would not bring it back."""
    return JsonResponse({"status": "ok"})


def readyz(_request: HttpRequest) -> HttpResponse:
    """Say whether this process can serve: database, migrations, keys. 200 or 503; no secrets, no versions."""
    state = {"database": _database_state(), "keys": _keys_state()}
    ready = all(value == "ok" for value in state.values())
    return JsonResponse(
        {"status": "ok" if ready else "failing", **state}, status=200 if ready else 503
    )


def _database_state() -> str:
    try:
        return DATABASE.ask(PATIENCE)
    except TimeoutError:
        return f"no answer within {PATIENCE} s"
    except DatabaseProblem:
        return "unreachable"


class _Database:
    """Checks the database. Migrations are checked until none is pending, since applied ones stay applied."""

    def __init__(self) -> None:
        self._is_migrated = False

    def __call__(self) -> str:
        with tokens.own_connections():
            connection = connections["default"]
            if not self._is_migrated:
                executor = MigrationExecutor(connection)
                self._is_migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        return "ok" if self._is_migrated else "migrations pending"


DATABASE = Bounded(_Database())


def _keys_state() -> str:
    try:
        tokens.key_ids()
    except errors.Misconfigured:
        return "SIPGATE_TOKEN_KEYS is missing or malformed"
    return "ok"


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer Prometheus if it sends ``METRICS_TOKEN`` as bearer token. If that is not set, there is no such page."""
    if not settings.METRICS_TOKEN or not counting.is_on():
        return HttpResponseNotFound()
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not constant_time_compare(
        given.strip(), settings.METRICS_TOKEN
    ):
        return HttpResponse(status=401, headers={"WWW-Authenticate": 'Bearer realm="metrics"'})
    from sipgate_provider import exposition  # needs prometheus-client, which is optional

    body, content_type = exposition.render(request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=content_type)


ANSWERS = {"/livez": livez, "/readyz": readyz, "/metrics": metrics}
