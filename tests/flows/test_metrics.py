"""What is counted while real refreshes, requests and revocations happen, who may read it, and what log records tell."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from allauth.socialaccount.models import SocialAccount
from django.core.cache import cache
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from sipgate_project.logs import JsonLines
from sipgate_provider import errors, exposition, metrics, tokens
from sipgate_provider.client import SipgateClient
from sipgate_provider.models import ClientPause, Reason, Revocation, SipgateToken, State
from sipgate_provider.ops import keepalive, statistics
from sipgate_provider.remote import oauth, rest
from sipgate_provider.tokens import journal, rows, sealing, threads
from sipgate_provider.tokens.attempt import Outcome
from tests.conftest import Connect
from tests.flows.conftest import Secrets
from tests.journey import Browser
from tests.processes import site
from tests.rotating_server import Strict
from tests.scripted_server import Answer, running

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-the-tests-only"
REFERENCE = re.compile(r"\[([2-9A-HJKMNP-Z]{8})\]")
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series() -> Series:
    """Return every sample of ours but buckets, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name.startswith("sipgate_") and not sample.name.endswith(("_bucket", "_created"))
    }


class Counted:
    """What has been counted since the test began."""

    def __init__(self) -> None:
        self._before = series()

    def of(self, name: str) -> Counter[tuple[str, ...]]:
        """Return the increase of each series of a metric, by its label values in alphabetical order of names."""
        found: Counter[tuple[str, ...]] = Counter()
        for key, value in series().items():
            if key[0] == name and value != self._before.get(key, 0.0):
                found[tuple(label for _name, label in key[1])] = round(
                    value - self._before.get(key, 0.0)
                )
        return found


def forget() -> None:
    cache.delete(statistics.CACHE_KEY)
    exposition.COLLECTOR.forget()


@pytest.fixture
def counted(db: None) -> Iterator[Counted]:
    assert metrics.switch_on()
    exposition.register()
    forget()
    yield Counted()
    metrics.switch_off()
    forget()


@pytest.fixture
def scrape(counted: Counted, settings: Any) -> Callable[..., Any]:
    settings.METRICS_TOKEN = TOKEN

    def ask(authorization: str | None = f"Bearer {TOKEN}", **headers: str) -> Any:
        known = {} if authorization is None else {"Authorization": authorization}
        return Client().get("/metrics", headers={**headers, **known})

    return ask


def gauges(scrape: Callable[..., Any]) -> dict[str, float]:
    forget()
    text = scrape().content.decode()
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }


def wait_for(happened: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.02)


# --- refreshes --------------------------------------------------------------------------------------------------------


def fault(name: str, times: int = 1) -> Callable[..., None]:
    def arrange(strict: Strict, **_more: Any) -> None:
        strict.set(fault=name, times=times)

    return arrange


def answer_was_lost(strict: Strict, connection: SocialAccount, **_more: Any) -> None:
    strict.control(kill=True)
    SipgateToken.objects.filter(pk=connection.pk).update(mark_owner="m.b.x")


def nothing(**_more: Any) -> None:
    pass


def session_over(strict: Strict, **_more: Any) -> None:
    strict.control(kill=True)


def idle_for_too_long(strict: Strict, connection: SocialAccount, **_more: Any) -> None:
    strict.control(kill=True)
    SipgateToken.objects.filter(pk=connection.pk).update(
        refresh_expires_at=timezone.now() - timedelta(days=1)
    )


def fixed_end_has_come(strict: Strict, connection: SocialAccount, **_more: Any) -> None:
    idle_for_too_long(strict=strict, connection=connection)
    SipgateToken.objects.filter(pk=connection.pk).update(reason=Reason.FIXED_END)


def no_refresh_token(strict: Strict, connection: SocialAccount, **_more: Any) -> None:
    answer = {**strict.issue()[0], "refresh_token": None}
    grant = oauth.Grant.parse(answer, issued_at=datetime.now(UTC) - timedelta(seconds=400))
    rows.consent(connection, grant, scope=[], now=timezone.now())


def key_gone(settings: Any, **_more: Any) -> None:
    settings.SIPGATE_TOKEN_KEYS = ["YW5vdGhlci1vbmx5LWFub3RoZXItb25seS1hbm90aGU="]


def client_refused_a_moment_ago(strict: Strict, connect: Connect, **_more: Any) -> None:
    strict.set(fault="client", times=1)
    with pytest.raises(errors.Misconfigured):
        tokens.token(connect(age=400))


