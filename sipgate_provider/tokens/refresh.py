"""Refreshes one connection. No other module sends a refresh token, no matter what asked for the refresh.

sipgate spends a refresh token when the request arrives, and a token that is sent again may end every grant of
the session. So everything slow comes before the claim, and everything that could prove the token spent is
looked at after it::

    look       somebody who has the lock is waited for, without a connection
    connect    name, addresses, TLS; then, before the first byte:
    lock       the kernel's lock of this connection, on this machine
    claim      the lease in the row, for other machines: "about to be sent"
    journal    an entry of this generation or a later one proves the token spent: recover it, send nothing
    time       enough of the lease is left for answer and journal
    send
    journal    the new pair, in a file
    store      the new pair, in the row

``docs/how-it-works.md`` tells why each is needed, ``tests/protocol`` shows it. Runs in a thread of its own (``threads``);
no database connection is held while sipgate is asked.

Must not know: requests of visitors, pages, what a caller wants the token for.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import replace

from django.db import connections
from django.utils import timezone

from sipgate_provider import conf, errors
from sipgate_provider.models import Reason, SipgateToken
from sipgate_provider.remote import http, log_fields, oauth
from sipgate_provider.tokens import database, pauses

from . import authorization_server, journal, machine, revocation, rows, sealing, threads
from .attempt import Attempt, Outcome, RefreshRequest

logger = logging.getLogger(__name__)

POLL_FIRST, POLL_LONGEST = 0.01, 0.08
"""Seconds between two looks at a row that somebody else is refreshing."""
MARGIN = 1.0
"""Seconds of the lease that must be left beyond the answer, for the journal."""
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that goes on while the machine sleeps, so that a process notices that its lease has ended."""


class LeftToOthers(Exception):
    """Somebody else refreshes this connection, and the request does not wait for it.

    ``held``: by a process of this machine, which holds the lock.
    """

    def __init__(self, held: machine.LockHeld | None = None) -> None:
        super().__init__()
        self.held = held


class _Recovered(Exception):
    """The journal had the pair: nothing is sent."""


def refresh_connection(request: RefreshRequest) -> SipgateToken:
    """Return the row of the connection at a generation newer than ``request.seen_generation``.

    Raises:
        errors.NotConnected: there is no row (any more).
        errors.NeedsSignIn: only a person can repair it, as far as is known.
        errors.Misconfigured: sipgate refuses our client, a key is missing, or the caller holds the database's lock.
        errors.SipgateUnavailable, errors.UnexpectedResponse: no new pair now; the row notes when to try again.
        LeftToOthers: somebody else is refreshing it, and ``request.patience`` is over.
    """
    give_up, pause, is_reported = time.monotonic() + request.patience, POLL_FIRST, False
    while True:
        with database.explained():
            row = _load(request)
        if row.generation > request.seen_generation:
            return row
        try:
            return _Refresh(row, request).run()
        except LeftToOthers as left:
            is_reported = is_reported or _report_paused(row, left.held)
            if time.monotonic() + pause > give_up:
                raise
        database.release_connections()
        time.sleep(pause)
        pause = min(pause * 1.6, POLL_LONGEST)


def _report_paused(row: SipgateToken, held: machine.LockHeld | None) -> bool:
    """Log a warning about a process that is paused, or hangs, with the lock of a connection. It is still waited for."""
    if held is None or held.seconds < conf.lease().total_seconds():
        return False
    logger.warning(
        "Process %s has held the lock of connection %s for %.0f s, longer than a refresh takes: it is waited for",
        held.pid or "(unknown)",
        row.pk,
        held.seconds,
        extra=log_fields.fields(connection=row.pk),
    )
    return True


def _load(request: RefreshRequest) -> SipgateToken:
    row = rows.load_with_clock(request.connection_id)
    if row is not None:
        return row
    if request.caller_in_transaction:
        raise errors.CallerHoldsLock(
            "The connection is not committed yet: use it after the transaction that created it.",
            setting="ATOMIC_REQUESTS",
        )
    raise errors.NotConnected("The sipgate connection is gone.")


