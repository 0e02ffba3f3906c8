"""The values of the REST API against the property names of sipgate's specification, and against odd answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sipgate_provider import api, errors

FIELDS: dict[str, list[str]] = json.loads(
    (Path(__file__).parent.parent / "data" / "sipgate_fields.json").read_text()
)
SECRETS = {"sipCredentials", "puk", "puk1", "puk2", "esimData"}
"""Not in the specification's device: other versions of it, kept out of ``repr`` all the same."""
BY_LIBRARIES = {
    "documentUrl",
    "reportUrl",
    "recordingUrl",
    "faxStatusType",
    "smsContent",
    "transcription",
}
"""What sipgate's own client libraries read of a history entry beyond the specification."""
VALUES = [
    (api.Account, ["AccountResponse"], set()),
    (api.Identity, ["UserinfoResponse"], set()),
    (api.User, ["UserResponse"], set()),
    (api.Balance, ["BalanceResponse"], set()),
    (api.Number, ["NumberResponseWithEndpoint"], set()),
    (api.Route, ["ActiveRouting"], set()),
    (
        api.Device,
        [
            "DeviceResponse",
            "RegisterDeviceResponse",
            "MobileDeviceResponse",
            "ExternalDeviceResponse",
        ],
        SECRETS,
    ),
    (api.HistoryEntry, ["HistoryEntryResponse"], BY_LIBRARIES),
]
SANE = {"sub": "w0", "masterSipId": "1234567", "amount": 123_400}


class Noting(dict[str, Any]):
    """An answer that remembers which of its fields were asked for."""

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(data)
        self.noted: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.noted.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.noted.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.noted.add(str(key))
        return super().__contains__(key)


@pytest.mark.parametrize(
    ("value", "schemas", "more"), VALUES, ids=lambda part: getattr(part, "__name__", None)
)
def test_reads_exactly_the_fields_of_the_specification(
    value: Any, schemas: list[str], more: set[str]
) -> None:
    answer = Noting(SANE)
    value.parse(answer)
    assert answer.noted - more == {name for schema in schemas for name in FIELDS[schema]}
    assert more <= answer.noted


def test_lists_have_items_and_only_the_history_a_total() -> None:
    lists = {
        name: fields
        for name, fields in FIELDS.items()
        if name.endswith("sResponse") or name == "HistoryResponse"
    }
    assert lists == {
        "DevicesResponse": ["items"],
        "HistoryResponse": ["items", "totalCount"],
        "NumbersResponse": ["items"],
        "UsersResponse": ["items"],
    }


@pytest.mark.parametrize(
    ("value", "schemas", "more"), VALUES, ids=lambda part: getattr(part, "__name__", None)
)
@pytest.mark.parametrize("odd", [None, [], {}, [None, 1, []], 7, True, "text", 1.5])
def test_no_odd_field_is_an_error(value: Any, schemas: list[str], more: set[str], odd: Any) -> None:
    names = {name for schema in schemas for name in FIELDS[schema]} | more
    value.parse({**dict.fromkeys(names, odd), **SANE})


@pytest.mark.parametrize("value", [value for value, _, _ in VALUES])
@pytest.mark.parametrize("answer", [None, [], "text", 7])
def test_what_is_no_object_is_unexpected(value: Any, answer: Any) -> None:
    with pytest.raises(errors.UnexpectedResponse):
        value.parse(answer)


def test_device_keeps_its_secrets_to_itself() -> None:
    device = api.Device.parse(
        {
            "id": "e0",
            "alias": "Desk",
            "type": "REGISTER",
            "credentials": {"password": "pw-pw-pw"},
            "puk1": "puk-puk",
            "registered": [{"ip": "192.0.2.7", "port": "5060", "userAgent": "Desk"}],
            "activePhonelines": [{"id": "p0", "alias": "Reception"}],
            "activeGroups": [{"id": "g0", "alias": "Sales"}],
        }
    )
    assert device.secrets == {"credentials": {"password": "pw-pw-pw"}, "puk1": "puk-puk"}
    assert device.registered[0]["ip"] == "192.0.2.7"
    assert (device.active_phonelines, device.active_groups) == (
        (api.Route(id="p0", alias="Reception"),),
        (api.Route(id="g0", alias="Sales"),),
    )
    for hidden in ("pw-pw-pw", "puk-puk", "192.0.2.7"):
        assert hidden not in repr(device)


def test_history_entry() -> None:
    entry = api.HistoryEntry.parse(
        {
            "id": 4711,
            "type": "SMS",
            "sourceAlias": "Rosa",
            "targetAlias": "Otto",
            "lastModified": "2026-01-01T12:00:00Z",
            "connectionIds": ["s0", None, 7],
            "labels": ["a"],
            "endpoints": [{"type": "ROUTED"}, None],
            "archived": False,
            "starred": True,
            "smsContent": "confidential words",
            "note": "confidential note",
            "faxStatusType": "SENT",
        }
    )
    assert (entry.id, entry.source_alias, entry.target_alias) == ("4711", "Rosa", "Otto")
    assert (entry.connection_ids, entry.labels, entry.endpoints) == (
        ("s0", "7"),
        ("a",),
        ({"type": "ROUTED"},),
    )
    assert (entry.archived, entry.starred, entry.read, entry.fax_status) == (
        False,
        True,
        None,
        "SENT",
    )
    assert entry.sms_content == "confidential words"
    assert "confidential" not in repr(entry)


def test_user_and_number() -> None:
    user = api.User.parse(
        {"id": "w0", "busyOnBusy": True, "addressId": 12, "directDialIds": ["p0", "p1"]}
    )
    assert (user.busy_on_busy, user.address_id, user.direct_dial_ids) == (True, "12", ("p0", "p1"))
    assert (
        api.Number.parse({"endpointUrl": "/w0/phonelines/p0"}).endpoint_url == "/w0/phonelines/p0"
    )
