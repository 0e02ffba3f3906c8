"""Values out of whatever sipgate answers, held against the property names of its specification."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from sipgate_provider import errors, values

FIELDS: dict[str, list[str]] = json.loads(
    (Path(__file__).parent.parent / "data" / "sipgate_fields.json").read_text()
)
BY_LIBRARIES = {
    *("callId", "callStatus", "duration", "recordings", "faxStatusType", "documentUrl"),
    *("reportUrl", "recordingUrl", "smsContent", "transcription"),
}
"""What sipgate's own client library reads of a history entry beyond the specification."""
SCHEMAS = {
    values.Account: ["AccountResponse"],
    values.Identity: ["UserinfoResponse"],
    values.User: ["UserResponse"],
    values.Balance: ["BalanceResponse"],
    values.Number: ["NumberResponseWithEndpoint"],
    values.Device: ["DeviceResponse", "ExternalDeviceResponse"],
    values.HistoryEntry: ["HistoryEntryResponse"],
    values.Contact: ["ContactResponse"],
    values.ContactNumber: ["NumberResponse"],
    values.ContactEmail: ["EMailResponse"],
}
NEEDED = {"sub": "w0", "masterSipId": "1234567", "amount": 123_400}
ODD = (None, "", 0, -1, 1.5, True, [], [None, 1, []], ["x"], {}, {"a": 1}, "text", "x" * 10_000)
SECRET = "s3cret-that-must-not-show"


def test_fields_are_read_under_the_names_of_the_specification():
    for kind, schemas in SCHEMAS.items():
        known = {name for schema in schemas for name in FIELDS[schema]}
        if kind is values.HistoryEntry:
            known |= BY_LIBRARIES
        read = names(kind)
        assert read <= known, kind
        assert len(read) == len(dataclasses.fields(kind)) - 1, f"{kind}: a field is never read"


def test_every_field_may_be_missing_or_anything():
    for kind, schemas in SCHEMAS.items():
        known = {name for schema in schemas for name in FIELDS[schema]} | BY_LIBRARIES
        usual = kind.parse(NEEDED)
        for odd in ODD:
            value = kind.parse({**dict.fromkeys(known, odd), **NEEDED, "brandNew": odd})
            for one in dataclasses.fields(kind):
                found, empty = getattr(value, one.name), getattr(usual, one.name)
                fits = found is None or empty is None or type(found) is type(empty)
                assert fits or isinstance(found, str), f"{kind.__name__}.{one.name}: {odd!r}"


def test_what_is_no_object_or_lacks_what_is_needed_is_unexpected():
    for kind in SCHEMAS:
        for data in (None, [], [{}], "text", 1, True):
            with pytest.raises(errors.UnexpectedResponse):
                kind.parse(data)
    for kind in (values.Identity, values.Balance):
        with pytest.raises(errors.UnexpectedResponse) as caught:
            kind.parse({})
        assert caught.value.endpoint == kind.endpoint


def test_a_kind_of_field_that_nobody_reads_is_an_error():
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Strange(values.Value):
        when: complex = 0j

    with pytest.raises(Exception, match="complex"):
        Strange.parse({"when": "1j"})


def test_an_identity_is_whole_or_none():
    whole = {"sub": "w0", "masterSipId": 1234567, "locale": "de_DE"}
    assert values.Identity.parse(whole).uid == "1234567w0"
    subs = (None, "", 0, "w", "0", "w0 ", "w0\n", "../w0", "wwwww0", f"w{'0' * 13}", ["w0"], "w٣")
    masters = (None, "", "w", "12 34", "-1", -1, 1.5, "1" * 21, True, ["1"], "١٢٣", "123\n")
    for name, wrong in (("sub", subs), ("masterSipId", masters)):
        for value in wrong:
            with pytest.raises(errors.UnexpectedResponse):
                values.Identity.parse({**whole, name: value})


def test_an_account_keeps_what_is_new():
    data = {"company": "C", "mainProductType": "FORMER_TEAM", "partnerLevel": "gold"}
    account = values.Account.parse(data)
    assert (account.product, account.is_former) == ("TEAM", True)
    assert (account.extra, account.raw) == ({"partnerLevel": "gold"}, data)
    assert values.Account.parse(json.loads(json.dumps(account.raw))) == account


def test_sipgate_counts_money_in_ten_thousandths():
    for amount, units in {123_400: "12.34", 0: "0", -50: "-0.005"}.items():
        assert values.Balance.parse({"amount": amount}).amount == Decimal(units)
    for amount in (None, "123400", True, [], float("nan"), float("inf")):
        with pytest.raises(errors.UnexpectedResponse):
            values.Balance.parse({"amount": amount})


def test_a_history_entry():
    entry = values.HistoryEntry.parse(
        {
            "id": 4711,
            "source": True,
            "type": "CALL",
            "direction": "MISSED_SIDEWAYS",
            "created": "2026-01-01T12:00:00Z",
            "lastModified": "2026-01-01T12:00:00",
            "connectionIds": ["s0", None, 7],
            "endpoints": [{"type": "ROUTED"}, None],
            "archived": False,
            "callId": "c1",
            "callStatus": "REJECTED_DND",
            "duration": 61,
            "recordings": [{"id": "r1", "url": "/recordings/r1"}, None],
            "faxStatusType": "SENT",
        }
    )
    assert (entry.id, entry.source) == ("4711", "")
    assert (entry.type, entry.direction) == (values.EntryType.CALL, "MISSED_SIDEWAYS")
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert (entry.created, entry.last_modified) == (noon, noon)
    assert (entry.connection_ids, entry.endpoints) == (("s0", "7"), ({"type": "ROUTED"},))
    assert (entry.archived, entry.starred) == (False, None)
    assert (entry.call_id, entry.call_status, entry.duration) == ("c1", "REJECTED_DND", 61)
    assert [one.url for one in entry.recordings] == ["/recordings/r1"]
    assert entry.fax_status is values.FaxStatus.SENT


def test_what_was_said_and_written_and_secrets_are_not_printed():
    said = {"smsContent": SECRET, "transcription": SECRET, "note": SECRET}
    entry = values.HistoryEntry.parse({"id": "1", **said})
    device = values.Device.parse({"id": "e0", "credentials": {"password": SECRET}, "puk1": SECRET})
    assert SECRET not in f"{entry!r} {entry} {device!r} {[device]}"
    assert entry.sms_content == device.raw["credentials"]["password"] == SECRET


def names(kind: type[values.Value]) -> set[str]:
    """Return the names under which a value looks for its fields."""
    found = set()
    for name in {name for schema in FIELDS.values() for name in schema} | BY_LIBRARIES:
        if name not in kind.parse({name: "x", **NEEDED}).extra:
            found.add(name)
    return found
