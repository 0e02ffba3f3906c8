"""REST: paths, names for logs, errors by status, and lists that end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from sipgate_provider import errors
from sipgate_provider.remote import rest
from sipgate_provider.remote.specification import OPERATIONS, endpoint_of, scopes_for
from tests.raw_server import Answer, of_json, serving, whole

SECRET = "s3cret-that-must-not-show"


STATUSES = {
    301: errors.UnexpectedResponse,
    307: errors.UnexpectedResponse,
    400: errors.RequestFailed,
    401: errors.AccessRejected,
    402: errors.PaymentRequired,
    403: errors.MissingPermission,
    404: errors.NotFound,
    405: errors.RequestFailed,
    408: errors.SipgateUnavailable,
    409: errors.Conflict,
    415: errors.RequestFailed,
    429: errors.RateLimited,
    500: errors.SipgateUnavailable,
    503: errors.SipgateUnavailable,
    599: errors.SipgateUnavailable,
}


def test_the_status_alone_decides():
    for status, kind in STATUSES.items():
        for body in (b"", b"words", b'{"errors": [{"title": "x"}]}', b"\xff\xfe"):
            error = called(whole(f"{status} No", body), "POST", "/users/w7")
            assert type(error) is kind, status
            assert error.message.startswith("sipgate answered POST /users/{id} with HTTP")
            assert (error.status, "w7" in str(error)) == (status, False)


def test_an_error_has_sipgates_words_and_keeps_them_to_itself():
    words = "callee must be E.164: hunter2\r\n\x1b[31m" + "x" * 10_000
    for status, kind in STATUSES.items():
        error = called(whole(f"{status} No", words.encode()), "POST", "/sessions/calls")
        assert type(error) is kind
        assert error.detail.startswith("callee must be E.164: hunter2 [31mxxx"), status
        assert len(error.detail) == rest.LONGEST_DETAIL
        assert "hunter2" not in f"{error} {error!r} {vars(error)!r} {error.args!r}", status
    assert called(whole("400 No", b"")).detail == ""


def test_a_403_names_what_may_help():
    assert called(whole("403 No", b"")).scopes == ("account:read",)
    assert called(whole("403 No", b""), "GET", "/no/such").scopes == ()
    error = called(whole("403 No", b"A Classic PBX account is required"), "GET", "/w0/phonelines")
    assert (type(error), error.code) == (errors.NotAvailable, rest.CLASSIC_REQUIRED)
    assert "classic" in error.message


def test_an_address_that_is_not_the_apis_is_a_wrong_setting():
    for status in (301, 404, 405):
        error = called(whole(f"{status} No", b""))
        assert (type(error), error.setting) == (errors.Misconfigured, "SIPGATE_API_URL"), status


def test_wish_to_wait():
    for status in (429, 503):
        assert called(whole(f"{status} No", b"", retry_after="33")).retry_after == 33


def test_successes():
    for status in (200, 201, 202, 204):
        assert called(whole(f"{status} Yes", b"", content_length="0"), "PUT") is None
    assert called(of_json({"a": [1]})) == {"a": [1]}
    for body in (b"<html>", b"{", b"\xff", b" "):
        error = called(whole(body=body))
        assert (type(error), error.status) == (errors.UnexpectedResponse, 200), body


def test_the_request():
    since = datetime(2026, 1, 1, 12, tzinfo=UTC)
    with serving(of_json([])) as server:
        params = {"a": ["1", "ü &"], "b": True, "c": since}
        rest.call("post", server.url, "/sessions/sms", SECRET, params=params, json={"m": "ü"})
    asked = server.asked[0]
    query = "a=1&a=%C3%BC+%26&b=true&c=2026-01-01T12%3A00%3A00%2B00%3A00"
    assert (asked.method, asked.path) == ("POST", f"/sessions/sms?{query}")
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["content-type"] == "application/json"
    assert json.loads(asked.body) == {"m": "ü"}


def test_what_cannot_be_asked_is_the_callers_mistake():
    with serving(whole()) as server:
        for wrong in (
            {"json": {"a": object()}},
            {"json": {"a": float("nan")}},
            {"params": {"from": datetime(2026, 1, 1)}},  # noqa: DTZ001  # the mistake
        ):
            with pytest.raises((ValueError, TypeError)):
                rest.call("POST", server.url, "/sessions/sms", SECRET, **wrong)
        for path in OUTSIDE:
            with pytest.raises(ValueError, match="below the API base"):
                rest.call("GET", server.url, path, SECRET)
    assert server.connections == 0


OUTSIDE = (
    *("", "account", "https://evil.example/", "//evil.example", "@evil.example", " /a", "/a "),
    *("/..", "/../admin", "/users/../../admin", "/.", "/users/./w0", "/users//w0", "/users/w0//"),
    *("/a?b", "/a?", "/a#b", "\\evil", "/\\evil", "/%2e%2e/admin", "/a%2fb", "/a%00", "/a b"),
    *("/a\tb", "/a\nb", "/a\r\nHost: evil", "/a\0", "/a\x7f", "/a\x85b", "/a\xa0b", "/a\u2028b"),
)


def test_paths_below_the_base():
    for path in ("/", "/account", "/w0/phonelines/p0", "/users/ü", "/a/b-c_d~e.f", "/a:b@c"):
        rest.check_path(path)


# --- names ----------------------------------------------------------------------------------------


def test_every_operation_of_the_specification_is_known():
    for operation, scopes in OPERATIONS.items():
        method, _, template = operation.partition(" ")
        path = re.sub(r"\{[^}]*\}", "x1y2", template)
        assert scopes_for(method.lower(), path) == scopes, operation
        assert endpoint_of(method, path) in OPERATIONS
        assert "x1y2" not in endpoint_of(method, path), operation
    assert set(scopes_for("POST", "/sessions/sms")) == {"sessions:write", "sessions:sms:write"}
    assert scopes_for("POST", "/calls") == ("rtcm:write",)
    assert scopes_for("GET", "/no/such/thing") == scopes_for("POST", "/account") == ()


def test_no_id_of_a_person_gets_into_a_name():
    assert endpoint_of("get", "/new/thing-list") == "GET /new/thing-list"
    ids = ("w0", "1234567w0", "+4915112345678", "rosa@rose.example", "Rosa_Gärtner", "a" * 40)
    for path in ("/users/{}", "/unknown/{}/thing", "/{}/unknown", "/{}", "/w0/sms/{}/new"):
        for one in ids:
            for method in ("GET", "POST", "BREW"):
                assert one not in endpoint_of(method, path.replace("{}", one)), path


# --- lists ----------------------------------------------------------------------------------------


class List:
    """A list that a test may change between two requests. ``total``: what it says of its length."""

    def __init__(self, numbers: range, *, total: Callable[[list[int]], Any] | None = None) -> None:
        self.numbers = list(numbers)
        self.total = total
        self.asked: list[int] = []

    def ask(self, offset: int, limit: int) -> Any:
        self.asked.append(offset)
        items = [{"id": f"n{number}"} for number in self.numbers[offset : offset + limit]]
        return {"items": items, **({"totalCount": self.total(self.numbers)} if self.total else {})}

    def read(self, page_size: int) -> list[int]:
        found = rest.paged(self.ask, page_size=page_size)
        return [int(item["id"].removeprefix("n")) for item in found]


def test_a_total_saves_the_last_request():
    read = List(range(6), total=len)
    assert (read.read(3), read.asked) == ([*range(6)], [0, 3])


def test_without_a_usable_total_an_empty_page_is_the_end():
    for total in (None, 0, -1, "7", True, 1000):
        read = List(range(7), total=lambda _numbers, total=total: total)
        assert (read.read(3), read.asked) == ([*range(7)], [0, 3, 6, 7]), total


def test_a_server_that_gives_less_than_asked_for():
    read = List(range(7))
    found = rest.paged(lambda offset, limit: read.ask(offset, 2), page_size=100)
    assert len(list(found)) == 7


def test_a_server_that_ignores_the_offset():
    for item in ({"id": "n1"}, {"name": "without an id"}):
        found = rest.paged(lambda _offset, _limit, item=item: {"items": [item]}, page_size=1)
        assert list(found) == [item]


def test_a_list_that_grows_at_its_front():
    read = List(range(6))

    def growing(offset, limit):
        answer = read.ask(offset, limit)
        read.numbers.insert(0, read.numbers[0] - 1)
        return answer

    found = [item["id"] for item in rest.paged(growing, page_size=3)]
    assert found == [f"n{number}" for number in range(6)]


def test_a_list_that_shrinks_while_it_is_read():
    """Whoever archives what has been read takes it out of the list: nothing may be left out."""
    for page_size in (1, 3, 10, 25, 100):
        read = List(range(25), total=len)
        found = []
        for item in rest.paged(read.ask, page_size=page_size):
            number = int(item["id"].removeprefix("n"))
            found.append(number)
            read.numbers.remove(number)
        assert found == [*range(25)], page_size


def test_a_list_that_shrinks_behind_what_was_read():
    for left in (25, 30):  # asked again: half a page, and the very page before
        read = List(range(40), total=len)
        found = []
        for item in rest.paged(read.ask, page_size=10):
            found.append(item["id"])
            if len(found) == 20:
                del read.numbers[left:]
        assert found == [f"n{number}" for number in range(left)], left


def test_an_answer_that_is_no_list():
    for data in ([], {"rows": []}, {"items": {}}, None, "text"):
        found = rest.paged(lambda _offset, _limit, data=data: data, page_size=1, endpoint="GET /x")
        with pytest.raises(errors.UnexpectedResponse) as raised:
            list(found)
        assert raised.value.endpoint == "GET /x", data


def called(answer: Answer, method: str = "GET", path: str = "/account", **more: Any) -> Any:
    """Return what a call makes of an answer: its data, or its error."""
    with serving(answer) as server:
        try:
            return rest.call(method, server.url, path, SECRET, **more)
        except errors.SipgateError as error:
            return error
