"""Several processes, clocks that jump, and the moments between two statements."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from sipgate_provider import oauth, sealing, store
from sipgate_provider.models import SipgateToken
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
        assert store.keep(claim, *issued(strict), used=True, now=timezone.now(), row=row) is stored
        assert store.load(connection.pk).generation == (2 if stored else 1)
