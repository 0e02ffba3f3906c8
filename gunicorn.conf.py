"""gunicorn reads this file from the folder in which it is started. Arguments of the command line take precedence."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from gunicorn.glogging import Logger

from sipgate_project.env import Env
from sipgate_project.logs import JsonLines, WithoutQuery

worker_class = "gthread"
workers = 2
threads = 8
# A worker that is told to stop answers its requests (25 s at most) and finishes the refreshes it has sent (30 s).
graceful_timeout = 70
timeout = 90
# %(U)s is the path without the query: the callback's query carries sipgate's authorization code.
accesslog = "-"
access_log_format = '%(h)s "%(m)s %(U)s" %(s)s %(b)s %(M)sms'
control_socket_disable = True  # it would be in the home folder, which a service's user often lacks

try:
    LOG_FORMAT = Env(Path(__file__).resolve().parent).text("LOG_FORMAT", "line").lower()
except ImproperlyConfigured as error:
    sys.exit(f"Configuration: {error}")


class logger_class(Logger):  # type: ignore[misc]  # noqa: N801  # gunicorn has no types, and wants this name
    """Writes gunicorn's log in the site's format, without query strings, which gunicorn quotes for failed requests."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.addFilter(WithoutQuery())
        if LOG_FORMAT == "json":
            for handler in [*self.error_log.handlers, *self.access_log.handlers]:
                handler.setFormatter(JsonLines())


def on_starting(_server: object) -> None:
    """Run the checks that ``runserver`` runs, so that what cannot work is reported once, and not by each worker.

    They run in a process of their own, so that workers load the site themselves, also after a reload.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)  # the site does not load without it
    checked = subprocess.run(
        [sys.executable, "manage.py", "check"], stdout=subprocess.DEVNULL, check=False
    )
    if checked.returncode:
        sys.exit(1)
    if folder:
        forget_ended_processes(Path(folder))


def post_fork(_server: object, _worker: object) -> None:
    """Let workers import the site again: after a reload (SIGHUP) its modules may differ from those imported above."""
    for name in [
        name
        for name in sys.modules
        if name.partition(".")[0] in {"sipgate_project", "sipgate_provider"}
    ]:
        del sys.modules[name]


def post_worker_init(_worker: object) -> None:
    """Recover what a killed worker left in the journal; let SIGTERM cancel the refreshes that are queued."""
    from sipgate_provider import tokens

    tokens.begin_process()


def forget_ended_processes(folder: Path) -> None:
    """Remove the counters of processes that have ended. Those of a keepalive that still runs stay."""
    for file in folder.glob("*.db"):
        number = re.search(r"_([0-9]+)\.db$", file.name)
        if number is None or not Path(f"/proc/{number[1]}").exists():
            file.unlink(missing_ok=True)


def child_exit(_server: Any, worker: Any) -> None:
    """Tell prometheus-client that a worker is gone, if ``PROMETHEUS_MULTIPROC_DIR`` is set."""
    with contextlib.suppress(ImportError, TypeError):
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)
