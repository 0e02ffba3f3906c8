"""Answers probes and Prometheus: whether this process lives, can serve, and what it has counted.

They address a process by IP and use plain http, so ``probes`` is the outermost middleware: it
answers before any other checks host, scheme or session.
"""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

Next = Callable[[HttpRequest], HttpResponse]


def probes(get_response: Next) -> Next:
    """Answer ``/livez``, ``/readyz`` and ``/metrics``; pass everything else on."""
    answers = {"/livez": livez, "/readyz": readyz, "/metrics": metrics}

    def middleware(request: HttpRequest) -> HttpResponse:
        return answers.get(request.path, get_response)(request)

    return middleware


@never_cache
@require_safe
def livez(_request: HttpRequest) -> HttpResponse:
    """Say that this process answers. A restart of it would not bring the database back."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(_request: HttpRequest) -> HttpResponse:
    """Say whether this process can serve: 200, or 503 while the database is away or behind."""
    try:
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except Error:
        state = "the database cannot be reached"
    else:
        state = "migrations are pending" if pending else "ok"
    response = JsonResponse({"status": state}, status=200 if state == "ok" else 503)
    # Django's mark. Otherwise a probe would write an ERROR to the log every few seconds.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer Prometheus if it sends ``METRICS_TOKEN`` as bearer token; without one, 404."""
    if not settings.METRICS_TOKEN:
        return HttpResponse(status=404)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    is_known = constant_time_compare(given.strip(), settings.METRICS_TOKEN)
    if scheme.lower() != "bearer" or not is_known:
        return HttpResponse(status=401, headers={"WWW-Authenticate": 'Bearer realm="metrics"'})
    from sipgate_provider import exposition  # prometheus-client is optional

    body, content_type = exposition.render(request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=content_type)
