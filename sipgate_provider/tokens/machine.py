"""Gives this machine a name, which is kept in the journal's folder, and takes a kernel lock for each connection.

The kernel releases a lock when its holder ends, however it ends, and keeps it while the holder is paused. So on one
machine nobody has to ask a clock whether a refresh is still under way. Folder::

    machine                 random; with the folder's device and inode it names the machine, so a copy gets a new name
    7b/123.lock             the lock of connection 123; holds the note of what was sent last
    7b/123-….sealed         journal entries (see ``journal``)

Without a folder, or on a file system without locks, there is no lock, and leases end by time only.

Must not know: rows, tokens, what a lock is for.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import threading
import time
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sipgate_provider import conf

logger = logging.getLogger(__name__)

SHARDS = 256
"""Number of folders for the files of connections. Looking for one connection's files lists one folder."""
OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
LOOK_LASTS = 0.02
"""A lock that is held for longer than this (seconds) is not just being looked at."""


class LockHeld(Exception):
    """Another refresh of this connection is under way on this machine.

    Attributes:
        pid: the process that holds the lock; 0 if that is not known.
        seconds: how long ago it took the lock, or noted what it sends.
    """

    def __init__(self, pid: int, seconds: float) -> None:
        super().__init__(f"held by process {pid} for {seconds:.0f} s")
        self.pid, self.seconds = pid, seconds


@dataclass(frozen=True, slots=True)
class Note:
    """What was sent last from this machine: the refresh token of a generation of a consent."""

    consent_id: uuid.UUID
    generation: int

    def says_sent(self, consent_id: uuid.UUID, generation: int) -> bool:
        """Tell whether this token may have been sent. Generations only grow: a later one means that the database has
        gone back since."""
        is_this = (self.consent_id, self.generation) == (consent_id, generation)
        return is_this or self.generation > generation


def shard(connection_id: int) -> Path | None:
    """Return the folder of a connection's files; it need not exist. None: there is no journal."""
    directory = conf.journal_directory()
    return None if directory is None else _shards(directory)[connection_id % SHARDS]


@lru_cache(maxsize=8)
def _shards(directory: Path) -> list[Path]:
    return [directory / f"{number:02x}" for number in range(SHARDS)]


def place() -> str:
    """Return ``machine.boot``, which names the locks of this folder under this kernel; empty without a folder.

    Across a restart of the machine, or between two that share a folder, a lock proves nothing.
    """
    directory = conf.journal_directory()
    if directory is None:
        return ""
    try:
        found = directory.stat()
        return f"{_name(directory, found.st_dev, found.st_ino)}.{_boot()}"
    except OSError:
        pass
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
        return f"{_name(directory, found.st_dev, found.st_ino)}.{_boot()}"
    except OSError as error:
        logger.error(
            "SIPGATE_JOURNAL_DIR: this user cannot keep files in %s (%s); until then refreshes have no safety net",
            directory,
            error.strerror,
        )
        return ""


@lru_cache(maxsize=8)
def _name(directory: Path, device: int, inode: int) -> str:
    file = directory / "machine"
    try:
        made = file.read_bytes()
    except FileNotFoundError:
        # Linked only when it is complete. No lock: a child that was forked meanwhile would keep it.
        draft = directory / f".machine.{uuid.uuid4().hex[:8]}.draft"
        draft.touch(mode=0o600)
        draft.write_bytes(uuid.uuid4().hex.encode())
        try:
            with contextlib.suppress(FileExistsError):
                os.link(draft, file)
        finally:
            draft.unlink()
        made = file.read_bytes()
    return hashlib.sha256(b"%s %d %d" % (made, device, inode)).hexdigest()[:16]


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:16]
    except OSError:
        return uuid.uuid4().hex[
            :16
        ]  # another process cannot know it: locks are not trusted, time decides


class Lock:
    """The lock of a connection, held until ``release`` or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def note(self) -> Note | None:
        """Return what was sent last, if it is not known to have been answered without success."""
        parts = _read(self._descriptor)
        try:
            return Note(uuid.UUID(parts[1]), int(parts[2]))
        except (IndexError, ValueError):
            return None

    def write_note(self, note: Note | None) -> None:
        text = (
            f"{os.getpid()}"
            if note is None
            else f"{os.getpid()} {note.consent_id.hex} {note.generation}"
        )
        with contextlib.suppress(OSError):  # the disk is full; the row still has its mark
            os.pwrite(self._descriptor, f"{text}\n".encode(), 0)
            os.ftruncate(self._descriptor, len(text) + 1)

    def remove_file(self) -> None:
        """Remove the file: its connection is gone. A process that waits for it notices, and makes a new one."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def release(self) -> None:
        _close(self._descriptor)


def lock(connection_id: int) -> Lock | None:
    """Take the lock of a connection, without waiting. None: there are no locks here.

    Raises:
        LockHeld: somebody else has it.
    """
    folder = shard(connection_id)
    if folder is None:
        return None
    path, give_up = folder / f"{connection_id}.lock", time.monotonic() + LOOK_LASTS
    try:
        while True:
            try:
                descriptor = _open(path, OPEN | os.O_CREAT)
            except FileNotFoundError:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                continue
            held = Lock(path, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_the_file(descriptor, path):
                    held.write_note(
                        held.note()
                    )  # with the number of this process, for whoever has to wait
                    return held
                held.release()  # a holder has removed the file meanwhile
            except BlockingIOError:
                holder = _holder(descriptor)
                held.release()
                if time.monotonic() > give_up:
                    raise holder from None
                time.sleep(LOOK_LASTS / 10)
            except OSError:
                held.release()
                raise
    except OSError as error:
        logger.error("A refresh goes on without a lock: %s", error.strerror)
        return None


def look(connection_id: int) -> bool:
    """Return whether there are locks here, as far as the lock of this connection tells. It is taken only for a moment.

    Raises:
        LockHeld: somebody has it.
    """
    folder = shard(connection_id)
    if folder is None:
        return False
    try:
        descriptor = _open(folder / f"{connection_id}.lock", OPEN)
    except FileNotFoundError:
        return True  # nobody has ever taken it
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _holder(descriptor) from None
    except OSError:
        return False
    finally:
        _close(descriptor)
    return True


def _open(path: Path, flags: int) -> int:
    with _guard:
        descriptor = os.open(path, flags, 0o600)
        _held.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    with _guard:
        _held.discard(descriptor)
        os.close(descriptor)


def _holder(descriptor: int) -> LockHeld:
    parts = _read(descriptor)
    pid = int(parts[0]) if parts and parts[0].isdigit() else 0
    return LockHeld(pid, time.time() - os.fstat(descriptor).st_mtime)


def _read(descriptor: int) -> list[str]:
    try:
        return os.pread(descriptor, 200, 0).decode("ascii", "replace").split()
    except OSError:
        return []


def _is_the_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


# A forked child shares the lock of its parent and would keep it beyond the parent's end: it closes what it inherits.
_guard = threading.Lock()
_held: set[int] = set()


def _close_inherited() -> None:
    global _guard
    _guard = threading.Lock()
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


def _release_guard() -> None:
    _guard.release()


os.register_at_fork(
    before=lambda: _guard.acquire(), after_in_parent=_release_guard, after_in_child=_close_inherited
)
