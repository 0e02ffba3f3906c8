"""Queues and pools that are full: who needs no refresh does not wait for those who do, and nobody
loses anything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.db import connections, transaction

from sipgate_provider import database, errors, tokens
from sipgate_provider.client import SipgateClient, in_thread
from sipgate_provider.connections import views_of
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

User = get_user_model()


class TestHeadOfLine:
    def test_an_async_call_with_a_valid_token_passes_64_that_wait(self, connect, rotator):
        stale, fresh = SipgateClient(connect(age=400)), SipgateClient(connect())
        rotator.set(latency=60)

        async def journey():
            waiting = [asyncio.create_task(in_thread(stale.get)("/account")) for _ in range(64)]
            await asyncio.to_thread(wait_for, lambda: rotator.counts()["arrived"])
            await in_thread(fresh.get)("/account")
            assert not any(task.done() for task in waiting)
            rotator.set(latency=0)
            answers = await asyncio.gather(*waiting)
            assert {answer["company"] for answer in answers} == {"Strict GmbH"}

        asyncio.run(journey())
        assert rotator.counts()["refresh"] == 1

    def test_a_page_with_a_valid_token_passes_those_that_wait(self, connect, rotator, settings):
        stale = [connect(age=400) for _ in range(36)]
        fresh = connect()
        rotator.set(latency=60)
        settings.SIPGATE_PAGE_WAIT_SECONDS = 0
        for connection in stale:
            assert views_of(connection.user)[0].is_pending
        wait_for(lambda: rotator.counts()["arrived"])
        settings.SIPGATE_PAGE_WAIT_SECONDS = 10
        [view] = views_of(fresh.user)
        assert view.is_fresh
        assert rotator.counts()["rotated"] == 0, "the others still wait"
        rotator.set(latency=0)


@pytest.mark.postgresql
class TestPool:
    @pytest.fixture
    def two_connections(self) -> Iterator[None]:
        """Let this process have two connections to the database at most."""
        wrapper = connections["default"]
        options = wrapper.settings_dict["OPTIONS"]
        before = options["pool"]
        options["pool"] = {"min_size": 0, "max_size": 2, "timeout": 1}
        wrapper.close_pool()
        yield
        options["pool"] = before
        wrapper.close_pool()

    @pytest.mark.usefixtures("two_connections")
    @pytest.mark.parametrize("is_in_transaction", [True, False])
    def test_exhausted(self, connect, rotator, is_in_transaction):
        """Two transactions have both connections: a token that one of them waits for cannot be
        refreshed."""
        connection, both_hold, over = connect(age=400), threading.Barrier(3), threading.Event()
        database.release_connections()

        def use():
            with pytest.raises(errors.Misconfigured) as caught:
                tokens.token(connection)
            assert caught.value.setting == "pool in DATABASES"
            assert caught.value.code == "database_pool"
            assert "make the pool larger" in caught.value.message

        def hold(is_user):
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
        assert tokens.token(connection).number == 2
        assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (1, 0)
        assert tokens.load(connection.pk).lease_holder == ""


class TestTransactions:
    @pytest.mark.postgresql
    def test_a_persistent_connection_stays_open_outside_of_a_transaction(self, connect, rotator):
        wrapper = connections["default"]
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
