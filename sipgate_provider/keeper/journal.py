"""Where a rotated pair waits until the database has it: one sealed file per pair.

sipgate has spent the old refresh token by the time its answer is here. The pair is written here first and removed when
it is stored, so that a process may be killed in between; if the database fails, the file is synced to the disk and
stays. It is replayed, conditionally, by whichever process comes next. Nothing in it can be read without the keys.

*Why not synced at once:* a killed process loses nothing that it has written, only a machine that loses power does. A
sync costs milliseconds at every refresh; it is paid when the database gives cause.

Must not know: sipgate, HTTP, who asked.
"""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from django.db import transaction

from sipgate_provider import conf, errors, metrics
from sipgate_provider.keeper import database, history
from sipgate_provider.models import TokenEvent
from sipgate_provider.remote import log_fields, oauth
from sipgate_provider.remote.secret import Secret

from . import revocation, sealing, store

logger = logging.getLogger(__name__)

SUFFIX = ".sealed"
MAX_BYTES = 131_072
"""Four tokens of the longest kind, one of them twice."""
NAME = re.compile(r"[0-9]{1,19}-[0-9]{1,19}-[0-9a-f]{32}\.sealed")
CONTEXT = "sipgate_provider.journal"
WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    path: Path
    claim: store.Claim
    grant: oauth.Grant
    pair: sealing.Pair


def write(claim: store.Claim, grant: oauth.Grant, pair: sealing.Pair) -> Path | None:
    """Put a pair into the journal; return its file. None: there is no journal, or the disk does not take it."""
    directory = conf.journal_directory()
    if directory is None:
        return None
    try:
        return _write(directory, claim, grant, pair)
    except OSError as error:
        logger.error("The journal does not take a rotated pair: %s", error.strerror)
        return None


def _write(directory: Path, claim: store.Claim, grant: oauth.Grant, pair: sealing.Pair) -> Path:
    plain = Secret(
        json.dumps(
            {
                "claim": [claim.connection_id, claim.generation, claim.owner],
                "grant": grant.to_dict(),
                "refresh_token": pair.refresh_token,
            }
        )
    )
    sealed = sealing.seal(plain.encode(), context=CONTEXT)
    # Connection and generation stand in the name: a process looks for its own without opening anything.
    name = f"{claim.connection_id}-{claim.generation}-{uuid.uuid4().hex}"
    draft = directory / f".{name}.draft"
    try:
        descriptor = os.open(draft, WRITE_NEW, 0o600)
    except FileNotFoundError:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, WRITE_NEW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(sealed)
    return draft.rename(directory / f"{name}{SUFFIX}")


def sync(path: Path) -> None:
    """Have a pair on the disk when this returns: the database does not take it."""
    logger.warning("A rotated pair waits in the journal: the database does not take it")
    try:
        for place in (path, path.parent):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        logger.error("The journal could not be synced: %s", error.strerror)


def done(path: Path | None) -> None:
    """Remove a pair that is stored."""
    if path is None:
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        # Another system user wrote it. What is stored is not undone for that: it is dropped when it can be.
        logger.error("A journal entry that is stored could not be removed: %s", error.strerror)


def entries(connection_id: int | None = None) -> Iterator[Entry]:
    """Yield what waits, of one connection or of all, oldest generation first. What does not open is left alone."""
    directory = conf.journal_directory()
    if directory is None or not directory.is_dir():
        return
    pattern = f"{connection_id}-*{SUFFIX}" if connection_id is not None else f"*{SUFFIX}"
    for path in sorted(_ours(directory.glob(pattern)), key=_order):
        entry = _opened(path)
        if entry is not None:
            yield entry


def replay(connection_id: int | None = None) -> int:
    """Store what waits; return how many pairs were taken over. Safe to repeat and to run anywhere at once.

    A pair that is no longer the newest truth (a consent came, the connection is gone) is dropped, and its session ended.
    In a transaction of the caller the file stays until the commit: a rollback takes the stored pair back.
    """
    taken = 0
    for entry in entries(connection_id):
        now = datetime.now(UTC)
        if store.recover(entry.claim, entry.grant, entry.pair, now=now):
            taken += 1
            row = store.load(entry.claim.connection_id)
            history.add_event(
                TokenEvent.Kind.RECOVERED, row=row, actor="journal", generation=entry.claim.generation + 1
            )
            metrics.JOURNAL_ADOPTED.count()
            logger.warning(
                "Took over a pair of connection %s from the journal",
                entry.claim.connection_id,
                extra=log_fields.fields(connection=entry.claim.connection_id, generation=entry.claim.generation + 1),
            )
        elif (row := store.load(entry.claim.connection_id)) is None:
            revocation.enqueue(
                entry.pair,
                uid="",
                user=None,
                why="disconnected before it was stored",
                connection_id=entry.claim.connection_id,
            )
        else:
            revocation.give_up_orphan(row, entry.pair)
        transaction.on_commit(partial(done, entry.path), using=database.alias())
    return taken


def waiting() -> int:
    """Return how many pairs wait."""
    directory = conf.journal_directory()
    return len(_ours(directory.glob(f"*{SUFFIX}"))) if directory is not None and directory.is_dir() else 0


def _opened(path: Path) -> Entry | None:
    try:
        return _parsed(path, json.loads(sealing.unseal(path.read_bytes()[:MAX_BYTES], context=CONTEXT)))
    except FileNotFoundError:
        return None  # another process has just taken it
    except OSError as error:
        logger.error("A journal entry cannot be read and is kept: %s", error.strerror)
    except errors.Misconfigured as error:
        logger.error(
            "A journal entry does not open and is kept [%s]: %s",
            error.reference,
            error.message,
            extra=log_fields.fields(error),
        )
    except (LookupError, TypeError, ValueError) as error:
        # Of a newer version, which runs beside this one while a site is upgraded. Not with its text: that may quote it.
        logger.error("A journal entry is not understood and is kept: %s", type(error).__name__)
    return None


def _parsed(path: Path, data: dict[str, Any]) -> Entry:
    connection_id, generation, owner = data["claim"]
    grant = oauth.Grant.from_dict(data["grant"])
    return Entry(
        path=path,
        claim=store.Claim(connection_id=connection_id, generation=generation, owner=owner, taken_over=False),
        grant=grant,
        pair=sealing.Pair(
            access_token=grant.access_token, refresh_token=data["refresh_token"] and Secret(data["refresh_token"])
        ),
    )


def _ours(paths: Iterable[Path]) -> list[Path]:
    """Leave out what somebody else put there: one odd name must not keep every pair waiting."""
    return [path for path in paths if NAME.fullmatch(path.name)]


def _order(path: Path) -> tuple[int, int]:
    connection, generation, _ = path.name.split("-", 2)
    return int(connection), int(generation)
