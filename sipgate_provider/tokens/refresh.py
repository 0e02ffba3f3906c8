"""Refreshes one connection. No other code sends a refresh token to be exchanged.

sipgate spends a refresh token when the request arrives, and may end every grant of the browser
session if a spent one is sent again. So a token is sent a second time only if its answer may have
been lost: the new tokens are then out of reach, and perhaps sipgate never saw the request.

Each step is where it is for a reason::

    read      the row, its client, its tokens
    connect   name, addresses, TLS: slow, so it comes before other processes have to wait
    lock      keeps out the other threads and processes of this machine, even while this one is
              paused
    lease     one UPDATE keeps out the other machines for 45 s by the database's clock, and sets
              *unanswered*: whoever reads that later knows that the token may be spent
    look      in the journal, a folder of this machine: a file of a later version proves the token
              spent. Its tokens are stored, and nothing is sent
    check     the rest of the lease is long enough for an answer and for the journal
    send
    journal   writes the new tokens to a file
    store     writes the new tokens to the row

The process may be killed at any step; the comments say what is lost then, and what the next process
does: the next that needs this connection, or keepalive. Each process, when it starts, also stores
the tokens in its machine's journal. ``tests/protocol`` shows that each step is needed.

``background`` runs this in a thread that outlives the caller. While it waits for sipgate, it holds
no database connection.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import replace
from pathlib import Path

from django.db import connections
from django.utils import timezone

from sipgate_provider import background, database, errors
from sipgate_provider.models import SipgateToken, State, Version
from sipgate_provider.remote import line, oauth
from sipgate_provider.remote.oauth import Tokens
from sipgate_provider.tokens import clients, endings, journal, lease, rows, sealing
from sipgate_provider.tokens.attempt import Attempt
from sipgate_provider.tokens.decide import FOUND_HERE, Outcome, outcome_of
from sipgate_provider.tokens.lock import Busy, lock

logger = logging.getLogger(__name__)

POLL_FIRST, POLL_LONGEST = 0.01, 0.08
"""Seconds between two looks at a row that another thread or process is refreshing."""
LATEST = lease.LENGTH.total_seconds() - oauth.ANSWER_SECONDS - 1
"""Seconds from asking for the lease until it is too late to send: it has to last for the answer,
and for one second to write the journal."""


def clocks() -> tuple[float, float]:
    """Return the seconds of two clocks: one that nobody sets, and that runs, if the system has it,
    even while the machine is suspended; and the wall clock, which is set after a virtual machine
    was paused, while the other one did not run."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME), time.time()
    return time.monotonic(), time.time()


def refresh(
    connection_id: int, *, seen: int, by: str, patience: float, force: bool = False
) -> SipgateToken:
    """Return the row of a connection once its version's number is higher than ``seen``.

    Args:
        by: who asks for it: ``caller``, ``user``, ``keepalive``, or an administrator's name.
        patience: seconds to wait while another thread or process is refreshing it.
        force: ask sipgate even if the row says to wait after a failure.

    Raises:
        errors.NotConnected: there is no row (any more).
        errors.NeedsSignIn: only a new sign-in can repair it, as far as the app knows.
        errors.Misconfigured: sipgate rejects our client, or a key is missing.
        errors.SipgateUnavailable, errors.UnexpectedResponse: no tokens now. If this call made an
            attempt, the row says when to try again.
    """
    give_up, pause, is_late = time.monotonic() + patience, POLL_FIRST, False
    while True:
        row = rows.load_to_refresh(connection_id)
        if row is None:
            raise errors.NotConnected("The sipgate connection is gone.")
        if row.number > seen:
            return row  # another thread or process has refreshed it
        if is_late:
            raise errors.SipgateUnavailable(
                "Another process is still refreshing this connection.", sent=False, endpoint="token"
            )
        try:
            return _once(Attempt(row, by), force=force)
        except Busy:
            is_late = time.monotonic() + pause > give_up
        database.release_connections()
        time.sleep(pause)
        pause = min(pause * 1.6, POLL_LONGEST)


def _once(attempt: Attempt, *, force: bool) -> SipgateToken:
    """Make one attempt. Raises ``Busy`` if the row must be read again first."""
    row = attempt.row
    client, old = _ready(attempt, force=force)
    if getattr(row, "is_leased", False):
        # The holder of the lease is at work, or was killed. Tokens that it wrote to this machine's
        # journal need not wait for the end of the lease.
        return _recovered(attempt, journal.newer(row))
    with lock(row.pk):
        pass  # do not connect in vain while another process has the lock
    database.release_connections()
    # Connect. Killed up to here: nothing has happened, and nobody has to wait.
    try:
        sipgate = line.connect(client.token_url)
    except errors.SipgateUnavailable as error:
        raise attempt.failed(Outcome.UNAVAILABLE, error) from None
    # Lock. The kernel holds it for as long as this process lives, and frees it then.
    with sipgate, lock(row.pk):
        # Lease: only if the row is still as it was read, and no lease is running. Killed from here
        # on: *unanswered* stays set. The next process waits for the end of the lease, then sends.
        asked, attempt.holder = clocks(), uuid.uuid4().hex
        if not lease.take(row, attempt.holder):
            raise Busy
        file = _checked(attempt, asked)
        if file is not None:
            return _recovered(attempt, file)
        # Send. This cannot be undone. Killed before the answer comes: nobody has the new tokens.
        # The next process sends the token once more; if sipgate has spent it, the answer is
        # ``invalid_grant``, and the row then says *lost rotation*.
        answer = oauth.refresh(sipgate, client, old.refresh_token or "")
        if isinstance(answer, Tokens):
            return _keep(attempt, answer, old)
        if isinstance(answer, errors.Misconfigured):
            clients.begin_pause(client, answer)
        raise attempt.failed(outcome_of(answer), answer)


