"""Found by gunicorn in the folder it is started in; arguments of the command line win."""

import contextlib
import subprocess
import sys
from typing import Any

worker_class = "gthread"
workers = 2
threads = 8
# A refresh may ask sipgate twice, 30 s each: a worker told to stop finishes it, so that no rotated token is lost.
graceful_timeout = 70
timeout = 90
# %(U)s is the path without the query: the callback's query carries sipgate's authorization code.
accesslog = "-"
access_log_format = '%(h)s "%(m)s %(U)s" %(s)s %(b)s %(M)sms'


def child_exit(_server: Any, worker: Any) -> None:
    """Tell prometheus-client that a worker is gone, if ``PROMETHEUS_MULTIPROC_DIR`` is set."""
    with contextlib.suppress(ImportError, TypeError):
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)


def on_starting(server: object) -> None:
    """Run the checks that ``runserver`` runs; what cannot work is told here, once, instead of by each worker.

    In a process of its own, so that workers load the site themselves, also after a reload. Then keep queries out of the
    error log: there gunicorn quotes the address of a request that failed.
    """
    checked = subprocess.run([sys.executable, "manage.py", "check"], stdout=subprocess.DEVNULL, check=False)
    if checked.returncode:
        sys.exit(1)
    from sipgate_project.logs import WithoutQuery

    server.log.error_log.addFilter(WithoutQuery())  # type: ignore[attr-defined]  # gunicorn has no types
