"""The keepalive as a task, for sites whose task queue runs tasks at regular intervals.

``keepalive`` is a plain function. With Celery it is also the task ``sipgate_provider.keepalive``, which
``autodiscover_tasks`` finds; with Django's task framework (6.0 and later) it is also the task ``keepalive_task``.

Must not know: which of them a site uses.
"""

from __future__ import annotations

import contextlib

from sipgate_provider import errors
from sipgate_provider.ops import keepalive as keeping


def keepalive() -> dict[str, object]:
    """Do what ``manage.py sipgate_keepalive`` does once; return its report, as ``--json`` writes it. Safe to run twice
    at once.

    Raises:
        errors.SipgateError: it stopped early. The message says why.
    """
    report = keeping.run()
    if report.stopped:
        raise errors.SipgateError(report.stopped)
    return report.as_dict()


with contextlib.suppress(ImportError):
    from celery import shared_task

    shared_task(name="sipgate_provider.keepalive")(keepalive)

with contextlib.suppress(ImportError):
    from django.tasks import task

    @task
    def keepalive_task() -> dict[str, object]:
        """As ``keepalive``."""
        return keepalive()
