"""The Celery application of ``test_celery``, as a site would have one.

``SIPGATE_MESSAGES`` is the folder of its messages. ``SIPGATE_FIRST`` is a connection that the main
process uses before it forks.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, signals
from django.utils import timezone


def celery(folder: Path) -> Celery:
    """Return an application that needs no server: its messages are files in ``folder``."""
    made = Celery("site", broker="filesystem://", backend=f"file://{folder}/results")
    made.conf.broker_transport_options = {
        "data_folder_in": f"{folder}/messages",
        "data_folder_out": f"{folder}/messages",
        "control_folder": f"{folder}/control",
    }
    return made


app = celery(Path(os.environ.get("SIPGATE_MESSAGES", "")))


@app.task
def use(connection: int) -> list[Any]:
    """Use a token; tell its version, and in which process that was.

    It ends when a refresh of it is under way.
    """
    from sipgate_provider import tokens
    from sipgate_provider.models import Freshness

    token = tokens.token(connection)
    while (row := tokens.load(connection)) and not row.lease_holder and row.number == token.number:
        if row.freshness(timezone.now()) is Freshness.FRESH:
            break
        time.sleep(0.01)
    return [token.number, os.getpid()]


@signals.worker_init.connect
def use_before_the_fork(**_kwargs: Any) -> None:
    if number := os.environ.get("SIPGATE_FIRST"):
        from sipgate_provider import tokens

        tokens.token(int(number))