def database_refuses(
    monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path, **_more: Any
) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> bool:
        raise OperationalError

    settings.SIPGATE_JOURNAL_DIR, settings.SIPGATE_STORE_SECONDS = str(tmp_path), 0
    monkeypatch.setattr(rows, "save_refreshed", refuse)


def a_fault_of_ours(monkeypatch: pytest.MonkeyPatch, **_more: Any) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(oauth, "refresh", fail)


OUTCOMES = [
    ("refreshed", nothing, None),
    ("refused", session_over, errors.NeedsSignIn),
    ("lost_rotation", answer_was_lost, errors.NeedsSignIn),
    ("expired_idle", idle_for_too_long, errors.NeedsSignIn),
    ("fixed_end", fixed_end_has_come, errors.NeedsSignIn),
    ("no_refresh_token", no_refresh_token, errors.NeedsSignIn),
    ("unavailable", fault("503"), errors.SipgateUnavailable),
    ("rate_limited", fault("429"), errors.RateLimited),
    ("unexpected", fault("garbage", times=2), errors.UnexpectedResponse),
    ("misconfigured", fault("client"), errors.Misconfigured),
    ("misconfigured", key_gone, errors.Misconfigured),
    ("paused", client_refused_a_moment_ago, errors.Misconfigured),
    ("not_stored", database_refuses, errors.SipgateUnavailable),
    ("failed", a_fault_of_ours, RuntimeError),
]
ASKED_NOBODY = {
    nothing: False,
    no_refresh_token: True,
    key_gone: True,
    client_refused_a_moment_ago: True,
}


