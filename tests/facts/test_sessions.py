"""Facts about what ends a grant at a server like sipgate's.

All grants of one person in one browser share a session there, and its fate. ``offline_access``
cuts that tie.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.facts.server import (
    ROSA,
    AuthorizationServer,
    Browser,
    Grant,
    NewBrowser,
    error,
    granted,
    scopes,
)


class TestRejectedRefresh:
    def test_a_rejection_is_final_and_trying_again_harms_nothing(self, server, new_browser):
        for end in (
            reuse,
            revoke,
            log_out_by_the_application,
            log_out_in_the_browser,
            log_out_by_an_administrator,
            withdraw_consent,
        ):
            browser = new_browser()
            grant = server.grant(browser)
            end(server, browser, grant)
            assert server.rejects(grant), end
            assert not server.is_active(grant["access_token"]), end
            server.let_time_pass()
            new = server.grant(browser)
            for _ in range(2):
                assert server.rejects(grant), end
            new = server.refreshed(new)
            assert server.is_active(new["access_token"]), end

    def test_a_session_ends_at_its_maximum(self, server, browser):
        server.set_lifetimes(session=2)
        grant = server.grant(browser)
        deadline = time.monotonic() + 30
        while server.is_active(grant["access_token"]):
            assert time.monotonic() < deadline
        assert server.rejects(grant)

    def test_the_rejection_of_a_disabled_person_is_not_final(self, server, browser):
        grant = server.grant(browser)
        server.set_enabled(ROSA, False)
        for _ in range(3):
            assert server.rejects(grant)
        assert not server.is_active(grant["access_token"])
        server.set_enabled(ROSA, True)
        assert not server.rejects(grant)

    def test_a_rejection_by_not_before_is_not_final(self, server, browser):
        grant = server.grant(browser)
        server.set_not_before(int(time.time()) + 60)
        assert server.rejects(grant)
        assert not server.is_active(grant["access_token"])
        server.set_not_before(0)
        assert not server.rejects(grant)

    def test_the_realm_demands_consent_after_the_grant(self, server, browser):
        server.set_consent_required(False)
        grant = server.grant(browser)
        server.set_consent_required(True)
        assert error(server.refresh(grant)) == (400, "invalid_scope")


class TestOneBrowserSession:
    def test_grants_rotate_side_by_side(self, server, grants):
        sessions = {name: grant["session_state"] for name, grant in grants.items()}
        elsewhere = sessions.pop("other browser")
        assert len(set(sessions.values())) == 1
        assert elsewhere not in sessions.values()
        for _ in range(2):
            grants["first"] = server.refreshed(grants["first"])
            grants["second"] = server.refreshed(grants["second"])
        assert alive(server, grants) == set(grants)

    def test_spent_token_ends_every_grant_of_the_client_in_the_session(self, server, grants):
        successor = server.refreshed(grants["first"])
        assert server.rejects(grants["first"])
        assert not server.is_active(successor["access_token"])
        assert not server.is_active(grants["second"]["access_token"])
        grants["first"] = successor
        assert alive(server, grants) == {"other application", "other browser"}

    def test_one_of_eight_simultaneous_refreshes_wins_and_its_tokens_are_dead(
        self, server, browser
    ):
        grant = server.grant(browser)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: server.refresh(grant), range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
        winner = next(answer.json() for answer in answers if answer.status_code == 200)
        assert not server.is_active(winner["access_token"])
        assert server.rejects(winner)

    def test_a_code_sent_twice_does_the_same(self, server, browser):
        grants = {"other application": server.grant(browser, client=server.other_client)}
        code = browser.walk(server.authorize_url())["code"]
        grants["first"] = granted(server.exchange(code))
        assert error(server.exchange(code)) == (400, "invalid_grant")
        assert not server.is_active(grants["first"]["access_token"])
        assert alive(server, grants) == {"other application"}

    def test_one_of_two_simultaneous_exchanges_wins_and_its_tokens_are_dead(self, server, browser):
        code = browser.walk(server.authorize_url())["code"]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: server.exchange(code), range(2)))
        assert sorted(answer.status_code for answer in answers) == [200, 400]
        winner = next(answer.json() for answer in answers if answer.status_code == 200)
        assert server.rejects(winner)

    @pytest.mark.parametrize("token", ["current", "spent"])
    def test_log_out_ends_the_whole_session(self, server, grants, browser, token):
        spent, grants["first"] = grants["first"], server.refreshed(grants["first"])
        assert server.log_out(grants["first"] if token == "current" else spent).status_code == 204
        assert alive(server, grants) == {"other browser"}
        assert browser.open(server.authorize_url()).kind == "sign-in"
        assert browser.sign_in(ROSA).kind == "callback"  # the consent is still there

    @pytest.mark.parametrize("token", ["current", "spent"])
    def test_revocation_ends_the_part_of_the_client(self, server, grants, browser, token):
        spent, grants["first"] = grants["first"], server.refreshed(grants["first"])
        assert server.revoke(grants["first"] if token == "current" else spent).status_code == 200
        assert alive(server, grants) == {"other application", "other browser"}
        # Rosa is still signed in, and the consent is still there.
        assert browser.open(server.authorize_url()).kind == "callback"

    def test_revocation_of_the_last_application_ends_the_session(self, server, browser):
        server.revoke(server.grant(browser))
        assert browser.open(server.authorize_url()).kind == "sign-in"

    def test_revocation_of_nonsense_is_a_success(self, server):
        assert server.revoke({"refresh_token": "nonsense"}).status_code == 200

    def test_revocation_of_an_old_grant_ends_a_new_one_of_the_same_session(self, server, browser):
        # A session ends with its last application, so the other one keeps it alive.
        server.grant(browser, client=server.other_client)
        old = server.grant(browser)
        server.revoke(old)
        new = server.grant(browser)
        assert new["session_state"] == old["session_state"]
        assert server.revoke(old).status_code == 200
        assert server.rejects(new)

    def test_a_second_log_out_is_harmless(self, server, browser):
        old = server.grant(browser)
        server.log_out(old)
        new = server.grant(browser)
        assert new["session_state"] != old["session_state"]
        server.log_out(old)
        assert not server.rejects(new)

    def test_log_out_of_an_old_grant_ends_a_new_one_of_the_same_session(self, server, browser):
        old = server.grant(browser)
        reuse(server, browser, old)
        new = server.grant(browser)
        assert new["session_state"] == old["session_state"]
        assert server.log_out(old).status_code == 204
        assert server.rejects(new)


class TestOfflineAccess:
    def test_it_has_no_end(self, server, browser):
        offline = server.grant(browser, scope=OFFLINE)
        assert offline["refresh_expires_in"] == 0
        assert "offline_access" in scopes(offline)

    def test_it_outlives_what_ends_ordinary_grants(self, server, new_browser):
        for end in (log_out_in_the_browser, log_out_by_the_application, reuse):
            browser = new_browser()
            offline = server.grant(browser, scope=OFFLINE)
            ordinary = server.grant(browser)
            end(server, browser, ordinary)
            assert server.rejects(ordinary), end
            assert server.is_active(offline["access_token"]), end
            assert not server.rejects(offline), end

    def test_its_own_token_ends_it_and_so_does_withdrawn_consent(self, server, new_browser):
        for end in (
            reuse,
            revoke,
            log_out_by_the_application,
            withdraw_consent,
            log_out_by_an_administrator,
        ):
            browser = new_browser()
            offline = server.grant(browser, scope=OFFLINE)
            server.let_time_pass()
            end(server, browser, offline)
            assert server.rejects(offline), end

    def test_two_grants_of_one_browser_end_separately(self, server, browser):
        first, second = (server.grant(browser, scope=OFFLINE) for _ in range(2))
        server.revoke(first)
        assert server.rejects(first)
        assert not server.rejects(second)


OFFLINE = "account:read offline_access"


@pytest.fixture
def grants(
    server: AuthorizationServer, browser: Browser, new_browser: NewBrowser
) -> dict[str, Grant]:
    """Rosa's grants: three in one browser (one is another client's), and one in another browser."""
    return {
        "first": server.grant(browser),
        "second": server.grant(browser),
        "other application": server.grant(browser, client=server.other_client),
        "other browser": server.grant(new_browser()),
    }


def alive(server: AuthorizationServer, grants: dict[str, Grant]) -> set[str]:
    """Refresh each of ``grants``; return the names of those that are alive."""
    clients = {"other application": server.other_client}
    return {
        name
        for name, grant in grants.items()
        if server.refresh(grant, clients.get(name)).status_code == 200
    }


# --- ways to end a grant --------------------------------------------------------------------------


def reuse(server: AuthorizationServer, browser: Browser, grant: Grant) -> None:
    server.refreshed(grant)
    server.refresh(grant)


def revoke(server: AuthorizationServer, browser: Browser, grant: Grant) -> None:
    assert server.revoke(grant).status_code == 200


def log_out_by_the_application(server: AuthorizationServer, browser: Browser, grant: Grant) -> None:
    assert server.log_out(grant).status_code == 204


def log_out_in_the_browser(server: AuthorizationServer, browser: Browser, grant: Grant) -> None:
    browser.open(server.log_out_url)
    assert browser.confirm_log_out().kind == "callback"  # the registered way back


def log_out_by_an_administrator(
    server: AuthorizationServer, browser: Browser, grant: Grant
) -> None:
    server.end_sessions(ROSA)


def withdraw_consent(server: AuthorizationServer, browser: Browser, grant: Grant) -> None:
    server.withdraw_consent(ROSA)
