"""What a sign-in and a page may cost: requests to sipgate, database queries."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.socialaccount.providers import registry
from allauth.socialaccount.providers.dummy.provider import DummyProvider
from django.db.backends.utils import CursorWrapper
from django.test import Client
from django.urls import include, path

from sipgate_provider import background
from tests.journey import HOST, Browser

urlpatterns = [
    path("accounts/", include("allauth.socialaccount.providers.dummy.urls")),
    path("", include("sipgate_project.urls")),
]


def test_requests_of_a_sign_in(browser, ask_for):
    for scope, most in ((["account:read"], 2), (["account:read", "users:read"], 3)):
        ask_for(*scope)
        browser.sign_in()
        callback = browser.consent(browser.start())
        before = asked(browser)
        assert browser.site.get(callback).status_code == 302
        assert asked(browser) - before == most, scope


@pytest.mark.urls(__name__)
def test_queries_of_a_callback(browser, statements, monkeypatch):
    """A known user's sign-in, beside that of allauth's dummy provider, which stores no token, on
    the same site."""
    monkeypatch.setitem(registry.provider_map, "dummy", DummyProvider)
    plain = Client(headers={"host": HOST})
    for _ in range(2):
        form = plain.post("/accounts/dummy/login/").headers["Location"]
        statements.clear()
        plain.post(form, {"id": 1})
    beside = len(statements)
    for _ in range(2):
        callback = browser.consent(browser.start())
        background.errands.wait_idle(10)
        statements.clear()
        assert browser.site.get(callback).status_code == 302
    assert len(statements) <= beside + 12, "\n".join(statements)


def test_queries_of_the_account_page_with_known_data(browser, statements, settings):
    settings.SIPGATE_ACCOUNT_MAX_AGE_SECONDS = 60
    browser.sign_in()
    browser.site.get("/account")
    statements.clear()
    assert "As of" in browser.site.get("/account").content.decode()
    expected = 5  # session, user, connections, addresses, name
    assert len(statements) == expected, "\n".join(statements)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Statements of all threads."""
    counted: list[str] = []
    real = CursorWrapper.execute

    def execute(self: Any, sql: Any, params: Any = None) -> Any:
        counted.append(str(sql))
        return real(self, sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", execute)
    return counted


def asked(browser: Browser) -> int:
    """Return how many requests sipgate has had of the site."""
    background.errands.wait_idle(10)
    return sum(
        number
        for name, number in browser.sandbox.control.state().items()
        if name.startswith("GET ") or name in {"token", "refresh"}
    )
