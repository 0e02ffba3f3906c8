"""Idle connections are refreshed before they end, and trouble of one holds nobody up."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from sipgate_provider import errors, tasks, tokens
from sipgate_provider.models import (
    LastKnownAccount,
    Reason,
    SipgateToken,
    State,
    TokenEvent,
)
from sipgate_provider.ops import keepalive
from tests.conftest import Connect
from tests.flows.conftest import OTHER_KEY, command
from tests.processes import environment

pytestmark = pytest.mark.django_db(transaction=True)

MONTH = timedelta(seconds=2_592_000)


class TestWhatIsDue:
    def test_half_a_life_with_jitter(self, idle):
        old, young = idle(0.56, last_used_at=None), idle(0.44)
        assert keepalive.run().refreshed == 1
        assert (versions(old), versions(young)) == ([2], [1])
        assert tokens.load(old).last_used_at is None, "it is no use of the connection"

    def test_deadlines_are_spread(self, connect):
        moments = [connect().sipgate_token.keepalive_at for _ in range(20)]
        assert len({moment.replace(microsecond=0, second=0) for moment in moments}) > 15

    def test_without_a_known_end_it_is_refreshed_daily(self, connect, rotator):
        rotator.set(refresh_lifetime=0)
        assert connect(age=0.8 * 86_400).sipgate_token.keepalive_at > timezone.now()
        assert connect(age=1.2 * 86_400).sipgate_token.keepalive_at < timezone.now()

    def test_whatever_waits_is_left_alone(self, idle, rotator):
        later = timezone.now() + timedelta(minutes=1)
        idle(state=State.NEEDS_SIGN_IN)
        idle(state=State.NEEDS_SIGN_IN, next_attempt_at=later)
        idle(state=State.FAILING, next_attempt_at=later)
        tokens.require_sign_in(idle(), by="olga")
        keepalive.run()
        assert rotator.counts()["refresh"] == 0


class TestTrouble:
    def test_a_rejection_is_noted_and_the_rest_goes_on(self, idle, rotator):
        gone = idle()
        rotator.control(kill=True)
        fine = idle()
        report = keepalive.run()
        assert (report.refreshed, report.needs_sign_in, report.failed) == (1, 1, 0)
        assert report.stopped == ""
        assert tokens.load(gone).state == State.NEEDS_SIGN_IN
        assert versions(fine) == [2]

    def test_it_stops_at_an_outage(self, idle, rotator):
        idle()
        rotator.set(fault="429", times=1)
        assert keepalive.run().stopped.startswith("sipgate does not answer")
        for _ in range(40):
            idle()
        rotator.set(fault="500", times=1000)
        assert keepalive.run().stopped.startswith("sipgate does not answer")
        assert rotator.counts()["arrived"] <= 1 + keepalive.STOP_AFTER + keepalive.THREADS

    def test_it_does_not_begin_without_keys_or_while_the_client_is_rejected(
        self, idle, rotator, settings
    ):
        idle()
        keys, settings.SIPGATE_TOKEN_KEYS = settings.SIPGATE_TOKEN_KEYS, []
        assert keepalive.run().is_misconfigured
        assert rotator.counts()["arrived"] == 0
        settings.SIPGATE_TOKEN_KEYS = keys
        rotator.set(fault="client", times=1)
        assert keepalive.run().is_misconfigured
        assert keepalive.run().is_misconfigured
        assert rotator.counts()["arrived"] == 1

    def test_rows_that_do_not_open_hold_nobody_up(self, idle, settings, rotator):
        lost = [idle(0.9) for _ in range(7)]
        settings.SIPGATE_TOKEN_KEYS = [OTHER_KEY]
        fine = [idle(0.6) for _ in range(7)]
        report = keepalive.run()
        assert (report.refreshed, report.failed, report.stopped) == (7, 7, "")
        assert versions(*fine) == [2] * 7
        assert tokens.load(lost[0]).reason == Reason.KEY_MISSING
        assert keepalive.run().failed == 0, "not before their next attempt"

    def test_one_grant_at_fault_holds_nobody_up(self, idle, rotator):
        """One user's consent is gone: Keycloak answers ``invalid_scope``, and not to all."""
        for _ in range(6):
            idle()
        rotator.set(fault="consent", times=1)
        report = keepalive.run()
        assert (report.refreshed, report.failed, report.stopped) == (5, 1, "")

    def test_rows_of_another_client_or_site_are_not_sent(self, idle, rotator):
        """Production's database with staging's credentials: sipgate would reject users' tokens."""
        idle(client_id="other:third-party")
        idle(issuer="https://evil.example")
        idle(site="https://www.example.org")
        ours = idle()
        report = keepalive.run()
        assert (report.refreshed, report.failed, versions(ours)) == (1, 3, [2])
        assert rotator.counts()["refresh"] == 1

    def test_what_was_rejected_is_tried_again_and_heals(self, idle, rotator):
        pk = idle(0.1)
        rotator.set(suspended=True)
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(pk)
        assert keepalive.run().needs_sign_in == 0, "not its time yet"
        SipgateToken.objects.update(next_attempt_at=timezone.now())
        assert keepalive.run().needs_sign_in == 1
        rotator.set(suspended=False)
        SipgateToken.objects.update(next_attempt_at=timezone.now())
        assert keepalive.run().refreshed == 1
        assert tokens.load(pk).state == State.ACTIVE

    def test_a_dead_database_connection_costs_one_run(self, idle):
        idle()
        connections["default"].ensure_connection()
        connections["default"].connection.close()
        assert keepalive.run().stopped.startswith("The database does not answer")
        assert keepalive.run().refreshed == 1


