"""The client over real HTTP: what an integrator gets of it."""

from __future__ import annotations

import asyncio
import io
import time
import traceback
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db.backends.signals import connection_created
from django.views.debug import ExceptionReporter

from sipgate_provider import errors, tokens
from sipgate_provider.client import SipgateClient, TokenClient, in_thread
from sipgate_provider.models import SipgateToken
from sipgate_provider.remote import session
from sipgate_provider.values import CallStatus, Direction, EntryType, FaxStatus
from tests.flows.conftest import AskFor
from tests.journey import Browser
from tests.raw_server import of_json, serving

pytestmark = pytest.mark.django_db(transaction=True)

User = get_user_model()
PDF = b"%PDF-sandbox" * 1024 * 256


class TestWhose:
    def test_of_several_connections_the_oldest(self, connect):
        oldest, other = connect(product_line="NEO_PBX"), connect()
        SocialAccount.objects.filter(pk=other.pk).update(user=oldest.user)
        assert SipgateClient.for_user(oldest.user).connection == oldest
        both = [one.connection for one in SipgateClient.all_for_user(oldest.user)]
        assert both == [oldest, other]
        client = SipgateClient.for_uid(oldest.uid)
        assert (client.connection, client.user_id) == (oldest, "w0")
        assert (repr(client), client.product_line) == (f"<SipgateClient {oldest.uid}>", "NEO_PBX")

    def test_of_nobody(self, connect):
        alone = User.objects.create(username="alone")
        foreign = SocialAccount.objects.create(user=alone, provider="github", uid="1w0")
        for nobody in (alone, AnonymousUser()):
            assert SipgateClient.all_for_user(nobody) == []
            with pytest.raises(errors.NotConnected):
                SipgateClient.for_user(nobody)
        with pytest.raises(errors.NotConnected):
            SipgateClient.for_uid("1w0")
        with pytest.raises(ValueError, match="sipgate"):
            SipgateClient(foreign)
        disconnected = SipgateClient(connect())
        SipgateToken.objects.all().delete()
        with pytest.raises(errors.NotConnected):
            disconnected.get("/account")


class TestReading:
    def test_values(self, client):
        assert client.identity().uid == client.connection.uid == "1000000w0"
        assert client.account().product == "TEAM"
        assert client.balance().amount == Decimal("12.34")
        assert client.user().email == "rosa@rosenduft.example"
        assert {user.id for user in client.users()} == {"w0", "w1"}
        assert [device.alias for device in client.devices()] == ["Desk", "Mobile"]
        assert len({number.number for number in client.numbers()}) == 25
        assert len(list(client.numbers(limit=3))) == 3

    def test_history(self, client):
        entries = list(client.history())
        assert [entry.id for entry in entries] == [str(1000 + number) for number in range(23)]
        call = entries[0]
        assert (call.type, call.direction) == (EntryType.CALL, Direction.INCOMING)
        assert call.created == datetime(2026, 1, 1, 12, tzinfo=UTC)
        assert (call.duration, call.call_status) == (61, CallStatus.SUCCESS)
        assert client.history_entry("1000") == call

    def test_filters_of_the_history(self, client):
        every = list(client.history()) + list(client.history(archived=True))
        since = datetime(2025, 12, 31, 23, tzinfo=UTC)
        missed = (Direction.MISSED_INCOMING, "MISSED_OUTGOING")
        for filters, expected in (
            ({"types": ["CALL", EntryType.FAX]}, lambda one: one.type in {"CALL", "FAX"}),
            ({"types": "CALL"}, lambda one: one.type == "CALL"),
            ({"directions": missed}, lambda one: one.direction in missed),
            ({"since": since}, lambda one: one.created >= since),
            ({"until": since}, lambda one: one.created <= since),
            ({"starred": True}, lambda one: one.starred),
            ({"starred": False}, lambda one: not one.starred),
            ({"extensions": ["s0"]}, lambda one: "s0" in one.connection_ids),
            ({"number": "+491700000001"}, lambda one: True),
            ({"number": "+491700000002"}, lambda one: False),
        ):
            found = list(client.history(**filters))
            assert found == [one for one in every if expected(one) and not one.archived], filters
        assert len(list(client.history(archived=True))) == 7
        assert [one.id for one in client.history(limit=2)] == ["1000", "1001"]

    def test_filters_that_cannot_be_meant_are_not_sent(self, client, browser):
        """sipgate would leave out what it does not know, and send the whole history."""
        naive = datetime(2026, 1, 1)  # noqa: DTZ001  # the mistake
        for wrong in ({"types": ["CALLS"]}, {"directions": "IN"}, {"since": naive}):
            with pytest.raises(ValueError, match=r"CALLS|IN|time zone"):
                client.history(**wrong)
        with pytest.raises(TypeError, match="typs"):
            client.history(typs=["CALL"])  # the mistake
        assert browser.asked("GET v2/history") == 0

    def test_pages_are_asked_for_when_they_are_needed(self, client, browser):
        entries = client.iterate("/history", page_size=10)
        assert browser.asked("GET v2/history") == 0
        assert [next(entries)["id"] for _ in range(10)][-1] == "1009"
        assert browser.asked("GET v2/history") == 1
        assert len(list(entries)) == 13
        for wrong in ({"page_size": 0}, {"page_size": 1001}, {"params": {"limit": 5}}):
            with pytest.raises(ValueError, match="page_size"):
                client.iterate("/numbers", **wrong)

    def test_ids_stay_ids(self, client):
        with pytest.raises(errors.NotFound):
            client.user("w99")
        with pytest.raises(ValueError, match="id"):
            client.user("w0/../w1")

    def test_a_token_without_a_connection(self, client):
        token = tokens.token(client.connection)
        direct = TokenClient(token.value, scopes=token.scopes)
        assert (direct.identity().sub, direct.user("w0").firstname) == ("w0", "Rosa")
        assert token.value not in f"{direct!r} {vars(direct)!r}"


