"""Every fault does what the table in ``sipgate_sandbox.faults`` says of it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from sipgate_sandbox import faults
from tests.sandbox.visitor import Visitor

ANSWERS: dict[str, tuple[int, Any]] = {
    "unauthorized": (401, b""),
    "forbidden": (403, b""),
    "forbidden-text": (403, b"This needs a Classic PBX account."),
    "too-many": (429, b""),
    "unknown-error": (500, {"error": "unknown_error"}),
    "bad-gateway": (502, b"<html><h1>502 Bad Gateway</h1></html>"),
    "unavailable": (503, b""),
    "invalid-grant": (400, {"error": "invalid_grant"}),
    "invalid-client": (401, {"error": "invalid_client"}),
    "unauthorized-client": (401, {"error": "unauthorized_client"}),
    "json-list": (200, []),
    "redirect": (307, b""),
}
ELSEWHERE = {
    "malformed-json",
    "huge",
    "missing-sub",
    "missing-master",
    *faults.WIRE,
    *faults.GRANT,
}
"""Faults with a test of their own below."""


@pytest.fixture
def grant(visitor: Visitor) -> dict[str, Any]:
    return visitor.grant(scope="account:read users:read")


def test_every_fault_has_a_test() -> None:
    assert set(ANSWERS) | ELSEWHERE == set(faults.KNOWN)


class TestAnswers:
    @pytest.mark.parametrize(
        ("place", "name"),
        [
            *(("account", name) for name in ANSWERS),
            ("refresh", "invalid-grant"),
            ("refresh", "unknown-error"),
        ],
    )
    def test_is_given_once_and_nothing_is_done(
        self, visitor: Visitor, grant: dict[str, Any], place: str, name: str
    ) -> None:
        def ask() -> requests.Response:
            return (
                visitor.refresh(grant["refresh_token"])
                if place == "refresh"
                else visitor.get("/account", grant["access_token"])
            )

        visitor.sandbox.control.fault(name, on=place, seconds=17)
        status, body = ANSWERS[name]
        response = ask()
        assert response.status_code == status
        if isinstance(body, bytes):
            assert response.content == body
        elif isinstance(body, dict):
            assert body.items() <= response.json().items()
        else:
            assert response.json() == body
        if name == "too-many":
            assert response.headers["Retry-After"] == "17"
        if name == "redirect":
            assert response.headers["Location"] == "http://127.0.0.1:9/elsewhere"
        assert ask().status_code == 200
        assert visitor.sandbox.control.state()["reuses"] == 0

    def test_redirect_to_an_address_of_ones_choice(self, visitor: Visitor) -> None:
        visitor.sandbox.control.fault("redirect", on="account", value="https://evil.example/")
        assert visitor.get("/account").headers["Location"] == "https://evil.example/"

    def test_malformed_json(self, visitor: Visitor) -> None:
        visitor.sandbox.control.fault("malformed-json", on="account")
        response = visitor.get("/account")
        assert response.status_code == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(response.content)

    def test_huge(self, visitor: Visitor) -> None:
        visitor.sandbox.control.fault("huge", on="account")
        response = visitor.get("/account", stream=True)
        assert int(response.headers["Content-Length"]) == 50_000_000
        response.close()

    @pytest.mark.parametrize(
        ("name", "field"), [("missing-sub", "sub"), ("missing-master", "masterSipId")]
    )
    def test_half_an_identity(
        self, visitor: Visitor, grant: dict[str, Any], name: str, field: str
    ) -> None:
        visitor.sandbox.control.fault(name, on="userinfo")
        who = visitor.get("/authorization/userinfo", grant["access_token"])
        assert who.status_code == 200
        assert {"sub", "masterSipId"} - set(who.json()) == {field}
        assert field in visitor.get("/authorization/userinfo", grant["access_token"]).json()


class TestGrants:
    @pytest.mark.parametrize(
        ("name", "value", "field", "found"),
        [
            ("null-access-token", None, "access_token", None),
            ("null-refresh-token", None, "refresh_token", None),
            ("no-refresh-token", None, "refresh_token", ...),
            ("no-scope-field", None, "scope", ...),
            ("scope-less", None, "scope", 1),
            ("odd-expires", "soon", "expires_in", "soon"),
            ("odd-expires", -5, "expires_in", -5),
            ("odd-expires", None, "expires_in", None),
        ],
    )
    @pytest.mark.parametrize("place", ["token", "refresh"])
    def test_one_field_is_changed_and_the_rest_is_right(
        self,
        visitor: Visitor,
        grant: dict[str, Any],
        place: str,
        name: str,
        value: Any,
        field: str,
        found: Any,
    ) -> None:
        visitor.sandbox.control.fault(name, on=place, value=value)
        if place == "token":
            answer = visitor.grant(scope="account:read users:read")
        else:
            answer = visitor.refresh(grant["refresh_token"]).json()
        scopes = answer.get("scope", "account:read users:read").split()
        got = len(scopes) if name == "scope-less" else answer.get(field, ...)
        assert got == found
        assert set(grant) - set(answer) == ({field} if found is ... else set())
        if name != "null-access-token":
            assert visitor.get("/account", answer["access_token"]).status_code in {200, 403}
        if answer.get("refresh_token"):
            assert visitor.refresh(answer["refresh_token"]).status_code == 200


class Raw:
    """One request on a bare socket, to see the answer's bytes and how the connection ends."""

    def __init__(self, visitor: Visitor, path: str, token: str = "", *, form: str = "") -> None:
        host, port = visitor.sandbox.url.removeprefix("http://").split(":")
        head = f"{'POST' if form else 'GET'} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
        head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n{form}"
        started = time.monotonic()
        self.data, self.times, self.reset = b"", [], False
        with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as connection:
            connection.sendall(head.encode())
            with contextlib.suppress(TimeoutError):
                self._read(connection, started)
        self.took = time.monotonic() - started

    def _read(self, connection: socket.socket, started: float) -> None:
        try:
            while part := connection.recv(65_536):
                self.data += part
                self.times.append(time.monotonic() - started)
                connection.settimeout(1)
        except ConnectionResetError:
            self.reset = True

    @property
    def parts(self) -> tuple[bytes, bytes]:
        head, _, body = self.data.partition(b"\r\n\r\n")
        return head, body