class TestOldData:
    def test_is_removed_a_thousand_rows_at_a_time(self, connect, settings, monkeypatch):
        monkeypatch.setattr(keepalive, "MOST_FORGOTTEN", 2)
        old, new = timezone.now() - timedelta(days=366), timezone.now()
        for moment in (old, old, old, new):
            TokenEvent.objects.create(kind="failed", uid="1w0", at=moment)
            LastKnownAccount.objects.create(connection=connect(), fetched_at=moment)
        settings.SIPGATE_HISTORY_DAYS = 0
        assert keepalive.run().forgotten == 0
        settings.SIPGATE_HISTORY_DAYS = 365
        assert [keepalive.run().forgotten for _ in range(3)] == [4, 2, 0]
        assert TokenEvent.objects.filter(kind="failed").get().at == new
        assert LastKnownAccount.objects.get().fetched_at == new
        assert SipgateToken.objects.count() == 4


class TestCommand:
    def test_its_exit_codes(self, idle, rotator):
        assert command("sipgate_keepalive")[0] == 0
        for fault, times, expected in (("500", 1, 4), ("503", 100, 2), ("client", 100, 3)):
            SipgateToken.objects.all()._raw_delete("default")
            for _ in range(6):
                idle()
            rotator.set(fault=fault, times=times)
            code, said = command("sipgate_keepalive", "--json")
            assert code == expected, (fault, said)
        assert "secret in SOCIALACCOUNT_PROVIDERS" in json.loads(said)["stopped"]

    def test_the_loop_survives_an_outage_and_ends_cleanly(self, idle, rotator):
        pks = [idle() for _ in range(keepalive.STOP_AFTER)]
        rotator.set(fault="500", times=len(pks))
        with running("--loop", "--interval", "0.3") as process:
            first = json.loads(process.stdout.readline())
            assert first["stopped"].startswith("sipgate does not answer")
            refreshed = 0
            while refreshed < len(pks):
                refreshed += json.loads(process.stdout.readline())["refreshed"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0

    def test_told_to_stop_it_finishes_what_it_has_begun_and_begins_nothing(self, idle, rotator):
        rotator.set(latency=1)
        pks = [idle() for _ in range(3 * keepalive.THREADS)]
        with running() as process:
            while not rotator.counts()["arrived"]:
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            report = json.loads(process.communicate(timeout=20)[0])
        assert 1 <= report["refreshed"] < len(pks)
        assert sum(versions(*pks)) - len(pks) == report["refreshed"] == rotator.counts()["rotated"]


def test_the_task_reports_and_names_the_setting_that_stops_it(idle, rotator):
    idle()
    assert tasks.keepalive()["refreshed"] == 1
    idle()
    rotator.set(fault="client", times=1)
    with pytest.raises(errors.SipgateError, match=r"\bsecret in SOCIALACCOUNT_PROVIDERS"):
        tasks.keepalive()


Idle = Callable[..., int]


@pytest.fixture
def idle(connect: Connect) -> Idle:
    """Make a connection that was refreshed ``share`` of its refresh token's life ago."""

    def make(share: float = 0.6, **changes: Any) -> int:
        return int(connect(age=share * MONTH.total_seconds(), **changes).pk)

    return make


def versions(*pks: int) -> list[int]:
    return list(SipgateToken.objects.filter(pk__in=pks).values_list("number", flat=True))


@contextmanager
def running(*arguments: str) -> Iterator[Any]:
    """Run the command in a process of its own."""
    command = [sys.executable, "manage.py", "sipgate_keepalive", "--json", *arguments]
    pipe, environ = subprocess.PIPE, environment()
    with subprocess.Popen(command, stdout=pipe, text=True, env=environ) as process:
        try:
            yield process
        finally:
            process.kill()