class TestDoing:
    def test_marks_and_archives_an_entry(self, client):
        client.update_history_entry("1000", read=False, starred=False, note="call back")
        client.update_history_entry("1001", archived=True)
        entry = client.history_entry("1000")
        assert (entry.read, entry.starred, entry.note) == (False, False, "call back")
        assert client.history_entry("1001").archived is True

    def test_dials(self, client):
        session_id = client.dial("e0", "+4915799912345", caller_id="+49211990001")
        call = client.history_entry(session_id)
        assert call.direction == Direction.OUTGOING
        assert (call.source, call.target) == ("+49211990001", "+4915799912345")

    def test_dials_on_neo(self, browser, ask_for):
        ask_for(*SCOPES, "rtcm:write")
        browser.sign_in(person="7000000w0")
        client = SipgateClient(SocialAccount.objects.get())
        assert client.product_line == "NEO_PBX"
        assert client.dial("e0", "+4915799912345") != ""
        with pytest.raises(errors.NotAvailable) as raised:
            client.post("/sessions/calls", json={"caller": "e0", "callee": "+4915799912345"})
        assert raised.value.code == "classic_required"
        assert "booked" not in str(raised.value)

    def test_sends_an_sms(self, client):
        client.send_sms("+4915799912345", "Hello!")
        client.send_sms(
            "+4915799912345", "Later", sms_id="s0", send_at=datetime.now(UTC) + timedelta(hours=1)
        )
        later, first = client.history(types="SMS", number="+4915799912345")
        assert (first.sms_content, later.sms_content) == ("Hello!", "Later")
        with pytest.raises(ValueError, match="time zone"):
            client.send_sms("+49", "x", send_at=datetime(2026, 1, 1))  # noqa: DTZ001  # the mistake

    def test_sends_a_fax_and_tells_how_far_it_is(self, client):
        session_id = client.send_fax("+4921112345678", b"%PDF-1.7", filename="letter.pdf")
        seen = [client.fax_status(session_id) for _ in range(3)]
        assert seen == [FaxStatus.PENDING, FaxStatus.SENDING, FaxStatus.SENT]
        with pytest.raises(ValueError, match="larger"):
            client.send_fax("+4921112345678", b"x" * 22_000_000)

    def test_keeps_contacts(self, client):
        (ada,) = client.contacts()
        client.create_contact("Otto", numbers=["+4915799912345"], emails=["o@otto.example"])
        (otto,) = client.contacts(numbers=["+4915799912345"])
        assert (otto.name, otto.scope) == ("Otto", "PRIVATE")
        assert otto.emails[0].email == "o@otto.example"
        client.delete_contact(ada.id)
        client.create_contact("All", shared=True)
        assert [one.scope for one in client.contacts()] == ["PRIVATE", "SHARED"]
        assert len(list(client.contacts(limit=1))) == 1

    def test_says_why_sipgate_does_not_do_it(self, client):
        with pytest.raises(errors.RequestFailed) as raised:
            client.send_sms("01579 9912345", "Hello!")
        assert "recipient" in raised.value.detail
        assert "recipient" not in f"{raised.value} {raised.value!r}"
        with pytest.raises(errors.NotAvailable) as missing:
            client.send_sms("+4915799912345", "Hello!", sms_id="s1")
        assert "the request is wrong" in str(missing.value)
        assert "s1 belongs to somebody else" in missing.value.detail


