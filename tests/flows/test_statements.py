"""The keeper's own statements do what the ORM's would, on every database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db import connection as of_database
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sipgate_provider.models import ClientPause, SipgateToken, State
from sipgate_provider.tokens import statements
from tests.conftest import Connect

pytestmark = pytest.mark.django_db(transaction=True)


def values(row: SipgateToken) -> dict[str, Any]:
    return {
        field.attname: getattr(row, field.attname) for field in SipgateToken._meta.concrete_fields
    }


class TestGet:
    def test_returns_what_the_orm_would(self, connect: Connect) -> None:
        connect()
        pk = connect(lease_until=timezone.now(), next_attempt_at=None, scope="ä € 'x' %s").pk
        with CaptureQueriesContext(of_database) as queries:
            row = statements.get(SipgateToken, pk)
        orm = SipgateToken.objects.get(pk=pk)
        assert row is not None
        assert (len(queries), row, row.connection) == (1, orm, orm.connection)
        assert {
            name: (type(value), value) for name, value in values(row).items() if name != "sealed"
        } == {name: (type(value), value) for name, value in values(orm).items() if name != "sealed"}
        assert bytes(row.sealed) == bytes(orm.sealed)
        with pytest.raises(TypeError, match="save"):
            row.save()

    def test_tells_the_clock_of_the_database(self, connect: Connect) -> None:
        row = statements.get(SipgateToken, connect().pk, database_now=statements.database_time())
        assert row is not None
        assert abs(row.database_now - timezone.now()) < timedelta(seconds=5)  # type: ignore[attr-defined]  # as annotated

    def test_returns_none_for_a_row_that_is_not_there(self) -> None:
        assert statements.get(SipgateToken, 0) is None
        assert statements.get(ClientPause, "no such") is None


class TestUpdate:
    def test_changes_what_the_orm_would(self, connect: Connect) -> None:
        ours, other = (
            connect(refresh_count=3, lease_owner="x"),
            connect(refresh_count=3, lease_owner="x"),
        )
        untouched, now = values(SipgateToken.objects.get(pk=other.pk)), timezone.now()
        changes: dict[str, Any] = {
            "sealed": b"\x00\xff",
            "scope": "ä € 'x' %s",
            "state": State.FAILING,
            "refresh_expires_at": None,
            "lease_until": statements.database_time(timedelta(seconds=45)),
            "refresh_count": F("refresh_count") + 1,
            "last_used_at": now,
        }
        assert statements.update(SipgateToken, {"connection": ours.pk}, changes) == 1
        row = SipgateToken.objects.get(pk=ours.pk)
        assert (bytes(row.sealed), row.scope, row.state) == (b"\x00\xff", "ä € 'x' %s", "failing")
        assert (row.refresh_expires_at, row.refresh_count, row.last_used_at) == (None, 4, now)
        assert row.lease_until is not None
        assert abs(row.lease_until - now - timedelta(seconds=45)) < timedelta(seconds=5)
        assert values(SipgateToken.objects.get(pk=other.pk)) == untouched

    @pytest.mark.parametrize(
        ("where", "found"),
        [
            ({"generation": 1}, 1),
            ({"generation": 2}, 0),
            ({"generation__lte": 1}, 1),
            ({"generation__lte": 0}, 0),
            ({"next_attempt_at": None}, 1),
            ({"lease_until": None}, 0),
            ({"generation": 1, "state": State.FAILING}, 0),
        ],
    )
    def test_rows_that_are_otherwise_stay(
        self, connect: Connect, where: dict[str, Any], found: int
    ) -> None:
        pk = connect(lease_until=timezone.now()).pk
        assert (
            statements.update(SipgateToken, {"connection": pk, **where}, {"scope": "new"}) == found
        )
        assert (SipgateToken.objects.get(pk=pk).scope == "new") is bool(found)

    def test_an_error_breaks_the_transaction_of_the_caller(self, connect: Connect) -> None:
        pk = connect().pk
        with transaction.atomic():
            with pytest.raises(IntegrityError):
                statements.update(SipgateToken, {"connection": pk}, {"generation": None})
            assert of_database.needs_rollback
