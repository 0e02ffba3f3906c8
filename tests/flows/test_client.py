"""The client over real HTTP: what an integrator gets from the sandbox, the strict server, and bare sockets."""

from __future__ import annotations

import asyncio
import io
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import connections, transaction
from django.db.backends.signals import connection_created
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from sipgate_provider import errors, tokens
from sipgate_provider.client import SipgateClient, in_thread
from sipgate_provider.models import SipgateToken, State
from sipgate_provider.remote import session
from sipgate_sandbox.launch import Running
from tests import scripted_server
from tests.conftest import Connect
from tests.journey import Browser
from tests.rotating_server import Strict
from tests.scripted_server import Answer, Asked, Scripted

pytestmark = pytest.mark.django_db(transaction=True)

User = get_user_model()
SCOPES = [
    "account:read",
    "users:read",
    "numbers:read",
    "history:read",
    "devices:read",
    "balance:read",
    "sessions:sms:write",
]
SMS = {"smsId": "s0", "recipient": "+4915799912345", "message": "Hello!"}


@pytest.fixture
def granted(settings: Any) -> Callable[[list[str]], None]:
    """Let sign-ins ask for these scopes."""

    def ask_for(scopes: list[str]) -> None:
        app = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"]
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": app, "SCOPE": scopes}}

    return ask_for


@pytest.fixture
def client(browser: Browser, granted: Callable[[list[str]], None]) -> SipgateClient:
    """The client of somebody who allowed everything these tests need."""
    granted(SCOPES)
    browser.sign_in()
    browser.sandbox.control.reset()
    return SipgateClient(SocialAccount.objects.get())


@pytest.fixture
def scripted(settings: Any, strict: Strict) -> Iterator[Scripted]:
    """An API that answers as the test says; tokens come from the strict server."""
    with scripted_server.running() as script:
        settings.SIPGATE_API_URL = script.api_url
        yield script


@pytest.fixture
def of_nobody(scripted: Scripted, connect: Connect) -> SipgateClient:
    """A client whose API is the scripted one."""
    return SipgateClient(connect())


class BrokenFile:
    """A disk that is full."""

    def write(self, data: bytes, /) -> None:
        raise BrokenPipeError


def asked(sandbox: Running, route: str) -> int:
    return int(sandbox.control.state().get(route, 0))


class TestWhose:
    def test_of_several_connections_the_oldest(self, connect: Connect) -> None:
        oldest, other = connect(), connect()
        SocialAccount.objects.filter(pk=other.pk).update(user=oldest.user)
        assert SipgateClient.for_user(oldest.user).connection == oldest
        assert [one.connection for one in SipgateClient.all_for_user(oldest.user)] == [
            oldest,
            other,
        ]

    def test_by_uid(self, connect: Connect) -> None:
        connection = connect()
        client = SipgateClient.for_uid(connection.uid)
        assert client.connection == connection
        assert client.user_id == "w0"

    def test_nobody(self, db: None) -> None:
        user = User.objects.create(username="alone")
        for call in (
            lambda: SipgateClient.for_user(user),
            lambda: SipgateClient.for_user(AnonymousUser()),
        ):
            with pytest.raises(errors.NotConnected):
                call()
        with pytest.raises(errors.NotConnected):
            SipgateClient.for_uid("1w0")
        assert (
            list(SipgateClient.all_for_user(user))
            == list(SipgateClient.all_for_user(AnonymousUser()))
            == []
        )

    def test_another_provider_is_refused(self, db: None) -> None:
        user = User.objects.create(username="other")
        foreign = SocialAccount.objects.create(user=user, provider="github", uid="1")
        with pytest.raises(ValueError, match="sipgate"):
            SipgateClient(foreign)
        with pytest.raises(errors.NotConnected):
            SipgateClient.for_user(user)

    def test_repr_shows_the_uid_only(self, connect: Connect) -> None:
        connection = connect()
        assert repr(SipgateClient(connection)) == f"<SipgateClient {connection.uid}>"


