"""Keepalive: idle links, pending revocations, the journal, and how the command speaks."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.utils import timezone

from sipgate_provider import errors, tasks, tokens
from sipgate_provider.models import ClientPause, Reason, Revocation, SipgateToken, State
from sipgate_provider.ops import keepalive, pace
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import journal, rows, sealing
from tests.conftest import Connect
from tests.processes import environment
from tests.rotating_server import Strict

pytestmark = pytest.mark.django_db(transaction=True)

MONTH = timedelta(seconds=2_592_000)


@pytest.fixture
def idle(connect: Connect) -> Callable[..., int]:
    """Make a connection that was renewed ``share`` of its refresh token's life ago."""

    def make(share: float = 0.6, **changes: Any) -> int:
        return int(connect(age=share * MONTH.total_seconds(), **changes).pk)

    return make


def command(*arguments: str) -> tuple[int, dict[str, Any]]:
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("sipgate_keepalive", "--json", *arguments, stdout=out)
    return int(ended.value.code or 0), json.loads(out.getvalue().splitlines()[-1])


class TestWhatIsDue:
    def test_half_a_life_with_jitter(self, idle: Callable[..., int]) -> None:
        old, young = idle(0.56), idle(0.44)
        assert keepalive.run(rate=0).refreshed == 1
        assert (tokens.load(old).generation, tokens.load(young).generation) == (2, 1)

    def test_deadlines_are_spread(self, connect: Connect) -> None:
        moments = {
            connect().sipgate_token.keepalive_at.replace(microsecond=0, second=0) for _ in range(20)
        }
        assert len(moments) > 15

    def test_a_link_without_known_end_is_renewed_daily(
        self, connect: Connect, strict: Strict
    ) -> None:
        strict.set(refresh_lifetime=0)
        assert connect(age=0.8 * 86_400).sipgate_token.keepalive_at > timezone.now()
        assert connect(age=1.2 * 86_400).sipgate_token.keepalive_at < timezone.now()

    def test_who_waits_for_a_person_is_left_alone(
        self, idle: Callable[..., int], strict: Strict
    ) -> None:
        idle(state=State.NEEDS_SIGN_IN)
        idle(state=State.NEEDS_SIGN_IN, next_attempt_at=timezone.now() + timedelta(minutes=1))
        idle(state=State.FAILING, next_attempt_at=timezone.now() + timedelta(minutes=1))
        assert keepalive.run(rate=0).due == 0
        assert strict.counts()["refresh"] == 0

    def test_all_means_each_once(self, idle: Callable[..., int], strict: Strict) -> None:
        for _ in range(5):
            idle(0)
        SipgateToken.objects.update(issued_at=timezone.now() - timedelta(seconds=5))
        assert keepalive.run(rate=0, everything=True).refreshed == 5
        assert strict.counts()["refresh"] == 5

    def test_upkeep_is_no_use(self, idle: Callable[..., int]) -> None:
        pk = idle(last_used_at=None)
        keepalive.run(rate=0)
        assert tokens.load(pk).last_used_at is None