class TestTrouble:
    def test_one_401_is_healed_by_one_refresh(self, client, browser):
        browser.sandbox.control.fault("unauthorized", on="api")
        client.post("/contacts", json={"scope": "PRIVATE"})
        assert (browser.asked("refresh"), browser.asked("POST v2/contacts")) == (1, 1)

    def test_no_report_of_an_error_holds_a_token(self, client, sandbox, secrets):
        """What Django mails or shows of an exception: text, local variables, chained causes."""
        secrets.learn("access token", tokens.token(client.connection).value)
        for fault, ask in (
            ("malformed-json", client.account),
            ("lose-answer", client.account),
            ("unavailable", lambda: client.download("/documents/a.pdf", FullDisk())),
        ):
            sandbox.control.clear()
            sandbox.control.fault(fault, on="account", times=None)
            with pytest.raises((errors.SipgateError, BrokenPipeError)) as caught:
                ask()
            report = ExceptionReporter(None, caught.type, caught.value, caught.tb)
            shown = report.get_traceback_html() + "".join(traceback.format_exception(caught.value))
            assert "remote/rest.py" in shown
            secrets.assert_absent("the report", shown)


class TestDownload:
    def test_of_a_fax(self, client, sandbox):
        sandbox.control.fault("unauthorized", on="api")
        fax = next(client.history(types="FAX"))
        client.download(fax.document_url, file := io.BytesIO())
        assert file.getvalue() == PDF
        assert len(PDF) > session.LONGEST_BODY, "larger than any answer may be"

    def test_of_a_document_that_is_not_there(self, client, sandbox):
        sandbox.control.fault("forbidden", on="api")
        with pytest.raises(errors.MissingPermission) as raised:
            client.download("/documents/fax.pdf", file := io.BytesIO())
        assert (raised.value.endpoint, file.getvalue()) == ("GET /documents/{id}", b"")

    def test_the_token_goes_to_the_api_only(self, connect, settings):
        client = SipgateClient(connect())
        with serving(of_json("x")) as server:
            settings.SIPGATE_API_URL = f"{server.url}/v2"
            for address in (
                "https://evil.example/v2/documents/fax.pdf",
                "//evil.example/v2/x",
                "http://127.0.0.1:1/v2/x",
                "fax.pdf",
            ):
                with pytest.raises(ValueError, match="below"):
                    client.download(address, io.BytesIO())
            client.download(f"{server.url}/v2/faxes/1?part=2", io.BytesIO())
        [asked] = server.asked
        assert (asked.path, asked.headers["accept"]) == ("/v2/faxes/1?part=2", "*/*")


def test_async_callers_wait_side_by_side_and_connections_are_given_back(client, sandbox):
    opened: list[Any] = []

    def note(connection, **_kwargs):
        opened.append(connection)

    async def journey():
        return await asyncio.gather(*(in_thread(client.account)() for _ in range(8)))

    sandbox.control.fault("slow", on="account", seconds=0.5, times=8)
    connection_created.connect(note)
    started = time.monotonic()
    try:
        answers = asyncio.run(journey())
    finally:
        connection_created.disconnect(note)
    assert {answer.company for answer in answers} == {"Rosenduft Gartenbau GmbH"}
    assert time.monotonic() - started < 3, "they ran side by side"
    assert opened, "the row was read in a thread of its own"
    assert all(wrapper.connection is None for wrapper in opened)


# --- what the tests use ---------------------------------------------------------------------------

SCOPES = [
    *("account:read", "users:read", "numbers:read", "devices:read", "balance:read"),
    *("history:read", "history:write", "contacts:read", "contacts:write"),
    *("sessions:write", "sms:read", "faxlines:read"),
]


@pytest.fixture
def client(browser: Browser, ask_for: AskFor) -> SipgateClient:
    """The client of somebody who allowed everything these tests need."""
    ask_for(*SCOPES)
    browser.sign_in()
    return SipgateClient(SocialAccount.objects.get())


class FullDisk:
    def write(self, data: bytes, /) -> None:
        raise BrokenPipeError