class TestRefreshes:
    @pytest.mark.parametrize(
        ("outcome", "arrange", "raised"), OUTCOMES, ids=lambda case: getattr(case, "__name__", case)
    )
    def test_each_is_counted_once_as_what_it_was(
        self,
        connect: Connect,
        strict: Strict,
        settings: Any,
        monkeypatch: Any,
        counted: Counted,
        caplog: Any,
        tmp_path: Path,
        outcome: str,
        arrange: Callable[..., None],
        raised: type[Exception] | None,
    ) -> None:
        connection = connect(age=400)
        arrange(
            strict=strict,
            connection=connection,
            settings=settings,
            monkeypatch=monkeypatch,
            connect=connect,
            tmp_path=tmp_path,
        )
        counted = Counted()
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="sipgate_provider"):
            if raised is None:
                tokens.token(connection)
            else:
                with pytest.raises(raised) as caught:
                    tokens.token(connection)
        assert threads.refreshes.wait_idle(20)
        assert counted.of("sipgate_refreshes_total") == {("gate", outcome): 1}
        assert bool(counted.of("sipgate_refresh_seconds_count")) is not ASKED_NOBODY.get(
            arrange, False
        )
        for record in caplog.records:
            for reference in REFERENCE.findall(record.getMessage()):
                assert record.sipgate["reference"] == reference
        fields = [getattr(record, "sipgate", {}) for record in caplog.records]
        told = [one for one in fields if one.get("outcome") == outcome]
        if (
            outcome not in {"failed", "paused"} and arrange is not key_gone
        ):  # these are told of where they are met
            assert [one["connection"] for one in told] == [connection.pk]
        if told and raised and isinstance(caught.value, errors.SipgateError):
            assert told[0]["reference"] == caught.value.reference

    def test_all_outcomes_are_tried_here(self) -> None:
        assert {outcome for outcome, _arrange, _raised in OUTCOMES} | {
            "superseded",
            "disconnected",
        } == set(Outcome)

    def asked_meanwhile(self, connection: SocialAccount, meanwhile: Callable[[], object]) -> None:
        """Do something while sipgate takes its time with a refresh."""
        caller = threading.Thread(target=self.quietly, args=(connection,))
        caller.start()
        wait_for(
            lambda: SipgateToken.objects.filter(pk=connection.pk).exclude(lease_owner="").exists()
        )
        meanwhile()
        caller.join(30)

    def quietly(self, connection: SocialAccount) -> None:
        with tokens.own_connections():
            with contextlib.suppress(errors.NotConnected):
                tokens.token(connection)

    def test_somebody_was_faster(self, connect: Connect, strict: Strict, counted: Counted) -> None:
        connection = connect(age=400)

        def sign_in_again() -> None:
            strict.control(kill=True)
            grant = oauth.Grant.parse(strict.issue()[0], issued_at=timezone.now())
            rows.consent(connection, grant, scope=[], now=timezone.now())

        strict.set(latency=1.0)
        self.asked_meanwhile(connection, sign_in_again)
        assert counted.of("sipgate_refreshes_total") == {("gate", "superseded"): 1}

    @pytest.mark.parametrize(
        "slow",
        [{"latency": 1.0}, {"fault": "late", "times": 1, "late": 1.0}],
        ids=["before", "after"],
    )
    def test_disconnected_meanwhile(
        self, connect: Connect, strict: Strict, counted: Counted, slow: dict[str, Any]
    ) -> None:
        """Before sipgate rotates, the disconnect ends the session and the refresh is refused; later it is too late."""
        connection = connect(age=400)
        strict.set(**slow)

        def disconnect() -> None:
            wait_for(lambda: "fault" not in slow or strict.counts()["rotated"])
            SocialAccount.objects.get(pk=connection.pk).delete()

        self.asked_meanwhile(connection, disconnect)
        assert counted.of("sipgate_refreshes_total") == {("gate", "disconnected"): 1}

    def test_by_whom(self, connect: Connect, counted: Counted, scrape: Callable[..., Any]) -> None:
        connection = connect()
        tokens.refresh(connection, by="person")
        tokens.refresh(connection, by="helga")
        SipgateToken.objects.update(keepalive_at=timezone.now() - timedelta(days=2))
        assert keepalive.run(rate=0).refreshed == 1
        outcomes = counted.of("sipgate_refreshes_total")
        assert outcomes == {(actor, "refreshed"): 1 for actor in ("person", "other", "keepalive")}
        assert counted.of("sipgate_keepalive_runs_total") == {("finished",): 1}
        assert b"helga" not in scrape().content

    def test_upkeep_that_is_refused(
        self, connect: Connect, strict: Strict, counted: Counted
    ) -> None:
        connect(keepalive_at=timezone.now() - timedelta(days=1))
        strict.set(fault="client", times=1)
        keepalive.run(rate=0)
        assert counted.of("sipgate_keepalive_runs_total") == {("misconfigured",): 1}
        assert counted.of("sipgate_refreshes_total") == {("keepalive", "misconfigured"): 1}

    def test_a_pair_from_the_journal(
        self,
        connect: Connect,
        strict: Strict,
        settings: Any,
        tmp_path: Path,
        counted: Counted,
        scrape: Any,
    ) -> None:
        settings.SIPGATE_JOURNAL_DIR = str(tmp_path)
        connection = connect(age=400)
        claim = rows.claim(tokens.load(connection.pk), owner="another.machine.gone")
        grant = oauth.Grant.parse(strict.issue()[0], issued_at=timezone.now())
        pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
        assert journal.write(claim, grant, pair) is not None
        assert gauges(scrape)["sipgate_journal_entries"] == 1
        assert tokens.token(connection).value == grant.access_token
        assert counted.of("sipgate_journal_recovered_total") == {(): 1}
        assert counted.of("sipgate_refreshes_total") == {}
        assert gauges(scrape)["sipgate_journal_entries"] == 0


# --- the gate ---------------------------------------------------------------------------------------------------------


class TestGate:
    @pytest.mark.parametrize(
        ("age", "found", "result"),
        [
            (0, "fresh", "present"),
            (240, "advisory", "present"),
            (285, "mandatory", "refreshed"),
            (400, "over", "refreshed"),
        ],
    )
    def test_what_was_found_and_handed_out(
        self, connect: Connect, counted: Counted, age: float, found: str, result: str
    ) -> None:
        tokens.token(connect(age=age))
        assert counted.of("sipgate_gate_requests_total") == {(found, result): 1}
        assert counted.of("sipgate_gate_wait_seconds_count") == (
            {} if result == "present" else {(result,): 1}
        )

    def test_after_the_api_rejected_it(self, connect: Connect, counted: Counted) -> None:
        connection = connect()
        rejected = tokens.token(connection).value
        tokens.token(connection, rejected=rejected)
        tokens.token(connection, rejected=rejected)
        assert counted.of("sipgate_gate_requests_total") == {
            ("fresh", "present"): 1,
            ("rejected", "refreshed"): 1,
            ("rejected", "present"): 1,
        }

    def test_what_is_left_of_its_life(
        self, connect: Connect, strict: Strict, counted: Counted
    ) -> None:
        strict.set(fault="503", times=1)
        tokens.token(connect(age=285))
        assert counted.of("sipgate_gate_requests_total") == {("mandatory", "present"): 1}
        assert counted.of("sipgate_gate_wait_seconds_count") == {("present",): 1}

    def test_how_long_callers_waited(
        self, connect: Connect, strict: Strict, counted: Counted
    ) -> None:
        strict.set(latency=1.0)
        connection = connect(age=400)
        with pytest.raises(errors.SipgateUnavailable):
            tokens.token(connection, wait=0.1)
        tokens.token(connection)
        assert counted.of("sipgate_gate_requests_total") == {
            ("over", "error"): 1,
            ("over", "refreshed"): 1,
        }
        assert counted.of("sipgate_gate_wait_seconds_sum")[("refreshed",)] == 1
        assert counted.of("sipgate_refreshes_total") == {("gate", "refreshed"): 1}


