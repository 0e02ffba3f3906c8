"""REST: paths, names for logs, values out of whatever sipgate answers, errors by status."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from sipgate_provider import api, errors
from sipgate_provider.remote import rest
from sipgate_provider.remote.required_scopes import OPERATIONS
from tests.wire import Answer, cut, of_json, serving, whole

QUICKLY = hypothesis(
    max_examples=50, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
SECRET = "s3cret-that-must-not-show"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)
ODD = [None, "", 0, 1, -1, 1.5, True, False, [], ["x"], {}, {"a": 1}, float("nan"), "x" * 10_000]


def called(answer: Answer, method: str = "GET", path: str = "/account", **more: Any) -> Any:
    """Return what a call makes of an answer: its data, or its error."""
    with serving(answer) as server:
        try:
            return rest.data(rest.call(method, server.url, path, SECRET, **more))
        except errors.SipgateError as error:
            return error


class TestPath:
    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/account",
            "/users/w0",
            "/w0/phonelines/p0/devices",
            "/log/webhooks",
            "/users/ü",
            "/a/b-c_d~e.f",
            "/a:b@c",
        ],
    )
    def test_below_the_base(self, path: str) -> None:
        rest.check_path(path)

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "account",
            "https://evil.example/",
            "//evil.example",
            "@evil.example",
            "/..",
            "/../admin",
            "/users/../../admin",
            "/.",
            "/users/./w0",
            "/users//w0",
            "/users/w0//",
            "/a?b",
            "/a?",
            "/a#b",
            "\\evil",
            "/\\evil",
            "/a\\..\\b",
            "/%2e%2e/admin",
            "/a%2fb",
            "/a%00",
            "/a b",
            "/a\tb",
            "/a\nb",
            "/a\r\nHost: evil",
            "/a\0",
            "/a\x1b",
            "/a\x7f",
            "/a\x85b",
            "/a\xa0b",
            "/a\u2028b",
            " /a",
            "/a ",
        ],
        ids=ascii,
    )
    def test_anything_else_is_refused_before_it_is_asked(self, path: str) -> None:
        with pytest.raises(ValueError, match="below the API base"):
            rest.check_path(path)
        with serving(whole()) as server:
            with pytest.raises(ValueError, match="below the API base"):
                rest.call("GET", f"{server.url}/v2", path, SECRET)
        assert server.connections == 0

    @QUICKLY
    @given(st.text(alphabet="/.%?#\\@:ab\n\0 ", max_size=12))
    def test_no_path_leaves_the_base(self, path: str) -> None:
        try:
            rest.check_path(path)
        except ValueError:
            return
        url = requests.Request("GET", f"https://api.sipgate.com/v2{path}").prepare().url
        assert url is not None
        assert url.startswith("https://api.sipgate.com/v2/")
        assert "/../" not in f"{url}/"


class TestNames:
    @pytest.mark.parametrize(("method", "template"), sorted(OPERATIONS))
    def test_every_operation_of_the_specification_is_known(
        self, method: str, template: str
    ) -> None:
        path = re.sub(r"\{[^}]*\}", "x1y2", template)
        name = rest.endpoint_of(method, path)
        assert name.startswith(f"{method} /")
        assert "x1y2" not in name
        assert rest.scopes_for(method, path) == OPERATIONS[method, name.partition(" ")[2]]

    @pytest.mark.parametrize(
        ("method", "path", "name"),
        [
            ("get", "/account", "GET /account"),
            ("GET", "/users/w0", "GET /users/{"),
            ("GET", "/users/rosa@rose.example", "GET /users/{"),
            ("DELETE", "/blacklist/incoming/+4915112345678", "DELETE /blacklist/incoming/{"),
            ("GET", "/new", "GET /new"),
            ("GET", "/new/thing-list", "GET /new/thing-list"),
        ],
    )
    def test_names(self, method: str, path: str, name: str) -> None:
        assert rest.endpoint_of(method, path).startswith(name)

    @pytest.mark.parametrize(
        "id",
        [
            "w0",
            "1234567w0",
            "+4915112345678",
            "rosa@rose.example",
            "rosa.gärtner",
            "Rosa_Gärtner",
            "a" * 40,
            "6b7d3c52-3f0e-4f0c-9d6f-0f2c5a1e8d11",
            "x.y",
            "a:b",
        ],
    )
    @pytest.mark.parametrize(
        "path",
        [
            "/users/{}",
            "/unknown/{}",
            "/unknown/{}/thing",
            "/{}/unknown",
            "/{}",
            "/a/{}/{}",
            "/w0/sms/{}/new",
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST", "BREW"])
    def test_no_id_of_a_person_gets_into_one(self, method: str, path: str, id: str) -> None:  # noqa: A002  # what it is
        assert id not in rest.endpoint_of(method, path.replace("{}", id))

    def test_scopes(self) -> None:
        assert rest.scopes_for("GET", "/account") == ("account:read",)
        assert rest.scopes_for("get", "/account") == ("account:read",)
        assert set(rest.scopes_for("POST", "/sessions/sms")) == {
            "sessions:write",
            "sessions:sms:write",
        }
        assert rest.scopes_for("GET", "/authorization/userinfo") == ()
        assert rest.scopes_for("GET", "/no/such/thing") == ()
        assert rest.scopes_for("POST", "/account") == ()


VALUES: list[tuple[type, dict[str, Any]]] = [
    (
        api.Account,
        {
            "company": "C",
            "mainProductType": "TEAM",
            "logoUrl": "u",
            "verified": True,
            "historyLifeTime": "NONE",
        },
    ),
    (
        api.User,
        {
            "id": "w0",
            "firstname": "F",
            "lastname": "L",
            "email": "e",
            "defaultDevice": "e0",
            "timezone": "t",
            "admin": True,
        },
    ),
    (
        api.Number,
        {
            "id": "n",
            "number": "+49",
            "localized": "0",
            "type": "LANDLINE",
            "endpointId": "p0",
            "endpointAlias": "a",
        },
    ),
    (api.Device, {"id": "e0", "alias": "a", "type": "REGISTER", "online": True, "dnd": False}),
    (
        api.HistoryEntry,
        {
            "id": "1",
            "type": "CALL",
            "direction": "INCOMING",
            "source": "s",
            "target": "t",
            "status": "PICKUP",
            "created": "c",
            "incoming": True,
            "read": False,
            "note": "n",
        },
    ),
]
BY_NAME = pytest.mark.parametrize(
    ("kind", "fields"), VALUES, ids=[kind.__name__ for kind, _ in VALUES]
)


class TestValues:
    @BY_NAME
    def test_whole(self, kind: Any, fields: dict[str, Any]) -> None:
        value = kind.parse(fields)
        told = {
            v
            for name in value.__dataclass_fields__
            if isinstance(v := getattr(value, name), str | bool)
        }
        assert set(fields.values()) <= told

    @BY_NAME
    def test_empty(self, kind: Any, fields: dict[str, Any]) -> None:
        for data in ({}, dict.fromkeys(fields)):
            value = kind.parse(data)
            for attribute in value.__dataclass_fields__:
                assert getattr(value, attribute) in ("", None, (), {}, data), attribute

    @BY_NAME
    @pytest.mark.parametrize("odd", ODD, ids=lambda value: repr(value)[:20])
    def test_any_field_may_be_of_another_type(
        self, kind: Any, fields: dict[str, Any], odd: Any
    ) -> None:
        for name in fields:
            value = kind.parse({**fields, name: odd})
            for attribute in value.__dataclass_fields__:
                found = getattr(value, attribute)
                if attribute in {"extra", "secrets", "raw"}:
                    continue
                empty = value.__dataclass_fields__[attribute].default
                wanted = type(empty) if isinstance(empty, str | tuple) else bool | None
                assert isinstance(found, wanted), attribute

    @BY_NAME
    def test_new_fields_do_not_matter(self, kind: Any, fields: dict[str, Any]) -> None:
        value = kind.parse({**fields, "brandNew": {"deep": [1]}, "": None})
        for attribute in value.__dataclass_fields__:
            if attribute not in {"extra", "raw"}:
                assert getattr(value, attribute) == getattr(kind.parse(fields), attribute)

    @pytest.mark.parametrize("kind", [api.Identity, api.Balance, *(kind for kind, _ in VALUES)])
    @pytest.mark.parametrize("data", [None, [], [{}], "text", 1, True])
    def test_no_object(self, kind: Any, data: object) -> None:
        with pytest.raises(errors.UnexpectedResponse):
            kind.parse(data)

    @pytest.mark.parametrize("kind", [api.Identity, api.Balance, *(kind for kind, _ in VALUES)])
    @QUICKLY
    @given(data=JSON)
    def test_nothing_else_makes_it_fail(self, kind: Any, data: Any) -> None:
        names = (
            "sub",
            "masterSipId",
            "domain",
            "amount",
            "currency",
            "company",
            "verified",
            "id",
            "admin",
            "credentials",
        )
        for body in (data, dict.fromkeys(names, data)):
            try:
                repr(kind.parse(body))
            except errors.UnexpectedResponse:
                continue


class TestIdentity:
    def test_whole(self) -> None:
        who = api.Identity.parse(
            {
                "sub": "w0",
                "domain": "sipgate.de",
                "masterSipId": "1234567",
                "locale": "de_DE",
                "flags": [],
            }
        )
        assert (who.uid, who.domain, who.locale) == ("1234567w0", "sipgate.de", "de_DE")

    def test_a_number_counts_as_text(self) -> None:
        assert api.Identity.parse({"sub": "w0", "masterSipId": 1234567}).uid == "1234567w0"

    @pytest.mark.parametrize(
        "change",
        [
            {"sub": value}
            for value in (
                ...,
                None,
                "",
                0,
                "w",
                "0",
                "w0 ",
                "w0\n",
                "../w0",
                "w0/x",
                "w" * 5 + "0",
                "w" + "0" * 13,
                ["w0"],
                True,
                "w٣",
            )
        ]
        + [
            {"masterSipId": value}
            for value in (
                ...,
                None,
                "",
                "w",
                "12 34",
                "-1",
                -1,
                1.5,
                "1" * 21,
                True,
                ["1"],
                "١٢٣",
                "123\n",
            )
        ],
        ids=ascii,
    )
    def test_nobody_is_signed_in_by_half_an_identity(self, change: dict[str, Any]) -> None:
        data = {"sub": "w0", "masterSipId": "1234567"} | change
        with pytest.raises(errors.UnexpectedResponse) as caught:
            api.Identity.parse({key: value for key, value in data.items() if value is not ...})
        assert caught.value.endpoint == "GET /authorization/userinfo"

    def test_two_identities_never_share_a_uid(self) -> None:
        subs, masters = ("w0", "w1", "w10", "w"), ("1", "10", "1234567")
        uids = []
        for master in masters:
            for sub in subs[:3]:
                uids.append(api.Identity.parse({"sub": sub, "masterSipId": master}).uid)
        assert len(set(uids)) == len(uids)


class TestAccount:
    def test_new_fields_are_kept_and_written_back(self) -> None:
        data = {"company": "C", "partnerLevel": "gold", "tags": ["new"], "verified": None}
        account = api.Account.parse(data)
        assert account.extra == {"partnerLevel": "gold", "tags": ["new"]}
        assert api.Account.parse(json.loads(json.dumps(account.to_dict()))) == account

    @pytest.mark.parametrize(
        ("kind", "product", "former"),
        [
            ("TEAM", "TEAM", False),
            ("FORMER_TEAM", "TEAM", True),
            ("NEO_STARTER", "NEO_STARTER", False),
            (None, "", False),
        ],
    )
    def test_product(self, kind: Any, product: str, former: bool) -> None:
        account = api.Account.parse({"mainProductType": kind})
        assert (account.product, account.is_former) == (product, former)

    @pytest.mark.parametrize(
        "odd",
        [
            b"NaN",
            b"1e999",
            b"-Infinity",
            b"9" * 5000,
            b'"\\u0000"',
            b'"\\ud800"',
            b'{"\\ud800": ["\\u0000", NaN]}',
            b'"\xff"',
        ],
    )
    def test_whatever_is_new_can_be_stored(self, odd: bytes) -> None:
        account = api.Account.parse(called(whole(body=b'{"company": "C", "new": ' + odd + b"}")))
        stored = json.dumps(account.to_dict(), allow_nan=False, ensure_ascii=False).encode()
        assert b"\\u0000" not in stored
        assert account.company == "C"

    def test_numbers_arrive_unchanged(self) -> None:
        data = {"a": 1, "b": -5, "c": 1.5, "d": 123456789012345678, "e": 0, "f": 1e10}
        assert called(of_json(data)) == data


class TestBalance:
    @pytest.mark.parametrize(
        ("amount", "units"),
        [
            (123_400, "12.34"),
            (0, "0"),
            (-50, "-0.005"),
            (1, "0.0001"),
            (123_400.0, "12.34"),
            (10**15, "100000000000"),
        ],
    )
    def test_sipgate_counts_in_ten_thousandths(self, amount: float, units: str) -> None:
        balance = api.Balance.parse({"amount": amount, "currency": "EUR"})
        assert (balance.amount, balance.currency) == (Decimal(units), "EUR")

    @pytest.mark.parametrize(
        "amount", [None, "123400", True, [], {}, float("nan"), float("inf"), float("-inf")]
    )
    def test_without_a_number_there_is_none(self, amount: Any) -> None:
        with pytest.raises(errors.UnexpectedResponse):
            api.Balance.parse({"amount": amount, "currency": "EUR"})


class TestHidden:
    def test_a_devices_credentials(self) -> None:
        fields = {
            "id": "e0",
            "credentials": {"password": SECRET},
            "sipCredentials": SECRET,
            "puk": SECRET,
            "puk1": SECRET,
            "puk2": [SECRET],
            "esimData": SECRET,
            "brandNew": SECRET,
        }
        device = api.Device.parse(fields)
        assert SECRET not in f"{device!r} {device} {[device]}"
        assert device.secrets["credentials"] == {"password": SECRET}
        assert "brandNew" not in device.secrets

    def test_what_was_said_and_written(self) -> None:
        entry = api.HistoryEntry.parse({"id": "1", "smsContent": SECRET, "transcription": SECRET})
        assert SECRET not in f"{entry!r} {entry}"
        assert entry.raw["smsContent"] == SECRET


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (301, errors.UnexpectedResponse),
            (307, errors.UnexpectedResponse),
            (400, errors.RequestFailed),
            (401, errors.AccessRejected),
            (402, errors.PaymentRequired),
            (403, errors.MissingPermission),
            (404, errors.NotFound),
            (405, errors.RequestFailed),
            (408, errors.SipgateUnavailable),
            (409, errors.Conflict),
            (415, errors.RequestFailed),
            (418, errors.RequestFailed),
            (429, errors.RateLimited),
            (500, errors.SipgateUnavailable),
            (502, errors.SipgateUnavailable),
            (503, errors.SipgateUnavailable),
            (504, errors.SipgateUnavailable),
            (599, errors.SipgateUnavailable),
        ],
    )
    @pytest.mark.parametrize(
        "body",
        [b"", b"This needs a Classic PBX account.", b'{"errors": [{"title": "x"}]}', b"\xff\xfe"],
    )
    def test_decides_alone(self, status: int, kind: type, body: bytes) -> None:
        error = called(whole(f"{status} No", body), "POST", "/users/w7")
        assert type(error) is kind
        assert (error.status, error.message) == (
            status,
            f"sipgate answered {error.endpoint} with HTTP {status}.",
        )
        assert "w7" not in str(error)

    def test_403_names_the_scopes_that_help(self) -> None:
        assert called(whole("403 No", b"")).scopes == ("account:read",)
        assert called(whole("403 No", b""), "GET", "/no/such").scopes == ()

    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after(self, status: int) -> None:
        assert called(whole(f"{status} No", b"", retry_after="33")).retry_after == 33

    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    def test_an_empty_success(self, status: int) -> None:
        assert called(whole(f"{status} Yes", b"", content_length="0"), "PUT") is None

    @pytest.mark.parametrize(
        "body",
        [b"<html>", b"{", b"\xff", b"[" * 100_000, b" "],
        ids=["html", "half", "no text", "deep", "blank"],
    )
    def test_a_success_that_is_no_json(self, body: bytes) -> None:
        error = called(whole(body=body))
        assert type(error) is errors.UnexpectedResponse
        assert error.status == 200

    def test_no_answer(self) -> None:
        error = called(cut())
        assert type(error) is errors.SipgateUnavailable
        assert (error.endpoint, error.status, error.sent) == ("GET /account", None, True)

    def test_the_request(self) -> None:
        with serving(of_json([])) as server:
            rest.call(
                "post",
                f"{server.url}/v2",
                "/sessions/sms",
                SECRET,
                params={"a": ["1", "ü &"]},
                json={"message": "ü"},
            )
        asked = server.asked[0]
        assert (asked.method, asked.path) == ("POST", "/v2/sessions/sms?a=1&a=%C3%BC+%26")
        assert asked.headers["authorization"] == f"Bearer {SECRET}"
        assert (asked.headers["content-type"], json.loads(asked.body)) == (
            "application/json",
            {"message": "ü"},
        )

    @pytest.mark.parametrize(
        "body",
        [{"a": object()}, {"a": float("nan")}, {1j: 1}],
        ids=["object", "no number", "no key"],
    )
    def test_a_body_that_is_no_json_is_the_callers_mistake(self, body: Any) -> None:
        with serving(whole()) as server, pytest.raises((ValueError, TypeError)):
            rest.call("POST", server.url, "/sessions/sms", SECRET, json=body)
        assert server.connections == 0
