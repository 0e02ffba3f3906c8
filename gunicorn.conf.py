"""gunicorn reads this file from the folder where it starts. Arguments take precedence."""

import os
import subprocess
import sys
from pathlib import Path

worker_class = "gthread"
workers = 2
threads = 8
# A worker that is told to stop answers its requests (25 s at most) and finishes the refreshes it
# has sent (30 s).
graceful_timeout = 70
timeout = 90
accesslog = "-"
# %(U)s is the path without the query: the callback's query carries sipgate's authorization code.
access_log_format = '%(h)s "%(m)s %(U)s" %(s)s %(b)s %(M)sms'
# Only the proxy's headers that settings.py trusts: no SCRIPT_NAME, which would end up in links.
forwarder_headers = ""
control_socket_disable = True  # it would be in the home folder, which a service's user often lacks


def on_starting(_server: object) -> None:
    """Run the checks that ``runserver`` runs, so that the start reports once what cannot work.

    They run in a process of their own, so that workers load the site themselves, even on a reload.
    """
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        Path(folder).mkdir(parents=True, exist_ok=True)  # the site does not load without it
    checked = subprocess.run(
        [sys.executable, "manage.py", "check"], stdout=subprocess.DEVNULL, check=False
    )
    if checked.returncode:
        sys.exit(1)


def post_worker_init(_worker: object) -> None:
    """Recover what a killed worker left in the journal; let SIGTERM cancel queued refreshes."""
    from sipgate_provider import tokens

    tokens.begin_process()