class _Refresh(Attempt):
    is_sent = False

    def run(self) -> SipgateToken:
        try:
            with ExitStack() as self.until_stored:
                return self._run()
        except machine.LockHeld as held:
            self.outcome = None
            raise LeftToOthers(held) from None
        except LeftToOthers:
            self.outcome = None
            raise
        finally:
            self.count()

    def _run(self) -> SipgateToken:
        client, pair = self._ours(), self._opened()
        self.refuse_unless_due()
        if pair.refresh_token is None:
            raise self.needs_sign_in(Reason.NO_REFRESH_TOKEN, code="")
        place = machine.place() if machine.look(self.row.pk) else ""
        if not rows.is_free(self.row, place=place):
            if journal.recover_row(self.row):
                return self._present()
            raise LeftToOthers
        self.outcome = Outcome.PAUSED
        pauses.respect(client, row=self.row)
        self.has_asked = True
        self.outcome = Outcome.FAILED  # unless something better is known below
        limits = replace(
            http.TOKEN,
            read=conf.answer_seconds(),
            total=conf.answer_seconds(),
            before_sending=self._before_sending,
        )
        database.release_connections()
        try:
            grant = oauth.refresh(client, pair.refresh_token, limits=limits)
        except _Recovered:
            self.outcome = None  # the journal counts it
            return self._present()
        except errors.TokenRefused as refused:
            return self.refused(refused, client)
        except errors.Misconfigured as error:
            self.outcome = Outcome.MISCONFIGURED
            if self.is_sent:
                self.fault_of_client(error, client)
            raise
        except (errors.SipgateUnavailable, errors.UnexpectedResponse) as error:
            self.no_answer(error)
            raise
        return self._keep(grant, pair, client)

    # --- is it ours, does it open? ------------------------------------------------------------------------------------

    def _ours(self) -> oauth.Client:
        self.outcome = Outcome.MISCONFIGURED
        client = authorization_server.client()
        why, setting = authorization_server.why_not_ours(self.row, client)
        if why:
            error = errors.Misconfigured(why, setting=setting, code=Reason.OTHER_CLIENT)
            raise self.local_fault(Reason.OTHER_CLIENT, error)
        self.outcome = None
        return client

    def _opened(self) -> sealing.Pair:
        if not self.row.sealed:
            raise self.needs_person()
        try:
            return sealing.open_pair(
                self.row.sealed, connection_id=self.row.pk, generation=self.row.generation
            )
        except errors.Misconfigured as error:
            raise self.local_fault(Reason.KEY_MISSING, error) from None

    # --- the connection stands, nothing was sent ----------------------------------------------------------------------

    def _before_sending(self) -> None:
        """Lock, claim, look, check the time. Returning means: send. Raising means: nothing was sent."""
        self.lock = machine.lock(self.row.pk)
        if self.lock is not None:
            self.until_stored.callback(self.lock.release)
        place = machine.place() if self.lock is not None else ""
        if not rows.is_free(self.row, place=place):
            raise LeftToOthers
        started = time.clock_gettime(CLOCK)
        self.claim = self._claimed(place)
        try:
            self._look()
            note = self.lock.note() if self.lock is not None else None
            self.is_suspect = self.claim.is_marked or (
                note is not None and note.says_sent(self.token.consent_id, self.token.generation)
            )
            if self.lock is not None:
                self.lock.write_note(machine.Note(self.token.consent_id, self.token.generation))
            database.release_connections()
            threads.refuse_when_ending()
            self._check_time(started)
        except BaseException:
            self.clear_note()
            self.give_back()
            raise
        self.is_sent = True

    def _claimed(self, place: str) -> rows.Claim:
        with database.short_lock_wait(self.request.caller_in_transaction):
            claim = rows.claim(self.row, owner=rows.new_owner(place))
        if claim is None:
            raise LeftToOthers
        return claim

    def _look(self) -> None:
        """Look for proof that the token is spent. It is compared with the claim: the row may have been recovered."""
        entry = journal.proof(self.token)
        if entry is None:
            return
        try:
            journal.recover(entry)
        except errors.Misconfigured as error:
            raise self.local_fault(Reason.KEY_MISSING, error) from None
        except journal.Broken:
            raise self.needs_sign_in(Reason.LOST_ROTATION, code="journal") from None
        raise _Recovered

    def _check_time(self, started: float) -> None:
        left = conf.lease().total_seconds() - (time.clock_gettime(CLOCK) - started)
        if left < conf.answer_seconds() + MARGIN:
            logger.warning(
                "Connection %s was claimed for too long to send its token",
                self.row.pk,
                extra=self.log_fields(),
            )
            raise LeftToOthers

    # --- the new pair is here -----------------------------------------------------------------------------------------

    def _keep(self, grant: oauth.Grant, old: sealing.Pair, client: oauth.Client) -> SipgateToken:
        """Journal and store the new pair; return the row that counts afterwards."""
        self.outcome = Outcome.NOT_STORED
        pair = sealing.Pair(
            access_token=grant.access_token, refresh_token=grant.refresh_token or old.refresh_token
        )
        entry = journal.write(self.token, grant, pair)
        stored = self._stored(grant, pair, entry)
        row = stored or rows.load(self.row.pk)
        if entry is not None:
            journal.confirm(entry)
        if stored is not None:
            self.announce(stored, client)
            return stored
        if row is None:
            revocation.enqueue(
                pair,
                uid="",
                user=None,
                why="disconnected during a refresh",
                connection_id=self.row.pk,
            )
            raise self.gone()
        self.outcome = Outcome.SUPERSEDED
        revocation.end_late_pair(row, pair)
        return row

    def _stored(
        self, grant: oauth.Grant, pair: sealing.Pair, entry: journal.Entry | None
    ) -> SipgateToken | None:
        """Try to store the pair until the database answers; without a journal, for as long as the process lives."""
        give_up, pause = time.monotonic() + conf.store_seconds(), 0.05
        while True:
            try:
                return rows.save_refreshed(
                    self.token,
                    grant,
                    pair,
                    now=timezone.now(),
                    is_use=self.request.is_use,
                    before=self.row,
                )
            except database.AWAY as error:
                # The connection may be dead: only a fresh one can tell whether the first statement arrived.
                connections[database.alias()].close()
                if entry is not None and pause < 0.06:
                    journal.sync(entry)
                if time.monotonic() + pause > give_up and (
                    entry is not None or threads.is_ending()
                ):
                    raise self._not_stored(entry) from error
                logger.warning(
                    "A rotated pair is not stored yet (%s)",
                    type(error).__name__,
                    extra=self.log_fields(),
                )
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _not_stored(self, entry: journal.Entry | None) -> errors.SipgateUnavailable:
        where = "is lost: there is no journal" if entry is None else "waits in the journal"
        error = errors.SipgateUnavailable(
            f"The database does not answer; the new pair {where}.",
            endpoint="token",
            code="database",
        )
        logger.error(
            "The new pair of connection %s %s [%s]: the database does not answer",
            self.row.pk,
            where,
            error.reference,
            extra=self.log_fields(error),
        )
        return error

    def _present(self) -> SipgateToken:
        row = rows.load(self.row.pk)
        if row is None:
            raise self.gone()
        return row


__all__ = ["LeftToOthers", "RefreshRequest", "refresh_connection"]
