"""The sandbox's HTTP server, with threads, kept connections, and faults on the wire.

It uses the standard library, because faults need the raw socket: no production server can end an answer within its
headers.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from . import counters

MAX_BODY = 30_000_000
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    application: Application
    quiet = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of clients that have gone away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120

    def setup(self) -> None:
        super().setup()
        counters.add("connections")

    def _serve(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MAX_BODY))
        captured: list[Any] = []
        chunks = self.server.application(
            self._environ(body), lambda status, headers, *_: captured.extend([status, headers])
        )
        content = b"".join(chunks)
        close = getattr(chunks, "close", None)
        if close:
            close()
        status, headers = captured
        wire = next(
            (json.loads(value) for name, value in headers if name == "X-Sandbox-Wire"), ["", 0]
        )
        headers = [
            (name, value)
            for name, value in headers
            if name not in {"X-Sandbox-Wire", "Content-Length"}
        ]
        self._answer(status, headers, content, *wire)
        self.log_request()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _serve  # noqa: N815  # the names of http.server

    def _answer(
        self,
        status: str,
        headers: list[tuple[str, str]],
        content: bytes,
        fault: str,
        seconds: float,
    ) -> None:
        if fault == "hang":
            time.sleep(seconds)
        if fault == "reset":
            return self._reset()
        if fault in {"hang", "lose-answer"}:
            return self._hang_up()
        if fault == "no-type":
            headers = [(name, value) for name, value in headers if name.lower() != "content-type"]
        if fault == "wrong-type":
            headers = [
                (name, "text/html" if name.lower() == "content-type" else value)
                for name, value in headers
            ]
        # Other servers send a date as well, and a client may compare clocks.
        ahead = seconds if fault == "misdated" else 0.0
        headers = [*headers, ("Date", formatdate(time.time() + ahead, usegmt=True))]
        head = self._head(status, headers, len(content) + (10 if fault == "cut" else 0))
        if fault == "cut-headers":
            self.wfile.write(head[: len(head) // 2])
            return self._hang_up()
        if fault == "drip":
            return self._drip(head + content, seconds)
        self.wfile.write(head + (b"" if self.command == "HEAD" else content))
        if fault == "cut":
            self._hang_up()
        return None

    def _drip(self, data: bytes, seconds: float) -> None:
        for byte in data:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(seconds)

    def _head(self, status: str, headers: list[tuple[str, str]], length: int) -> bytes:
        lines = [
            f"HTTP/1.1 {status}",
            *(f"{name}: {value}" for name, value in headers),
            f"Content-Length: {length}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _reset(self) -> None:
        # Closed at once, together with the reader, which would keep the socket open.
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def _environ(self, body: bytes) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        host, port = self.server.server_address[:2]
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": _unquoted(path),
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": str(host),
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": self.client_address[0],
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in self.headers.items():
            environ.setdefault("HTTP_" + name.upper().replace("-", "_"), value)
        return environ

    def log_message(self, template: str, *arguments: Any) -> None:
        """Print method and path, but not the query, which contains codes and states."""
        if not self.server.quiet:
            sys.stderr.write(f"sandbox: {self.command} {self.path.partition('?')[0]}\n")

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        self.log_message("")


def _unquoted(path: str) -> str:
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(path).decode("latin-1")
