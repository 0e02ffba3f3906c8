"""Several processes, clocks that jump, and the moments between two statements."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.db import connection, connections, transaction
from django.utils import timezone

from sipgate_provider.keeper import gate, journal, sealing, store, threads
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.ops import keepalive
from sipgate_provider.remote import oauth
from tests.conftest import Connect
from tests.strict import Strict

pytestmark = pytest.mark.django_db(transaction=True)


def issued(strict: Strict) -> tuple[oauth.Grant, sealing.Pair]:
    grant = oauth.Grant.parse(strict.issue()[0], issued_at=datetime.now(UTC))
    return grant, sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)


class TestLateAnswer:
    @pytest.mark.parametrize(("left", "stored"), [(30, False), (-1, True)])
    def test_is_stored_unless_somebody_else_is_at_it(
        self, connect: Connect, strict: Strict, left: int, stored: bool
    ) -> None:
        # This process was suspended; another one took the lease over, and may have been killed since.
        connection = connect(age=400)
        row = store.load(connection.pk)
        claim = store.claim(row, owner="suspended", now=timezone.now())
        SipgateToken.objects.update(lease_owner="other", lease_until=timezone.now() + timedelta(seconds=left))
        assert store.save_refreshed(claim, *issued(strict), used=True, now=timezone.now(), row=row) is stored
        assert store.load(connection.pk).generation == (2 if stored else 1)


@pytest.fixture
def journal_directory(settings: Any, tmp_path: Path) -> Path:
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("journal_directory")
class TestJournal:
    def waits(self, connection: SocialAccount, strict: Strict) -> None:
        """Let a pair wait, as a process leaves it that was killed before it could store it."""
        row = store.load(connection.pk)
        claim = store.Claim(connection_id=row.pk, generation=row.generation, owner="killed", taken_over=False)
        journal.write(claim, *issued(strict))

    def test_rollback_of_the_caller_leaves_the_pair_in_it(self, connect: Connect, strict: Strict) -> None:
        connection = connect(age=400, state=State.NEEDS_SIGN_IN, reason=Reason.LOST_ROTATION)
        self.waits(connection, strict)
        with transaction.atomic():
            assert gate.usable(connection).generation == 2
            transaction.set_rollback(True)
        assert store.load(connection.pk).generation == 1
        assert gate.usable(connection).generation == 2
        assert journal.waiting() == 0

    def test_odd_files_stop_nobody(self, connect: Connect, strict: Strict, journal_directory: Path) -> None:
        connection = connect(age=400)
        for name in ("notes.sealed", "1-x-2.sealed", "-.sealed"):
            (journal_directory / name).write_text("not ours")
        (journal_directory / f"{connection.pk}-1-{'0' * 32}.sealed").mkdir()
        self.waits(connection, strict)
        assert journal.replay() == 1
        assert gate.usable(connection).generation == 2

    def test_entry_of_a_newer_version_stops_nobody(
        self, connect: Connect, strict: Strict, journal_directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        connection = connect(age=400)
        newer = {"claim": [connection.pk, 1, "x"], "grant": {"access_token": "at-unmistakable", "newer": 1}}
        path = journal_directory / f"{connection.pk}-1-{'0' * 32}.sealed"
        path.write_bytes(sealing.seal(json.dumps(newer).encode(), context=journal.CONTEXT))
        self.waits(connection, strict)
        assert journal.replay() == 1
        assert path.exists()
        assert "not understood" in caplog.text
        assert "unmistakable" not in caplog.text

    def test_pair_of_a_revoked_connection_has_its_session_ended(self, connect: Connect, strict: Strict) -> None:
        # The pair waits on another machine, where nobody could look before the connection was revoked here.
        connection = connect(age=400)
        self.waits(connection, strict)
        store.clear(store.load(connection.pk), reason=Reason.REVOKED, now=timezone.now())
        assert journal.replay() == 0
        assert threads.errands.wait_idle(10)
        assert TokenEvent.objects.get(kind=TokenEvent.Kind.REVOCATION).note == "revoked during a refresh"


class TestClocks:
    def test_token_of_a_clock_that_was_ahead_is_renewed_once_it_is_rejected(
        self, connect: Connect, strict: Strict
    ) -> None:
        ahead = timedelta(minutes=10)
        connection = connect(age=-ahead.total_seconds(), last_refreshed_at=timezone.now() + ahead)
        old = gate.usable(connection)
        assert gate.usable(connection, rejected=old.value).generation == 2
        assert store.load(connection.pk).expires_at < timezone.now() + ahead


class TestOrderOfLocks:
    def test_rows_are_stored_together_in_the_order_in_which_they_are_sealed_anew(
        self, connect: Connect, strict: Strict
    ) -> None:
        # PostgreSQL ends one of two transactions that lock the same rows in different orders.
        rows = [store.load(connect().pk) for _ in range(5)]
        renewed = []
        for row in reversed(rows):
            claim = store.claim(row, owner="keepalive", now=timezone.now())
            grant, pair = issued(strict)
            renewed.append(store.Renewed(claim=claim, grant=grant, pair=pair, row=row))
        locked: list[int] = []

        def watch(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
            if many:
                locked.extend(row.pk for one in parameters for row in rows if row.pk == one[-4])
            return execute(sql, parameters, many, context)

        with connection.execute_wrapper(watch):
            assert store.keep_many(renewed, now=timezone.now())
        assert locked == [row.pk for row in rows]


class TestUpkeep:
    def test_row_that_waited_for_a_thread_until_a_visitor_renewed_it_is_left_alone(
        self, connect: Connect, strict: Strict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keepalive, "HELD_SECONDS", 0.1)
        strict.set(latency=1)
        month = 2_592_000
        connect(age=0.9 * month)
        waiting = connect(age=0.7 * month)
        reports: list[keepalive.Report] = []

        def upkeep() -> None:
            reports.append(keepalive.run(rate=0, threads=1))
            connections.close_all()

        running = threading.Thread(target=upkeep)
        running.start()
        while not store.load(waiting.pk).lease_owner:
            assert running.is_alive()
        # The first row takes so long that the lease of the second one runs out.
        SipgateToken.objects.filter(pk=waiting.pk).update(lease_until=timezone.now())
        assert gate.refresh(waiting).generation == 2
        running.join()
        assert (reports[0].refreshed, reports[0].skipped) == (1, 1)
        assert (strict.counts()["refresh"], strict.counts()["reuse"]) == (2, 0)
