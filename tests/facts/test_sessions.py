"""Facts about an authorization server like sipgate's, each asserted of the sandbox and of a real Keycloak.

``make test`` runs the sandbox's column, ``make test-keycloak`` Keycloak's. Where the sandbox differs on purpose, or has
no such thing, the test says why. What is certain, likely and unknown about sipgate itself: ``docs/sipgates-server.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.facts.server import (
    ROSA,
    AuthorizationServer,
    Browser,
    Client,
    granted,
    scopes,
)

Grant = dict[str, Any]
NewBrowser = Callable[[], Browser]


def error(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


def now() -> int:
    return int(time.time())


Cause = Callable[[AuthorizationServer, Browser, Grant], None]


def reused(server: AuthorizationServer, browser: Browser, grant: Grant) -> None:
    server.refreshed(grant)
    server.refresh(grant)


def revoked(server: AuthorizationServer, browser: Browser, grant: Grant) -> None:
    assert server.revoke(grant).status_code == 200


def logged_out_by_the_application(
    server: AuthorizationServer, browser: Browser, grant: Grant
) -> None:
    assert server.log_out(grant).status_code == 204


def logged_out_in_the_browser(server: AuthorizationServer, browser: Browser, grant: Grant) -> None:
    browser.open(server.log_out_url)
    assert browser.confirm_log_out().kind == "callback"  # the registered way back


def logged_out_by_an_administrator(
    server: AuthorizationServer, browser: Browser, grant: Grant
) -> None:
    server.end_sessions(ROSA)


def consent_withdrawn(server: AuthorizationServer, browser: Browser, grant: Grant) -> None:
    server.withdraw_consent(ROSA)


FINAL = [
    reused,
    revoked,
    logged_out_by_the_application,
    logged_out_in_the_browser,
    logged_out_by_an_administrator,
    consent_withdrawn,
]


class TestRefusals:
    @pytest.mark.parametrize("cause", FINAL)
    def test_final_and_trying_again_harms_nothing(
        self, server: AuthorizationServer, browser: Browser, cause: Cause
    ) -> None:
        grant = server.grant(browser)
        cause(server, browser, grant)
        assert server.is_refused(grant)
        assert not server.is_active(grant["access_token"])
        server.let_time_pass()
        new = server.grant(browser)
        for _ in range(2):
            assert server.is_refused(grant)
        new = server.refreshed(new)
        assert server.is_active(new["access_token"])

    def test_session_reached_its_maximum(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        server.set_lifetimes(session=2)
        grant = server.grant(browser)
        time.sleep(grant["refresh_expires_in"] + 1)
        assert server.is_refused(grant)

    def test_person_disabled_is_not_final(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        grant = server.grant(browser)
        server.set_enabled(ROSA, False)
        for _ in range(3):
            assert server.is_refused(grant)
        assert not server.is_active(grant["access_token"])
        server.set_enabled(ROSA, True)
        assert not server.is_refused(grant)

    def test_not_before_of_the_realm_is_not_final(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        grant = server.grant(browser)
        server.set_not_before(now() + 60)
        assert server.is_refused(grant)
        assert not server.is_active(grant["access_token"])
        server.set_not_before(0)
        assert not server.is_refused(grant)

    def test_consent_is_demanded_only_since_the_grant_was_made(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        server.set_consent_required(False)
        grant = server.grant(browser)
        server.set_consent_required(True)
        assert error(server.refresh(grant)) == (400, "invalid_scope")

    def test_token_of_another_client_is_refused_and_not_spent(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        grant = server.grant(browser)
        assert error(server.refresh(grant, server.other_client)) == (400, "invalid_grant")
        assert not server.is_refused(grant)

    def test_nonsense(self, server: AuthorizationServer) -> None:
        assert server.is_refused({"refresh_token": "nonsense"})
        assert error(server.exchange("nonsense")) == (400, "invalid_grant")


@pytest.fixture
def grants(
    server: AuthorizationServer, browser: Browser, new_browser: NewBrowser
) -> dict[str, Grant]:
    """One person's grants: two of our client and one of another application in one browser, one of ours in another."""
    return {
        "first": server.grant(browser),
        "second": server.grant(browser),
        "other application": server.grant(browser, client=server.other_client),
        "other browser": server.grant(new_browser()),
    }


def alive(server: AuthorizationServer, grants: dict[str, Grant]) -> set[str]:
    """Refresh each of ``grants``; return the names of those that live."""
    clients: dict[str, Client] = {"other application": server.other_client}
    return {
        name
        for name, grant in grants.items()
        if server.refresh(grant, clients.get(name)).status_code == 200
    }


