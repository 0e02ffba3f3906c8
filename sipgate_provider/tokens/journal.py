"""Keeps new tokens until the database has them, and proves which refresh token is spent: one sealed
file per version.

sipgate has spent the old refresh token by the time its answer is here. The new tokens are written
here before they are stored, so that a process may be killed in between. A file's name is the
version of its tokens, which proves those of every earlier version spent, even to somebody who
cannot open it. The newest file of a consent stays when the database has its tokens, since a
database may lose commits (a failover, a restored backup).

With ``SIPGATE_JOURNAL_DIR`` None (in the site's ``.env``: ``off``), there is no journal, and no lock
between processes either.

Not synced to the disk at once: a killed process loses nothing that it has written, only a machine
that loses power does. A sync costs milliseconds at every refresh; it is paid when the database does
not take the tokens.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from sipgate_provider import conf, errors, metrics
from sipgate_provider.models import SipgateToken, TokenEvent, Version
from sipgate_provider.remote.oauth import Tokens
from sipgate_provider.tokens import rows, sealing

logger = logging.getLogger(__name__)
RECOVERED = metrics.counter("journal_recovered_total", "Tokens recovered from the journal.")

FOLDERS = 256
"""To find a connection's files, the app lists only one of these folders."""
NAME = re.compile(r"([0-9]{1,19})-([0-9a-f]{32})-([0-9]{1,19})\.sealed")
DRAFT = ".draft"
DRAFT_LASTS, FOREIGN_LASTS = 3_600.0, 86_400.0
"""Seconds after which the app removes a killed process's draft, and the files of a consent or
connection that is gone."""


class Broken(Exception):
    """A file will never open: its tokens are lost."""


def write(version: Version, tokens: Tokens) -> Path | None:
    """Write tokens to the journal; return the file. None: there is no journal, or writing
    failed."""
    folder = _folder(version.connection)
    if folder is None:
        return None
    path = folder / f"{version.connection}-{version.consent.hex}-{version.number}.sealed"
    try:
        _put(path, sealing.seal(tokens.to_text(), place=_place(path)))
    except OSError as error:
        logger.error(
            "SIPGATE_JOURNAL_DIR: new tokens cannot be written to %s (%s)", folder, error.strerror
        )
        return None
    return path


def _put(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="ascii", dir=path.parent, suffix=DRAFT, delete=False
    ) as draft:
        draft.write(text)
    Path(draft.name).replace(path)


def sync(path: Path) -> None:
    """Flush tokens to the disk, because the database has not stored them."""
    with contextlib.suppress(OSError):  # Windows does not open a folder
        for place in (path, path.parent):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def newer(row: SipgateToken) -> Path | None:
    """Return the newest file that proves a row's refresh token spent: one of the same consent and a
    later version."""
    found = [path for path in _files(row.pk) if is_newer(path, row)]
    return max(found, key=lambda path: version_of(path).number, default=None)


def is_newer(path: Path, row: SipgateToken) -> bool:
    version = version_of(path)
    return version.consent == row.consent and version.number > row.number


def forget_older(version: Version) -> None:
    """Remove the files of this consent that a later file replaces."""
    for path in _files(version.connection):
        other = version_of(path)
        if other.consent == version.consent and other.number < version.number:
            _remove(path)


def recover(path: Path) -> SipgateToken | None:
    """Store the tokens of a file; return the row. None: the row is as new already. Any process may
    do this, at any time, and repeat it.

    Raises:
        errors.Misconfigured: the file cannot be read or opened yet: permission, or its key.
        Broken: it never will.
    """
    version = version_of(path)
    row = rows.store_refreshed(version, _opened(path))
    if row is not None:
        TokenEvent.objects.add(
            TokenEvent.Kind.RECOVERED, row=row, actor="journal", number=version.number
        )
        RECOVERED.inc()
        logger.warning(
            "Recovered tokens of connection %s from the journal",
            row.pk,
            extra=errors.log_fields(connection=row.pk, number=version.number),
        )
    return row