class TestCall:
    def test_costs_one_query(self, connect: Connect, django_assert_num_queries: Any) -> None:
        client = SipgateClient(connect())
        with django_assert_num_queries(1):
            assert client.get("/account")["company"] == "Strict GmbH"

    def test_empty_answer_is_none(self, client: SipgateClient, sandbox: Running) -> None:
        assert client.post("/sessions/sms", json=SMS) is None
        assert asked(sandbox, "POST v2/sessions/sms") == 1

    def test_expired_token_is_renewed_before(self, connect: Connect, strict: Strict) -> None:
        client = SipgateClient(connect(age=400))
        assert client.get("/account")["verified"] is True
        assert (strict.counts()["refresh"], strict.counts()["api_401"]) == (1, 0)

    @pytest.mark.parametrize(
        "path",
        ["numbers", "//evil.example/x", "https://evil.example/", "/a/../b", "/a?b=1", "/%2e"],
    )
    def test_paths_stay_below_the_base(
        self, client: SipgateClient, sandbox: Running, path: str
    ) -> None:
        with pytest.raises(ValueError, match="path below"):
            client.get(path)

    def test_unsendable_body(self, client: SipgateClient, sandbox: Running) -> None:
        with pytest.raises(ValueError, match="not JSON"):
            client.post("/sessions/sms", json={"sendAt": float("nan")})
        assert asked(sandbox, "POST v2/sessions/sms") == 0


class TestRejected:
    def test_one_401_is_healed_by_one_renewed_token(
        self, client: SipgateClient, sandbox: Running
    ) -> None:
        sandbox.control.fault("unauthorized", on="account")
        assert client.account().company == "Rosenduft Gartenbau GmbH"
        assert (asked(sandbox, "refresh"), tokens.load(client.connection.pk).generation) == (1, 2)

    def test_a_second_401_reaches_the_caller(self, client: SipgateClient, sandbox: Running) -> None:
        sandbox.control.fault("unauthorized", on="account", times=None)
        with pytest.raises(errors.AccessRejected) as raised:
            client.account()
        assert (raised.value.status, raised.value.endpoint) == (401, "GET /account")
        assert asked(sandbox, "refresh") == 1
        with pytest.raises(errors.AccessRejected):
            client.account()
        assert asked(sandbox, "refresh") == 1, "a new token would not get better by another refresh"

    def test_access_that_ended_at_sipgate(self, client: SipgateClient, sandbox: Running) -> None:
        sandbox.control.expire_access()
        assert client.balance().amount == Decimal("12.34")
        assert asked(sandbox, "refresh") == 1

    def test_post_is_repeated_after_a_401(self, client: SipgateClient, sandbox: Running) -> None:
        sandbox.control.fault("unauthorized", on="api")
        client.post("/sessions/sms", json=SMS)
        assert (asked(sandbox, "POST v2/sessions/sms"), asked(sandbox, "refresh")) == (1, 1)

    def test_session_that_was_ended(self, client: SipgateClient, sandbox: Running) -> None:
        sandbox.control.kill_session()
        with pytest.raises(errors.NeedsSignIn) as raised:
            client.account()
        assert raised.value.reason == "refused"
        assert tokens.load(client.connection.pk).state == State.NEEDS_SIGN_IN


