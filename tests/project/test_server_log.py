"""What the web server itself writes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[2]
BROKEN = """
import sipgate_project.wsgi

def application(environ, start_response):
    raise RuntimeError("outside of Django")
"""


def test_request_that_fails_outside_of_django_is_logged_without_its_query(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "broken:application",
            "--bind",
            f"127.0.0.1:{port}",
            "--workers",
            "1",
            "--pythonpath",
            str(tmp_path),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        try:
            answer = requests.get(
                f"http://127.0.0.1:{port}/oauth", {"code": "unmistakable"}, timeout=10
            )
            break
        except requests.ConnectionError:
            time.sleep(0.05)
    server.send_signal(signal.SIGTERM)
    log = server.communicate(timeout=20)[0]
    assert answer.status_code == 500
    assert "Error handling request GET /oauth?…" in log
    assert "unmistakable" not in log