class TestTrouble:
    def test_a_refusal_is_noted_and_the_rest_goes_on(
        self, idle: Callable[..., int], strict: Strict
    ) -> None:
        gone = idle()
        strict.control(kill=True)
        fine = idle()
        report = keepalive.run(rate=0)
        assert (report.refreshed, report.needs_sign_in, report.failed, report.stopped) == (
            1,
            1,
            0,
            "",
        )
        assert (tokens.load(gone).state, tokens.load(fine).state) == (
            State.NEEDS_SIGN_IN,
            State.ACTIVE,
        )
        assert command()[0] == 0

    def test_it_stops_at_an_outage(self, idle: Callable[..., int], strict: Strict) -> None:
        for _ in range(30):
            idle()
        strict.set(fault="500", times=1000)
        report = keepalive.run(rate=0, threads=1)
        assert report.stopped.startswith("sipgate does not answer")
        assert (strict.counts()["arrived"], report.failed) == (
            keepalive.STOP_AFTER,
            keepalive.STOP_AFTER,
        )
        assert not SipgateToken.objects.exclude(lease_owner="").exists()

    def test_it_recovers_what_waits_in_the_journal(
        self, connect: Connect, strict: Strict, settings: Any, tmp_path: Path
    ) -> None:
        settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
        row = tokens.load(connect(age=400).pk)
        grant = oauth.Grant.parse(strict.issue()[0], issued_at=timezone.now())
        pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
        journal.write(
            rows.Sent(connection_id=row.pk, consent_id=row.consent_id, generation=1), grant, pair
        )
        assert keepalive.run(rate=0).recovered == 1
        assert (tokens.load(row.pk).generation, strict.counts()["refresh"]) == (2, 0)

    def test_its_exit_codes(self, idle: Callable[..., int], strict: Strict) -> None:
        assert command()[0] == 0
        for _ in range(8):
            idle()
        strict.set(fault="500", times=1)
        assert command("--threads", "1")[0] == 4
        SipgateToken.objects.update(keepalive_at=timezone.now(), next_attempt_at=None)
        strict.set(fault="503", times=100)
        code, report = command("--threads", "1", "--rate", "1000")
        assert (code, report["failed"]) == (2, 5)
        SipgateToken.objects.update(keepalive_at=timezone.now(), next_attempt_at=None)
        strict.set(fault="client", times=100)
        code, report = command("--threads", "1")
        assert code == 3
        assert "secret in SOCIALACCOUNT_PROVIDERS" in report["stopped"]
        assert report["failed"] == 1

    def test_it_does_not_begin_while_the_client_is_refused(
        self, idle: Callable[..., int], strict: Strict
    ) -> None:
        idle()
        strict.set(fault="client", times=1)
        assert keepalive.run(rate=0).is_misconfigured
        assert ClientPause.objects.count() == 1
        assert keepalive.run(rate=0).is_misconfigured
        assert strict.counts()["refresh"] == 0

    def test_without_keys_it_does_not_begin(
        self, idle: Callable[..., int], settings: Any, strict: Strict
    ) -> None:
        pk = idle()
        settings.SIPGATE_TOKEN_KEYS = []
        assert keepalive.run(rate=0).is_misconfigured
        assert (tokens.load(pk).generation, tokens.load(pk).lease_owner) == (1, "")
        assert strict.counts()["refresh"] == 0

    def test_rows_that_do_not_open_hold_nobody_up(
        self, idle: Callable[..., int], settings: Any, strict: Strict
    ) -> None:
        lost = [idle(0.9) for _ in range(7)]
        settings.SIPGATE_TOKEN_KEYS = ["b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItMTI="]
        fine = [idle(0.6) for _ in range(7)]
        report = keepalive.run(rate=0, threads=1)
        assert (report.refreshed, report.failed, report.stopped) == (7, 7, "")
        assert {tokens.load(pk).generation for pk in fine} == {2}
        row = tokens.load(lost[0])
        assert (row.state, row.reason, row.lease_owner) == (
            State.MISCONFIGURED,
            Reason.KEY_MISSING,
            "",
        )
        assert row.next_attempt_at > timezone.now()
        assert keepalive.run(rate=0).due == 0

    def test_grants_that_sipgate_finds_fault_with_hold_nobody_up(
        self, idle: Callable[..., int], strict: Strict
    ) -> None:
        """One person's consent is gone: Keycloak answers ``invalid_scope``, which is not our client's fault."""
        gone, fine = idle(0.9), [idle(0.6) for _ in range(5)]
        strict.set(fault="consent", times=1)
        report = keepalive.run(rate=0, threads=1)
        assert (report.refreshed, report.failed, report.stopped) == (5, 1, "")
        row = tokens.load(gone)
        assert (row.state, row.last_error_code, bool(row.mark_owner)) == (
            State.FAILING,
            "invalid_scope",
            False,
        )
        assert row.next_attempt_at > timezone.now() + timedelta(seconds=30)
        assert ClientPause.objects.count() == 0
        assert {tokens.load(pk).generation for pk in fine} == {2}

    def test_one_after_the_other_is_the_clients_fault(
        self, idle: Callable[..., int], strict: Strict
    ) -> None:
        for _ in range(10):
            idle()
        strict.set(fault="consent", times=100)
        assert keepalive.run(rate=0, threads=1).is_misconfigured
        assert ClientPause.objects.get().error_code == "invalid_scope"

    def test_another_clients_rows_are_not_sent(
        self, idle: Callable[..., int], settings: Any, strict: Strict
    ) -> None:
        """Production's database with staging's credentials: sipgate would refuse, and each person be blamed."""
        foreign, elsewhere, ours = (
            idle(client_id="other:third-party"),
            idle(issuer="https://evil.example"),
            idle(),
        )
        report = keepalive.run(rate=0)
        assert (report.refreshed, report.failed) == (1, 2)
        assert {tokens.load(pk).reason for pk in (foreign, elsewhere)} == {Reason.OTHER_CLIENT}
        assert tokens.load(ours).generation == 2
        SipgateToken.objects.filter(pk=foreign).update(client_id="")
        assert tokens.refresh(foreign).generation == 2, "as soon as it is corrected"
        assert tokens.load(foreign).client_id

    def test_a_developers_machine_does_not_renew_what_a_public_site_has(
        self, idle: Callable[..., int], strict: Strict
    ) -> None:
        idle(site="https://www.example.org")
        assert keepalive.run(rate=0).failed == 1
        assert strict.counts()["refresh"] == 0

    def test_a_refused_row_is_tried_again_and_heals(
        self, idle: Callable[..., int], strict: Strict
    ) -> None:
        pk = idle(0.1)
        strict.set(suspended=True)
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(pk)
        row = tokens.load(pk)
        assert (row.state, row.reason) == (State.NEEDS_SIGN_IN, Reason.REFUSED)
        assert timedelta(minutes=4) < row.next_attempt_at - timezone.now() < timedelta(minutes=6)
        assert keepalive.run(rate=0).due == 0
        day = timedelta(days=1)
        SipgateToken.objects.update(
            state_since=timezone.now() - day, next_attempt_at=timezone.now()
        )
        assert keepalive.run(rate=0).needs_sign_in == 1
        assert day * 0.85 < tokens.load(pk).next_attempt_at - timezone.now() < day * 1.15
        strict.set(suspended=False)
        SipgateToken.objects.update(next_attempt_at=timezone.now())
        assert keepalive.run(rate=0).refreshed == 1
        assert tokens.load(pk).state == State.ACTIVE

    def test_what_was_ended_here_is_never_tried_again(
        self, idle: Callable[..., int], strict: Strict
    ) -> None:
        pk = idle()
        rows.end(pk, 1, reason=Reason.SIGN_IN_REQUIRED, now=timezone.now())
        assert keepalive.run(rate=0, everything=True).due == 0
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(pk)
        assert strict.counts()["refresh"] == 0


