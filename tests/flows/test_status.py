"""``sipgate_status``: the same figures for people and monitors, at a constant price."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from sipgate_provider.models import Reason, Revocation, State, TokenEvent
from sipgate_provider.tokens import authorization_server, pauses, sealing
from tests.conftest import Connect

pytestmark = pytest.mark.django_db(transaction=True)


def status(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("sipgate_status", *arguments, stdout=out)
    return int(ended.value.code or 0), out.getvalue()


def report() -> tuple[int, dict[str, Any]]:
    code, text = status("--json")
    assert text.count("\n") == 1
    data = json.loads(text)
    assert data["exit_code"] == code
    return code, data


def test_an_empty_site_is_fine() -> None:
    code, data = report()
    assert (code, data["connections"], data["problems"]) == (0, 0, [])


def test_states_reasons_and_deadlines(connect: Connect) -> None:
    now = timezone.now()
    for hours in (5, 100, 600, 24 * 31):
        connect(refresh_expires_at=now + timedelta(hours=hours))
    since = now - timedelta(minutes=5)
    connect(
        state=State.FAILING, reason=Reason.UNREACHABLE, failing_since=since, refresh_expires_at=None
    )
    connect(state=State.NEEDS_SIGN_IN, reason=Reason.REFUSED, failing_since=now - timedelta(days=9))
    code, data = report()
    assert (code, data["connections"]) == (0, 6)
    assert data["states"] == {"active": 4, "failing": 1, "needs_sign_in": 1, "misconfigured": 0}
    assert data["reasons"] == [
        {"state": "failing", "reason": "unreachable", "number": 1},
        {"state": "needs_sign_in", "reason": "refused", "number": 1},
    ]
    assert data["ending_within_days"] == {"1": 1, "7": 2, "30": 3}
    assert data["failing_since"].startswith(since.isoformat()[:19])


def test_failures_of_the_last_day() -> None:
    for hours in (1, 23, 26):
        TokenEvent.objects.add(
            TokenEvent.Kind.FAILED, actor="gate", at=timezone.now() - timedelta(hours=hours)
        )
    assert report()[1]["failures_of_the_last_day"] == 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"state": State.FAILING, "failing_since": timedelta(hours=1)}, "connections.failing"),
        ({"keepalive_at": timedelta(days=2)}, "connections.overdue"),
    ],
)
def test_what_needs_attention(connect: Connect, change: dict[str, Any], problem: str) -> None:
    now = timezone.now()
    connect(
        **{
            key: now - value if isinstance(value, timedelta) else value
            for key, value in change.items()
        }
    )
    code, data = report()
    assert (code, [found["check"] for found in data["problems"]]) == (1, [problem])


def test_a_session_that_is_not_ended() -> None:
    then = timezone.now() - timedelta(hours=3)
    Revocation.objects.create(
        sealed=sealing.seal(b"x", context="any"),
        created_at=then,
        give_up_at=then,
        next_attempt_at=then,
    )
    code, data = report()
    assert (code, data["revocations"]) == (1, 1)


class TestMisconfigured:
    def test_a_refused_client(self) -> None:
        pauses.start_pause(
            authorization_server.fingerprint(authorization_server.client()),
            code="unauthorized_client",
            setting="CLIENT_SECRET",
            length=timedelta(minutes=1),
            now=timezone.now(),
        )
        code, data = report()
        assert (code, data["pauses"][0]["setting"]) == (2, "CLIENT_SECRET")

    def test_connections_that_wait_for_the_client(self, connect: Connect) -> None:
        connect(state=State.MISCONFIGURED, reason=Reason.CLIENT_REFUSED)
        assert report()[0] == 2

    def test_no_client(self, settings: Any) -> None:
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {}}
        assert report()[0] == 2

    def test_no_key(self, settings: Any) -> None:
        settings.SIPGATE_TOKEN_KEYS = []
        assert report()[0] == 2


def test_the_price_does_not_depend_on_the_connections(
    connect: Connect, django_assert_num_queries: Any
) -> None:
    for number in (1, 20):
        for _ in range(number):
            connect(state=State.FAILING, failing_since=timezone.now())
        with django_assert_num_queries(8):
            status("--json")


def test_lines_for_people_are_aligned(connect: Connect) -> None:
    connect(
        state=State.FAILING,
        reason=Reason.UNREACHABLE,
        failing_since=timezone.now() - timedelta(hours=2),
    )
    code, text = status()
    lines = text.splitlines()
    assert code == 1
    assert any(line.split() == ["connections", "1"] for line in lines)
    assert any("sipgate cannot be reached" in line for line in lines)
    columns = {len(line) - len(line.split("  ")[-1].lstrip()) for line in lines[:5]}
    assert len(columns) == 1
    assert lines[-1].startswith("  → ")
