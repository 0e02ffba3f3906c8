"""Very many rows: what runs often uses an index."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from sipgate_provider import connections, tokens
from sipgate_provider.models import Ending, SipgateToken
from sipgate_provider.ops import keepalive
from tests.conftest import Connect

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long, pytest.mark.timeout(1800)]

ROWS = {"postgresql": 1_000_000, "sqlite": 200_000}


def test_plans_at_a_million_rows(connect: Connect) -> None:
    template = connect(age=29 * 86_400).sipgate_token
    fill(template, ROWS[connection.vendor])
    now = timezone.now()
    plans = {
        "due": plan(keepalive.idle(now)[:64]),
        "rejected": plan(keepalive.rejected(now)[:64]),
        "list": plan(SipgateToken.objects.order_by("-issued_at", "-pk")[:100]),
        "token": plan(SipgateToken.objects.filter(pk=template.pk)),
        "account": plan(
            SocialAccount.objects.filter(
                user_id=template.connection.user_id + 1, provider="sipgate"
            ).select_related("sipgate_token")
        ),
        "ends": plan(
            SipgateToken.objects.filter(refresh_expires_at__lt=now + timedelta(days=1)).order_by(
                "refresh_expires_at"
            )[:100]
        ),
        "outbox": plan(
            Ending.objects.filter(next_attempt_at__lte=now).order_by("next_attempt_at")[:100]
        ),
    }
    for name, text in plans.items():
        print(f"--- {name}\n{text}")
        if name != "outbox":  # empty
            assert "Seq Scan on sipgate_provider_sipgatetoken" not in text, text
            assert "SCAN sipgate_provider_sipgatetoken\n" not in text + "\n", text
    started = time.monotonic()
    listed = list(keepalive.idle(now).values_list("pk", "number")[:600])
    print(
        f"listing {len(listed)} of {ROWS[connection.vendor]} rows took {(time.monotonic() - started) * 1000:.1f} ms"
    )
    assert len(set(listed)) == 600
    somebody = get_user_model().objects.create(username="somebody")
    started = time.monotonic()
    assert tokens.load(template.pk) is not None
    assert connections.connections_of(somebody) == []
    print(f"a page's two lookups took {(time.monotonic() - started) * 1000:.1f} ms")


def fill(template: SipgateToken, rows: int) -> None:
    """Copy one row very often, within the database; moments spread over a refresh token's life."""
    user = template.connection.user
    numbers = {
        "postgresql": f"generate_series(1, {rows}) AS series(i)",
        "sqlite": "(WITH RECURSIVE series(i) AS (SELECT 1 UNION ALL "
        f"SELECT i + 1 FROM series WHERE i < {rows}) SELECT i FROM series)",
    }[connection.vendor]
    shift = {
        "postgresql": "{} + (i % 2592000) * interval '1 second'",
        "sqlite": "datetime({}, '+' || (i % 2592000) || ' seconds')",
    }[connection.vendor]
    first = template.pk + 1
    moments = {"issued_at", "expires_at", "refresh_expires_at", "keepalive_at"}
    table = SipgateToken._meta.db_table
    columns = [
        field.column for field in SipgateToken._meta.local_fields if field.column != "connection_id"
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO socialaccount_socialaccount "
            "(id, user_id, provider, uid, last_login, date_joined, extra_data) "
            f"SELECT {first} + i, a.user_id, a.provider, 'x' || i, "
            "a.last_login, a.date_joined, a.extra_data "
            f"FROM socialaccount_socialaccount a, {numbers} WHERE a.id = {template.pk}"
        )
        values = ", ".join(
            shift.format(f"t.{name}") if name in moments else f"t.{name}" for name in columns
        )
        names = ", ".join(columns)
        cursor.execute(
            f"INSERT INTO {table} (connection_id, {names}) SELECT {first} + i, {values} "
            f"FROM {table} t, {numbers} WHERE t.connection_id = {template.pk}"
        )
        cursor.execute("ANALYZE")
    assert get_user_model().objects.filter(pk=user.pk).exists()


def plan(queryset: Any) -> str:
    return str(queryset.explain())