class TestPolite:
    def test_the_rate_is_kept(self, idle: Callable[..., int]) -> None:
        for _ in range(10):
            idle()
        report = keepalive.run(rate=20)
        assert report.refreshed == 10
        assert report.seconds >= 9 / 20

    def test_it_halves_and_waits_when_asked_to(self) -> None:
        steps, stop = pace.Pace(rate=50), threading.Event()
        steps.slow_down(None)
        assert steps.rate == 25
        for _ in range(20):
            steps.slow_down(None)
        assert steps.rate == pace.LEAST_RATE
        for _ in range(1000):
            steps.speed_up()
        assert steps.rate == 50
        stop.set()
        steps.slow_down(3600)
        steps.wait(stop)  # told to stop, it does not wait out sipgate's hour

    @pytest.mark.parametrize("fault", ["429", "503"])
    def test_it_slows_down_when_sipgate_asks_for_it(
        self, idle: Callable[..., int], strict: Strict, fault: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wishes: list[float | None] = []
        monkeypatch.setattr(pace.Pace, "slow_down", lambda self, wish: wishes.append(wish))
        idle()
        strict.set(fault=fault, times=1)
        keepalive.run(rate=50)
        assert wishes == [7.0 if fault == "429" else None]

    def test_the_rows_it_has_not_begun_are_given_back(self, idle: Callable[..., int]) -> None:
        for _ in range(40):
            idle()
        stop = threading.Event()
        report = keepalive.run(rate=20, stop=stop, progress=lambda report: stop.set())
        assert report.refreshed < 40
        assert report.refreshed + report.skipped == report.due
        assert not SipgateToken.objects.exclude(lease_owner="").exists()


class TestOutbox:
    def test_a_session_that_could_not_be_ended_is_ended_later(
        self, connect: Connect, strict: Strict
    ) -> None:
        strict.set(fault="503", times=1)
        connect().delete()
        assert tokens.errands.wait_idle(10)
        row = Revocation.objects.get()
        assert (row.attempts, row.last_error_code) == (1, "503")
        assert keepalive.run(rate=0).revocations_done == 0  # not its time yet
        Revocation.objects.update(next_attempt_at=timezone.now())
        assert keepalive.run(rate=0).revocations_done == 1
        assert strict.counts()["revoke"] == 1
        assert Revocation.objects.get().next_attempt_at is None

    def test_after_a_day_it_gives_up_and_says_so(self, connect: Connect, strict: Strict) -> None:
        from sipgate_provider.models import TokenEvent

        strict.set(fault="503", times=100)
        connect().delete()
        assert tokens.errands.wait_idle(10)
        past = timezone.now() - timedelta(seconds=1)
        Revocation.objects.update(next_attempt_at=past, give_up_at=past)
        keepalive.run(rate=0)
        row = Revocation.objects.get()
        assert (bytes(row.sealed), row.next_attempt_at) == (b"", None)
        assert TokenEvent.objects.filter(
            kind=TokenEvent.Kind.REVOCATION_FAILED, error_code="503"
        ).exists()


class TestCommand:
    def test_a_dry_run_changes_nothing(self, idle: Callable[..., int], strict: Strict) -> None:
        idle()
        out = io.StringIO()
        call_command("sipgate_keepalive", "--dry-run", stdout=out)
        assert out.getvalue().startswith("1 connections are due")
        assert strict.counts()["refresh"] == 0

    def test_one_line_for_people(self, idle: Callable[..., int]) -> None:
        idle()
        out = io.StringIO()
        with pytest.raises(SystemExit):
            call_command("sipgate_keepalive", stdout=out)
        assert out.getvalue().startswith("1 refreshed, in ")
        assert out.getvalue().count("\n") == 1

    def test_the_loop_ends_cleanly(self, idle: Callable[..., int], strict: Strict) -> None:
        strict.set(latency=0.5)
        pk = idle()
        process = subprocess.Popen(
            [
                sys.executable,
                "manage.py",
                "sipgate_keepalive",
                "--loop",
                "--interval",
                "60",
                "--json",
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["refreshed"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        process.stdout.close()
        assert tokens.load(pk).generation == 2

    def test_the_loop_goes_on_after_an_outage(
        self, idle: Callable[..., int], strict: Strict
    ) -> None:
        pks = [idle() for _ in range(keepalive.STOP_AFTER)]
        strict.set(fault="500", times=len(pks))
        process = subprocess.Popen(
            [
                sys.executable,
                "manage.py",
                "sipgate_keepalive",
                "--loop",
                "--interval",
                "0.3",
                "--json",
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["stopped"].startswith(
            "sipgate does not answer"
        )
        renewed = 0
        while renewed < len(pks):
            renewed += json.loads(process.stdout.readline())["refreshed"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        process.stdout.close()

    def test_a_dead_database_connection_costs_one_run(self, idle: Callable[..., int]) -> None:
        idle()
        connections["default"].ensure_connection()
        connections["default"].connection.close()
        assert keepalive.run(rate=0).stopped.startswith("the database does not answer")
        assert keepalive.run(rate=0).refreshed == 1

    def test_told_to_stop_it_finishes_what_it_has_begun(
        self, idle: Callable[..., int], strict: Strict
    ) -> None:
        strict.set(latency=1)
        pks = [idle() for _ in range(3)]
        process = subprocess.Popen(
            [sys.executable, "manage.py", "sipgate_keepalive", "--json"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        while not SipgateToken.objects.exclude(lease_owner="").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        report = json.loads(process.communicate(timeout=20)[0])
        assert report["refreshed"] + report["skipped"] == report["due"] <= len(pks)
        assert sum(tokens.load(pk).generation - 1 for pk in pks) == report["refreshed"]
        assert strict.counts()["rotated"] == report["refreshed"]
        assert not SipgateToken.objects.exclude(lease_owner="").exists()


class TestFolder:
    """The journal's folder cannot be written."""

    def test_the_site_does_not_start_and_a_timer_notices(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "manage.py", "sipgate_keepalive", "--json"],
            env={
                "PATH": os.environ["PATH"],
                "STATIC_ROOT": str(tmp_path),
                "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
                "SIPGATE_JOURNAL_DIR": "/etc/passwd/journal",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (
            "SIPGATE_JOURNAL_DIR: this user cannot keep files in /etc/passwd/journal" in done.stderr
        )
        sample = Path("docs/how-to.md").read_text(encoding="utf-8")
        assert str(done.returncode) not in re.findall(r"SuccessExitStatus=(.*)", sample)[0].split()

    def test_once_it_runs_the_log_names_folder_and_setting(
        self,
        idle: Callable[..., int],
        strict: Strict,
        settings: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        settings.SIPGATE_JOURNAL_DIR = "/proc/nowhere"
        idle()
        assert keepalive.run(rate=0).refreshed == 1
        said = [
            record.getMessage()
            for record in caplog.records
            if "/proc/nowhere" in record.getMessage()
        ]
        assert said
        assert all(text.startswith("SIPGATE_JOURNAL_DIR: ") for text in said)


class TestTask:
    def test_it_reports(self, idle: Callable[..., int], strict: Strict) -> None:
        pk = idle()
        assert tasks.keepalive()["refreshed"] == 1
        assert tokens.load(pk).generation == 2

    def test_what_stops_it_is_an_error_that_names_the_variable(
        self, idle: Callable[..., int], strict: Strict
    ) -> None:
        idle()
        strict.set(fault="client", times=1)
        with pytest.raises(
            errors.SipgateError,
            match=r"misconfigured client: .*\bsecret in SOCIALACCOUNT_PROVIDERS",
        ):
            tasks.keepalive()
