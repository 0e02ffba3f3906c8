"""What a sign-in and a page may cost: requests to sipgate, connections, database queries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db.backends.utils import CursorWrapper

from sipgate_provider import tokens
from tests.journey import Browser


class Counter(list[str]):
    """Statements of all threads."""

    def besides(self, *tables: str) -> list[str]:
        return [sql for sql in self if not any(f'"{table}"' in sql for table in tables)]


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    counted, real = Counter(), CursorWrapper.execute

    def execute(self: Any, sql: Any, params: Any = None) -> Any:
        counted.append(str(sql))
        return real(self, sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", execute)
    return counted


def asked(browser: Browser) -> tuple[int, int]:
    """Return how many requests sipgate has had of the site, and how many connections of anybody."""
    tokens.errands.wait_idle(10)
    state = browser.sandbox.control.state()
    requests = sum(
        number
        for name, number in state.items()
        if name.startswith("GET ") or name in {"token", "refresh"}
    )
    return requests, state["connections"]


@pytest.mark.parametrize(
    ("scope", "most"), [(["account:read"], 2), (["account:read", "users:read"], 3)]
)
def test_requests_of_a_sign_in(
    browser: Browser, settings: Any, scope: list[str], most: int
) -> None:
    settings.SIPGATE_SCOPE = scope
    settings.SOCIALACCOUNT_PROVIDERS = {
        "sipgate": {**settings.SOCIALACCOUNT_PROVIDERS["sipgate"], "SCOPE": scope},
    }
    browser.sign_in()
    callback = browser.consent(browser.start())
    requests, connections = asked(browser)
    assert browser.site.get(callback).status_code == 302
    later_requests, later_connections = asked(browser)
    assert later_requests - requests == most
    assert later_connections - connections == 1, (
        "asking the sandbox for its counters makes one, and nobody else"
    )


def test_queries_of_a_callback(browser: Browser, statements: Counter) -> None:
    browser.sign_in()
    callback = browser.consent(browser.start())
    tokens.errands.wait_idle(10)
    statements.clear()
    assert browser.site.get(callback).status_code == 302
    # The list of sessions is allauth's; the outbox works behind the answer.
    mine = statements.besides("sipgate_provider_revocation", "usersessions_usersession")
    # Three for the state that is used once: its INSERT, in a transaction, and how the sign-in ended. One looks whether
    # the person has ended access. Seven keep the list of sessions.
    assert len(mine) <= 33, "\n".join(mine)


def test_queries_of_the_account_page(browser: Browser, statements: Counter) -> None:
    browser.sign_in()
    assert browser.site.get("/account").status_code == 200
    statements.clear()
    assert browser.site.get("/account").status_code == 200
    own = [
        sql
        for sql in statements.besides("django_session", "auth_user")
        if sql.lstrip().startswith(("SELECT", "UPDATE", "INSERT"))
    ]
    assert len(own) <= 2, "\n".join(own)


def test_queries_of_the_account_page_with_known_data(
    browser: Browser, statements: Counter, settings: Any
) -> None:
    settings.SIPGATE_ACCOUNT_MAX_AGE_SECONDS = 60
    browser.sign_in()
    browser.site.get("/account")
    statements.clear()
    assert "As of" in browser.site.get("/account").content.decode()
    assert len(statements) == 4, "session, user, connections, addresses\n" + "\n".join(statements)


def test_queries_of_the_home_page(browser: Browser, statements: Counter) -> None:
    browser.sign_in()
    browser.site.get("/account")
    statements.clear()
    assert "Rosenduft Gartenbau GmbH" in browser.site.get("/").content.decode()
    assert len(statements) == 3, "session, user, connections\n" + "\n".join(statements)
