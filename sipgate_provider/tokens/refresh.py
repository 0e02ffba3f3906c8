"""Refreshes one connection. No other code sends a refresh token, whatever asked for the refresh.

sipgate spends a refresh token when the request arrives, and a token that is sent again may end
every grant of the session. So everything slow comes before the lease, and everything that could
prove the token spent comes after it::

    read      the row, its client, its tokens
    connect   name, addresses, TLS: slow, and binds nobody
    lock      excludes the other threads and processes of this machine, also while one is paused
    lease     one UPDATE excludes other machines for 45 s, and notes *unanswered*: may be spent
    look      a journal file of a later version proves it spent: that is stored, nothing is sent
    check     enough of the lease is left for answer and journal
    send
    journal   the new tokens, in a file
    store     the new tokens, in the row

The process may die at each line; a comment there says what is lost, and what the next process does.
``tests/protocol`` shows why each line is needed. This runs in a thread of its own (``background``),
so that it outlives its callers. No database connection is held while sipgate is asked.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import replace
from pathlib import Path

from django.db import connections
from django.utils import timezone

from sipgate_provider import errors
from sipgate_provider.models import SipgateToken, State, Version
from sipgate_provider.remote import line, oauth
from sipgate_provider.remote.oauth import Tokens
from sipgate_provider.tokens import background, clients, database, endings, journal, rows, sealing
from sipgate_provider.tokens.attempt import Attempt
from sipgate_provider.tokens.decide import FOUND_HERE, Outcome, outcome_of
from sipgate_provider.tokens.lock import Busy, lock

logger = logging.getLogger(__name__)

POLL_FIRST, POLL_LONGEST = 0.01, 0.08
"""Seconds between two looks at a row that somebody else is refreshing."""
LATEST = rows.LEASE.total_seconds() - oauth.ANSWER_SECONDS - 1
"""Seconds after the lease was asked for, after which nothing is sent: the answer and a second for
the journal fit."""


def clock() -> float:
    """Return seconds by a clock that goes on while the machine sleeps, where there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def refresh(
    connection_id: int, *, seen: int, by: str, patience: float, force: bool = False
) -> SipgateToken:
    """Return the row of a connection at a later version than number ``seen``.

    Args:
        by: who wants it: ``caller``, ``user``, ``keepalive``, or an administrator's name.
        patience: seconds to wait while somebody else is refreshing it.
        force: do not wait for the next attempt that is due after a failure.

    Raises:
        errors.NotConnected: there is no row (any more).
        errors.NeedsSignIn: only a new sign-in can repair it, as far as is known.
        errors.Misconfigured: sipgate rejects our client, or a key is missing.
        errors.SipgateUnavailable, errors.UnexpectedResponse: no tokens now; the row notes when to
            try again.
    """
    give_up, pause = time.monotonic() + patience, POLL_FIRST
    while True:
        row = rows.load_to_refresh(connection_id)
        if row is None:
            raise errors.NotConnected("The sipgate connection is gone.")
        if row.number > seen:
            return row  # somebody else has refreshed it
        try:
            return _once(Attempt(row, by), force=force)
        except Busy:
            if time.monotonic() + pause > give_up:
                raise errors.SipgateUnavailable(
                    "Another process is still refreshing this connection.",
                    sent=False,
                    endpoint="token",
                ) from None
        database.release_connections()
        time.sleep(pause)
        pause = min(pause * 1.6, POLL_LONGEST)


def _once(attempt: Attempt, *, force: bool) -> SipgateToken:
    row = attempt.row
    client, old = _ready(attempt, force=force)
    if getattr(row, "is_leased", False):
        # Somebody is at it, or was killed. What they have journaled here need not wait.
        return _recovered(attempt, journal.newer(row))
    with lock(row.pk):
        pass  # a look: whoever has to wait need not connect
    database.release_connections()
    # Connect. Whoever dies until here has changed nothing, and nobody has to wait for that.
    try:
        sipgate = line.connect(client.token_url)
    except errors.SipgateUnavailable as error:
        return attempt.failed(Outcome.UNAVAILABLE, error)
    # Lock: the kernel holds it while this process lives, paused or not. ``Busy``: another process
    # of this machine.
    with sipgate, lock(row.pk):
        # Lease: only if the row is as read above and nobody's lease runs. From here, whoever dies
        # leaves *unanswered*; when the 45 s are over, the next one goes on, and knows that the
        # token may be spent.
        asked, attempt.holder = clock(), uuid.uuid4().hex
        if not rows.take_lease(row, attempt.holder):
            raise Busy
        newer = _checked(attempt, asked)
        if newer is not None:
            return _recovered(attempt, newer)
        # Send. This cannot be undone. Without an answer, *unanswered* stays, and the next one asks
        # once more: if sipgate has spent the token, it answers ``invalid_grant``, and the row says
        # *lost rotation*.
        answer = oauth.refresh(sipgate, client, old.refresh_token or "")
        if isinstance(answer, Tokens):
            return _keep(attempt, answer, old, client)
        if isinstance(answer, errors.Misconfigured):
            attempt.pause(client, answer)
        return attempt.failed(outcome_of(answer), answer)