ACCOUNT = "/v2/account"


class TestWire:
    def test_slow(self, visitor: Visitor, grant: dict[str, Any]) -> None:
        visitor.sandbox.control.fault("slow", on="account", seconds=0.4)
        started = time.monotonic()
        assert visitor.get("/account", grant["access_token"]).status_code == 200
        assert 0.4 <= time.monotonic() - started < 3

    def test_slowness_holds_nobody_else_up(self, visitor: Visitor, grant: dict[str, Any]) -> None:
        visitor.sandbox.control.fault("slow", on="refresh", seconds=1.5)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(visitor.refresh, grant["refresh_token"])
            while visitor.sandbox.control.faults():
                time.sleep(0.01)
            started = time.monotonic()
            assert visitor.get("/account", grant["access_token"]).status_code == 200
            assert time.monotonic() - started < 1.2
            assert slow.result(10).status_code == 200

    def test_hang(self, visitor: Visitor, grant: dict[str, Any]) -> None:
        visitor.sandbox.control.fault("hang", on="account", seconds=0.4)
        raw = Raw(visitor, ACCOUNT, grant["access_token"])
        assert (raw.data, raw.took >= 0.4) == (b"", True)

    def test_drip(self, visitor: Visitor, grant: dict[str, Any]) -> None:
        visitor.sandbox.control.fault("drip", on="account", seconds=0.001)
        raw = Raw(visitor, ACCOUNT, grant["access_token"])
        assert len(raw.times) > 50
        assert json.loads(raw.parts[1])["company"] == "Rosenduft Gartenbau GmbH"

    def test_cut(self, visitor: Visitor, grant: dict[str, Any]) -> None:
        visitor.sandbox.control.fault("cut", on="account")
        head, body = Raw(visitor, ACCOUNT, grant["access_token"]).parts
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert 0 < len(body) < length

    def test_cut_headers(self, visitor: Visitor, grant: dict[str, Any]) -> None:
        visitor.sandbox.control.fault("cut-headers", on="account")
        raw = Raw(visitor, ACCOUNT, grant["access_token"])
        assert raw.data.startswith(b"HTTP/1.1 200")
        assert b"\r\n\r\n" not in raw.data

    def test_reset_before_anything_is_done(self, visitor: Visitor, grant: dict[str, Any]) -> None:
        visitor.sandbox.control.fault("reset", on="refresh")
        form = f"grant_type=refresh_token&refresh_token={grant['refresh_token']}"
        raw = Raw(visitor, "/auth/realms/third-party/protocol/openid-connect/token", form=form)
        assert (raw.data, raw.reset) == (b"", True)
        assert visitor.sandbox.control.state()["rotations"] == 0
        assert visitor.refresh(grant["refresh_token"]).status_code == 200

    def test_lose_answer_after_the_work_is_done(
        self, visitor: Visitor, grant: dict[str, Any]
    ) -> None:
        visitor.sandbox.control.fault("lose-answer", on="refresh")
        with pytest.raises(requests.ConnectionError):
            visitor.refresh(grant["refresh_token"])
        assert visitor.sandbox.control.state()["rotations"] == 1
        assert visitor.refresh(grant["refresh_token"]).json()["error"] == "invalid_grant"

    def test_misdated(self, visitor: Visitor, grant: dict[str, Any]) -> None:
        visitor.sandbox.control.fault("misdated", on="account", seconds=400)
        first, second = (visitor.get("/account", grant["access_token"]) for _ in range(2))
        ahead = parsedate_to_datetime(first.headers["Date"]) - parsedate_to_datetime(
            second.headers["Date"]
        )
        assert 390 < ahead.total_seconds() <= 400

    @pytest.mark.parametrize(("name", "kind"), [("wrong-type", "text/html"), ("no-type", None)])
    def test_content_type(
        self, visitor: Visitor, grant: dict[str, Any], name: str, kind: str | None
    ) -> None:
        visitor.sandbox.control.fault(name, on="account")
        response = visitor.get("/account", grant["access_token"])
        assert response.headers.get("Content-Type") == kind
        assert response.json()["company"] == "Rosenduft Gartenbau GmbH"


