"""``python -m sipgate_sandbox``: serving, and steering what serves."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from sipgate_sandbox import faults
from sipgate_sandbox.launch import Running, launch
from tests.raw_server import cut, serving, whole

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sipgate_sandbox", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def one_sentence(done: subprocess.CompletedProcess[str], words: str, *, code: int = 1) -> None:
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("sandbox: ")
    assert words in done.stderr


class TestSteering:
    def told(self, sandbox: Running, *arguments: str) -> Any:
        done = run(*arguments, "--url", sandbox.url)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def test_fault_faults_clear_state(self, sandbox: Running) -> None:
        armed = self.told(
            sandbox,
            "fault",
            "slow",
            "--on",
            "refresh",
            "--times",
            "3",
            "--seconds",
            "0.5",
            "--value",
            "x",
        )
        assert armed == [
            {"fault": "slow", "on": "refresh", "times": 3, "seconds": 0.5, "value": "x", "fired": 0}
        ]
        assert self.told(sandbox, "faults") == armed
        assert self.told(sandbox, "state")["faults"] == armed
        assert self.told(sandbox, "clear") == []
        assert sandbox.control.faults() == []

    def test_times_of_zero_means_until_cleared(self, sandbox: Running) -> None:
        assert self.told(sandbox, "fault", "unavailable", "--times", "0")[0]["times"] is None

    def test_an_unknown_fault(self, sandbox: Running) -> None:
        one_sentence(
            run("fault", "nonsense", "--url", sandbox.url),
            "Unknown fault. Known are: unauthorized, ",
        )
        assert sandbox.control.faults() == []

    def test_help_lists_faults_and_places(self) -> None:
        told = run("fault", "--help").stdout
        assert set(faults.KNOWN) <= set(told.split())
        assert set(faults.PLACES) <= set(re.findall(r"\w+", told))

    def test_the_sites_command_reaches_the_sites_sandbox(self, sandbox: Running) -> None:
        done = subprocess.run(
            [sys.executable, "manage.py", "sipgate_sandbox", "fault", "unavailable"],
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "sipgate_project.settings",
                "SANDBOX_URL": sandbox.url,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert [one["fault"] for one in sandbox.control.faults()] == ["unavailable"]

    def test_nobody_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        one_sentence(
            run("state", "--url", f"http://localhost:{port}"),
            f"No sandbox answers at http://localhost:{port}.",
        )

    @pytest.mark.parametrize(
        "answer",
        [
            whole("404 Not Found", b"<html>"),
            whole("200 OK", b"<html>"),
            whole("400 No", b"[]"),
            cut(b"SSH-2.0-x\r\n"),
            cut(),
        ],
        ids=["404", "page", "list", "ssh", "cut"],
    )
    def test_somebody_else_is_there(self, answer: Any) -> None:
        with serving(answer) as server:
            one_sentence(run("state", "--url", server.url), f"No sandbox answers at {server.url}.")

    def test_an_address_that_is_none(self) -> None:
        one_sentence(run("state", "--url", "nonsense"), "nonsense")

    @pytest.mark.parametrize("arguments", [(), ("dance",), ("fault",), ("serve", "--port", "x")])
    def test_wrong_words(self, arguments: tuple[str, ...]) -> None:
        done = run(*arguments)
        assert done.returncode == 2
        assert "usage: python -m sipgate_sandbox" in done.stderr


class TestServing:
    def test_a_busy_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
            one_sentence(run("serve", "--port", str(port)), f"port {port} is in use")

    @pytest.mark.parametrize("port", ["65536", "-1"])
    def test_a_port_that_is_none(self, port: str) -> None:
        done = run("serve", "--port", port)
        assert done.returncode in {1, 2}
        assert "Traceback" not in done.stderr
        assert port in done.stderr

    def test_an_address_of_another_machine(self) -> None:
        one_sentence(run("serve", "--host", "192.0.2.1", "--port", "0"), "cannot be used")

    def test_what_is_stored_outlives_the_process_and_it_stops_when_told(
        self, tmp_path: Path
    ) -> None:
        database = str(tmp_path / "kept.sqlite3")
        keys = []
        for _ in range(2):
            with launch("--database", database) as one:
                keys.append(requests.get(f"{one.oidc_url}/certs", timeout=10).json())
                one.process.terminate()
                assert one.process.wait(10) == 0
        assert keys[0] == keys[1]
        assert (tmp_path / "kept.sqlite3").exists()

    def test_no_query_is_printed(self, tmp_path: Path) -> None:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "sipgate_sandbox",
                "serve",
                "--port",
                "0",
                "--database",
                str(tmp_path / "x.sqlite3"),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        requests.get(f"{url}/v2/account?code=s3cret", timeout=10)
        process.terminate()
        _, told = process.communicate(timeout=10)
        assert "sandbox: GET /v2/account" in told
        assert "s3cret" not in told

    def test_the_sites_command_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """SIGTERM ends ``manage.py sipgate_sandbox`` and what it serves."""
        command = [
            "manage.py",
            "sipgate_sandbox",
            "serve",
            "--port",
            "0",
            "--database",
            str(tmp_path / "x.sqlite3"),
        ]
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert requests.get(f"{url}/", timeout=10).ok
        process.terminate()
        process.communicate(timeout=10)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{url}/", timeout=10)
