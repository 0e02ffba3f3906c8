"""A tiny server on a raw socket: it sends exactly the bytes it is told, and remembers requests.

No library's server lets an answer end within its headers, or drip, or be silent.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import parse_qs

Answer = Callable[["Asked"], bool]
"""Writes an answer; returns whether the connection stays open."""


@dataclass
class Asked:
    """One request as it arrived; ``connection`` counts the connections from 1."""

    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    socket: socket.socket = field(repr=False)

    @property
    def form(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(self.body.decode()).items()}


class RawServer:
    """Answers the first request with the first of ``answers``, and so on; the last one is for all further requests."""

    def __init__(self, *answers: Answer, context: ssl.SSLContext | None = None) -> None:
        self.answers = answers
        self.asked: list[Asked] = []
        self.connections = 0
        self._context = context
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._closed = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                number = self.connections
                self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            stack.enter_context(connection)
            reader = stack.enter_context(connection.makefile("rb"))
            while True:
                asked = _read(reader, connection, number)
                if asked is None:
                    break
                with self._lock:
                    answer = self.answers[min(len(self.asked), len(self.answers) - 1)]
                    self.asked.append(asked)
                if not answer(asked):
                    break
        # Both directions: a reader of the same socket would keep it open.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    @property
    def methods(self) -> list[str]:
        return [asked.method for asked in self.asked]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(
                socket.SHUT_RDWR
            )  # wakes who accepts; until then the port stays open
        self._listening.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _read(reader: BinaryIO, connection: socket.socket, number: int) -> Asked | None:
    line = reader.readline()
    if not line:
        return None
    method, path, _ = line.decode("latin-1").split(" ", 2)
    headers = {}
    while (line := reader.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", 0)))
    return Asked(number, method, path, headers, body, connection)


@contextmanager
def serving(*answers: Answer, context: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    server = RawServer(*answers, context=context)
    try:
        yield server
    finally:
        server.close()


# --- answers ----------------------------------------------------------------------------------------------------------


def message(status: str = "200 OK", body: bytes = b"{}", **headers: str) -> bytes:
    """Return a whole answer; ``content_type="…"`` becomes a header."""
    named = {"Content-Type": "application/json"} | {
        key.replace("_", "-").title(): v for key, v in headers.items()
    }
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in named.items() if value)]
    if "Content-Length" not in named and "Transfer-Encoding" not in named:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def whole(status: str = "200 OK", body: bytes = b"{}", **headers: str) -> Answer:
    def answer(asked: Asked) -> bool:
        asked.socket.sendall(message(status, body, **headers))
        return True

    return answer


def of_json(data: object, status: str = "200 OK", **headers: str) -> Answer:
    return whole(status, json.dumps(data).encode(), **headers)


def cut(data: bytes = b"") -> Answer:
    """Say ``data``, then hang up."""

    def answer(asked: Asked) -> bool:
        asked.socket.sendall(data)
        return False

    return answer


def silent(data: bytes = b"") -> Answer:
    """Say ``data``, then nothing until the other side goes away."""

    def answer(asked: Asked) -> bool:
        asked.socket.sendall(data)
        with contextlib.suppress(OSError):
            asked.socket.recv(1)
        return False

    return answer


def drip(data: bytes, pause: float) -> Answer:
    """Say ``data`` byte by byte."""

    def answer(asked: Asked) -> bool:
        with contextlib.suppress(OSError):
            for byte in data:
                asked.socket.sendall(bytes([byte]))
                time.sleep(pause)
        return False

    return answer
