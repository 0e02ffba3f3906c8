"""A small authorization server that rotates refresh tokens; a reused one ends its whole family.

Quick enough to be the counterpart of thousands of refreshes; the sandbox is the counterpart of journeys. Runs as a
process of its own (``python -m tests.rotator``), is steered and read over HTTP (``/control``).
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs

import requests

REJECTIONS = {
    "client": (401, "unauthorized_client", "Invalid client secret"),
    "consent": (400, "invalid_scope", "Client no longer has requested consent from user"),
}
"""Faults that are an error in the sense of RFC 6749, and spend nothing."""
ODDITIES: dict[str, dict[str, Any]] = {
    "odd": {"expires_in": "soon"},
    "huge": {"access_token": "x" * 20_000},
    "no refresh token": {"refresh_token": None},
}
"""Faults that spoil a part of an answer."""
USUAL = {
    "latency": 0.0,
    "lifetime": 300,
    "fault": "",
    "times": 0,
    "refresh_lifetime": 2592000,
    "suspended": False,
    "fixed_end": 0,  # seconds since 1970
    "without": "",  # "revoke", "logout" or "both": what does not exist here
}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.spent: dict[str, str] = {}
        self.live: dict[str, str] = {}  # refresh token → family
        self.access: dict[str, str] = {}  # access token → family
        self.current: dict[str, str] = {}  # family → access token
        self.dead: set[str] = set()
        self.counts: dict[str, int] = defaultdict(int)
        self.epoch = 0
        self.set: dict[str, Any] = dict(USUAL)

    def issue(self, family: str) -> dict[str, Any]:
        access, refresh = f"at-{secrets.token_urlsafe(600)}", f"rt-{secrets.token_urlsafe(600)}"
        self.live[refresh] = family
        self.access.pop(self.current.get(family, ""), None)
        self.current[family] = access
        self.access[access] = family
        return {
            "access_token": access,
            "refresh_token": refresh,
            "token_type": "Bearer",
            "scope": "account:read",
            "expires_in": self.set["lifetime"],
            "refresh_expires_in": self.refresh_lifetime(),
            "session_state": family,
        }

    def refresh_lifetime(self) -> Any:
        """Return what is left until the fixed end, if there is one and it is near."""
        lifetime, end = self.set["refresh_lifetime"], self.set["fixed_end"]
        return min(lifetime, max(int(end - time.time()), 0)) if end else lifetime

    def rotate(self, token: str) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.counts["refresh"] += 1
            if token in self.spent:
                self.counts["reuse"] += 1
                self.dead.add(self.spent[token])
                return 400, {
                    "error": "invalid_grant",
                    "error_description": "Maximum allowed refresh token reuse exceeded",
                }
            if self.set["suspended"]:
                self.counts["rejected"] += 1
                return 400, {"error": "invalid_grant", "error_description": "User disabled"}
            family = self.live.get(token)
            if family is None or family in self.dead:
                self.counts["rejected"] += 1
                return 400, {"error": "invalid_grant", "error_description": "Session not active"}
            del self.live[token]
            self.spent[token] = family
            self.counts["rotated"] += 1
            return 200, self.issue(family)

    def take_fault(self) -> str:
        with self.lock:
            if not self.set["fault"] or self.set["times"] <= 0:
                return ""
            self.set["times"] -= 1
            return str(self.set["fault"])


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.counts["connections"] += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.path == "/control":
            return self._control(json.loads(body))
        form = {key: values[0] for key, values in parse_qs(body).items()}
        if self.path.endswith(("/logout", "/revoke")):
            return self._end(form)
        return self._token(form)

    def _token(self, form: dict[str, str]) -> None:
        with self.server.lock:
            self.server.counts["arrived"] += 1
            epoch = self.server.epoch
        fault = self.server.take_fault()
        if fault in REJECTIONS:
            status, error, description = REJECTIONS[fault]
            return self._answer(status, {"error": error, "error_description": description})
        if fault in {"500", "503", "429"}:
            return self._answer(
                int(fault), {"error": "unknown_error"}, retry_after="7" if fault == "429" else ""
            )
        if fault == "hang":
            time.sleep(float(self.server.set.get("hang", 30)))
        self._be_slow()
        if epoch != self.server.epoch:  # it waited into the next test, which counts for itself
            self.close_connection = True
            return None
        if form.get("grant_type") != "refresh_token":
            return self._answer(400, {"error": "unsupported_grant_type"})
        status, answer = self.server.rotate(form.get("refresh_token", ""))
        if fault == "lose":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        if fault == "garbage":
            return self._raw(200, b'{"access_token": ')
        answer.update(ODDITIES.get(fault, {}))
        if fault == "late":
            time.sleep(float(self.server.set.get("late", 1)))
        return self._answer(status, answer)

    def _be_slow(self) -> None:
        """Wait for ``latency``, or until a test has made it shorter."""
        began = time.monotonic()
        while (left := began + float(self.server.set["latency"]) - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))

    def _end(self, form: dict[str, str]) -> None:
        """End a family, as Keycloak does: by a spent token of it too; a revocation is always answered with 200."""
        is_revocation = self.path.endswith("/revoke")
        name = "revoke" if is_revocation else "logout"
        fault = self.server.take_fault()
        if fault:
            return self._answer(int(fault) if fault.isdigit() else 503, {})
        with self.server.lock:
            self.server.counts[f"{name}_asked"] += 1
        self._be_slow()
        if self.server.set.get("without", "") in {name, "both"}:
            return self._answer(404, {})
        token = form.get("token" if is_revocation else "refresh_token", "")
        with self.server.lock:
            family = self.server.live.pop(token, None) or self.server.spent.get(token)
            self.server.counts[name if family else f"{name}_unknown"] += 1
            if family:
                self.server.dead.add(family)
        if is_revocation:
            return self._raw(200, b"")
        if family:
            return self._raw(204, b"")
        return self._answer(400, {"error": "invalid_grant"})

    def do_GET(self) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        with self.server.lock:
            family = self.server.access.get(token)
            good = family is not None and family not in self.server.dead
            self.server.counts["api" if good else "api_401"] += 1
        self._answer(
            200 if good else 401,
            {"company": "Strict GmbH", "mainProductType": "TEAM", "verified": True} if good else {},
        )

    def _control(self, order: dict[str, Any]) -> None:
        with self.server.lock:
            if order.get("issue"):
                family = order.get("family") or ""
                answer: Any = [
                    self.server.issue(family or secrets.token_hex(8)) for _ in range(order["issue"])
                ]
            elif "expire_access" in order:
                self.server.access.clear()
                answer = {}
            elif "kill" in order:
                self.server.dead.update(self.server.live.values())
                answer = {}
            else:
                self.server.set.update(order.get("set", {}))
                if order.get("reset"):
                    self.server.epoch += 1
                    self.server.counts.clear()
                    self.server.dead.clear()
                answer = {**self.server.counts, "dead": len(self.server.dead)}
        self._answer(200, answer)

    def _answer(self, status: int, data: Any, *, retry_after: str = "") -> None:
        self._raw(status, json.dumps(data).encode(), retry_after)

    def _raw(self, status: int, body: bytes, retry_after: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: Any) -> None:
        pass


class Rotator:
    """The server as a test sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.token_url = f"{url}/auth/realms/third-party/protocol/openid-connect/token"
        self.api_url = f"{url}/v2"

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        command = [sys.executable, "-m", "tests.rotator"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield cls(process.stdout.readline().strip())
            finally:
                process.kill()

    def control(self, **order: Any) -> Any:
        return requests.post(f"{self.url}/control", json=order, timeout=20).json()

    def issue(self, number: int = 1, *, family: str = "") -> list[dict[str, Any]]:
        """Return new grants; of one browser session at the server (``session_state``), if ``family`` names one."""
        return self.control(issue=number, family=family)

    def counts(self) -> dict[str, int]:
        return defaultdict(int, self.control())

    def set(self, **values: Any) -> None:
        self.control(set=values)

    def reset(self) -> None:
        self.control(reset=True, set=USUAL)


if __name__ == "__main__":
    server = Server()
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
