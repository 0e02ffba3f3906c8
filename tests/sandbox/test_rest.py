"""The REST API answers as in sipgate's specification, and rejects what it does not know."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
import requests

from sipgate_provider.remote import rest
from tests.sandbox.visitor import Visitor

Ask = Callable[..., requests.Response]


def test_history_is_filtered(ask):
    everything = ask("GET", "/history", params={"limit": 1000}).json()
    assert everything["totalCount"] == len(everything["items"]) == 23
    for query, holds in {
        "types=CALL": lambda row: row["type"] == "CALL",
        "types=CALL&types=FAX": lambda row: row["type"] in ("CALL", "FAX"),
        "directions=OUTGOING": lambda row: row["direction"] == "OUTGOING" and not row["incoming"],
        "directions=MISSED_INCOMING": lambda row: row["direction"] == "MISSED_INCOMING",
        "starred=STARRED": lambda row: row["starred"],
        "starred=UNSTARRED": lambda row: not row["starred"],
        "connectionIds=f0": lambda row: row["type"] == "FAX",
        "phonenumber=%2B491700000001": lambda row: True,
        "from=2026-01-01T10:00:00Z": lambda row: row["created"] >= "2026-01-01T10",
        "to=2026-01-01T10:00:00%2B01:00": lambda row: row["created"] <= "2026-01-01T09:00:00Z",
        "archived=false": lambda row: not row["archived"],
        "from=2030-01-01T00:00:00Z": lambda row: False,
    }.items():
        found = ask("GET", f"/history?limit=1000&{query}").json()["items"]
        assert found == [row for row in everything["items"] if holds(row)], query
    archived = ask("GET", "/history?archived=true").json()
    assert archived["totalCount"] == 7
    assert all(row["archived"] for row in archived["items"])


def test_history_comes_in_pages(ask):
    for query, number in (("", 10), ("limit=1000", 23), ("offset=20", 3), ("offset=99", 0)):
        answer = ask("GET", f"/history?{query}").json()
        assert (len(answer["items"]), answer["totalCount"]) == (number, 23), query


def test_wrong_parameters_are_named(ask):
    for path, word in {
        "/history?typ=CALL": "types",
        "/history?types=CALL,FAX": "types must be one of CALL",
        "/history?types=call": "VOICEMAIL",
        "/history?starred=true": "STARRED",
        "/history?archived=False": "true, false",
        "/history?from=2026-01-01T10:00:00": "zone",
        "/history?to=yesterday": "zone",
        "/history?limit=1001": "1000",
        "/history?limit=1&limit=2": "once",
        "/history?offset=-1": "offset",
        "/history?from_=2026-01-01T10:00:00Z": "from",
        "/numbers?limit=x": "limit",
        "/contacts?phonenumber=1": "phonenumbers",
        "/account?company=1": "none",
    }.items():
        answer = ask("GET", path)
        assert answer.status_code == 400, path
        assert answer.json()["name"] == "PARAMETER_INVALID"
        assert word in answer.json()["message"], path


def test_entry_is_changed(ask):
    before = ask("GET", "/history/1003").json()
    change = {"read": not before["read"], "archived": True, "starred": True, "note": "Called back"}
    assert ask("PUT", "/history/1003", json=change).status_code == 204
    assert ask("GET", "/history/1003").json() == before | change
    assert ask("PUT", "/history/1003", json={"note": None}).status_code == 204
    assert "1003" not in {row["id"] for row in ask("GET", "/history?limit=99").json()["items"]}
    assert ask("PUT", "/history/1003", json={"archived": "yes"}).status_code == 400
    assert ask("PUT", "/history/1003", json={"archive": True}).status_code == 400
    assert ask("PUT", "/history/nobody", json={"read": True}).status_code == 404
    assert ask("GET", "/history/nobody").status_code == 404


def test_the_history_shows_what_was_sent(ask):
    session = ask("POST", "/sessions/calls", json=CALL).json()["sessionId"]
    entry = ask("GET", f"/history/{session}").json()
    assert (entry["type"], entry["direction"], entry["target"]) == (
        "CALL",
        "OUTGOING",
        "+4915799912345",
    )
    assert ask("POST", "/sessions/sms", json=SMS).status_code == 204
    newest = ask("GET", "/history?limit=1").json()["items"][0]
    assert (newest["smsContent"], newest["connectionIds"]) == ("Good day", ["s0"])


def test_a_fax_advances_with_each_look(ask):
    session = ask("POST", "/sessions/fax", json=FAX).json()["sessionId"]
    way = [ask("GET", f"/history/{session}").json()["faxStatusType"] for _ in range(4)]
    assert way == ["PENDING", "SENDING", "SENT", "SENT"]


def test_neo_has_another_way_to_call(visitor):
    token = visitor.grant(person="7000000w0", scope="all")["access_token"]
    classic = visitor.ask("POST", "/sessions/calls", token, json=CALL)
    assert (classic.status_code, "Classic" in classic.text) == (403, True)
    assert visitor.ask("POST", "/calls", token, json=NEO_CALL).json()["callId"]
    assert visitor.ask("GET", "/history", token).json()["totalCount"] == 23


def test_wrong_bodies(ask):
    for path, body, change, status in (
        ("/sessions/calls", CALL, {"caller": "+4921199000001"}, 400),  # deviceId is missing
        ("/sessions/calls", CALL, {"caller": "+49211990001", "deviceId": "e0"}, 200),
        ("/sessions/calls", CALL, {"callee": "0157 999 123 45"}, 400),
        ("/sessions/calls", CALL, {"callee": None}, 400),
        ("/sessions/calls", CALL, {"callerID": "+49211990001"}, 400),
        ("/sessions/calls", CALL, {"callerId": "+492119900019"}, 403),
        ("/sessions/calls", CALL, {"caller": "e1"}, 403),
        ("/calls", NEO_CALL, {"targetNumber": "112"}, 400),
        ("/calls", NEO_CALL, {"deviceId": "e9"}, 403),
        ("/sessions/sms", SMS, {"smsId": "s1"}, 403),
        ("/sessions/sms", SMS, {"recipient": "4915799912345"}, 400),
        ("/sessions/sms", SMS, {"message": ""}, 400),
        ("/sessions/sms", SMS, {"sendAt": "tomorrow"}, 400),
        ("/sessions/fax", FAX, {"base64Content": "%PDF"}, 400),
        ("/sessions/fax", FAX, {"faxlineId": "f1"}, 403),
        ("/contacts", {"scope": "SHARED"}, {"scope": "INTERNAL"}, 400),
        ("/contacts", {}, {"name": "Ada Lovelace"}, 400),  # scope is missing
    ):
        answer = ask("POST", path, json=body | change)
        assert answer.status_code == status, (path, change, answer.text)
    assert ask("POST", "/sessions/sms", data="{}").status_code == 400
    assert ask("POST", "/sessions/sms", json=[]).status_code == 400


def test_contacts(ask):
    first = ask("GET", "/contacts").json()
    assert first["totalCount"] == len(first["items"]) == 1
    number = {"number": "+4915799912345", "type": ["home"]}
    for scope, name in (("PRIVATE", "Grace Hopper"), ("SHARED", "Alan Turing")):
        body = {"scope": scope, "name": name, "numbers": [number]}
        assert ask("POST", "/contacts", json=body).status_code == 201
    found = ask("GET", "/contacts?phonenumbers=%2B4915799912345").json()["items"]
    assert [(row["name"], row["scope"]) for row in found] == [
        ("Grace Hopper", "PRIVATE"),
        ("Alan Turing", "SHARED"),
    ]
    assert ask("DELETE", f"/contacts/{found[0]['id']}").status_code == 204
    assert ask("DELETE", f"/contacts/{found[0]['id']}").status_code == 404
    assert ask("GET", "/contacts").json()["totalCount"] == 2


def test_users_see_their_own_extensions(visitor):
    token = visitor.grant(person="1000000w1", scope="all")["access_token"]
    for path, ids in (
        ("devices", ["e1", "y1"]),
        ("sms", ["s1"]),
        ("faxlines", ["f1"]),
    ):
        answer = visitor.ask("GET", f"/w1/{path}", token).json()
        assert [item["id"] for item in answer["items"]] == ids
        assert visitor.ask("GET", f"/w0/{path}", token).status_code == 403
        assert visitor.ask("GET", f"/w7/{path}", token).status_code == 404


def test_each_resource_needs_its_scope(visitor):
    for method, path, scope in (
        ("GET", "/account", "account:read"),
        ("GET", "/users", "users:read"),
        ("GET", "/users/w0", "users:read"),
        ("GET", "/balance", "balance:read"),
        ("GET", "/numbers", "numbers:read"),
        ("GET", "/history", "history:read"),
        ("GET", "/history/1000", "history:read"),
        ("PUT", "/history/1000", "history:write"),
        ("GET", "/w0/devices", "devices:read"),
        ("GET", "/w0/sms", "sms:read"),
        ("GET", "/w0/faxlines", "faxlines:read"),
        ("GET", "/contacts", "contacts:read"),
        ("POST", "/contacts", "contacts:write"),
        ("DELETE", "/contacts/1", "contacts:write"),
        ("POST", "/sessions/calls", "sessions:calls:write"),
        ("POST", "/sessions/sms", "sessions:write"),
        ("POST", "/sessions/fax", "sessions:fax:write"),
        ("POST", "/calls", "rtcm:write"),
    ):
        other = "balance:read" if scope != "balance:read" else "account:read"
        statuses = [
            visitor.ask(
                method, path, visitor.grant(scope=one)["access_token"], data="{}"
            ).status_code
            for one in (other, scope, "all")
        ]
        assert statuses[0] == 403, path
        assert 403 not in statuses[1:], path
        assert path == "/calls" or scope in rest.scopes_for(method, path)
    assert visitor.ask("PATCH", "/account", "").status_code == 405


@pytest.fixture
def ask(visitor: Visitor) -> Ask:
    """Send a request as somebody who has allowed everything."""
    token = visitor.grant(scope="all")["access_token"]

    def send(method: str, path: str, **more: Any) -> requests.Response:
        return visitor.ask(method, path, token, **more)

    return send


CALL = {"caller": "e0", "callee": "+4915799912345"}


NEO_CALL = {"deviceId": "e0", "targetNumber": "+4915799912345"}


SMS = {"smsId": "s0", "recipient": "+4915799912345", "message": "Good day"}


PDF = base64.b64encode(b"%PDF-1.7").decode()


FAX = {
    "faxlineId": "f0",
    "recipient": "+4921112345678",
    "filename": "a.pdf",
    "base64Content": PDF,
}
