"""Excludes the other threads and processes of this machine from the refresh of a connection,
however long it is paused.

The lock ends with its holder, and it frees no lease. Byte *n* of one file belongs to connection
*n*. If Python has no ``fcntl``, or no journal's folder can hold the file, only threads exclude each
other, and the lease does the rest.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator

from sipgate_provider import conf
from sipgate_provider.background import after_fork

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # checked before each use

logger = logging.getLogger(__name__)

_guard = threading.Lock()
_held: set[int] = set()
_file: tuple[str, int] | None = None
"""Path and descriptor. Closing any descriptor of a file frees all of a process's locks on it, so it
is opened once."""


class Busy(Exception):
    """Another thread or process is refreshing this connection."""


@contextlib.contextmanager
def lock(connection_id: int) -> Iterator[None]:
    """Hold the lock of a connection. Raises ``Busy`` if another thread or process has it."""
    with _guard:
        if connection_id in _held:
            raise Busy
        descriptor = _locked(connection_id)
        _held.add(connection_id)
    try:
        yield
    finally:
        with _guard:
            _held.discard(connection_id)
            if descriptor is not None:
                fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, connection_id)


def _locked(connection_id: int) -> int | None:
    """Take the lock among processes; return its file descriptor, or None if there is no such
    lock."""
    try:
        descriptor = _descriptor()
        if descriptor is not None:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, connection_id)
    except BlockingIOError:
        raise Busy from None
    except OSError as error:
        logger.error("SIPGATE_JOURNAL_DIR: a refresh goes on without a lock (%s)", error.strerror)
        return None
    return descriptor


def _descriptor() -> int | None:
    global _file
    folder = conf.journal_directory()
    if fcntl is None or folder is None:
        return None
    path = str(folder / "locks")
    if _file is not None and _file[0] != path and not _held:
        old, _file = _file[1], None
        os.close(old)
    if _file is None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _file = path, os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    return _file[1]


@after_fork
def _forget() -> None:
    """The kernel gives a child none of its parent's locks."""
    global _guard
    _guard = threading.Lock()
    _held.clear()
