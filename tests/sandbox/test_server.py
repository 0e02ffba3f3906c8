"""The sandbox's people, control API and pages. ``tests/facts`` has what it shares with Keycloak."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sipgate_provider import values
from sipgate_sandbox.people import PEOPLE
from tests.facts.server import OTTO, ROSA, Browser
from tests.sandbox.visitor import Visitor

DOCUMENTED = {
    "company": str,
    "mainProductType": str,
    "logoUrl": str,
    "verified": bool,
    "historyLifeTime": str,
}
"""Fields of ``/account`` in sipgate's specification."""


class TestPeople:
    def test_everybody_can_sign_in(self, sandbox):
        for person in PEOPLE:
            visitor = Visitor(sandbox)
            token = visitor.grant(person=person.uid)["access_token"]
            who = visitor.get("/authorization/userinfo", token).json()
            assert who["masterSipId"] + who["sub"] == person.uid
            assert (who["domain"], who["locale"]) == (person.domain, person.locale)
            account = visitor.get("/account", token).json()
            assert account == person.account
            for name, value in account.items():
                assert value is None or name not in DOCUMENTED or type(value) is DOCUMENTED[name]
            assert values.Account.parse(account).company == (person.account.get("company") or "")
            assert claims(token)["featureScope"] == person.feature_scope
            visitor.close()

    def test_they_are_different_people(self):
        for name in ("uid", "keycloak_sub"):
            assert len({getattr(person, name) for person in PEOPLE}) == len(PEOPLE)
        assert len({person.sub for person in PEOPLE}) < len(PEOPLE), "so sub alone is no uid"
        assert set(PEOPLE[0].account) == set(DOCUMENTED)

    def test_a_colleague_without_rights_sees_only_himself(self, visitor):
        token = visitor.grant(person="1000000w1", scope="users:read")["access_token"]
        paths = {"/users": 403, "/users/w0": 403, "/users/w1": 200, "/users/w9": 404}
        assert {path: visitor.get(path, token).status_code for path in paths} == paths

    def test_an_administrator_sees_the_company_and_nobody_else(self, visitor):
        users = visitor.get("/users", visitor.grant(scope="users:read")["access_token"]).json()
        assert [user["id"] for user in users["items"]] == ["w0", "w1"]

    def test_an_id_token_has_the_claims_of_its_scopes(self, visitor):
        for scope, names in (
            ("openid", set()),
            ("openid email", {"email", "email_verified"}),
            ("openid profile", {"given_name", "family_name", "name"}),
        ):
            found = claims(visitor.grant(scope=scope)["id_token"])
            known = {"email", "email_verified", "given_name", "family_name", "name"}
            assert known & set(found) == names, scope

    def test_no_token_or_a_wrong_one(self, visitor):
        for token in ("", "nonsense", "a.b.c"):
            for path in ("/account", "/authorization/userinfo", "/balance"):
                response = visitor.get(path, token)
                assert (response.status_code, response.content) == (401, b"")


class TestSignIn:
    def test_a_disabled_person_cannot_sign_in(self, visitor, browser):
        browser.walk(visitor.authorize_url())
        visitor.control.change_realm(disabled=[ROSA])
        assert browser.open(visitor.authorize_url()).kind == "sign-in"
        assert browser.sign_in(ROSA).kind == "sign-in"

    def test_nobody_else_can_sign_in_until_the_person_has_signed_out(self, visitor, browser):
        browser.walk(visitor.authorize_url())
        browser.open(visitor.authorize_url(prompt="login"))
        page = browser.submit(person=OTTO)
        assert (page.kind, "Otto" in page.response.text) == ("re-authentication", False)

    def test_a_log_out_leads_only_to_registered_addresses(self, visitor, browser):
        browser.open(visitor.log_out_url.replace("8080", "8090"))
        assert "You are logged out" in browser.confirm_log_out().response.text

    @pytest.fixture
    def browser(self, visitor: Visitor) -> Iterator[Browser]:
        one = visitor.browser()
        yield one
        one.close()


