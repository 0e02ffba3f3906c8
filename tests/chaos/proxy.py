"""A TCP proxy between a process and what it talks to: the network of a test, which can stall and
cut.

While it is stalled, nothing gets through. What a client has reset meanwhile is thrown away, as a
network would: the packets of a connection that its owner has given up are not delivered later.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable

BYTES = 65_536
GONE = select.POLLERR | select.POLLHUP
NAP = 0.1
"""Seconds after which a thread that waits for bytes looks whether the network is still there."""


class Proxy:
    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._is_open = threading.Event()
        self._is_open.set()
        self._ended = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Let nothing through until ``heal``; nobody is told."""
        self._is_open.clear()

    def cut(self) -> None:
        """Reset every connection; new ones can be made."""
        with self._lock:
            connections, self._open = self._open, set()
        for one in connections:
            _reset(one)

    def heal(self) -> None:
        self._is_open.set()

    def close(self) -> None:
        self._ended = True
        self.heal()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._is_open.wait()
        if _is_gone(client):
            return client.close()
        try:
            server = self._connect()
        except OSError:
            return _reset(client)
        with self._lock:
            self._open |= {client, server}
        there = threading.Thread(target=self._pump, args=(client, server), daemon=True)
        there.start()
        self._pump(server, client)
        there.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()
        return None

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Carry bytes one way, until one side ends."""
        try:
            while data := self._next(source):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except (OSError, ValueError):  # ValueError: it was closed here
            for one in (source, sink):
                _reset(one)

    def _next(self, source: socket.socket) -> bytes:
        while True:
            self._is_open.wait()
            if not select.select([source], [], [], NAP)[0]:
                continue
            if self._is_open.is_set():
                if _is_gone(source):
                    raise ConnectionResetError
                return source.recv(BYTES)


def _is_gone(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return any(found & GONE for _, found in poll.poll(0))


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Whoever reads it in another thread is woken up.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
