"""What real refreshes and requests count, who may read it, and what log records tell."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import requests
from allauth.socialaccount.models import SocialAccount
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from sipgate_project.logs import JsonLines
from sipgate_provider import errors, exposition, tokens
from sipgate_provider.client import SipgateClient
from sipgate_provider.models import Ending, SipgateToken, State
from sipgate_provider.ops import keepalive
from tests.processes import environment, site

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "a-token-of-the-tests-only"


class TestCounters:
    def test_refreshes_by_outcome(self, connect, rotator, scrape):
        before = scrape()
        tokens.refresh(connect(), by="user")
        tokens.token(connect(age=400))
        for fault, error in (("503", errors.SipgateUnavailable), ("client", errors.Misconfigured)):
            rotator.set(fault=fault, times=1)
            with pytest.raises(error):
                tokens.refresh(connect(), by="helga")
        assert increase(before, scrape(), "sipgate_refreshes_total") == {
            ("user", "refreshed"): 1,
            ("caller", "refreshed"): 1,
            ("other", "unavailable"): 1,
            ("other", "client_rejected"): 1,
        }

    def test_requests_by_template_and_status(self, connect, rotator, scrape):
        before, client = scrape(), SipgateClient(connect())
        for path in ("/account", "/users/w0", "/users/w1", "/miller/private"):
            client.get(path)
        rotator.control(expire_access=True)
        client.get("/account")
        assert increase(before, scrape(), "sipgate_api_requests_total") == {
            ("GET /account", "200"): 2,
            ("GET /account", "401"): 1,
            ("GET /users/{userId}", "200"): 2,
            ("other", "200"): 1,
        }

    def test_runs_of_keepalive(self, rotator, connect, scrape):
        before = scrape()
        keepalive.run()
        rotator.set(fault="client", times=1)
        connect(age=2_000_000)
        keepalive.run()
        runs = increase(before, scrape(), "sipgate_keepalive_runs_total")
        assert runs == {("finished",): 1, ("misconfigured",): 1}


class TestGauges:
    def test_how_the_connections_are(self, connect, scrape):
        connect()
        connect(state=State.NEEDS_SIGN_IN)
        now = timezone.now()
        times = {"created_at": now, "give_up_at": now, "next_attempt_at": now}
        Ending.objects.create(uid="1w0", sealed="x", **times)
        found = scrape()
        assert found["sipgate_connections", ("active",)] == 1
        assert found["sipgate_connections", ("needs_sign_in",)] == 1
        assert found["sipgate_connections", ("failing",)] == 0
        assert found["sipgate_endings_waiting", ()] == 1
        assert found["sipgate_journal_entries", ()] == 0

    def test_while_the_database_is_away_the_counters_are_there(self, connect, scrape, monkeypatch):
        def fail(*_args, **_kwargs):
            raise DatabaseError

        monkeypatch.setattr(type(SipgateToken.objects), "order_by", fail)
        names = {name for name, _labels in scrape()}
        assert "sipgate_connections" not in names
        assert "sipgate_refreshes_total" in names


class TestScrape:
    def test_is_for_those_who_know_the_token(self, settings, request):
        assert Client().get("/metrics").status_code == 404, "there is none without a token"
        request.getfixturevalue("scrape")
        for header in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {TOKEN}"}):
            assert Client().get("/metrics", headers=header).status_code == 401, header
        settings.SECURE_SSL_REDIRECT = True
        known = {"Authorization": f"Bearer {TOKEN}", "Host": "10.0.0.5:8000"}
        answer = Client().get("/metrics", headers=known)
        assert answer.status_code == 200, "by address and over plain http"

    def test_no_secret_and_no_person(self, browser, scrape, secrets):
        browser.sign_in()
        connection = SocialAccount.objects.get()
        client = SipgateClient(connection)
        for path in (f"/users/{client.user_id}", f"/{connection.uid}"):
            with pytest.raises(errors.SipgateError):
                client.get(path)
        tokens.refresh(connection, by=connection.user.get_username())
        text = "\n".join(f"{name} {labels}" for name, labels in scrape())
        assert len(secrets.known) >= 6
        secrets.assert_absent("metrics", text)
        for word in (TOKEN, connection.uid, connection.user.get_username(), "1000000"):
            assert word not in text, word

    @pytest.mark.timeout(180)
    def test_every_process_answers_for_all(self, browser, settings, tmp_path, monkeypatch):
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        settings.SIPGATE_PAGE_WAIT_SECONDS = 20
        browser.sign_in()
        session = browser.site.cookies[settings.SESSION_COOKIE_NAME].value
        known = {"Host": "localhost:8080", "Authorization": f"Bearer {TOKEN}"}
        on = environment(METRICS_TOKEN=TOKEN, SIPGATE_METRICS=True)
        with site(processes=3, threads=2, **on) as deployed:
            for _ in range(12):
                assert deployed.get("/account.json", session=session).status_code == 200
            url = f"{deployed.url}/metrics"
            answers = [requests.get(url, headers=known, timeout=20).text for _ in range(6)]
        for answer in answers:
            found = samples(answer)
            assert found["sipgate_connections", ("active",)] == 1
            assert found["sipgate_token_requests_total", ("fresh", "present")] == 12


class TestJsonLines:
    def test_the_reference_of_a_page_is_a_field(self, browser, log):
        browser.sign_in()
        browser.sandbox.control.fault("unknown-error", on="account", times=2)
        page = browser.site.get("/account.json")
        found = [json.loads(line) for line in log.lines]
        told = next(line for line in found if line.get("sipgate", {}).get("kind"))
        assert (told["level"], told["logger"]) == ("WARNING", "sipgate_provider.problems")
        assert datetime.fromisoformat(told["time"]).tzinfo is not None
        assert told["sipgate"]["kind"] == "unavailable"
        assert (told["sipgate"]["endpoint"], told["sipgate"]["status"]) == ("GET /account", 500)
        assert f"[{told['sipgate']['reference']}]" in told["message"]
        assert told["sipgate"]["reference"] in page.content.decode()

    def test_whatever_it_is_stays_one_line(self):
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


Samples = dict[tuple[str, tuple[str, ...]], float]
Scrape = Callable[[], Samples]


@pytest.fixture
def scrape(settings: Any) -> Iterator[Scrape]:
    """Ask as Prometheus does; return every sample by name and labels."""
    settings.METRICS_TOKEN = TOKEN
    exposition.register()

    def ask() -> Samples:
        answer = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
        return samples(answer.content.decode())

    yield ask
    REGISTRY.unregister(exposition.GAUGES)


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def increase(before: Samples, after: Samples, name: str) -> dict[tuple[str, ...], float]:
    found = {
        labels: value - before.get((one, labels), 0)
        for (one, labels), value in after.items()
        if one == name
    }
    return {labels: value for labels, value in found.items() if value}


@pytest.fixture
def log() -> Iterator[Kept]:
    handler, logger = Kept(), logging.getLogger("sipgate_provider")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


class Kept(logging.StreamHandler[Any]):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
