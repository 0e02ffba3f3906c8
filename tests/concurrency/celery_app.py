"""The Celery application of ``test_celery``, as a site would have one. Settings as ``tests.worker_settings``.

``CELERY_BROKER_URL`` is the test's Redis; ``SIPGATE_FIRST`` a connection that the main process uses before it forks.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery, signals
from django.utils import timezone

app = Celery("site", backend=os.environ["CELERY_BROKER_URL"])
app.conf.broker_connection_retry_on_startup = True
app.conf.beat_schedule = {"sipgate": {"task": "keepalive", "schedule": 1.0}}


@app.task(name="keepalive")
def keepalive() -> dict[str, object]:
    from sipgate_provider import tasks

    return tasks.keepalive()


@app.task
def use(connection: int) -> list[Any]:
    """Use a token; tell its generation, and in which process that was. Ends when a refresh of it is under way."""
    from sipgate_provider.tokens import gate, store

    token = gate.usable(connection)
    while (
        (row := store.load(connection))
        and not row.lease_owner
        and row.generation == token.generation
    ):
        if gate.freshness(row, timezone.now()) is gate.Freshness.FRESH:
            break
        time.sleep(0.01)
    return [token.generation, os.getpid()]


@signals.worker_init.connect
def use_before_the_fork(**_kwargs: Any) -> None:
    if number := os.environ.get("SIPGATE_FIRST"):
        from sipgate_provider.tokens import gate

        gate.usable(int(number))