# --- the API ----------------------------------------------------------------------------------------------------------


class TestApi:
    def test_by_template_and_status(
        self, connect: Connect, strict: Strict, counted: Counted
    ) -> None:
        client = SipgateClient(connect())
        client.get("/account")
        for user in ("w0", "w1"):
            client.get(f"/users/{user}")
        client.get("/miller/private")
        strict.control(expire_access=True)
        client.get("/account")
        assert counted.of("sipgate_api_requests_total") == {
            ("GET /account", "200"): 2,
            ("GET /account", "401"): 1,
            ("GET /users/{userId}", "200"): 2,
            ("other", "200"): 1,
        }
        assert counted.of("sipgate_api_seconds_count") == {
            ("GET /account",): 3,
            ("GET /users/{userId}",): 2,
            ("other",): 1,
        }

    def test_an_answer_that_needed_two_questions(self, counted: Counted) -> None:
        with running() as server:
            answers = iter([Answer(503), Answer(200, {}), Answer(599)])
            server.answer = lambda _asked: next(answers)
            rest.call("GET", server.api_url, "/account", "at-1")
            with pytest.raises(errors.SipgateUnavailable):
                rest.call("GET", server.api_url, "/account", "at-1")
        assert counted.of("sipgate_api_requests_total") == {
            ("GET /account", "200"): 1,
            ("GET /account", "other"): 1,
        }

    def test_no_answer_at_all(self, counted: Counted) -> None:
        with running() as server:
            closed = server.api_url
        with pytest.raises(errors.SipgateUnavailable):
            rest.call("POST", closed, "/sessions/sms", "at-1", json={})
        assert counted.of("sipgate_api_requests_total") == {("POST /sessions/sms", "connection"): 1}

    def test_a_record_per_request_for_who_wants_it(
        self, connect: Connect, strict: Strict, caplog: Any
    ) -> None:
        with caplog.at_level(logging.DEBUG, logger="sipgate_provider.remote.rest"):
            SipgateClient(connect()).get("/users/w0")
        told = next(
            record.sipgate
            for record in caplog.records
            if record.name == "sipgate_provider.remote.rest"
        )
        assert told.pop("duration_ms") >= 0
        assert told == {"endpoint": "GET /users/{userId}", "status": 200}


def test_revocations(connect: Connect, strict: Strict, counted: Counted) -> None:
    one, another = connect(), connect()
    one.delete()
    assert tokens.errands.wait_idle(20)
    strict.set(fault="503", times=2)
    another.delete()
    assert tokens.errands.wait_idle(20)
    pending = Revocation.objects.filter(next_attempt_at__isnull=False)
    pending.update(next_attempt_at=timezone.now(), give_up_at=timezone.now())
    keepalive.run(rate=0)
    assert counted.of("sipgate_revocations_total") == {
        ("done",): 1,
        ("failed",): 1,
        ("given_up",): 1,
    }


# --- figures ----------------------------------------------------------------------------------------------------------


