"""Found by gunicorn in the folder it is started in; arguments of the command line win."""

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
# A worker told to stop answers its requests (25 s at most), finishes refreshes that were sent (30 s), and begins none.
graceful_timeout = 70
timeout = 90
# %(U)s is the path without the query: the callback's query carries sipgate's authorization code.
accesslog = "-"
access_log_format = '%(h)s "%(m)s %(U)s" %(s)s %(b)s %(M)sms'
control_socket_disable = True  # it would lie in the home folder, which a service's user often has not

try:
    LOG_FORMAT = Env(Path(__file__).resolve().parent).text("LOG_FORMAT", "line").lower()
except ImproperlyConfigured as error:
    sys.exit(f"Configuration: {error}")


class logger_class(Logger):  # type: ignore[misc]  # noqa: N801  # gunicorn has no types, and wants this name
    """gunicorn's lines in the site's format. Without queries: gunicorn quotes the address of a request that failed."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.addFilter(WithoutQuery())
        if LOG_FORMAT == "json":
            for handler in [*self.error_log.handlers, *self.access_log.handlers]:
                handler.setFormatter(JsonLines())


def on_starting(_server: object) -> None:
    """Run the checks that ``runserver`` runs: what cannot work is told here, once, and not by each worker.

    In a process of its own, so that workers load the site themselves, also after a reload.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)  # the site cannot be loaded without it
    checked = subprocess.run([sys.executable, "manage.py", "check"], stdout=subprocess.DEVNULL, check=False)
    if checked.returncode:
        sys.exit(1)
    if folder:
        forget_ended_processes(Path(folder))


def post_fork(_server: object, _worker: object) -> None:
    """Let workers load the site anew: after a reload (SIGHUP) its modules may differ from those imported above."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {"sipgate_project", "sipgate_provider"}]:
        del sys.modules[name]


def post_worker_init(_worker: object) -> None:
    """Recover what a worker that was killed left in the journal; let SIGTERM cancel what is queued for sipgate."""
    from sipgate_provider.keeper import journal, threads

    journal.recover_at_start()
    threads.end_at_sigterm()


def forget_ended_processes(folder: Path) -> None:
    """Begin to count anew, but for what still runs: a keepalive beside the site goes on where it was."""
    for file in folder.glob("*.db"):
        number = re.search(r"_([0-9]+)\.db$", file.name)
        if number is None or not Path(f"/proc/{number[1]}").exists():
            file.unlink(missing_ok=True)


def child_exit(_server: Any, worker: Any) -> None:
    """Tell prometheus-client that a worker is gone; without ``PROMETHEUS_MULTIPROC_DIR`` there is nothing to tell."""
    with contextlib.suppress(ImportError, TypeError):
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)