class TestOnce:
    @pytest.mark.parametrize("fault", ["reset", "lose-answer"])
    def test_post_is_not_repeated_on_a_broken_connection(
        self, client: SipgateClient, sandbox: Running, fault: str
    ) -> None:
        sandbox.control.fault(fault, on="api", times=None)
        with pytest.raises(errors.SipgateUnavailable) as raised:
            client.post("/sessions/sms", json={"message": "Hello!"})
        assert raised.value.sent
        assert [armed["fired"] for armed in sandbox.control.faults()] == [1]

    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_nothing_that_changes_is_repeated(
        self, scripted: Scripted, of_nobody: SipgateClient, method: str, status: int
    ) -> None:
        scripted.answer = lambda asked: Answer(status)
        with pytest.raises(errors.SipgateUnavailable):
            getattr(of_nobody, method)("/history", json={"a": 1})
        assert [(one.method, one.body) for one in scripted.asked] == [(method.upper(), {"a": 1})]

    def test_reads_are_tried_twice(self, client: SipgateClient, sandbox: Running) -> None:
        sandbox.control.fault("reset", on="account")
        assert client.account().verified is True


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, errors.RequestFailed),
            (402, errors.PaymentRequired),
            (403, errors.MissingPermission),
            (404, errors.NotFound),
            (405, errors.RequestFailed),
            (408, errors.SipgateUnavailable),
            (409, errors.Conflict),
            (418, errors.RequestFailed),
            (429, errors.RateLimited),
            (500, errors.SipgateUnavailable),
            (503, errors.SipgateUnavailable),
            (307, errors.UnexpectedResponse),
        ],
    )
    def test_each_status_has_its_error_and_no_secret_in_it(
        self,
        scripted: Scripted,
        of_nobody: SipgateClient,
        status: int,
        kind: type[errors.SipgateError],
    ) -> None:
        body, query, sent = ({"field": f"hunter-{number}"} for number in range(3))
        scripted.answer = lambda asked: Answer(
            status, body, {"Retry-After": "60", "Location": "/v2/elsewhere"}
        )
        with pytest.raises(errors.SipgateError) as raised:
            of_nobody.post("/sessions/sms", params=query, json=sent)
        error = raised.value
        assert type(error) is kind
        assert (error.status, error.endpoint) == (status, "POST /sessions/sms")
        shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        assert (scripted.asked[0].query["field"], scripted.asked[0].body) == (["hunter-1"], sent)
        assert "hunter" not in shown
        assert scripted.asked[0].headers["authorization"].removeprefix("Bearer ") not in shown

    @pytest.mark.parametrize(
        "fault",
        ["unauthorized", "forbidden", "unknown-error", "reset", "cut", "malformed-json", "huge"],
    )
    @pytest.mark.parametrize("how", ["get", "download"])
    def test_error_reports_hold_no_token(
        self, client: SipgateClient, sandbox: Running, fault: str, how: str
    ) -> None:
        """What Django mails or shows of an exception: text, local variables, chained causes."""
        known = [tokens.token(client.connection).value]
        sandbox.control.fault(fault, on="api", times=None)
        path = "/account" if how == "get" else "/documents/fax.pdf"
        try:
            client.get(path) if how == "get" else client.download(path, BrokenFile())
        except (errors.SipgateError, BrokenPipeError):
            kind, error, trace = sys.exc_info()
        else:
            pytest.fail("no error")
        SipgateToken.objects.update(state=State.ACTIVE)
        known.append(tokens.token(client.connection).value)
        report = ExceptionReporter(RequestFactory().get("/"), kind, error, trace)
        text = report.get_traceback_html() + report.get_traceback_text()
        assert "sipgate_provider/client.py" in text
        for value in known:
            # A JWT's beginning is the same in all of them: its signature is what tells.
            assert value.rpartition(".")[2][-60:] not in text

    def test_wish_to_wait_is_passed_on(self, client: SipgateClient, sandbox: Running) -> None:
        sandbox.control.fault("too-many", on="account", seconds=60)
        with pytest.raises(errors.RateLimited) as raised:
            client.account()
        assert raised.value.retry_after == 60

    def test_missing_scope_is_named(
        self, browser: Browser, sandbox: Running, granted: Callable[[list[str]], None]
    ) -> None:
        granted(["account:read"])
        browser.sign_in()
        with pytest.raises(errors.MissingPermission) as raised:
            SipgateClient(SocialAccount.objects.get()).post("/sessions/sms", json={})
        assert type(raised.value) is errors.MissingPermission
        assert raised.value.scopes == ("sessions:write", "sessions:sms:write")
        assert asked(sandbox, "refresh") == 0, "a 403 is not healed by a new token"

    def test_refused_although_granted_is_not_available(
        self, client: SipgateClient, sandbox: Running
    ) -> None:
        sandbox.control.fault("forbidden-text", on="api")
        with pytest.raises(errors.NotAvailable) as raised:
            client.devices()
        assert (raised.value.scopes, raised.value.endpoint) == (
            ("devices:read",),
            "GET /{userId}/devices",
        )

    @pytest.mark.parametrize("fault", ["malformed-json", "json-list", "huge"])
    def test_answers_that_are_none(
        self, client: SipgateClient, sandbox: Running, fault: str
    ) -> None:
        sandbox.control.fault(fault, on="account")
        with pytest.raises(errors.UnexpectedResponse) as raised:
            client.account()
        assert raised.value.endpoint == "GET /account"

    @pytest.mark.parametrize("fault", ["cut", "lose-answer"])
    def test_cut_answers_of_a_read(
        self, client: SipgateClient, sandbox: Running, fault: str
    ) -> None:
        sandbox.control.fault(fault, on="account", times=2)
        with pytest.raises(errors.SipgateUnavailable):
            client.account()

    def test_person_that_is_not_there(self, client: SipgateClient) -> None:
        with pytest.raises(errors.NotFound):
            client.user("w99")

    def test_ids_stay_ids(self, client: SipgateClient, sandbox: Running) -> None:
        with pytest.raises(ValueError, match="id"):
            client.user("w0/../w1")

    def test_disconnected(self, connect: Connect) -> None:
        client = SipgateClient(connect())
        SipgateToken.objects.all().delete()
        with pytest.raises(errors.NotConnected):
            client.get("/account")

    def test_nobody_can_be_asked(self, connect: Connect, settings: Any) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            settings.SIPGATE_API_URL = f"http://127.0.0.1:{closed.getsockname()[1]}/v2"
            client = SipgateClient(connect())
            with pytest.raises(errors.SipgateUnavailable) as raised:
                client.post("/sessions/sms", json={})
        assert not raised.value.sent


