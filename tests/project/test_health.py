"""What probes and Prometheus are told."""

import pytest
from django.db import OperationalError, connection
from django.test import Client

PATHS = ("/livez", "/readyz", "/metrics")


@pytest.mark.django_db
def test_ready_means_that_the_database_answers_and_is_migrated(monkeypatch):
    assert Client().get("/readyz").json() == {"status": "ok"}
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'sipgate_provider'")
    behind = Client().get("/readyz")
    assert (behind.status_code, behind.json()) == (503, {"status": "migrations are pending"})

    def away():
        raise OperationalError("connection refused")

    monkeypatch.setattr(connection, "cursor", away)
    unreachable = Client().get("/readyz")
    assert unreachable.status_code == 503
    assert unreachable.json() == {"status": "the database cannot be reached"}
    assert Client().get("/livez").status_code == 200, "a restart would not bring it back"


@pytest.mark.django_db
def test_probes_ask_by_address_over_plain_http_and_are_cached_by_nobody(settings):
    settings.SECURE_SSL_REDIRECT = True
    for path in PATHS:
        for host in ("10.1.2.3:8000", "probe.invalid"):
            answer = Client().get(path, headers={"host": host})
            assert answer.status_code == (404 if path == "/metrics" else 200), (path, host)
            assert "no-store" in answer.headers["Cache-Control"], path
        assert Client().post(path).status_code == 405, path


@pytest.mark.django_db
def test_a_probe_that_fails_is_no_error_in_the_log(monkeypatch, caplog):
    def away():
        raise OperationalError("connection refused")

    monkeypatch.setattr(connection, "cursor", away)
    assert Client().get("/readyz").status_code == 503
    assert caplog.records == []
