"""Keeps a new pair until the database has it, and proves which token was sent: one sealed file per pair.

sipgate has spent the old refresh token by the time its answer is here. The pair is written here before it is stored, so
that a process may be killed in between. A file is named by connection, consent and the generation that was *sent*: it
proves that token spent, even to somebody who cannot open it. When the database has confirmed the pair, ``.sealed``
becomes ``.stored``; it stays until the next pair of the same consent, since a database may lose commits (a failover, a
restored backup).

*Why not synced to the disk at once:* a killed process loses nothing that it has written, only a machine that loses
power does. A sync costs milliseconds at every refresh; it is paid when the database does not take the pair.

Must not know: sipgate, HTTP, who asked.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.db import transaction

from sipgate_provider import conf, errors, metrics
from sipgate_provider.models import SipgateToken, TokenEvent
from sipgate_provider.remote import log_fields, oauth
from sipgate_provider.remote.per_process import PerProcess
from sipgate_provider.remote.secret import Secret
from sipgate_provider.tokens import database

from . import machine, revocation, rows, sealing, threads

logger = logging.getLogger(__name__)
RECOVERED = metrics.Counter("journal_recovered_total", "Token pairs recovered from the journal.")

WAITING, STORED = ".sealed", ".stored"
MAX_BYTES = 131_072
"""Four tokens of the longest kind, one of them twice."""
NAME = re.compile(r"([0-9]{1,19})-([0-9a-f]{32})-([0-9]{1,19})(\.sealed|\.stored)")
LOCK = re.compile(r"[0-9]{1,19}\.lock")
WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
DRAFT_LASTS, FOREIGN_LASTS = 3_600.0, 86_400.0
"""Seconds after which a killed process's draft, and the files of a consent or connection that is gone, are removed."""
BATCH = 500
"""Rows that one query looks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(rows.Sent):
    """A file of the journal. It names the token that was sent, and has the pair that came back."""

    path: Path

    @property
    def is_waiting(self) -> bool:
        return self.path.suffix == WAITING


class Broken(Exception):
    """An entry will never open: its pair is lost."""


def write(sent: rows.Sent, grant: oauth.Grant, pair: sealing.Pair) -> Entry | None:
    """Write a pair to the journal; return its entry. None: there is no journal, or the disk is not writable."""
    folder = machine.shard(sent.connection_id)
    if folder is None:
        return None
    plain = Secret(json.dumps({"grant": grant.to_dict(), "refresh_token": pair.refresh_token}))
    path = folder / f"{sent.connection_id}-{sent.consent_id.hex}-{sent.generation}{WAITING}"
    try:
        _put(path, sealing.seal(plain.encode(), context=_context(sent)))
    except OSError as error:
        logger.error(
            "SIPGATE_JOURNAL_DIR: a new pair cannot be written to %s (%s)", folder, error.strerror
        )
        return None
    return _entry(path)


def _put(path: Path, content: bytes, *, is_synced: bool = False) -> None:
    """Write a file completely or not at all."""
    draft = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.draft"
    try:
        try:
            descriptor = os.open(draft, WRITE_NEW, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, WRITE_NEW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if is_synced:
                file.flush()
                os.fsync(descriptor)
        draft.rename(path)
    except OSError:
        _remove(draft)
        raise


def sync(entry: Entry) -> None:
    """Flush a pair to the disk, because the database does not take it."""
    logger.warning("A rotated pair waits in the journal: the database does not take it")
    try:
        for place in (entry.path, entry.path.parent):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        logger.error("The journal could not be synced: %s", error.strerror)


def confirm(entry: Entry) -> None:
    """The database has the pair, or something newer. The entry stays as evidence, in place of earlier ones."""
    try:
        if entry.is_waiting:
            entry.path.rename(entry.path.with_suffix(STORED))
    except FileNotFoundError:
        pass  # another process has recovered it
    except OSError as error:
        # Another system user wrote it. It waits for ever, which is harmless, and doctor tells of it.
        logger.error("A journal entry that is stored could not be renamed: %s", error.strerror)
    for other in entries(entry.connection_id):
        if other.consent_id == entry.consent_id and other.generation < entry.generation:
            _remove(other.path)


def entries(connection_id: int | None = None) -> Iterator[Entry]:
    """Yield the entries of the journal, of one connection or of all. Other files are left out."""
    directory = conf.journal_directory()
    if directory is None:
        return
    folders = (
        _folders(directory)
        if connection_id is None
        else [machine.shard(connection_id) or directory]
    )
    start = "" if connection_id is None else f"{connection_id}-"
    for folder in folders:
        for file in _files(folder):
            if (
                file.name.startswith(start)
                and NAME.fullmatch(file.name)
                and file.is_file(follow_symlinks=False)
            ):
                yield _entry(Path(file.path))


def proof(sent: rows.Sent) -> Entry | None:
    """Return the newest entry that proves a token spent: of its consent, and of its generation or a later one."""
    found = [entry for entry in entries(sent.connection_id) if entry.consent_id == sent.consent_id]
    newest = max(found, key=lambda entry: entry.generation, default=None)
    return newest if newest is not None and newest.generation >= sent.generation else None


def recover(entry: Entry) -> bool:
    """Store the pair of an entry, unless the row is newer. Safe to repeat, and to run anywhere at once.

    If the consent or connection of a pair is gone, its grant is ended. In a transaction of the caller the entry stays
    until the commit, because a rollback would undo storing the pair.

    Returns whether the row has this pair now and had not before.

    Raises:
        errors.Misconfigured: the entry cannot be read or opened yet: permission, or its key.
        Broken: it never will.
    """
    opened = _open(entry)
    if opened is None:
        return False  # another process has just recovered and removed it
    grant, pair = opened
    stored = rows.save_refreshed(entry, grant, pair, now=grant.issued_at)
    row = stored or rows.load(entry.connection_id)
    if stored is not None:
        TokenEvent.objects.add(
            TokenEvent.Kind.RECOVERED, row=row, actor="journal", generation=entry.generation + 1
        )
        RECOVERED.count()
        logger.warning(
            "Recovered a pair of connection %s from the journal",
            entry.connection_id,
            extra=log_fields.fields(
                connection=entry.connection_id, generation=entry.generation + 1
            ),
        )
    elif entry.is_waiting and row is None:
        revocation.enqueue(
            pair,
            uid="",
            user=None,
            why="disconnected before it was stored",
            connection_id=entry.connection_id,
        )
    elif entry.is_waiting and row is not None:
        revocation.end_late_pair(row, pair)
    transaction.on_commit(partial(confirm, entry), using=database.alias())
    return stored is not None


def recover_row(row: SipgateToken) -> bool:
    """Store what the journal has of a row's consent and the row has not. Raises nothing of the journal's.

    Returns whether there is something newer than ``row`` now, whoever has stored it.
    """
    entry = proof(
        rows.Sent(connection_id=row.pk, consent_id=row.consent_id, generation=row.generation)
    )
    if entry is None:
        return False
    if _recovered(entry):
        return True
    present = rows.load(row.pk)
    return present is not None and present.generation > row.generation


_has_begun: PerProcess[list[bool]] = PerProcess(list)


def recover_at_start() -> None:
    """Recover in a thread what waits: once per process, when it starts or first uses a connection."""
    if _has_begun.get() or conf.journal_directory() is None:
        return
    _has_begun.get().append(True)
    threads.errands.submit_once("journal", recover_all)


def recover_all() -> int:
    """Recover entries that are newer than their rows, and remove those that are not needed; return how many were
    recovered.

    Runs when a worker starts and with every keepalive. Names are compared with rows in bulk; only what is newer is
    opened.
    """
    recovered, batch = 0, []
    for entry in entries():
        batch.append(entry)
        if len(batch) == BATCH:
            recovered += _recover_batch(batch)
            batch = []
    recovered += _recover_batch(batch)
    _tidy_up()
    return recovered


def _recover_batch(batch: list[Entry]) -> int:
    rows = SipgateToken.objects
    known = {
        pk: (consent_id, generation)
        for pk, consent_id, generation in rows.filter(
            pk__in={entry.connection_id for entry in batch}
        ).values_list("pk", "consent_id", "generation")
    }
    recovered = 0
    for entry in batch:
        consent_id, generation = known.get(entry.connection_id, (None, 0))
        is_newer = entry.consent_id == consent_id and entry.generation >= generation
        if is_newer or (entry.is_waiting and (known or rows.exists())):
            # Not if there are no rows at all: that is another database, not one that everybody has left.
            recovered += _recovered(entry)
        elif entry.consent_id != consent_id and _age(entry.path) > FOREIGN_LASTS:
            _remove(entry.path)
    return recovered


def _recovered(entry: Entry) -> bool:
    try:
        return recover(entry)
    except errors.Misconfigured as error:
        logger.error(
            "A journal entry does not open and is kept [%s]: %s",
            error.reference,
            error.message,
            extra=log_fields.fields(error, connection=entry.connection_id),
        )
    except Broken:
        logger.error(
            "A journal entry of connection %s is broken and is kept",
            entry.connection_id,
            extra=log_fields.fields(connection=entry.connection_id),
        )
    return False


def reseal() -> tuple[int, int]:
    """Seal this machine's entries with the first key of the ring.

    An entry that is being written at this moment is left to its writer. Returns how many were sealed anew, and how many
    do not open.
    """
    done, unreadable = 0, 0
    for entry in entries():
        if key_id(entry) in {"", sealing.first_key_id()}:
            continue
        with contextlib.suppress(machine.LockHeld):
            lock = machine.lock(entry.connection_id)
            try:
                plain = sealing.unseal(_read(entry.path), context=_context(entry))
                # The old file may have been flushed to the disk long ago, so its replacement must be flushed, too.
                _put(entry.path, sealing.seal(plain, context=_context(entry)), is_synced=True)
                if entry.path.with_suffix(
                    STORED
                ).exists():  # another process has confirmed it meanwhile
                    confirm(entry)
                done += 1
            except errors.Misconfigured:
                unreadable += 1
            except FileNotFoundError:
                pass  # another process has confirmed or removed it
            except OSError as error:
                logger.error("A journal entry could not be sealed anew: %s", error.strerror)
            finally:
                if lock is not None:
                    lock.release()
    return done, unreadable


def key_id(entry: Entry) -> str:
    """Return the id of the key that seals an entry; empty if it is not there any more, or may not be read."""
    try:
        return sealing.key_id(_read(entry.path))
    except OSError:
        return ""


def waiting() -> int:
    """Return how many pairs the database has not confirmed."""
    return sum(entry.is_waiting for entry in entries())


def _open(entry: Entry) -> tuple[oauth.Grant, sealing.Pair] | None:
    try:
        sealed = _read(entry.path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.Misconfigured(
            f"A journal entry cannot be read ({error.strerror}): give this system user the right to.",
            setting="SIPGATE_JOURNAL_DIR",
        ) from None
    try:
        return _parsed(json.loads(sealing.unseal(sealed, context=_context(entry))))
    except sealing.KeyMissing:
        raise
    except errors.Misconfigured:
        raise Broken from None
    except (LookupError, TypeError, ValueError) as error:
        # Of a newer version, which runs beside this one while a site is upgraded. Not with its text: that may quote it.
        raise errors.Misconfigured(
            f"A journal entry is not understood ({type(error).__name__}): run the version that wrote it.",
            setting="SIPGATE_JOURNAL_DIR",
        ) from None


def _read(path: Path) -> bytes:
    descriptor = os.open(path, READ)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""


def _parsed(data: dict[str, Any]) -> tuple[oauth.Grant, sealing.Pair]:
    grant = oauth.Grant.from_dict(data["grant"])
    refresh_token = data["refresh_token"]
    secret = None if refresh_token is None else Secret(refresh_token)
    return grant, sealing.Pair(access_token=grant.access_token, refresh_token=secret)


def _context(sent: rows.Sent) -> str:
    return f"sipgate_provider.journal:{sent.connection_id}:{sent.consent_id.hex}:{sent.generation}"


def _entry(path: Path) -> Entry:
    connection_id, consent_id, rest = path.name.split("-")
    return Entry(
        connection_id=int(connection_id),
        consent_id=uuid.UUID(consent_id),
        generation=int(rest.partition(".")[0]),
        path=path,
    )


def _folders(directory: Path) -> list[Path]:
    return [directory / f"{number:02x}" for number in range(machine.SHARDS)]


def _files(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []
    except OSError as error:
        logger.error("The journal's folder cannot be looked into: %s", error.strerror)
        return []


def _tidy_up() -> None:
    """Remove drafts of killed processes, and lock files of connections that are gone."""
    directory, old_locks = conf.journal_directory(), []
    for folder in _folders(directory) if directory is not None else ():
        for file in map(Path, _files(folder)):
            if file.suffix == ".draft" and _age(file) > DRAFT_LASTS:
                _remove(file)
            elif LOCK.fullmatch(file.name) and _age(file) > FOREIGN_LASTS:
                old_locks.append(int(file.stem))
    rows = SipgateToken.objects
    if not old_locks or not rows.exists():
        return  # as above: another database
    for start in range(0, len(old_locks), BATCH):
        batch = set(old_locks[start : start + BATCH])
        for gone in batch - set(rows.filter(pk__in=batch).values_list("pk", flat=True)):
            with contextlib.suppress(machine.LockHeld):
                lock = machine.lock(gone)
                if lock is not None:
                    lock.remove_file()
                    lock.release()


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.error("A file of the journal could not be removed: %s", error.strerror)
