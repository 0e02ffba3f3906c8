"""Queues and pools that are full: who needs no refresh does not wait for those who do, and nobody loses anything."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.db import OperationalError, connections, transaction

from sipgate_provider import errors, tokens
from sipgate_provider.client import SipgateClient, in_thread
from sipgate_provider.connections import views_of
from sipgate_provider.models import State, TokenEvent
from sipgate_provider.tokens import rows, threads
from tests.conftest import Connect
from tests.journey import Browser
from tests.rotating_server import Strict

pytestmark = pytest.mark.django_db(transaction=True)

User = get_user_model()


def until_arrived(strict: Strict, number: int = 1) -> None:
    """Wait until so many refreshes have reached sipgate."""
    give_up = time.monotonic() + 10
    while strict.counts()["arrived"] < number and time.monotonic() < give_up:
        time.sleep(0.02)
    assert strict.counts()["arrived"] >= number


class TestHeadOfLine:
    def test_an_async_call_with_a_valid_token_passes_64_that_wait(
        self, connect: Connect, strict: Strict
    ) -> None:
        stale, fresh = SipgateClient(connect(age=400)), SipgateClient(connect())
        strict.set(latency=3)

        async def journey() -> float:
            waiting = [asyncio.create_task(in_thread(stale.get)("/account")) for _ in range(64)]
            await asyncio.to_thread(until_arrived, strict)
            started = time.monotonic()
            await in_thread(fresh.get)("/account")
            took = time.monotonic() - started
            assert not any(task.done() for task in waiting)
            assert {answer["company"] for answer in await asyncio.gather(*waiting)} == {
                "Strict GmbH"
            }
            return took

        assert asyncio.run(journey()) < 1
        assert strict.counts()["refresh"] == 1

    def test_a_page_with_a_valid_token_passes_those_that_wait(
        self, connect: Connect, strict: Strict
    ) -> None:
        stale = [connect(age=400) for _ in range(threads.THREADS + 4)]
        fresh = connect()
        strict.set(latency=3)
        for connection in stale:
            assert views_of(connection.user, wait=0)[0].is_pending
        until_arrived(strict)
        [view] = views_of(fresh.user, wait=2)
        assert view.is_fresh
        assert strict.counts()["rotated"] == 0, "the others still wait"


class TestNoThread:
    """The operating system gives this process no further threads (a limit of the container, say)."""

    @pytest.fixture
    def refused(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """Begin to refuse."""
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name.startswith("sipgate-"):
                raise RuntimeError("can't start new thread")
            start(thread)

        return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)

    @pytest.mark.parametrize("age", [0, 240, 280])
    def test_a_usable_token_is_used(
        self, connect: Connect, strict: Strict, refused: Callable[[], None], age: int
    ) -> None:
        """Fresh, near its end, and where callers usually wait for a new one."""
        refused()
        assert SipgateClient(connect(age=age)).account().company == "Strict GmbH"

    def test_an_ended_token_is_an_error_of_ours(
        self, connect: Connect, strict: Strict, refused: Callable[[], None]
    ) -> None:
        connection = connect(age=400)
        refused()
        with pytest.raises(errors.SipgateUnavailable) as caught:
            tokens.token(connection)
        assert (caught.value.code, caught.value.sent) == ("busy", False)
        assert strict.counts()["refresh"] == 0

    def test_an_async_call_is_an_error_of_ours(
        self, connect: Connect, strict: Strict, refused: Callable[[], None]
    ) -> None:
        async def journey() -> None:
            await in_thread(client.get)("/account")

        client = SipgateClient(connect())
        refused()
        with pytest.raises(errors.SipgateUnavailable):
            asyncio.run(journey())

    def test_a_page_shows_what_is_known(
        self, browser: Browser, refused: Callable[[], None]
    ) -> None:
        browser.sign_in()
        assert browser.site.get("/account").status_code == 200
        refused()
        answer = browser.site.get("/account")
        assert answer.status_code == 200
        assert "Rosenduft Gartenbau GmbH" in answer.content.decode()
        assert "sipgate cannot be reached" in answer.content.decode()


def test_a_process_that_ends_leaves_the_row_as_it_is(
    connect: Connect, strict: Strict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not asked, so nothing has failed: the next process goes on at once."""
    connection = connect(age=400)
    with monkeypatch.context() as patch:
        patch.setattr(threads, "_is_ending", True)
        with pytest.raises(errors.SipgateUnavailable, match="about to end"):
            tokens.token(connection)
    row = tokens.load(connection.pk)
    assert (row.state, row.lease_owner, row.next_attempt_at) == (State.ACTIVE, "", None)
    assert not TokenEvent.objects.filter(kind=TokenEvent.Kind.FAILED).exists()
    assert tokens.token(connection).generation == 2
    assert strict.counts()["refresh"] == 1