def _checked(attempt: Attempt, asked: float) -> Path | None:
    """Return a journal file that proves the token spent. None: it may be sent, now."""
    try:
        # Look, now that nobody else can write: whoever had the lease before may have died after the
        # journal.
        newer = journal.newer(attempt.row)
        if newer is None:
            database.release_connections()
            background.check_not_ending()
            # Check: a process that was paused for too long may not be the only one any more.
            if clock() - asked > LATEST:
                raise Busy
    except BaseException:
        attempt.give_back()  # nothing was sent: *unanswered* is what it was
        raise
    return newer


def _ready(attempt: Attempt, *, force: bool) -> tuple[oauth.Client, Tokens]:
    """Return client and tokens of a row that may be refreshed now, or raise."""
    row = attempt.row
    client = clients.client(row)
    foreign = clients.why_not_ours(row, client)
    if foreign is not None:
        attempt.failed(Outcome.OTHER_CLIENT, foreign)
    try:
        old = rows.opened(row)
    except sealing.SealError as error:
        attempt.failed(Outcome.KEY_MISSING, error)
        raise
    waits = row.next_attempt_at is not None and row.next_attempt_at > timezone.now()
    is_ended = row.state == State.NEEDS_SIGN_IN and row.next_attempt_at is None
    if is_ended or (waits and not force and row.reason not in FOUND_HERE):
        raise attempt.not_due()
    if old.refresh_token is None:
        none = errors.TokenRejected(code="", description="There is no refresh token.")
        attempt.failed(Outcome.NO_REFRESH_TOKEN, none)
    try:
        clients.check_not_paused(client)
    except errors.Misconfigured:
        attempt.count(Outcome.PAUSED)
        raise
    return client, old


def _recovered(attempt: Attempt, newer: Path | None) -> SipgateToken:
    """Store what the journal has. If it does not open, its name still proves the refresh token
    spent: wait for the key, or for the user."""
    if newer is None:
        raise Busy
    try:
        stored = journal.recover(newer)
    except errors.Misconfigured as error:
        return attempt.failed(Outcome.KEY_MISSING, error)
    except journal.Broken:
        broken = errors.TokenRejected(code="journal", description="Its journal file is broken.")
        return attempt.failed(Outcome.BROKEN, broken)
    except BaseException:
        attempt.give_back()
        raise
    if stored is None:
        attempt.give_back()
    return stored or attempt.present()


# --- an answer ------------------------------------------------------------------------------------


def _keep(attempt: Attempt, answer: Tokens, old: Tokens, client: oauth.Client) -> SipgateToken:
    """Journal and store new tokens, which only this process has; return the row that counts
    afterwards."""
    row = attempt.row
    tokens = replace(answer, refresh_token=answer.refresh_token or old.refresh_token)
    new = row.version._replace(number=row.number + 1)
    # Journal. Whoever dies before this line is through has lost the tokens: the one window that
    # nobody can close.
    path = journal.write(new, tokens)
    # Store. Whoever dies from here on loses nothing: the next one finds the file when it looks.
    stored = _stored(attempt, new, tokens, path)
    journal.forget_older(new)
    if stored is not None:
        attempt.succeeded(stored, client)
        return stored
    # The row has a newer consent, or no tokens any more, or is gone: then access at sipgate is
    # ended as well.
    endings.add_late(row, tokens)
    return attempt.present()


def _stored(
    attempt: Attempt, new: Version, tokens: Tokens, path: Path | None
) -> SipgateToken | None:
    """Offer the tokens until the database has answered, for as long as this process lives."""
    pause, began, is_use = 0.05, time.monotonic(), attempt.by in {"caller", "user"}
    while True:
        try:
            return rows.store_refreshed(new, tokens, before=attempt.row, is_use=is_use)
        except database.AWAY as error:
            # The connection may be dead: only a new one can tell whether the statement arrived.
            connections[database.using()].close()
            logger.warning(
                "New tokens are not stored yet (%s)",
                type(error).__name__,
                extra=attempt.log_fields(),
            )
            if path is not None and pause == 0.05:
                journal.sync(path)
            if background.is_ending() and (path or time.monotonic() - began > 5):
                attempt.count(Outcome.NOT_STORED)
                where = "wait in the journal" if path else "are lost: there is no journal"
                raise errors.SipgateUnavailable(
                    f"The database does not answer; new tokens {where}.", code="database"
                ) from error
        time.sleep(pause)
        pause = min(pause * 2, 1.0)