class TestSwitchboard:
    def test_a_fault_fires_as_often_as_it_is_armed_for(
        self, visitor: Visitor, grant: dict[str, Any]
    ) -> None:
        visitor.sandbox.control.fault("unavailable", on="account", times=2)
        assert [visitor.get("/account", grant["access_token"]).status_code for _ in range(3)] == [
            503,
            503,
            200,
        ]

    def test_until_it_is_cleared(self, visitor: Visitor, grant: dict[str, Any]) -> None:
        visitor.sandbox.control.fault("unavailable", on="account", times=None)
        assert [visitor.get("/account", grant["access_token"]).status_code for _ in range(4)] == [
            503
        ] * 4
        assert visitor.sandbox.control.faults()[0]["fired"] == 4
        visitor.sandbox.control.clear()
        assert visitor.get("/account", grant["access_token"]).status_code == 200

    def test_faults_queue(self, visitor: Visitor, grant: dict[str, Any]) -> None:
        for name in ("unavailable", "forbidden"):
            visitor.sandbox.control.fault(name, on="account")
        assert [visitor.get("/account", grant["access_token"]).status_code for _ in range(3)] == [
            503,
            403,
            200,
        ]

    @pytest.mark.parametrize("place", faults.PLACES)
    def test_only_its_place_is_struck(
        self, visitor: Visitor, grant: dict[str, Any], place: str
    ) -> None:
        struck = set()
        visitor.sandbox.control.fault("unavailable", on=place, times=None)
        token = grant["access_token"]
        asked = {
            "auth": lambda: visitor.browser.get(visitor.authorize_url(), allow_redirects=False),
            "token": lambda: visitor.exchange("x"),
            "account": lambda: visitor.get("/account", token),
            "userinfo": lambda: visitor.get("/authorization/userinfo", token),
            "users": lambda: visitor.get("/users/w0", token),
            "api": lambda: visitor.get("/balance", token),
            "refresh": lambda: visitor.refresh("x"),
            "logout": lambda: visitor.end("logout", refresh_token="x"),
            "revoke": lambda: visitor.end("revoke", token="x"),
        }
        for name, ask in asked.items():
            if ask().status_code == 503:
                struck.add(name)
        everything = {"all": set(asked), "api": {"account", "userinfo", "users", "api"}}
        assert struck == everything.get(place, {place})
        assert (
            visitor.sandbox.control.state()["faults"][0]["on"] == place
        )  # the switchboard itself answers