class TestControl:
    def test_expire_access(self, visitor):
        grant = visitor.grant()
        visitor.control.expire_access("2000000w0")
        assert visitor.get("/account", grant["access_token"]).status_code == 200
        visitor.control.expire_access("1000000w0")
        assert visitor.get("/account", grant["access_token"]).status_code == 401
        assert visitor.refresh(grant).status_code == 200

    def test_state_counts(self, visitor):
        visitor.refresh(visitor.grant())
        visitor.get("/account")
        state = visitor.control.state()
        found = {
            "auth": 3,  # opened, signed in, allowed
            "token": 1,
            "refresh": 1,
            "rotations": 1,
            "reuses": 0,
            "sessions_alive": 1,
            "GET v2/account": 1,
        }
        assert {name: state[name] for name in found} == found

    def test_reset(self, sandbox, visitor):
        grant = visitor.grant()
        sandbox.control.change_realm(
            consent_required=False,
            disabled=["1000000w0"],
            client_secret="another",
            client_scopes=[],
        )
        sandbox.control.fault("unavailable", times=None)
        sandbox.control.reset()
        assert visitor.refresh(grant).json()["error"] == "invalid_grant"
        assert visitor.grant()["scope"] == "account:read"

    def test_wrong_orders(self, sandbox):
        for name, arguments in (
            ("faults", {"fault": "nonsense"}),
            ("faults", {}),
            ("faults", {"fault": "slow", "on": "moon"}),
            ("faults", {"fault": "slow", "times": "often"}),
            ("faults", {"fault": "slow", "seconds": "long"}),
            ("faults", {"fault": "slow", "colour": "red"}),
            ("faults", {"fault": "change", "value": 3}),
            ("faults", ["slow"]),
            ("realm", {"nonsense": True}),
            ("dance", {}),
        ):
            response = requests.post(f"{sandbox.url}/_sandbox/{name}", json=arguments, timeout=10)
            assert response.status_code == 400, (name, arguments)
            assert response.json()["error"]
        assert sandbox.control.state()["faults"] == []

    def test_a_page_of_another_origin_changes_nothing(self, sandbox):
        # Its browser is on this machine, and plain text needs no preflight.
        for headers, status in (
            ({}, 200),
            ({"Origin": sandbox.url}, 200),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Host": "evil.example"}, 400),
        ):
            for place in ("_sandbox/clear", "auth/realms/third-party/protocol/openid-connect/auth"):
                response = requests.post(
                    f"{sandbox.url}/{place}",
                    headers={"Content-Type": "text/plain", **headers},
                    timeout=10,
                )
                # Without parameters, the authorization endpoint answers 400.
                assert response.status_code in {status, 400 if status == 200 else status}
        assert requests.get(f"{sandbox.url}/_sandbox/clear", timeout=10).status_code == 405


class TestPages:
    def test_lasting_fault_and_its_end(self, visitor):
        grant, url = visitor.grant(), visitor.sandbox.url
        assert "sipgate is down" in requests.get(url, timeout=10).text
        press(url, "faults", fault="unavailable", on="all", times="")
        assert visitor.get("/account", grant["access_token"]).status_code == 503
        assert "until you end it; so far: 1" in words(requests.get(url, timeout=10).text)
        press(url, "clear")
        assert visitor.get("/account", grant["access_token"]).status_code == 200

    def test_fault_that_happens_once(self, visitor):
        grant = visitor.grant()
        page = press(visitor.sandbox.url, "faults", fault="too-many", on="api", times="1")
        assert "there are too many requests (too-many at api)" in page
        assert "for 1 request; so far: 0" in words(page)
        found = [visitor.get("/account", grant["access_token"]).status_code for _ in range(2)]
        assert found == [429, 200]

    def test_what_happens_to_a_person(self, visitor):
        grant, url = visitor.grant(), visitor.sandbox.url
        assert "Done." in press(url, "expire-access", uid="1000000w0")
        assert visitor.get("/account", grant["access_token"]).status_code == 401
        press(url, "kill-session", uid="1000000w0")
        assert visitor.refresh(grant).json()["error"] == "invalid_grant"

    def test_the_problem_page_names_wrong_and_registered_redirect_uris(self, visitor):
        address = visitor.authorize_url(redirect_uri="http://localhost:8090/oauth")
        page = requests.get(address, timeout=10).text
        assert "<code>http://localhost:8090/oauth</code>" in page
        assert "<code>http://localhost:8080/oauth</code>" in page

    def test_unknown_path(self, sandbox):
        for path in ("/v2/nothing", "/nothing"):
            assert requests.get(f"{sandbox.url}{path}", timeout=10).status_code == 404


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def words(page: str) -> str:
    """Return the page with single spaces."""
    return " ".join(page.split())


def press(url: str, order: str, **form: str) -> str:
    """Press a button of the start page; return the page that follows."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return requests.post(f"{url}/_sandbox/{order}", data=form, headers=headers, timeout=10).text
