"""Personal data that is too old goes, and a person who is deleted is taken out of the history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from sipgate_provider import tokens
from sipgate_provider.models import LastKnownAccount, SipgateToken, TokenEvent
from sipgate_provider.ops import retention
from tests.conftest import Connect

pytestmark = pytest.mark.django_db(transaction=True)


def old(days: float, number: int = 1) -> None:
    at = timezone.now() - timedelta(days=days)
    TokenEvent.objects.bulk_create(
        TokenEvent(at=at, kind=TokenEvent.Kind.FAILED, uid=f"{days}", actor="gate")
        for _ in range(number)
    )


def left() -> list[str]:
    return sorted(
        TokenEvent.objects.filter(kind=TokenEvent.Kind.FAILED).values_list("uid", flat=True)
    )


class TestRetention:
    def test_what_is_too_old_goes(self, settings: Any, connect: Connect) -> None:
        settings.SIPGATE_HISTORY_DAYS = 30
        old(31)
        old(29)
        stale, known = connect(), connect()
        for connection, days in ((stale, 31), (known, 29)):
            LastKnownAccount.objects.create(
                connection=connection,
                data={"company": "Rosenduft"},
                fetched_at=timezone.now() - timedelta(days=days),
            )
        assert retention.work_off() == retention.Removed(events=1, accounts=1)
        assert left() == ["29"]
        assert [row.pk for row in LastKnownAccount.objects.all()] == [known.pk]
        assert SipgateToken.objects.count() == 2, "connections stay"
        assert retention.work_off() == retention.Removed(events=0, accounts=0)

    def test_by_default_after_a_year(self, settings: Any) -> None:
        del settings.SIPGATE_HISTORY_DAYS
        old(366)
        old(364)
        retention.work_off()
        assert left() == ["364"]

    def test_zero_keeps_all(self, settings: Any) -> None:
        settings.SIPGATE_HISTORY_DAYS = 0
        old(5_000)
        assert retention.work_off() == retention.Removed(events=0, accounts=0)
        assert left() == ["5000"]

    def test_much_goes_in_batches_and_the_rest_the_next_time(
        self, settings: Any, monkeypatch: Any
    ) -> None:
        settings.SIPGATE_HISTORY_DAYS = 30
        monkeypatch.setattr(retention, "BATCH", 10)
        monkeypatch.setattr(retention, "BATCHES", 3)
        old(31, 35)
        assert [retention.work_off().events for _ in range(3)] == [30, 5, 0]


class TestDeletedUser:
    def test_however_a_user_is_deleted_the_history_forgets_to_whom_it_happened(
        self, connect: Connect
    ) -> None:
        connection, other = connect(), connect()
        TokenEvent.objects.add(
            TokenEvent.Kind.FAILED,
            connection=connection,
            actor="gate",
            note=f"user {connection.user_id}",
        )
        TokenEvent.objects.add(TokenEvent.Kind.FAILED, connection=other, actor="gate")
        gone, uid = connection.user_id, connection.uid
        connection.user.delete()
        events = TokenEvent.objects.using(tokens.using())
        assert not events.filter(uid=uid).exists()
        assert not events.filter(user_id=gone).exists()
        assert not events.filter(note__contains=f"user {gone}").exists()
        assert events.filter(kind=TokenEvent.Kind.DISCONNECTED, uid="").count() == 1, (
            "that it happened stays"
        )
        assert (
            events.filter(uid=other.uid, user_id=other.user_id, kind=TokenEvent.Kind.FAILED).count()
            == 1
        )
