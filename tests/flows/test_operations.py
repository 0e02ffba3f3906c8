"""What an operator does to connections, against the strict server: noted, safe to repeat, fair to running refreshes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests
from django.db import transaction
from django.utils import timezone

from sipgate_provider import errors, signals, tokens
from sipgate_provider.models import Reason, Revocation, SipgateToken, State, TokenEvent
from sipgate_provider.ops import operations
from sipgate_provider.ops.operations import Operation
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import journal, rows, sealing, threads
from sipgate_provider.tokens.refresh import RefreshRequest, refresh_connection
from tests.conftest import Connect
from tests.rotating_server import Strict

pytestmark = pytest.mark.django_db(transaction=True)


def notes() -> list[tuple[str, str]]:
    return list(TokenEvent.objects.filter(kind="admin").order_by("id").values_list("note", "actor"))


@pytest.fixture
def ended() -> Iterator[list[str]]:
    """The reasons with which ``needs_sign_in`` was announced."""
    heard: list[str] = []

    def hear(reason: str, **_values: object) -> None:
        heard.append(str(reason))

    signals.needs_sign_in.connect(hear, weak=False)
    yield heard
    signals.needs_sign_in.disconnect(hear)


class TestRefresh:
    def test_renews_each_and_is_no_use_by_the_site(self, connect: Connect, strict: Strict) -> None:
        used = timezone.now() - timedelta(days=3)
        rows = [connect(last_used_at=used) for _ in range(5)]
        outcomes = operations.run(Operation.REFRESH, [row.pk for row in rows], actor="olga")
        assert [(o.connection_id, o.changed, o.error) for o in outcomes] == [
            (row.pk, True, None) for row in rows
        ]
        assert set(SipgateToken.objects.values_list("generation", "last_used_at")) == {(2, used)}
        assert notes() == [("refresh: done", "olga")] * 5

    def test_failures_are_outcomes_and_notes(self, connect: Connect, strict: Strict) -> None:
        connection = connect()
        strict.set(fault="500", times=1)
        (outcome,) = operations.run(Operation.REFRESH, [connection.pk], actor="olga")
        assert isinstance(outcome.error, errors.SipgateUnavailable)
        event = TokenEvent.objects.get(kind="admin")
        assert (event.note, event.reference, event.error_code) == (
            "refresh: failed",
            outcome.error.reference,
            "unknown_error",
        )

    def test_a_fault_of_ours_is_an_outcome_too(self, connect: Connect, monkeypatch, caplog) -> None:
        connection, text = connect(), "what a database says of a row"

        def broken(*_args: object, **_kwargs: object) -> None:
            raise RuntimeError(text)

        monkeypatch.setattr(tokens, "refresh", broken)
        (outcome,) = operations.run(Operation.REFRESH, [connection.pk], actor="olga")
        assert "RuntimeError" in outcome.error.message
        assert outcome.error.reference in caplog.text
        assert text not in caplog.text
        assert notes() == [("refresh: failed", "olga")]

    def test_unknown_connections(self, strict: Strict) -> None:
        for operation in Operation:
            (outcome,) = operations.run(operation, [4711], actor="olga")
            assert isinstance(outcome.error, errors.NotConnected)

    def test_slow_ones_go_on_behind(self, connect: Connect, strict: Strict) -> None:
        connection = connect()
        strict.set(latency=0.6)
        started = time.monotonic()
        (outcome,) = operations.run(Operation.REFRESH, [connection.pk], actor="olga", wait=0.1)
        assert outcome.is_pending
        assert time.monotonic() - started < 0.5
        assert tokens.operations.wait_idle(10)
        assert tokens.load(connection.pk).generation == 2
        assert notes() == [("refresh: done", "olga")]

    def test_bounded(self, strict: Strict) -> None:
        with pytest.raises(ValueError, match="100"):
            operations.run(Operation.REFRESH, range(101), actor="olga")

    @pytest.mark.parametrize("operation", Operation)
    def test_refuses_a_callers_transaction(
        self, connect: Connect, strict: Strict, operation: Operation
    ) -> None:
        connection = connect()
        with transaction.atomic(), pytest.raises(errors.CallerHoldsLock):
            operations.run(operation, [connection.pk], actor="olga")
        assert (tokens.load(connection.pk).generation, strict.counts()["refresh"]) == (1, 0)


class TestRevoke:
    def test_forgets_the_pair_and_ends_the_session(
        self, connect: Connect, ended: list[str]
    ) -> None:
        connection = connect()
        operations.run(Operation.REVOKE, [connection.pk], actor="olga")
        row = tokens.load(connection.pk)
        assert (row.state, row.reason, bytes(row.sealed)) == (
            State.NEEDS_SIGN_IN,
            Reason.REVOKED,
            b"",
        )
        assert (row.access_fingerprint, row.refresh_fingerprint) == ("", "")
        assert tokens.errands.wait_idle(10)
        assert TokenEvent.objects.filter(kind="revocation").count() == 1
        assert ended == [Reason.REVOKED]
        for call in (tokens.token, tokens.refresh):
            with pytest.raises(errors.NeedsSignIn) as caught:
                call(connection)
            assert caught.value.reason == Reason.REVOKED

    def test_twice_is_once(self, connect: Connect, ended: list[str]) -> None:
        connection = connect()
        assert operations.run(Operation.REVOKE, [connection.pk], actor="olga")[0].changed
        before = tokens.load(connection.pk)
        (again,) = operations.run(Operation.REVOKE, [connection.pk], actor="olga")
        assert (again.changed, again.error) == (False, None)
        after = tokens.load(connection.pk)
        assert (after.generation, after.state_since) == (before.generation, before.state_since)
        assert (notes(), len(ended)) == ([("revoke: done", "olga")], 1)

    def test_works_without_the_key(self, connect: Connect, settings) -> None:
        connection = connect()
        settings.SIPGATE_TOKEN_KEYS = ["b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItb28="]
        (outcome,) = operations.run(Operation.REVOKE, [connection.pk], actor="olga")
        assert outcome.error is None
        assert bytes(tokens.load(connection.pk).sealed) == b""
        assert Revocation.objects.count() == 0
        assert "key that sealed it is gone" in notes()[0][0]

    def test_a_running_refresh_does_not_bring_it_back(
        self, connect: Connect, strict: Strict
    ) -> None:
        """Its answer finds no place; the pair it brought is handed to the outbox as well."""
        connection = connect()
        strict.set(fault="late", times=1, late=0.8)
        failures: list[BaseException] = []

        def caller() -> None:
            try:
                with tokens.own_connections():
                    tokens.token(connection, rejected=tokens.token(connection).value)
            except errors.SipgateError as error:
                failures.append(error)

        thread = threading.Thread(target=caller)
        thread.start()
        _until(lambda: strict.counts()["refresh"] == 1)
        operations.run(Operation.REVOKE, [connection.pk], actor="olga")
        thread.join(15)
        row = tokens.load(connection.pk)
        assert (row.state, row.reason, bytes(row.sealed)) == (
            State.NEEDS_SIGN_IN,
            Reason.REVOKED,
            b"",
        )
        assert [type(failure) for failure in failures] == [errors.NeedsSignIn]
        assert tokens.errands.wait_idle(10)
        told = set(TokenEvent.objects.filter(kind="revocation").values_list("note", flat=True))
        assert told == {
            "revoked by an administrator (revocation)",
            "revoked during a refresh (revocation)",
        }

    def test_the_pair_that_waits_in_the_journal_is_the_one_to_end(
        self, connect: Connect, strict: Strict, settings, tmp_path
    ) -> None:
        settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
        row = tokens.load(connect(age=400).pk)
        grant = oauth.Grant.parse(strict.issue(family="newest")[0], issued_at=datetime.now(UTC))
        pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
        journal.write(
            rows.Sent(connection_id=row.pk, consent_id=row.consent_id, generation=1), grant, pair
        )
        operations.run(Operation.REVOKE, [row.pk], actor="olga")
        assert tokens.errands.wait_idle(10)
        assert journal.waiting() == 0
        headers = {"Authorization": f"Bearer {grant.access_token}"}
        assert (
            requests.get(f"{strict.api_url}/account", headers=headers, timeout=10).status_code
            == 401
        )

    def test_a_new_sign_in_works(self, connect: Connect, strict: Strict) -> None:
        connection = connect()
        operations.run(Operation.REVOKE, [connection.pk], actor="olga")
        grant = oauth.Grant.parse(strict.issue()[0], issued_at=datetime.now(UTC))
        tokens.store(connection, grant)
        assert tokens.token(connection).generation == 3
        assert TokenEvent.objects.filter(kind="repaired", reason=Reason.REVOKED).count() == 1

    def test_resealing_passes_over_it(self, connect: Connect, settings) -> None:
        connection = connect()
        operations.run(Operation.REVOKE, [connection.pk], actor="olga")
        old = settings.SIPGATE_TOKEN_KEYS[0]
        settings.SIPGATE_TOKEN_KEYS = ["b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItb28=", old]
        before = tokens.load(connection.pk).key_id
        assert rows.reseal([tokens.load(connection.pk)]) == (1, 0, 0)
        assert tokens.load(connection.pk).key_id != before


class TestAsk:
    def test_ends_here_and_asks_nothing_of_sipgate(
        self, connect: Connect, strict: Strict, ended: list[str]
    ) -> None:
        connection = connect()
        assert operations.run(Operation.REQUIRE_SIGN_IN, [connection.pk], actor="olga")[0].changed
        row = tokens.load(connection.pk)
        assert (row.state, row.reason, row.generation) == (
            State.NEEDS_SIGN_IN,
            Reason.SIGN_IN_REQUIRED,
            1,
        )
        assert not operations.run(Operation.REQUIRE_SIGN_IN, [connection.pk], actor="olga")[
            0
        ].changed
        assert (notes(), ended) == ([("require_sign_in: done", "olga")], [Reason.SIGN_IN_REQUIRED])
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(connection)
        assert strict.counts()["refresh"] == 0

    def test_outlives_a_running_refresh_whose_pair_is_kept(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect()
        strict.set(fault="late", times=1, late=0.8)
        request = RefreshRequest(connection_id=connection.pk, seen_generation=1, patience=5)
        flight = threads.refreshes.submit_once(connection.pk, lambda: refresh_connection(request))
        _until(lambda: strict.counts()["refresh"] == 1)
        operations.run(Operation.REQUIRE_SIGN_IN, [connection.pk], actor="olga")
        flight.result(15)
        row = tokens.load(connection.pk)
        assert (row.generation, row.state, row.reason) == (
            2,
            State.NEEDS_SIGN_IN,
            Reason.SIGN_IN_REQUIRED,
        )
        assert tokens.token(connection).generation == 2

    def test_outlives_a_running_refresh_that_fails(self, connect: Connect, strict: Strict) -> None:
        connection = connect()
        strict.set(fault="lose", times=1, latency=0.8)
        request = RefreshRequest(connection_id=connection.pk, seen_generation=1, patience=5)
        flight = threads.refreshes.submit_once(connection.pk, lambda: refresh_connection(request))
        _until(lambda: strict.counts().get("arrived") == 1)
        operations.run(Operation.REQUIRE_SIGN_IN, [connection.pk], actor="olga")
        with pytest.raises(errors.SipgateUnavailable):
            flight.result(15)
        row = tokens.load(connection.pk)
        assert (row.state, row.reason, row.next_attempt_at) == (
            State.NEEDS_SIGN_IN,
            Reason.SIGN_IN_REQUIRED,
            None,
        )
        assert row.mark_owner  # that the token may be spent is noted all the same
        assert not row.lease_owner

    def test_a_claim_that_saw_it_earlier_is_refused(self, connect: Connect) -> None:
        connection = connect()
        stale = tokens.load(connection.pk)
        operations.run(Operation.REQUIRE_SIGN_IN, [connection.pk], actor="olga")
        assert rows.claim(stale, owner=rows.new_owner("")) is None


def _until(condition) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)
