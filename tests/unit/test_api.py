"""REST: paths, names for logs, values out of whatever sipgate answers, errors by status."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from sipgate_provider import api, errors
from sipgate_provider.remote.session import json_of

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
            b'"\\u0000"',
            b'"\\ud800"',
            b'{"\\ud800": ["\\u0000", NaN]}',
            b'"\xff"',
        ],
    )
    def test_whatever_is_new_can_be_stored(self, odd: bytes) -> None:
        account = api.Account.parse(json_of(b'{"company": "C", "new": ' + odd + b"}"))
        stored = json.dumps(account.to_dict(), allow_nan=False, ensure_ascii=False).encode()
        assert b"\\u0000" not in stored
        assert account.company == "C"


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
