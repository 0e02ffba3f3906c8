"""``python -m sipgate_sandbox`` serves the sandbox, and steers a running one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import requests

from sipgate_sandbox import faults
from sipgate_sandbox.launch import Running, launch
from tests.ports import free_port
from tests.raw_server import cut, serving, whole

ROOT = Path(__file__).resolve().parents[2]


class TestSteering:
    def test_fault_and_clear(self, sandbox):
        steer(sandbox, "fault", "slow", "--on", "refresh", "--times", "3")
        steer(sandbox, "fault", "unavailable", "--times", "0")
        armed = sandbox.control.state()["faults"]
        assert [(one["fault"], one["on"], one["times"]) for one in armed] == [
            ("slow", "refresh", 3),
            ("unavailable", "all", None),
        ]
        steer(sandbox, "clear")
        steer(sandbox, "fault", "change", "--on", "token", "--value", '{"scope": "all"}')
        assert [one["value"] for one in sandbox.control.state()["faults"]] == [{"scope": "all"}]
        steer(sandbox, "clear")
        assert sandbox.control.state()["faults"] == []

    def test_sandbox_port_names_the_port(self, sandbox):
        done = run("fault", "unavailable", SANDBOX_PORT=port_of(sandbox))
        assert (done.returncode, done.stderr) == (0, "")
        assert [one["fault"] for one in sandbox.control.state()["faults"]] == ["unavailable"]

    def test_help_lists_faults_and_places(self):
        words = re.findall(r"[\w-]+", run("fault", "--help", COLUMNS="500").stdout)
        assert {*faults.KNOWN, *faults.PLACES} <= set(words)

    def test_the_sandbox_rejects_an_order(self, sandbox):
        done = run("fault", "change", "--value", "3", "--port", port_of(sandbox))
        one_sentence(done, "value must be a JSON object")

    def test_another_server_or_none_is_there(self):
        one_sentence(run("clear", SANDBOX_PORT=str(free_port())), "Set SANDBOX_PORT")
        for answer in (
            whole("404 Not Found", b"<html>"),
            whole("200 OK", b"<html>"),
            cut(b"SSH-2.0-x\r\n"),
        ):
            with serving(answer) as server:
                done = run("clear", SANDBOX_PORT=server.url.rpartition(":")[2])
                one_sentence(done, "No sandbox answers at http://localhost:")

    def test_wrong_arguments(self):
        for arguments in (
            (),
            ("dance",),
            ("fault",),
            ("fault", "x"),
            ("fault", "change", "--value", "x"),
            ("serve", "--port", "x"),
        ):
            done = run(*arguments)
            assert done.returncode == 2
            assert "usage: python -m sipgate_sandbox" in done.stderr


class TestServing:
    def test_busy_port(self):
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = str(busy.getsockname()[1])
            one_sentence(run("serve", "--port", port), f"Port {port} cannot be used", "--port")
        one_sentence(run("serve", "--port", "65536"), "Port 65536 cannot be used")

    def test_it_listens_on_this_machine_only(self, sandbox):
        with socket.create_server(("127.0.0.2", int(port_of(sandbox)))):
            pass  # the address would be in use if the sandbox listened on all

    def test_the_database_outlives_the_process(self, tmp_path):
        database = str(tmp_path / "kept.sqlite3")
        alive = []
        for _ in range(2):
            with launch("--database", database) as one:
                query = "client_id=1000000-1-sandbox%3Athird-party&response_type=code"
                uri = "redirect_uri=http%3A%2F%2Flocalhost%3A8080%2Foauth"
                requests.post(
                    f"{one.oidc_url}/auth?{query}&{uri}", data={"person": "1000000w0"}, timeout=10
                )
                alive.append(one.control.state()["sessions_alive"])
                one.process.terminate()
                assert one.process.wait(10) == -signal.SIGTERM
        assert alive == [1, 2]

    def test_it_prints_no_requests(self, tmp_path):
        command = [sys.executable, "-m", "sipgate_sandbox", "serve", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--database", str(tmp_path / "x.sqlite3")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        for path in ("v2/account?code=s3cret", "nothing", "_sandbox/state"):
            requests.get(f"{url}/{path}", timeout=10)
        process.terminate()
        assert process.communicate(timeout=10) == ("", "")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sipgate_sandbox", *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def steer(sandbox: Running, *arguments: str) -> None:
    done = run(*arguments, "--port", port_of(sandbox))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def port_of(sandbox: Running) -> str:
    return sandbox.url.rpartition(":")[2]


def one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("sandbox: ")
    for word in words:
        assert word in done.stderr