def recover_all() -> int:
    """Recover the files that are newer than their rows, and remove those that are not needed.

    Runs when a worker starts and with every keepalive. Names are compared with rows in bulk; only
    what is newer is opened. Returns how many were recovered.
    """
    recovered = 0
    for path, row in _compared(_files()):
        if row is not None and is_newer(path, row):
            recovered += try_to_recover(path)
        elif (
            row is not None
            and version_of(path).consent == row.consent
            and version_of(path).number < row.number
        ) or _age(path) > FOREIGN_LASTS:
            _remove(path)
    for folder in _folders():
        for draft in _list(folder, DRAFT):
            if _age(draft) > DRAFT_LASTS:
                _remove(draft)
    return recovered


def _compared(paths: Iterable[Path]) -> Iterator[tuple[Path, SipgateToken | None]]:
    """Yield files with their rows, without files of connections that are gone if no row is there at
    all: that is another database, and not one that everybody has left."""
    left = iter(paths)
    while batch := list(islice(left, 500)):
        ids = {version_of(path).connection for path in batch}
        known = SipgateToken.objects.only("consent", "number").in_bulk(ids)
        if known or SipgateToken.objects.exists():
            yield from ((path, known.get(version_of(path).connection)) for path in batch)


def try_to_recover(path: Path) -> bool:
    """As ``recover``; log what does not open. Returns whether the row has these tokens now and had
    not before."""
    fields = errors.log_fields(connection=version_of(path).connection)
    try:
        return recover(path) is not None
    except errors.Misconfigured as error:
        logger.error("A journal file does not open and is kept: %s", error.message, extra=fields)
    except Broken:
        logger.error("The journal file %s is broken and is kept", path.name, extra=fields)
    return False


def waiting() -> int:
    """Return how many files of this machine's journal have tokens that the database lacks."""
    return sum(row is not None and is_newer(path, row) for path, row in _compared(_files()))


def reseal() -> tuple[int, int]:
    """Seal this machine's files with the first key. Returns how many were sealed, and how many do
    not open."""
    done, unreadable, first = 0, 0, sealing.key_ids()[0]
    for path in _files():
        try:
            sealed = path.read_text("ascii")
            if sealing.key_of(sealed) != first:
                _put(path, sealing.resealed(sealed, place=_place(path)))
                sync(path)  # the old file may have been flushed long ago
                done += 1
        except errors.Misconfigured:
            unreadable += 1
        except FileNotFoundError:
            pass  # another process has removed it
        except (OSError, ValueError) as error:
            logger.error("A journal file could not be sealed anew: %s", type(error).__name__)
    return done, unreadable


def keys() -> Iterator[str]:
    """Yield the id of the key that seals each file."""
    for path in _files():
        with contextlib.suppress(OSError, ValueError):
            yield sealing.key_of(path.read_text("ascii"))


def _opened(path: Path) -> Tokens:
    try:
        return Tokens.from_text(sealing.unseal(path.read_text("ascii"), place=_place(path)))
    except OSError as error:
        raise errors.Misconfigured(
            f"A journal file cannot be read ({error.strerror}): give this system user read access.",
            setting="SIPGATE_JOURNAL_DIR",
        ) from None
    except sealing.KeyMissing:
        raise
    except (errors.Misconfigured, LookupError, TypeError, ValueError):
        raise Broken from None  # without their text, which may quote the file


def version_of(path: Path) -> Version:
    connection, consent, number = path.stem.split("-")
    return Version(int(connection), uuid.UUID(consent), int(number))


def _place(path: Path) -> str:
    return f"journal {path.name}"


def _folder(connection_id: int) -> Path | None:
    directory = conf.journal_directory()
    return None if directory is None else directory / f"{connection_id % FOLDERS:02x}"


def _folders() -> Iterator[Path]:
    for number in range(FOLDERS):
        folder = _folder(number)
        if folder is not None:
            yield folder


def _files(connection_id: int | None = None) -> Iterator[Path]:
    """Yield the files of one connection, or all. Other files are left out."""
    own = None if connection_id is None else _folder(connection_id)
    folders = _folders() if connection_id is None else [own] if own is not None else []
    for folder in folders:
        for path in _list(folder, ".sealed"):
            is_own = connection_id is None or path.name.startswith(f"{connection_id}-")
            if is_own and NAME.fullmatch(path.name):
                yield path


def _list(folder: Path, suffix: str) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix == suffix]
    except FileNotFoundError:
        return []
    except OSError as error:
        logger.error("Cannot list the journal folder: %s", error.strerror)
        return []


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.error("A file of the journal could not be removed: %s", error.strerror)