class TestOneBrowserSession:
    """All grants of one browser and person share one session at the server, and its fate."""

    def test_session_is_shared_and_grants_rotate_side_by_side(
        self, server: AuthorizationServer, grants: dict[str, Grant]
    ) -> None:
        sessions = {name: grant["session_state"] for name, grant in grants.items()}
        assert (
            sessions["first"]
            == sessions["second"]
            == sessions["other application"]
            != sessions["other browser"]
        )
        for _ in range(2):
            grants["first"] = server.refreshed(grants["first"])
            grants["second"] = server.refreshed(grants["second"])
        assert alive(server, grants) == set(grants)

    def test_spent_token_ends_every_grant_of_the_client_in_the_session(
        self, server: AuthorizationServer, grants: dict[str, Grant]
    ) -> None:
        successor = server.refreshed(grants["first"])
        assert server.is_refused(grants["first"])
        assert not server.is_active(successor["access_token"])
        assert not server.is_active(grants["second"]["access_token"])
        grants["first"] = successor
        assert alive(server, grants) == {"other application", "other browser"}

    def test_of_eight_refreshes_at_once_one_wins_and_is_dead(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        grant = server.grant(browser)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: server.refresh(grant), range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
        winner = next(answer.json() for answer in answers if answer.status_code == 200)
        assert not server.is_active(winner["access_token"])
        assert server.is_refused(winner)

    def test_code_sent_twice_does_the_same(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        grants = {"other application": server.grant(browser, client=server.other_client)}
        code = browser.walk(server.authorize_url())["code"]
        grants["first"] = granted(server.exchange(code))
        assert error(server.exchange(code)) == (400, "invalid_grant")
        assert not server.is_active(grants["first"]["access_token"])
        assert alive(server, grants) == {"other application"}

    def test_of_two_exchanges_at_once_one_wins_and_is_dead(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        code = browser.walk(server.authorize_url())["code"]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: server.exchange(code), range(2)))
        assert sorted(answer.status_code for answer in answers) == [200, 400]
        winner = next(answer.json() for answer in answers if answer.status_code == 200)
        assert server.is_refused(winner)

    @pytest.mark.parametrize("token", ["current", "spent"])
    def test_log_out_ends_the_whole_session(
        self, server: AuthorizationServer, grants: dict[str, Grant], browser: Browser, token: str
    ) -> None:
        spent, grants["first"] = grants["first"], server.refreshed(grants["first"])
        assert server.log_out(grants["first"] if token == "current" else spent).status_code == 204
        assert alive(server, grants) == {"other browser"}
        assert browser.open(server.authorize_url()).kind == "sign-in"
        assert browser.sign_in(ROSA).kind == "callback"  # the consent is still there

    @pytest.mark.parametrize("token", ["current", "spent"])
    def test_revocation_ends_the_part_of_the_client(
        self, server: AuthorizationServer, grants: dict[str, Grant], browser: Browser, token: str
    ) -> None:
        spent, grants["first"] = grants["first"], server.refreshed(grants["first"])
        assert server.revoke(grants["first"] if token == "current" else spent).status_code == 200
        assert alive(server, grants) == {"other application", "other browser"}
        assert (
            browser.open(server.authorize_url()).kind == "callback"
        )  # signed in, and the consent is still there

    def test_revocation_of_the_last_application_ends_the_session(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        server.revoke(server.grant(browser))
        assert browser.open(server.authorize_url()).kind == "sign-in"

    def test_revocation_of_nonsense_is_a_success(self, server: AuthorizationServer) -> None:
        assert server.revoke({"refresh_token": "nonsense"}).status_code == 200

    def test_revocation_of_an_old_grant_ends_a_new_one_of_the_same_session(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        server.grant(
            browser, client=server.other_client
        )  # keeps the session, which ends with its last application
        old = server.grant(browser)
        server.revoke(old)
        new = server.grant(browser)
        assert new["session_state"] == old["session_state"]
        assert server.revoke(old).status_code == 200
        assert server.is_refused(new)

    def test_late_log_out_after_one_that_worked_is_harmless(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        old = server.grant(browser)
        server.log_out(old)
        new = server.grant(browser)
        assert new["session_state"] != old["session_state"]
        server.log_out(old)
        assert not server.is_refused(new)

    def test_log_out_of_an_old_grant_ends_a_new_one_of_the_same_session(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        old = server.grant(browser)
        reused(server, browser, old)
        new = server.grant(browser)
        assert new["session_state"] == old["session_state"]
        assert server.log_out(old).status_code == 204
        assert server.is_refused(new)


class TestOfflineAccess:
    """``offline_access`` cuts the tie between a grant and the browser session."""

    @pytest.fixture
    def offline(self, server: AuthorizationServer, browser: Browser) -> Grant:
        return server.grant(browser, scope="account:read offline_access")

    def test_end_is_not_told(self, server: AuthorizationServer, offline: Grant) -> None:
        assert offline["refresh_expires_in"] == 0
        assert "offline_access" in scopes(offline)

    @pytest.mark.parametrize(
        "cause", [logged_out_in_the_browser, logged_out_by_the_application, reused]
    )
    def test_outlives_what_ends_ordinary_grants(
        self, server: AuthorizationServer, browser: Browser, offline: Grant, cause: Cause
    ) -> None:
        ordinary = server.grant(browser)
        cause(server, browser, ordinary)
        assert server.is_refused(ordinary)
        assert server.is_active(offline["access_token"])
        assert not server.is_refused(offline)

    @pytest.mark.parametrize(
        "cause", [reused, revoked, logged_out_by_the_application, consent_withdrawn]
    )
    def test_is_ended_by_its_own_token_and_by_withdrawn_consent(
        self, server: AuthorizationServer, browser: Browser, offline: Grant, cause: Cause
    ) -> None:
        cause(server, browser, offline)
        assert server.is_refused(offline)

    def test_is_ended_by_an_administrator(
        self, server: AuthorizationServer, browser: Browser, offline: Grant
    ) -> None:
        server.let_time_pass()
        server.end_sessions(ROSA)
        assert server.is_refused(offline)

    def test_two_of_one_browser_end_separately(
        self, server: AuthorizationServer, browser: Browser, offline: Grant
    ) -> None:
        second = server.grant(browser, scope="account:read offline_access")
        server.revoke(offline)
        assert server.is_refused(offline)
        assert not server.is_refused(second)