def _checked(attempt: Attempt, asked: tuple[float, float]) -> Path | None:
    """Return the journal's file that proves the token spent, or None if it may be sent now."""
    try:
        # Look, now that the lease is ours: its last holder may have been killed after writing the
        # journal.
        file = journal.newer(attempt.row)
        if file is None:
            database.release_connections()
            background.check_not_ending()
            # Check. If this process was paused for too long, another machine may have the lease.
            if max(now - then for now, then in zip(clocks(), asked, strict=True)) > LATEST:
                raise Busy
    except BaseException:
        attempt.give_back()  # nothing was sent, so *unanswered* becomes what it was before
        raise
    return file


def _ready(attempt: Attempt, *, force: bool) -> tuple[oauth.Client, Tokens]:
    """Return client and tokens of a row that may be refreshed now, or raise."""
    row = attempt.row
    client = clients.client(row)
    foreign = clients.why_not_ours(row, client)
    if foreign is not None:
        raise attempt.failed(Outcome.OTHER_CLIENT, foreign)
    try:
        old = rows.opened(row)
    except sealing.SealError as error:
        raise attempt.failed(Outcome.KEY_MISSING, error) from None
    waits = row.next_attempt_at is not None and row.next_attempt_at > timezone.now()
    is_ended = row.state == State.NEEDS_SIGN_IN and row.next_attempt_at is None
    if is_ended or (waits and not force and row.reason not in FOUND_HERE):
        raise attempt.not_due()
    if old.refresh_token is None:
        nothing = errors.TokenRejected(code="", description="There is no refresh token.")
        raise attempt.failed(Outcome.NO_REFRESH_TOKEN, nothing)
    try:
        clients.check_not_paused(client)
    except errors.Misconfigured:
        attempt.count(Outcome.PAUSED)
        raise
    return client, old


def _recovered(attempt: Attempt, file: Path | None) -> SipgateToken:
    """Store the tokens of a journal file; return the row.

    A file that does not open still proves the refresh token spent by its name. So nothing is sent:
    the row waits for the missing key, or for a new sign-in.
    """
    if file is None:
        raise Busy
    try:
        stored = journal.recover(file)
    except errors.Misconfigured as error:
        raise attempt.failed(Outcome.KEY_MISSING, error) from None
    except journal.Broken:
        broken = errors.TokenRejected(code="journal", description="Its journal file is broken.")
        raise attempt.failed(Outcome.BROKEN, broken) from None
    except BaseException:
        attempt.give_back()
        raise
    if stored is None:
        attempt.give_back()
    return stored or attempt.present()


# --- an answer ------------------------------------------------------------------------------------


def _keep(attempt: Attempt, answer: Tokens, old: Tokens) -> SipgateToken:
    """Journal and store new tokens, which only this process has; return the row as it is then."""
    row = attempt.row
    tokens = replace(answer, refresh_token=answer.refresh_token or old.refresh_token)
    version = row.version._replace(number=row.number + 1)
    # Journal. Killed before the file is complete: the new tokens are lost. No client can close this
    # gap.
    file = journal.write(version, tokens)
    # Store. Killed from here on: nothing is lost. The next process of this machine finds the file
    # when it looks. (Another machine does not see it: that is a window of docs/how-it-works.md.)
    stored = _stored(attempt, version, tokens, file)
    journal.forget_older(version)
    if stored is not None:
        attempt.succeeded(stored)
        return stored
    # Another process has recovered these tokens, or the user has signed in again: nothing to do.
    # Or access was ended meanwhile: then ``add_late`` has the grant of these tokens ended as well.
    endings.add_late(row, tokens)
    return attempt.present()


def _stored(
    attempt: Attempt, version: Version, tokens: Tokens, file: Path | None
) -> SipgateToken | None:
    """Try to store the tokens until the database answers, for as long as this process lives."""
    is_use, is_synced = attempt.by in {"caller", "user"}, False
    pause, began = 0.05, time.monotonic()
    while True:
        try:
            return rows.store_refreshed(version, tokens, before=attempt.row, is_use=is_use)
        except database.AWAY as error:
            # The connection may be dead: only a new one can tell whether the statement arrived.
            connections[database.using()].close()
            logger.warning(
                "New tokens are not stored yet (%s)",
                type(error).__name__,
                extra=attempt.log_fields(),
            )
            if file is not None and not is_synced:
                journal.sync(file)
                is_synced = True
            if background.is_ending() and (file or time.monotonic() - began > 5):
                attempt.count(Outcome.NOT_STORED)
                where = "wait in the journal" if file else "are lost: there is no journal"
                raise errors.SipgateUnavailable(
                    f"The database does not answer; new tokens {where}.", code="database"
                ) from error
        time.sleep(pause)
        pause = min(pause * 2, 1.0)