class TestGauges:
    def test_how_the_connections_are(self, connect: Connect, scrape: Callable[..., Any]) -> None:
        now = timezone.now()
        connect()
        connect(refresh_expires_at=now + timedelta(days=2))
        connect(keepalive_at=now - timedelta(days=2))
        connect(
            state=State.FAILING, reason=Reason.UNREACHABLE, failing_since=now - timedelta(hours=1)
        )
        connect(
            state=State.NEEDS_SIGN_IN, reason=Reason.REFUSED, failing_since=now - timedelta(days=9)
        )
        made = now - timedelta(hours=2)
        Revocation.objects.create(
            uid="1w0", sealed=b"x", created_at=made, give_up_at=now, next_attempt_at=now
        )
        pause = ClientPause.objects.create(
            client_fingerprint="abc", since=now, until=now + timedelta(minutes=1)
        )
        found = gauges(scrape)
        states = {state: found[f"sipgate_connections{state}"] for state in State.values}
        assert states == {"active": 3, "failing": 1, "needs_sign_in": 1, "misconfigured": 0}
        assert (found["sipgate_connections_ending"], found["sipgate_connections_overdue"]) == (1, 1)
        assert 3600 <= found["sipgate_failing_seconds"] < 3700
        assert (found["sipgate_revocations_pending"], found["sipgate_client_paused"]) == (1, 1)
        assert 7200 <= found["sipgate_revocations_oldest_seconds"] < 7300
        assert (found["sipgate_journal_entries"], found["sipgate_statistics_up"]) == (0, 1)
        pause.delete()
        assert gauges(scrape)["sipgate_client_paused"] == 0

    def test_they_are_remembered(self, connect: Connect, scrape: Callable[..., Any]) -> None:
        connect()
        assert gauges(scrape)["sipgate_connectionsactive"] == 1
        connect()
        assert b'sipgate_connections{state="active"} 1.0' in scrape().content
        assert gauges(scrape)["sipgate_connectionsactive"] == 2, "counted anew"

    def test_a_journal_that_cannot_be_written(
        self, scrape: Callable[..., Any], settings: Any, tmp_path: Path
    ) -> None:
        assert "sipgate_journal_writable" not in gauges(scrape), "there is none"
        settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "made when needed")
        assert gauges(scrape)["sipgate_journal_writable"] == 1
        (tmp_path / "file").touch()
        settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "file" / "below")
        assert gauges(scrape)["sipgate_journal_writable"] == 0


# --- who may read it --------------------------------------------------------------------------------------------------