class TestValues:
    def test_of_the_sandbox(self, client: SipgateClient) -> None:
        assert client.identity().uid == "1000000w0"
        assert client.user().email == "rosa@rosenduft.example"
        assert {user.id for user in client.users()} == {"w0", "w1"}
        assert client.account().product == "TEAM"
        desk, mobile = client.devices()
        assert (desk.alias, mobile.type) == ("Desk", "MOBILE")
        assert desk.secrets["credentials"]["password"] == "sandbox-sip-password"
        assert "sandbox-sip-password" not in repr(desk)
        fax = next(client.history(types=["FAX"]))
        assert (fax.type, fax.incoming, fax.document_url) == ("FAX", True, "/v2/documents/fax.pdf")

    def test_filters_are_written_as_sipgate_wants_them(
        self, scripted: Scripted, of_nobody: SipgateClient
    ) -> None:
        scripted.answer = lambda asked: Answer(data={"items": [], "totalCount": 0})
        since = datetime(2026, 1, 1, 12, tzinfo=UTC)
        assert list(of_nobody.history(types=["CALL", "FAX"], archived=False, from_=since)) == []
        assert scripted.asked[0].query == {
            "types": ["CALL", "FAX"],
            "archived": ["false"],
            "from": ["2026-01-01T12:00:00+00:00"],
            "offset": ["0"],
            "limit": ["100"],
        }


class TestPages:
    def test_all_pages_of_the_sandbox(self, client: SipgateClient, sandbox: Running) -> None:
        assert len({number.number for number in client.numbers(page_size=10)}) == 25
        assert asked(sandbox, "GET v2/numbers") == 4, "without a total an empty page is the end"
        assert [entry.id for entry in client.history(page_size=5)] == [
            str(1000 + number) for number in range(23)
        ]

    def test_next_page_is_asked_for_when_it_is_needed(
        self, client: SipgateClient, sandbox: Running
    ) -> None:
        numbers = client.numbers(page_size=10)
        assert asked(sandbox, "GET v2/numbers") == 0
        assert [next(numbers).id for _ in range(10)][-1] == "n9"
        assert asked(sandbox, "GET v2/numbers") == 1

    @pytest.mark.parametrize(
        "arguments", [{"page_size": 0}, {"page_size": 1001}, {"params": {"limit": 5}}]
    )
    def test_impossible_wishes(self, of_nobody: SipgateClient, arguments: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="page_size"):
            list(of_nobody.iterate("/numbers", **arguments))


PDF = b"%PDF-sandbox" * 1024 * 256


