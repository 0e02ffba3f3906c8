"""Fixtures that several folders use: users with connections, their browsers, and sipgate's servers.

``rotator`` and ``connect`` are for tests of tokens, ``sandbox`` and ``browser`` for whole journeys.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.management.commands import flush
from django.db import connection
from django.test import Client
from django.urls import get_resolver
from django.utils import timezone

from sipgate_provider import background
from sipgate_provider.models import SipgateToken
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import access, clients, rows
from sipgate_sandbox.launch import Running, launch
from tests.journey import Browser
from tests.keycloak import server as keycloak_server
from tests.keycloak.server import Keycloak
from tests.rotator import Rotator


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On SQLite, leave out what it does not have."""
    if connection.vendor != "postgresql":
        left_out = [item for item in items if item.get_closest_marker("postgresql")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Let what the last test began end: PostgreSQL drops no database that is in use."""
    yield
    _wait_idle()
    if connection.vendor == "postgresql":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@pytest.fixture(scope="session", autouse=True)
def _urls_are_those_of_the_settings() -> None:
    """Load the URL configuration before a test overrides ``SIPGATE_REDIRECT_URI``.

    It is loaded once, and the callback's path is that of the setting at that moment.
    """
    assert get_resolver().url_patterns


@pytest.fixture(scope="session", autouse=True)
def _what_migrate_made_stays() -> Iterator[None]:
    """Empty all tables after a test that commits, but for those that ``migrate`` filled.

    To fill these again takes longer than most tests do. So does ``TRUNCATE``, which makes new files
    for each table and index.
    """

    def sql_flush(_style: Any, connection: Any, **_options: Any) -> list[str]:
        tables = connection.introspection.django_table_names(
            only_existing=True, include_views=False
        )
        return [
            f"DELETE FROM {connection.ops.quote_name(table)}"
            for table in sorted({*tables} - {"auth_permission", "django_content_type"})
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush, "sql_flush", sql_flush)
        patch.setattr(flush, "emit_post_migrate_signal", lambda *_args: None)
        yield


@pytest.fixture(scope="session")
def _rotator() -> Iterator[Rotator]:
    with Rotator.running() as server:
        yield server


@pytest.fixture
def rotator(_rotator: Rotator, settings: Any) -> Rotator:
    """An authorization server that the settings point at, with its counters at zero."""
    _rotator.reset()
    settings.SIPGATE_TOKEN_URL = _rotator.token_url
    settings.SIPGATE_API_URL = _rotator.api_url
    return _rotator


def issued(
    rotator: Rotator, *, age: float = 0, family: str = "", client_id: str = ""
) -> oauth.Tokens:
    """Return the tokens of a new consent, as the rotator issued them ``age`` seconds ago."""
    then = datetime.now(UTC) - timedelta(seconds=age)
    [answer] = rotator.issue(family=family)
    return oauth.Tokens.parse(answer, issued_at=then, client_id=client_id)


Connect = Callable[..., SocialAccount]


@pytest.fixture
def connect(rotator: Rotator) -> Connect:
    """Make a user with a connection whose tokens the rotator issued ``age`` seconds ago."""

    def make(*, age: float = 0, **changes: Any) -> SocialAccount:
        number = SocialAccount.objects.count()
        user = get_user_model().objects.create(username=f"person{number}")
        connection = SocialAccount.objects.create(
            user=user, provider="sipgate", uid=f"{1000000 + number}w0"
        )
        rows.store_consent(connection, issued(rotator, age=age), scope=["account:read"])
        if changes:
            SipgateToken.objects.filter(pk=connection.pk).update(**changes)
        return connection

    return make


@pytest.fixture(scope="session")
def _sandbox_process() -> Iterator[Running]:
    with launch("--redirect-uri", "http://localhost:8080/oauth") as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox_process: Running, settings: Any) -> Running:
    """The sandbox, as new, with the settings pointing at it."""
    _sandbox_process.control.reset()
    settings.SIPGATE_AUTH_URL = f"{_sandbox_process.oidc_url}/auth"
    settings.SIPGATE_TOKEN_URL = f"{_sandbox_process.oidc_url}/token"
    settings.SIPGATE_API_URL = _sandbox_process.api_url
    return _sandbox_process


@pytest.fixture(scope="session")
def keycloak(worker_id: str) -> Iterator[Keycloak]:
    """A realm of this worker's own at a real Keycloak, for the tests behind ``make test-keycloak``."""
    with keycloak_server.realm(
        f"third-party-{worker_id}", ["http://localhost:8080/oauth"]
    ) as realm:
        yield realm


@pytest.fixture
def browser(sandbox: Running, transactional_db: None) -> Iterator[Browser]:
    """A person's browser, signed in nowhere."""
    one = Browser(sandbox)
    yield one
    one.close()


@pytest.fixture
def another_browser(sandbox: Running, transactional_db: None) -> Iterator[Browser]:
    """A browser of somebody else, or the same person's second one."""
    one = Browser(sandbox)
    yield one
    one.close()


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """Keep a test's work in threads, rate limits and rejected clients from the next test."""
    cache.clear()
    clients.rejected_clients.clear()
    access.recover_at_start()  # else the journal of the first test is recovered behind it
    yield
    _wait_idle()


def _wait_idle() -> None:
    queues = background.refreshes, background.pages, background.errands
    for queue in queues:
        queue.wait_idle(20)


def make_stale() -> None:
    """Let every access token look long expired."""
    moment = timezone.now() - timedelta(seconds=400)
    SipgateToken.objects.update(issued_at=moment, expires_at=moment + timedelta(seconds=300))


def session_of(client: Client) -> str:
    """Return the key of a browser's session."""
    return str(client.cookies[settings.SESSION_COOKIE_NAME].value)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a self-signed certificate for 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now, day = datetime.now(UTC), timedelta(days=1)
    builder = x509.CertificateBuilder(subject_name=name, issuer_name=name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - day).not_valid_after(now + day)
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    file = tmp_path_factory.mktemp("tls") / "certificate-and-key.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made
    )
    return file
