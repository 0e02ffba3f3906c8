"""What runs often does not read whole tables: the database plans to use an index."""

from datetime import timedelta

import pytest
from allauth.socialaccount.models import SocialAccount
from django.db import connection
from django.utils import timezone

from sipgate_provider.models import Ending, SipgateToken
from sipgate_provider.ops import keepalive

NOW = timezone.now()
QUERIES = {
    "a token": SipgateToken.objects.filter(pk=1),
    "a user's connections": SocialAccount.objects.filter(
        user_id=1, provider="sipgate"
    ).select_related("sipgate_token"),
    "idle connections": keepalive.idle(NOW)[:64],
    "rejected connections": keepalive.rejected(NOW)[:64],
    "the admin's list": SipgateToken.objects.order_by("-issued_at", "-pk")[:100],
    "connections that end": SipgateToken.objects.filter(
        refresh_expires_at__lt=NOW + timedelta(days=1)
    ).order_by("refresh_expires_at")[:100],
    "endings": Ending.objects.filter(next_attempt_at__lte=NOW).order_by("next_attempt_at")[:100],
}


@pytest.mark.django_db
def test_no_table_is_read_as_a_whole():
    if connection.vendor == "postgresql":  # which reads a table that is as small as here
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
    for name, query in QUERIES.items():
        plan = query.explain()
        assert "Seq Scan" not in plan, f"{name}: {plan}"
        assert not any(
            line.startswith("SCAN") and "USING INDEX" not in line for line in plan.splitlines()
        ), f"{name}: {plan}"