class TestDownload:
    def test_of_a_fax(self, client: SipgateClient, sandbox: Running) -> None:
        fax = next(entry for entry in client.history() if entry.type == "FAX")
        file = io.BytesIO()
        client.download(fax.document_url, file)
        assert file.getvalue() == PDF

    def test_larger_than_any_answer_may_be(self, client: SipgateClient) -> None:
        assert len(PDF) > session.LONGEST_BODY
        with pytest.raises(errors.UnexpectedResponse):
            client.get("/documents/fax.pdf")

    def test_errors_are_the_same(self, client: SipgateClient, sandbox: Running) -> None:
        for fault, kind in {
            "forbidden": errors.MissingPermission,
            "unknown-error": errors.SipgateUnavailable,
            "cut": errors.SipgateUnavailable,
        }.items():
            sandbox.control.fault(fault, on="api")
            with pytest.raises(kind) as raised:
                client.download("/documents/fax.pdf", io.BytesIO())
            assert raised.value.endpoint == "GET /documents/{id}"

    def test_rejected_token_is_refreshed(self, client: SipgateClient, sandbox: Running) -> None:
        sandbox.control.fault("unauthorized", on="api")
        file = io.BytesIO()
        client.download("/documents/fax.pdf", file)
        assert file.getvalue() == PDF

    def test_token_goes_nowhere_else(self, scripted: Scripted, of_nobody: SipgateClient) -> None:
        for address in (
            "https://evil.example/v2/documents/fax.pdf",
            "//evil.example/v2/x",
            "http://127.0.0.1:1/v2/x",
            "fax.pdf",
        ):
            with pytest.raises(ValueError, match="below"):
                of_nobody.download(address, io.BytesIO())
        assert scripted.asked == []

    def test_whole_address_with_a_query(self, scripted: Scripted, of_nobody: SipgateClient) -> None:
        scripted.answer = lambda asked: Answer(data="x")
        of_nobody.download(f"{scripted.api_url}/faxes/1?part=2", io.BytesIO())
        assert [(one.path, one.query, one.headers["accept"]) for one in scripted.asked] == [
            ("/faxes/1", {"part": ["2"]}, "*/*")
        ]


class TestAsync:
    def test_event_loop_goes_on_and_connections_are_given_back(
        self, client: SipgateClient, sandbox: Running
    ) -> None:
        opened: list[Any] = []

        def note(connection: Any, **_kwargs: Any) -> None:
            opened.append(connection)

        async def journey() -> tuple[Any, int]:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.01)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            answer = await in_thread(client.get)("/account")
            ticking.cancel()
            return answer, ticks

        sandbox.control.fault("slow", on="account", seconds=0.6)
        connection_created.connect(note)
        try:
            answer, ticks = asyncio.run(journey())
        finally:
            connection_created.disconnect(note)
        assert answer["company"] == "Rosenduft Gartenbau GmbH"
        assert ticks > 15, "another task of the loop went on meanwhile"
        assert opened, "the row was read in a thread of its own"
        assert all(wrapper.connection is None for wrapper in opened)

    def test_calls_run_side_by_side(self, client: SipgateClient, sandbox: Running) -> None:
        async def journey() -> list[Any]:
            return await asyncio.gather(*(in_thread(client.get)("/account") for _ in range(8)))

        sandbox.control.fault("slow", on="account", seconds=0.5, times=8)
        started = time.monotonic()
        assert len(asyncio.run(journey())) == 8
        assert time.monotonic() - started < 3

    def test_any_callable_can_be_awaited(self, client: SipgateClient, sandbox: Running) -> None:
        user = User.objects.get()

        async def journey() -> None:
            mine = await in_thread(SipgateClient.for_user)(user)
            assert len(await in_thread(list)(mine.numbers(page_size=10))) == 25
            await in_thread(mine.download)("/documents/fax.pdf", file := io.BytesIO())
            assert file.getvalue() == PDF
            with pytest.raises(errors.NotFound):
                await in_thread(mine.delete)("/nothing/here")

        asyncio.run(journey())

    def test_ending_token_is_renewed_once_for_all_tasks(
        self, connect: Connect, strict: Strict
    ) -> None:
        client = SipgateClient(connect(age=400))

        async def journey() -> list[Any]:
            return await asyncio.gather(*(in_thread(client.get)("/account") for _ in range(10)))

        assert len(asyncio.run(journey())) == 10
        assert strict.counts()["refresh"] == 1


class TestDatabase:
    def test_no_connection_is_held_while_sipgate_is_asked(
        self, scripted: Scripted, of_nobody: SipgateClient
    ) -> None:
        mine = connections["default"]
        if mine.vendor == "sqlite":
            pytest.skip("SQLite's file handle is nobody else's to wait for")
        held: list[bool] = []

        def answer(asked: Asked) -> Answer:
            held.append(mine.connection is not None)
            return Answer(data={})

        scripted.answer = answer
        of_nobody.get("/account")
        assert held == [False]

    def test_a_transaction_of_the_caller_is_left_alone(
        self, scripted: Scripted, of_nobody: SipgateClient
    ) -> None:
        scripted.answer = lambda asked: Answer(data={})
        with transaction.atomic():
            User.objects.create(username="written before")
            of_nobody.get("/account")
            assert User.objects.filter(username="written before").exists()
