"""Where the servers of tests listen."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """Return a port below those of outgoing connections: it is still free when somebody wants it."""
    while True:
        port = random.randrange(20_000, 30_000)
        if not is_open(port):
            return port


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
