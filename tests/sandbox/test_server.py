"""The sandbox's authorization server and REST API behave as sipgate's do."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from sipgate_provider import values
from sipgate_sandbox import faults, texts
from sipgate_sandbox.launch import Running, launch
from sipgate_sandbox.people import PEOPLE, Person
from tests.sandbox.visitor import CLIENT_ID, CLIENT_SECRET, Visitor

DOCUMENTED = {
    "company": str,
    "mainProductType": str,
    "logoUrl": str,
    "verified": bool,
    "historyLifeTime": str,
}


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


class TestPeople:
    @pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.uid)
    def test_everybody_can_sign_in(self, visitor: Visitor, person: Person) -> None:
        grant = visitor.grant(person=person.uid)
        token = grant["access_token"]
        who = visitor.get("/authorization/userinfo", token).json()
        assert (who["masterSipId"] + who["sub"], who["domain"], who["locale"]) == (
            person.uid,
            person.domain,
            person.locale,
        )
        response = visitor.get("/account", token)
        assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
        assert response.json() == person.account
        for name, value in response.json().items():
            assert value is None or name not in DOCUMENTED or type(value) is DOCUMENTED[name]
        assert values.Account.parse(response.json()).company == (
            person.account.get("company") or ""
        )
        assert claims(token)["featureScope"] == person.feature_scope

    def test_they_are_different_people(self) -> None:
        for key in (lambda p: p.uid, lambda p: p.keycloak_sub, lambda p: p.number):
            assert len({key(person) for person in PEOPLE}) == len(PEOPLE)
        assert len({person.sub for person in PEOPLE}) < len(
            PEOPLE
        )  # which is why sub alone is no uid

    def test_one_of_them_has_every_documented_field(self) -> None:
        assert set(PEOPLE[0].account) == set(DOCUMENTED)


class TestAuthorization:
    def test_the_way_back(self, visitor: Visitor) -> None:
        back = visitor.back(state="a b&c")
        assert set(back) == {"code", "state", "session_state", "iss"}
        assert (back["state"], back["iss"]) == (
            "a b&c",
            f"{visitor.sandbox.url}/auth/realms/third-party",
        )

    def test_denied(self, visitor: Visitor) -> None:
        back = visitor.back(allow=False)
        assert (back["error"], back["state"]) == ("access_denied", "st")
        assert "code" not in back

    def test_an_unknown_scope(self, visitor: Visitor) -> None:
        assert visitor.back(scope="account:read nonsense")["error"] == "invalid_scope"

    @pytest.mark.parametrize(
        "change",
        [
            {"client_id": "other"},
            {"client_id": None},
            {"redirect_uri": "http://localhost:8080/oauth/"},
            {"redirect_uri": "http://127.0.0.1:8080/oauth"},
            {"redirect_uri": "https://evil.example/"},
            {"redirect_uri": None},
        ],
    )
    def test_nobody_is_sent_to_an_address_that_is_not_registered(
        self, visitor: Visitor, change: dict[str, Any]
    ) -> None:
        response = visitor.browser.get(visitor.authorize_url(**change), allow_redirects=False)
        assert response.status_code == 400
        assert "Location" not in response.headers
        assert "sandbox, not sipgate" in response.text

    def test_nobody_else_can_sign_in_while_somebody_is_signed_in(self, visitor: Visitor) -> None:
        first = visitor.grant()
        page = visitor.browser.get(visitor.authorize_url(prompt="login"))
        form = {
            "person": "2000000w0",
            "csrfmiddlewaretoken": visitor.browser.cookies[
                f"sandbox_csrf_{urlsplit(visitor.sandbox.url).port}"
            ],
        }
        again = visitor.browser.post(page.url, data=form, allow_redirects=False)
        assert (again.status_code, "Is it still you?" in again.text) == (200, True)
        assert visitor.back(prompt="none")["session_state"] == first["session_state"]

    def test_consent_is_asked_once_until_the_scopes_change(self, visitor: Visitor) -> None:
        visitor.grant()
        response = visitor.browser.get(visitor.authorize_url(), allow_redirects=False)
        assert response.headers["Location"].startswith("http://localhost:8080/oauth?")
        assert (
            visitor.browser.get(visitor.authorize_url(scope="account:read users:read")).status_code
            == 200
        )
        assert (
            visitor.browser.get(
                visitor.authorize_url(prompt="consent"), allow_redirects=False
            ).status_code
            == 200
        )

    def test_a_code_works_once(self, visitor: Visitor) -> None:
        code = visitor.back()["code"]
        assert visitor.exchange(code).status_code == 200
        again = visitor.exchange(code)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")

    @pytest.mark.parametrize(
        ("change", "status", "error"),
        [
            ({"code": "other"}, 400, "invalid_grant"),
            ({"code_verifier": "w" * 50}, 400, "invalid_grant"),
            ({"code_verifier": ""}, 400, None),
            ({"redirect_uri": "http://localhost:8080/other"}, 400, None),
            ({"client_id": "x"}, 401, "invalid_client"),
            ({"client_secret": "x"}, 401, "unauthorized_client"),
            ({"grant_type": "password"}, 400, None),
        ],
    )
    def test_the_exchange_is_strict(
        self, visitor: Visitor, change: dict[str, str], status: int, error: str | None
    ) -> None:
        response = visitor.exchange(visitor.back()["code"], **change)
        assert response.status_code == status
        assert response.json()["error"] == error if error else response.json()["error"]

    def test_the_grant_has_keycloaks_fields(self, visitor: Visitor) -> None:
        grant = visitor.grant(scope="account:read users:read")
        assert (grant["token_type"], grant["expires_in"], grant["refresh_expires_in"]) == (
            "Bearer",
            300,
            2_592_000,
        )
        assert set(grant["scope"].split()) == {"account:read", "users:read"}
        assert {"session_state", "not-before-policy", "refresh_token"} <= set(grant)
        assert "id_token" not in grant
        assert claims(grant["access_token"])["azp"] == CLIENT_ID

    def test_openid_brings_an_id_token_and_offline_access_no_end(self, visitor: Visitor) -> None:
        grant = visitor.grant(scope="openid offline_access")
        assert claims(grant["id_token"])["aud"] in (CLIENT_ID, [CLIENT_ID])
        assert grant["refresh_expires_in"] == 0

    def test_discovery_names_addresses_that_exist(self, sandbox: Running) -> None:
        found = requests.get(
            f"{sandbox.url}/auth/realms/third-party/.well-known/openid-configuration", timeout=10
        ).json()
        assert found["issuer"] == f"{sandbox.url}/auth/realms/third-party"
        assert found["token_endpoint"] == f"{sandbox.oidc_url}/token"
        assert requests.get(found["jwks_uri"], timeout=10).json()["keys"]


class TestRotation:
    def test_a_refresh_kills_the_previous_set(self, visitor: Visitor) -> None:
        first = visitor.grant()
        second = visitor.refresh(first["refresh_token"]).json()
        assert second["session_state"] == first["session_state"]
        assert visitor.get("/account", first["access_token"]).status_code == 401
        assert visitor.get("/account", second["access_token"]).status_code == 200
        third = visitor.refresh(second["refresh_token"])
        assert third.status_code == 200
        assert visitor.get("/account", second["access_token"]).status_code == 401

    def test_reuse_ends_the_grant(self, visitor: Visitor) -> None:
        first = visitor.grant()
        second = visitor.refresh(first["refresh_token"]).json()
        reused = visitor.refresh(first["refresh_token"])
        assert (reused.status_code, reused.json()["error"]) == (400, "invalid_grant")
        assert visitor.get("/account", second["access_token"]).status_code == 401
        assert visitor.refresh(second["refresh_token"]).json()["error"] == "invalid_grant"
        state = visitor.sandbox.control.state()
        assert (state["reuses"], state["rotations"], state["sessions_alive"]) == (1, 1, 1)

    def test_of_eight_at_once_one_wins(self, visitor: Visitor) -> None:
        first = visitor.grant()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: visitor.refresh(first["refresh_token"]), range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
        state = visitor.sandbox.control.state()
        assert (state["refresh"], state["rotations"], state["reuses"], state["sessions_alive"]) == (
            8,
            1,
            7,
            1,
        )

    def test_the_sessions_of_others_go_on(self, visitor: Visitor) -> None:
        other = Visitor(visitor.sandbox)
        theirs, mine = other.grant(person="2000000w0"), visitor.grant()
        visitor.refresh(mine["refresh_token"])
        visitor.refresh(mine["refresh_token"])
        assert other.refresh(theirs["refresh_token"]).status_code == 200
        other.close()

    @pytest.mark.parametrize("token", ["", "nonsense"])
    def test_a_token_that_never_was(self, visitor: Visitor, token: str) -> None:
        response = visitor.refresh(token)
        assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")

    def test_an_access_token_does_not_refresh(self, visitor: Visitor) -> None:
        grant = visitor.grant()
        assert visitor.refresh(grant["access_token"]).status_code == 400
        assert visitor.refresh(grant["refresh_token"]).status_code == 200

    def test_a_wrong_secret_spends_nothing(self, visitor: Visitor) -> None:
        grant = visitor.grant()
        assert visitor.refresh(grant["refresh_token"], client_secret="x").status_code == 401
        assert visitor.refresh(grant["refresh_token"]).status_code == 200

    def test_credentials_in_a_header_do_not_count(self, visitor: Visitor) -> None:
        # The client id has a colon, so Basic cuts it short, as Keycloak does.
        grant = visitor.grant()
        response = requests.post(
            f"{visitor.sandbox.oidc_url}/token",
            auth=(CLIENT_ID, CLIENT_SECRET),
            timeout=10,
            data={"grant_type": "refresh_token", "refresh_token": grant["refresh_token"]},
        )
        assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


class TestLenient:
    @pytest.fixture(scope="module")
    @staticmethod
    def lenient() -> Iterator[Running]:
        with launch(
            "--lenient-reuse",
            "--access-lifetime",
            "7",
            "--refresh-lifetime",
            "9",
            "--client-secret",
            "other",
        ) as one:
            yield one

    def test_reuse_is_refused_and_the_session_lives_on(self, lenient: Running) -> None:
        visitor = Visitor(lenient)
        grant = visitor.exchange(
            visitor.back(redirect_uri="http://localhost:8080/oauth")["code"], client_secret="other"
        ).json()
        visitor.close()
        assert (grant["expires_in"], grant["refresh_expires_in"]) == (7, 9)
        second = visitor.refresh(grant["refresh_token"], client_secret="other").json()
        assert (
            visitor.refresh(grant["refresh_token"], client_secret="other").json()["error"]
            == "invalid_grant"
        )
        assert visitor.refresh(second["refresh_token"], client_secret="other").status_code == 200


class TestEnd:
    def test_logout(self, visitor: Visitor) -> None:
        grant = visitor.grant()
        assert visitor.end("logout", refresh_token=grant["refresh_token"]).status_code == 204
        assert visitor.get("/account", grant["access_token"]).status_code == 401
        assert visitor.refresh(grant["refresh_token"]).json()["error"] == "invalid_grant"
        again = visitor.end("logout", refresh_token=grant["refresh_token"])
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")

    @pytest.mark.parametrize("half", ["refresh_token", "access_token"])
    def test_revoke(self, visitor: Visitor, half: str) -> None:
        grant = visitor.grant()
        assert visitor.end("revoke", token=grant[half]).status_code == 200
        assert visitor.get("/account", grant["access_token"]).status_code == 401
        assert visitor.refresh(grant["refresh_token"]).json()["error"] == "invalid_grant"
        assert visitor.end("revoke", token="unknown").status_code == 200  # RFC 7009 §2.2

    @pytest.mark.parametrize("endpoint", ["logout", "revoke"])
    def test_a_stranger_ends_nothing(self, visitor: Visitor, endpoint: str) -> None:
        grant = visitor.grant()
        token = {
            "refresh_token": grant["refresh_token"],
            "token": grant["refresh_token"],
            "client_secret": "x",
        }
        assert visitor.end(endpoint, **token).status_code == 401
        assert visitor.get("/account", grant["access_token"]).status_code == 200


class TestRest:
    @pytest.mark.parametrize("token", ["", "nonsense", "a.b.c"])
    def test_without_a_token(self, visitor: Visitor, token: str) -> None:
        for path in ("/account", "/authorization/userinfo", "/balance"):
            response = visitor.get(path, token)
            assert (response.status_code, response.content) == (401, b"")

    def test_who_signed_in_needs_none(self, visitor: Visitor) -> None:
        assert (
            visitor.get(
                "/authorization/userinfo", visitor.grant(scope="balance:read")["access_token"]
            ).status_code
            == 200
        )

    def test_a_colleague_without_rights_sees_himself_only(self, visitor: Visitor) -> None:
        token = visitor.grant(person="1000000w1", scope="users:read")["access_token"]
        assert [
            visitor.get(path, token).status_code
            for path in ("/users", "/users/w0", "/users/w1", "/users/w9")
        ] == [
            403,
            403,
            200,
            404,
        ]

    def test_the_values_parse(self, visitor: Visitor) -> None:
        token = visitor.grant(scope="all")["access_token"]
        assert str(values.Balance.parse(visitor.get("/balance", token).json()).amount) == "12.34"
        assert (
            values.User.parse(visitor.get("/users/w0", token).json()).email
            == "rosa@rosenduft.example"
        )
        devices = [
            values.Device.parse(item) for item in visitor.get("/w0/devices", token).json()["items"]
        ]
        assert all(device.raw["credentials"] for device in devices)
        assert "sandbox-sip-password" not in repr(devices)

    def test_an_unknown_path(self, sandbox: Running) -> None:
        for path in (
            "/v2/nothing",
            "/nothing",
            "/static/../settings.py",
            "/static/%2e%2e/settings.py",
        ):
            assert requests.get(f"{sandbox.url}{path}", timeout=10).status_code == 404


class TestControl:
    def test_lifetimes(self, visitor: Visitor) -> None:
        visitor.sandbox.control.lifetimes(access=1, refresh=1)
        grant = visitor.grant()
        assert (grant["expires_in"], grant["refresh_expires_in"]) == (1, 1)
        end = time.monotonic() + 5
        while (
            visitor.get("/account", grant["access_token"]).status_code != 401
            and time.monotonic() < end
        ):
            time.sleep(0.05)
        assert visitor.get("/account", grant["access_token"]).status_code == 401
        response = visitor.refresh(grant["refresh_token"])
        assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")

    def test_expire_access(self, visitor: Visitor) -> None:
        grant = visitor.grant()
        visitor.sandbox.control.expire_access("2000000w0")
        assert visitor.get("/account", grant["access_token"]).status_code == 200
        visitor.sandbox.control.expire_access("1000000w0")
        assert visitor.get("/account", grant["access_token"]).status_code == 401
        assert visitor.refresh(grant["refresh_token"]).status_code == 200

    def test_expire_refresh(self, visitor: Visitor) -> None:
        grant = visitor.grant()
        visitor.sandbox.control.expire_refresh()
        assert visitor.get("/account", grant["access_token"]).status_code == 200
        assert visitor.refresh(grant["refresh_token"]).json()["error"] == "invalid_grant"

    def test_kill_session(self, visitor: Visitor) -> None:
        grant = visitor.grant()
        visitor.sandbox.control.kill_session("2000000w0")
        assert visitor.get("/account", grant["access_token"]).status_code == 200
        visitor.sandbox.control.kill_session()
        assert visitor.get("/account", grant["access_token"]).status_code == 401
        assert visitor.refresh(grant["refresh_token"]).json()["error"] == "invalid_grant"

    def test_state_counts(self, visitor: Visitor) -> None:
        visitor.refresh(visitor.grant()["refresh_token"])
        visitor.get("/account")
        state = visitor.sandbox.control.state()
        assert {
            name: state[name]
            for name in (
                "token",
                "refresh",
                "issued",
                "rotations",
                "reuses",
                "sessions_alive",
                "GET v2/account",
            )
        } == {
            "token": 1,
            "refresh": 1,
            "issued": 2,
            "rotations": 1,
            "reuses": 0,
            "sessions_alive": 1,
            "GET v2/account": 1,
        }
        visitor.sandbox.control.reset(people=True)
        state = visitor.sandbox.control.state()
        assert (
            state["rotations"],
            state["sessions_alive"],
            state["sessions_dead"],
            state["faults"],
        ) == (0, 0, 0, [])

    @pytest.mark.parametrize(
        ("name", "payload"),
        [
            ("faults", {"fault": "nonsense"}),
            ("faults", {}),
            ("faults", {"fault": "slow", "on": "moon"}),
            ("faults", {"fault": "slow", "times": 0}),
            ("faults", {"fault": "slow", "times": "2"}),
            ("faults", {"fault": "slow", "seconds": -1}),
            ("faults", {"fault": "slow", "seconds": "x"}),
            ("faults", {"fault": "slow", "colour": "red"}),
            ("faults", {"fault": ["slow"]}),
            ("faults", {"fault": "slow", "on": {}}),
            ("faults", []),
            ("faults", "slow"),
            ("behaviour", {"access_lifetime": 0}),
            ("behaviour", {"access_lifetime": "1"}),
            ("behaviour", {"refresh_lifetime": 10**12}),
            ("behaviour", {"revocation": 1}),
            ("behaviour", {"nonsense": True}),
            ("person", {"uid": "nobody"}),
            ("client", {"scopes": "account:read"}),
        ],
        ids=str,
    )
    def test_what_makes_no_sense_is_refused_with_a_sentence(
        self, sandbox: Running, name: str, payload: Any
    ) -> None:
        response = requests.post(f"{sandbox.url}/_sandbox/{name}", json=payload, timeout=10)
        assert response.status_code == 400
        assert response.json()["error"].endswith(".")
        assert sandbox.control.faults() == []

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 200),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Host": "evil.example"}, 400),
        ],
    )
    def test_page_of_another_origin_steers_nothing(
        self, sandbox: Running, headers: dict[str, str], status: int
    ) -> None:
        # The browser that runs it sits on this machine; plain text needs no preflight, an image not even a script.
        for method in ("GET", "POST"):
            response = requests.request(
                method,
                f"{sandbox.url}/_sandbox/state",
                headers={"Content-Type": "text/plain", **headers},
                timeout=10,
            )
            assert response.status_code == status

    def test_half_an_order(self, sandbox: Running) -> None:
        response = requests.post(
            f"{sandbox.url}/_sandbox/faults",
            data=b'{"fa',
            headers={"Content-Type": "application/json"},
            timeout=10,
        )
        assert response.status_code == 400


class TestStartPage:
    """Buttons in words, in both languages, for what can happen, how long, and its end."""

    LANGUAGES = (
        ("en", "sipgate is down", "until you end it; happened so far: 1", "End the session"),
        (
            "de",
            "sipgate ist nicht erreichbar",
            "bis Sie es beenden; bisher geschehen: 1",
            "Sitzung beenden",
        ),
    )

    @pytest.mark.parametrize(("language", "what", "how", "person"), LANGUAGES)
    def test_a_lasting_fault_and_its_end(
        self, visitor: Visitor, language: str, what: str, how: str, person: str
    ) -> None:
        grant, browser, url = visitor.grant(), requests.Session(), visitor.sandbox.url
        browser.headers["Accept-Language"] = language
        assert what in browser.get(url, timeout=10).text
        browser.post(
            f"{url}/_sandbox/faults",
            data={"fault": "unavailable", "on": "all", "times": ""},
            timeout=10,
        )
        assert visitor.get("/account", grant["access_token"]).status_code == 503
        page = browser.get(url, timeout=10).text
        assert how in page
        assert person in page
        browser.post(f"{url}/_sandbox/faults", data={"fault": "clear"}, timeout=10)
        assert visitor.get("/account", grant["access_token"]).status_code == 200

    def test_once_is_once(self, visitor: Visitor) -> None:
        grant, order = visitor.grant(), {"fault": "too-many", "on": "api", "times": "1"}
        page = requests.post(f"{visitor.sandbox.url}/_sandbox/faults", data=order, timeout=10)
        assert (
            "sipgate says that there are too many requests (whole REST API), at the next request"
            in page.text
        )
        found = [visitor.get("/account", grant["access_token"]).status_code for _ in range(2)]
        assert found == [429, 200]

    def test_what_happens_to_a_person(self, visitor: Visitor) -> None:
        grant, url = visitor.grant(), visitor.sandbox.url
        page = requests.post(f"{url}/_sandbox/expire-access", data={"uid": "1000000w0"}, timeout=10)
        assert "Done." in page.text
        assert visitor.get("/account", grant["access_token"]).status_code == 401
        requests.post(f"{url}/_sandbox/kill-session", data={"uid": "1000000w0"}, timeout=10)
        assert visitor.refresh(grant["refresh_token"]).json()["error"] == "invalid_grant"

    def test_every_word_is_there_in_both_languages(self) -> None:
        assert set(texts.ENGLISH) == set(texts.GERMAN)
        assert set(texts.FAULTS_GERMAN) == set(faults.KNOWN)
        assert set(texts.PLACES_ENGLISH) == set(texts.PLACES_GERMAN) == set(faults.PLACES)
        assert all(
            fault in faults.KNOWN and place in faults.PLACES
            for fault, place, *_text in texts.HAPPENINGS
        )

    @pytest.mark.parametrize("language", ["en", "de"])
    def test_a_refused_redirect_uri_is_named_with_those_that_are_known(
        self, visitor: Visitor, language: str
    ) -> None:
        address = visitor.authorize_url(redirect_uri="http://localhost:8090/oauth")
        page = visitor.browser.get(address, headers={"Accept-Language": language}).text
        assert "<code>http://localhost:8090/oauth</code>" in page
        assert "<code>http://localhost:8080/oauth</code>" in page


class TestWhatIsUnknownOfSipgate:
    """A default Keycloak behaves so; whether sipgate's does is unknown, so it can be switched off."""

    def test_spent_token_that_ends_nothing(self, visitor: Visitor) -> None:
        visitor.sandbox.control.behave(spent_token_ends_grants=False)
        first = visitor.grant()
        second = visitor.refresh(first["refresh_token"]).json()
        assert visitor.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"
        assert visitor.refresh(second["refresh_token"]).status_code == 200

    def test_no_revocation_endpoint(self, visitor: Visitor) -> None:
        visitor.sandbox.control.behave(revocation=False)
        assert visitor.end("revoke", token=visitor.grant()["refresh_token"]).status_code == 404
        assert (
            "revocation_endpoint"
            not in requests.get(visitor.sandbox.discovery_url, timeout=10).json()
        )

    def test_no_discovery_document(self, visitor: Visitor) -> None:
        visitor.sandbox.control.behave(discovery=False)
        assert requests.get(visitor.sandbox.discovery_url, timeout=10).status_code == 404

    def test_older_access_token_that_lives_on(self, visitor: Visitor) -> None:
        visitor.sandbox.control.behave(refresh_ends_access_token=False)
        first = visitor.grant()
        visitor.refresh(first["refresh_token"])
        assert visitor.get("/account", first["access_token"]).status_code == 200

    def test_reset_brings_the_default_back(self, sandbox: Running) -> None:
        default = sandbox.control.behave()
        sandbox.control.behave(consent_required=False, not_before=17, session_lifetime=5)
        sandbox.control.set_enabled("1000000w0", False)
        sandbox.control.reset(people=True)
        assert sandbox.control.behave() == default


class TestIntrospection:
    """The REST API can belong to another authorization server: here the one of another sandbox."""

    @pytest.fixture(scope="class")
    @staticmethod
    def rest_only(_sandbox_process: Running) -> Iterator[Running]:
        with launch("--introspect", f"{_sandbox_process.oidc_url}/token/introspect") as one:
            yield one

    def test_tokens_of_the_other_server_count_and_own_ones_do_not(
        self, visitor: Visitor, rest_only: Running
    ) -> None:
        grant = visitor.grant(person="2000000w0", scope="account:read")
        other = Visitor(rest_only)
        assert (
            other.get("/account", grant["access_token"]).json()["company"] == "Schraube & Mutter KG"
        )
        assert other.get("/balance", grant["access_token"]).status_code == 403
        assert other.get("/account", other.grant()["access_token"]).status_code == 401
        visitor.sandbox.control.kill_session()
        assert other.get("/account", grant["access_token"]).status_code == 401
        other.close()