class TestPool:
    @pytest.fixture
    def two_connections(self) -> Iterator[None]:
        """Let this process have two connections to the database at most."""
        wrapper = connections["default"]
        if wrapper.vendor != "postgresql":
            pytest.skip("SQLite has no pool")
        options = wrapper.settings_dict["OPTIONS"]
        before = options["pool"]
        options["pool"] = {"min_size": 0, "max_size": 2, "timeout": 1}
        wrapper.close_pool()
        yield
        options["pool"] = before
        wrapper.close_pool()

    @pytest.mark.usefixtures("two_connections")
    @pytest.mark.parametrize("is_in_transaction", [True, False])
    def test_exhausted(self, connect: Connect, strict: Strict, is_in_transaction: bool) -> None:
        """Two transactions have both connections: a token that one of them waits for cannot be refreshed."""
        connection, both_hold, over = connect(age=400), threading.Barrier(3), threading.Event()
        tokens.release_connections()

        def use() -> None:
            with pytest.raises(errors.Misconfigured) as caught:
                tokens.token(connection)
            assert (caught.value.setting, caught.value.code) == (
                "pool in DATABASES",
                "database_pool",
            )
            assert "make the pool larger" in caught.value.message

        def hold(is_user: bool) -> None:
            try:
                with transaction.atomic():
                    assert SocialAccount.objects.filter(pk=connection.pk).exists()
                    both_hold.wait(10)
                    if is_user:
                        use()
                        over.set()
                    assert over.wait(20)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(2) as pool:
            holding = [pool.submit(hold, is_user) for is_user in (False, is_in_transaction)]
            both_hold.wait(10)
            if not is_in_transaction:
                use()
                over.set()
            for future in holding:
                future.result(20)
        assert tokens.token(connection).generation == 2
        assert (strict.counts()["rotated"], strict.counts()["reuse"]) == (1, 0)
        assert tokens.load(connection.pk).lease_owner == ""


class TestTransactions:
    @pytest.fixture
    def autocommit_off(self, transactional_db: None) -> Iterator[None]:
        """As with ``AUTOCOMMIT: False`` in ``DATABASES``: of this thread and of those that are started."""
        wrapper = connections["default"]
        wrapper.settings_dict["AUTOCOMMIT"] = False
        wrapper.close()
        yield
        wrapper.rollback()
        wrapper.settings_dict["AUTOCOMMIT"] = True
        wrapper.close()

    @pytest.mark.parametrize("ends", ["commit", "rollback"])
    def test_a_caller_that_commits_by_itself(
        self, connect: Connect, strict: Strict, autocommit_off: None, ends: str
    ) -> None:
        """Its work stays its own, and the new pair is stored, whatever it does with the one."""
        pk = connect(age=400).pk
        transaction.commit()
        User.objects.create(username="written before")
        if connections["default"].vendor == "sqlite":
            with pytest.raises(errors.CallerHoldsLock):
                tokens.token(pk)
            assert strict.counts()["refresh"] == 0
        else:
            assert tokens.token(pk).generation == 2
            assert (
                SipgateClient(SocialAccount.objects.get(pk=pk)).account().company == "Strict GmbH"
            )
        getattr(transaction, ends)()
        assert User.objects.filter(username="written before").exists() == (ends == "commit")
        transaction.commit()
        assert tokens.token(pk).generation == 2
        assert (strict.counts()["rotated"], strict.counts()["reuse"]) == (1, 0)

    def test_a_database_that_goes_away_is_not_taken_for_the_lock_of_a_caller(
        self, connect: Connect, strict: Strict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def goes_away(*_args: Any, **_how: Any) -> None:
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        if connections["default"].vendor != "postgresql":
            pytest.skip("SQLite's database is a file")
        connection = connect(age=400)
        monkeypatch.setattr(rows, "claim", goes_away)
        with transaction.atomic(), pytest.raises(OperationalError):
            tokens.token(connection)
        assert strict.counts()["arrived"] == 0

    def test_a_persistent_connection_stays_open_outside_of_a_transaction(
        self, connect: Connect, strict: Strict
    ) -> None:
        wrapper = connections["default"]
        if wrapper.vendor != "postgresql":
            pytest.skip("SQLite's connection is never given back")
        client = SipgateClient(connect(age=400))
        options, before = (
            wrapper.settings_dict["OPTIONS"],
            wrapper.settings_dict["OPTIONS"].pop("pool"),
        )
        wrapper.close()
        wrapper.settings_dict["CONN_MAX_AGE"] = 60
        try:
            SocialAccount.objects.count()
            mine = wrapper.connection
            assert client.account().company == "Strict GmbH"
            assert wrapper.connection is mine
            assert mine.info.transaction_status.name == "IDLE"
        finally:
            wrapper.close()
            options["pool"] = before
            wrapper.settings_dict["CONN_MAX_AGE"] = 0
