"""What machines ask for: health and metrics. Pages for people are in ``pages``."""

from __future__ import annotations

from django.conf import settings
from django.db import Error as DatabaseProblem
from django.db import connections, transaction
from django.db.migrations.executor import MigrationExecutor
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from sipgate_provider import errors
from sipgate_provider import metrics as counting
from sipgate_provider.keeper import sealing


@never_cache
@require_safe
@transaction.non_atomic_requests
def healthz(request: HttpRequest) -> JsonResponse:
    """Say whether this process can serve: database, pending migrations, keys. 200 or 503; no secrets, no versions."""
    state = {"database": _database_state(), "keys": _keys_state()}
    healthy = all(value == "ok" for value in state.values())
    return JsonResponse({"status": "ok" if healthy else "failing", **state}, status=200 if healthy else 503)


def _database_state() -> str:
    try:
        executor = MigrationExecutor(connections["default"])
        return "migrations pending" if executor.migration_plan(executor.loader.graph.leaf_nodes()) else "ok"
    except DatabaseProblem:
        return "unreachable"


def _keys_state() -> str:
    try:
        sealing.first_key_id()
    except errors.Misconfigured:
        return "SIPGATE_TOKEN_KEYS is missing or malformed"
    return "ok"


@never_cache
@require_safe
@transaction.non_atomic_requests
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer Prometheus, if it has the bearer token ``METRICS_TOKEN``. Without one set there is no such page."""
    if not settings.METRICS_TOKEN or not counting.is_on():
        raise Http404
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not constant_time_compare(given.strip(), settings.METRICS_TOKEN):
        return HttpResponse(status=401, headers={"WWW-Authenticate": 'Bearer realm="metrics"'})
    from sipgate_provider import exposition  # needs prometheus-client, which is optional

    body, content_type = exposition.render(request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=content_type)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return render(request, "403_csrf.html", status=403)