class TestScrape:
    def test_off_there_is_no_such_page_and_nothing_is_counted(
        self, connect: Connect, settings: Any
    ) -> None:
        assert (settings.METRICS_TOKEN, settings.SIPGATE_METRICS, metrics.is_on()) == (
            "",
            False,
            False,
        )
        before = series()
        tokens.token(connect(age=400))
        assert series() == before
        assert Client().get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404

    @pytest.mark.parametrize(
        "authorization",
        [
            None,
            "",
            "Bearer",
            "Bearer ",
            TOKEN,
            f"Basic {TOKEN}",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            "Bearer ü",
        ],
    )
    def test_without_the_token_nobody_reads_it(
        self, scrape: Callable[..., Any], authorization: str | None
    ) -> None:
        answer = scrape(authorization)
        assert (answer.status_code, answer.content) == (401, b"")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="metrics"'

    def test_with_it(self, scrape: Callable[..., Any]) -> None:
        answer = scrape()
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert "no-store" in answer.headers["Cache-Control"]
        assert not answer.cookies
        assert {f.name for f in text_string_to_metric_families(answer.content.decode())} >= {
            "sipgate_refreshes",
            "sipgate_connections",
        }
        assert scrape(f"bearer {TOKEN}").status_code == 200
        modern = scrape(accept="application/openmetrics-text; version=1.0.0")
        assert modern.headers["Content-Type"].startswith("application/openmetrics-text")
        assert modern.content.endswith(b"# EOF\n")

    def test_only_reading(self, scrape: Callable[..., Any]) -> None:
        assert (
            Client().post("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code
            == 405
        )

    def test_by_address_and_over_plain_http(
        self, scrape: Callable[..., Any], settings: Any
    ) -> None:
        settings.SECURE_SSL_REDIRECT = True
        settings.SIPGATE_REDIRECT_URI = "https://crm.example.org/oauth"
        assert scrape(host="127.0.0.1:8000").status_code == 200
        assert Client().get("/account").status_code == 301

    def test_series_of_events_begin_at_zero(self, scrape: Callable[..., Any]) -> None:
        """A first failure has to be an increase."""
        lines = scrape().content.decode().splitlines()
        refreshes = [line for line in lines if line.startswith("sipgate_refreshes_total{")]
        assert len(refreshes) >= len(Outcome) * len(metrics.ACTORS)

    def test_no_secret_and_no_person(
        self, browser: Browser, scrape: Callable[..., Any], secrets: Secrets
    ) -> None:
        browser.sign_in()
        connection = SocialAccount.objects.get()
        client = SipgateClient(connection)
        client.account()
        for path in (
            f"/users/{client.user_id}",
            f"/{client.user_id}/devices",
            f"/{connection.uid}",
        ):
            with pytest.raises(errors.SipgateError):
                client.get(path)
        tokens.refresh(connection, by=connection.user.get_username())
        browser.sandbox.control.fault("invalid-grant", on="refresh")
        with pytest.raises(errors.NeedsSignIn):
            tokens.refresh(connection, by=connection.user.get_username())
        browser.site.get("/account")
        connection.delete()
        assert tokens.errands.wait_idle(20)
        answer = scrape()
        assert len(secrets.known) >= 6
        secrets.assert_absent("metrics", answer.content)
        # prometheus-client's own figures of the process may have any digits.
        text = "\n".join(
            line for line in answer.content.decode().splitlines() if not line.startswith("process_")
        )
        for word in (TOKEN, connection.uid, connection.user.get_username(), "1000000"):
            assert word not in text, word


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_every_process_answers_for_all(
    browser: Browser, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    settings.SIPGATE_PAGE_WAIT_SECONDS = 20
    browser.sign_in()
    session = browser.site.cookies[settings.SESSION_COOKIE_NAME].value

    def present(url: str) -> float:
        answer = requests.get(
            f"{url}/metrics",
            headers={"Host": "localhost:8080", "Authorization": f"Bearer {TOKEN}"},
            timeout=20,
        )
        assert answer.status_code == 200
        found = {
            sample.name + "".join(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }
        assert found["sipgate_connectionsactive"] == 1
        return found.get("sipgate_gate_requests_totalfreshpresent", 0.0)

    with site(
        processes=3, threads=2, settings={"METRICS_TOKEN": TOKEN, "SIPGATE_METRICS": True}
    ) as deployed:
        for _ in range(12):
            assert deployed.get("/account.json", session=session).status_code == 200
        assert {present(deployed.url) for _ in range(6)} == {12.0}
    assert len(list(tmp_path.glob("counter_*.db"))) >= 2


PROGRAM = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
{first}
from django.conf import settings
settings.SIPGATE_METRICS = {on}
import django
django.setup()
from sipgate_provider import checks, metrics
from sipgate_provider.tokens import attempt, gate
attempt.REFRESHES.count("refreshed", "gate")
gate.WAIT_SECONDS.observe(1.0, "refreshed")
installed = "prometheus_client" in sys.modules and bool(sys.modules["prometheus_client"])
print(metrics.is_on(), [found.id for found in checks.check_metrics()], installed)
"""


@pytest.mark.parametrize(
    ("first", "on", "said"),
    [
        ("", False, "False [] False"),
        ("", True, "True [] True"),
        ("sys.modules['prometheus_client'] = None", True, "False ['sipgate_provider.W016'] False"),
    ],
    ids=["off", "on", "not installed"],
)
def test_the_package_is_asked_for_only_if_it_is_wanted(first: str, on: bool, said: str) -> None:
    program = PROGRAM.format(first=first, on=on)
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == said


# --- log records ------------------------------------------------------------------------------------------------------


class Kept(logging.StreamHandler[Any]):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log() -> Iterator[Kept]:
    handler, logger = Kept(), logging.getLogger("sipgate_provider")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


class TestJsonLines:
    def test_the_reference_of_a_page_is_a_field(self, browser: Browser, log: Kept) -> None:
        browser.sign_in()
        browser.sandbox.control.fault("unknown-error", on="account", times=2)
        page = browser.site.get("/account.json")
        assert page.status_code in {200, 503}
        found = [json.loads(line) for line in log.lines]
        told = next(line for line in found if line.get("sipgate", {}).get("kind"))
        assert (told["level"], told["logger"]) == ("WARNING", "sipgate_provider.problems")
        assert datetime.fromisoformat(told["time"]).tzinfo is not None
        assert told["sipgate"]["kind"] == "unavailable"
        assert (told["sipgate"]["endpoint"], told["sipgate"]["status"]) == ("GET /account", 500)
        assert f"[{told['sipgate']['reference']}]" in told["message"]
        assert told["sipgate"]["reference"] in page.content.decode()

    def test_whatever_it_is_stays_one_line(self) -> None:
        try:
            raise ValueError("two\nlines")
        except ValueError:
            record = logging.LogRecord(
                "x", logging.ERROR, "-", 1, "a\n%s\u2028\udc00", ("b",), sys.exc_info()
            )
        record.request = "Bearer of bad news"
        line = JsonLines().format(record)
        assert line.isascii()
        assert len(line.splitlines()) == 1
        read = json.loads(line)
        assert read["message"] == "a\nb\u2028\udc00"
        assert "ValueError: two\nlines" in read["exception"]
        assert set(read) == {"time", "level", "logger", "message", "exception"}
