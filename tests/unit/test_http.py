"""The guarded session against a server that says every wrong thing a socket can carry."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import ipaddress
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError

from sipgate_provider import errors
from sipgate_provider.remote import http, oauth
from tests.raw_server import Asked, cut, drip, message, of_json, serving, silent, whole

QUICK = http.Limits(connect=2, read=0.2, total=0.5, max_bytes=100_000)
"""The read time-out is shorter than the total one: which of them ended a request shows in its duration."""
EASY = http.Limits(connect=2, read=5, total=8, max_bytes=100_000)
SECRET = "s3cret-refresh-token-that-must-not-show"
HEADER_SECRET = "s3cret-bearer-that-must-not-show"


@pytest.fixture
def session() -> Iterator[http.GuardedSession]:
    """A session of the test's own: connections kept by another test would be counted here."""
    one = http.GuardedSession()
    yield one
    requests.Session.close(one)


def get(
    session: http.GuardedSession, url: str, limits: http.Limits = EASY, **more: Any
) -> requests.Response:
    return session.request("GET", url, timeout=limits, **more)


def post(
    session: http.GuardedSession, url: str, limits: http.Limits = EASY, **more: Any
) -> requests.Response:
    return session.request("POST", url, data={"refresh_token": SECRET}, timeout=limits, **more)


def failure(call: Any, *args: Any, **kwargs: Any) -> requests.RequestException:
    with pytest.raises(requests.RequestException) as caught:
        call(*args, **kwargs)
    return caught.value


class TestTime:
    @pytest.mark.parametrize(
        "data",
        [
            message(body=b'{"a": "' + b"x" * 500 + b'"}'),
            message(x_long="y" * 5000),
            b"HTTP/1.1 100 Continue\r\n\r\n" * 300,
            message(transfer_encoding="chunked", body=b"1\r\nx\r\n" * 500),
        ],
        ids=["body", "headers", "endless continue", "chunks"],
    )
    def test_a_drip_is_ended_by_the_total_deadline(self, session, data: bytes) -> None:
        body_at = data.find(b"\r\n\r\n") + 4
        quick_start = 0 if body_at > 1000 or b"100 Continue" in data else body_at

        def answer(asked: Asked) -> bool:
            asked.socket.sendall(data[:quick_start])
            return drip(data[quick_start:], 0.02)(asked)

        with serving(answer) as server:
            started = time.monotonic()
            error = failure(post, session, server.url, QUICK)
            took = time.monotonic() - started
        assert isinstance(error, http.DeadlineExceeded)
        assert isinstance(error, requests.Timeout)
        assert QUICK.total - 0.05 < took < QUICK.total + 0.5
        assert http.was_sent(error)

    @pytest.mark.parametrize(
        "said",
        [b"", b"HTTP/1.1 200 OK\r\nContent-", message(body=b"{", content_length="10")],
        ids=["nothing", "half the headers", "half the body"],
    )
    def test_silence_is_ended_by_the_read_timeout(self, session, said: bytes) -> None:
        with serving(silent(said)) as server:
            started = time.monotonic()
            error = failure(post, session, server.url, QUICK)
            took = time.monotonic() - started
        assert isinstance(error, requests.Timeout)
        assert QUICK.read - 0.05 < took < QUICK.total - 0.1
        assert http.was_sent(error)
        assert len(server.asked) == 1

    def test_a_silent_read_is_a_timeout_too_and_stays_within_the_deadline(self, session) -> None:
        with serving(silent()) as server:
            started = time.monotonic()
            error = failure(get, session, server.url, QUICK)
            took = time.monotonic() - started
        assert isinstance(error, requests.Timeout)
        assert took < QUICK.total + 0.5
        assert len(server.asked) <= 2

    def test_nobody_listens(self, session) -> None:
        with serving(whole()) as server:
            url = server.url
        error = failure(post, session, url)
        assert isinstance(error, requests.ConnectionError)
        assert not http.was_sent(error)

    def test_a_host_that_does_not_exist(self, session) -> None:
        assert not http.was_sent(failure(post, session, "http://nobody.invalid/"))

    def test_a_connection_that_is_never_accepted(self, session) -> None:
        # A full backlog: the handshake of a further connection is not answered.
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(0)
            address = listening.getsockname()
            filling = [socket.socket() for _ in range(4)]
            for one in filling:
                one.setblocking(False)
                one.connect_ex(address)
            limits = http.Limits(connect=0.3, read=5, total=5, max_bytes=1000)
            started = time.monotonic()
            error = failure(post, session, f"http://127.0.0.1:{address[1]}/", limits)
            took = time.monotonic() - started
            for one in filling:
                one.close()
        assert isinstance(error, requests.exceptions.ConnectTimeout)
        assert 0.2 < took < 2
        assert not http.was_sent(error)

    def test_all_addresses_together_have_the_time_to_connect(
        self, session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[float] = []

        def tries(self: Any) -> Any:
            tried.append(self.timeout)
            time.sleep(0.2)
            raise ConnectTimeoutError(self, "nobody answers")

        monkeypatch.setattr(HTTPConnection, "_new_conn", tries)
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{end}", 80)) for end in (2, 3, 4)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: found)
        limits = http.Limits(connect=0.5, read=5, total=5, max_bytes=9)
        assert not http.was_sent(failure(post, session, "http://three.example/", limits))
        assert tried[0] > 0.4
        assert (tried[1] <= 0.31, tried[2] <= 0.11) == (True, True)

    def test_a_deadline_does_not_outlive_its_request(self, session) -> None:
        with serving(whole(), silent(), whole()) as server:
            get(session, server.url, QUICK)
            failure(post, session, server.url, QUICK)
            time.sleep(QUICK.total)
            assert get(session, server.url).status_code == 200

    def test_anything_but_limits_means_the_default_ones(self, session) -> None:
        with serving(whole()) as server:
            assert session.get(server.url, timeout=None).status_code == 200
            assert session.get(server.url, timeout=(1, 1)).status_code == 200


class TestBeforeSending:
    """What a refresh needs: a moment between connecting and sending, and a connection that is reset if given up."""

    def limits(self, before: Callable[[], None], **changes: Any) -> http.Limits:
        return replace(EASY, before_sending=before, **changes)

    def test_is_called_when_the_connection_stands_and_nothing_was_sent(
        self, session: http.GuardedSession
    ) -> None:
        with serving(whole()) as server:
            seen: list[tuple[int, int]] = []

            def look() -> None:
                while server.connections == 0:
                    time.sleep(0.001)
                seen.append((server.connections, len(server.asked)))

            assert post(session, server.url, self.limits(look)).status_code == 200
            assert seen == [(1, 0)]

    def test_what_it_raises_reaches_the_caller_and_nothing_is_sent(
        self, session: http.GuardedSession
    ) -> None:
        class NotNow(Exception):
            pass

        def refuse() -> None:
            raise NotNow

        with serving(whole()) as server:
            with pytest.raises(NotNow):
                post(session, server.url, self.limits(refuse))
            assert server.asked == []
            assert post(session, server.url).status_code == 200

    def test_each_has_a_connection_of_its_own(self, session: http.GuardedSession) -> None:
        with serving(whole()) as server:
            for _ in range(3):
                post(session, server.url, self.limits(lambda: None))
            assert server.connections == 3

    def test_the_time_for_the_answer_begins_afterwards(self, session: http.GuardedSession) -> None:
        with serving(whole()) as server:
            limits = self.limits(lambda: time.sleep(0.4), connect=0.1, read=0.3, total=0.3)
            assert post(session, server.url, limits).status_code == 200

    @pytest.mark.parametrize("is_fenced", [True, False])
    def test_giving_up_resets_the_connection(
        self, session: http.GuardedSession, is_fenced: bool
    ) -> None:
        """What has not left this machine by then never does. Otherwise it would: after a partition, say."""
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            limits = replace(
                EASY, read=0.3, total=0.3, before_sending=(lambda: None) if is_fenced else None
            )
            body = (
                b"x" * 200_000
            )  # more than the server's window takes, less than our kernel's buffer
            with pytest.raises(requests.exceptions.Timeout):
                session.request("POST", url, data=body, timeout=limits)
            connection, _ = listening.accept()
            with connection:
                assert (_received(connection) >= len(body)) is not is_fenced

    def test_a_complete_answer_ends_it_in_good_order(self, session: http.GuardedSession) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            asking = pool.submit(post, session, url, self.limits(lambda: None))
            connection, _ = listening.accept()
            with connection:
                while b"\r\n\r\n" not in connection.recv(65_536):
                    pass
                connection.sendall(answer)
                assert asking.result(5).status_code == 200
                connection.settimeout(5)
                while connection.recv(65_536):
                    pass  # the end, and no reset

    def test_a_name_that_is_not_resolved_in_time_costs_no_more(
        self, session: http.GuardedSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A resolver that hangs has no limit of its own."""
        goes_on, called = threading.Event(), []
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda *_args, **_kwargs: goes_on.wait(20) and []
        )
        started = time.monotonic()
        error = failure(
            post,
            session,
            "http://stalled.example/",
            self.limits(lambda: called.append(1), connect=0.2),
        )
        assert time.monotonic() - started < 2
        assert (http.was_sent(error), called) == (False, [])
        goes_on.set()

    def test_a_name_that_does_not_exist(self, session: http.GuardedSession) -> None:
        error = failure(post, session, "http://nobody.invalid/", self.limits(lambda: None))
        assert isinstance(error, requests.exceptions.ConnectionError)
        assert not http.was_sent(error)


def _received(connection: socket.socket) -> int:
    """Read until the end, or until the connection is reset; return how many bytes there were."""
    number = 0
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            number += len(part)
    return number


class TestCut:
    CUTS = [
        pytest.param(b"", requests.ConnectionError, id="before any byte"),
        pytest.param(b"HT", requests.ConnectionError, id="in the status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", http.CutInHeaders, id="after the status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", http.CutInHeaders, id="in a header"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
            http.CutInHeaders,
            id="before the empty line",
        ),
        pytest.param(
            message(body=b"{}", content_length="9"), requests.RequestException, id="in the body"
        ),
        pytest.param(
            message(body=b"5\r\n{", transfer_encoding="chunked"),
            requests.RequestException,
            id="in a chunk",
        ),
        pytest.param(
            message(body=b"2\r\n{}\r\n", transfer_encoding="chunked"),
            requests.RequestException,
            id="before the last chunk",
        ),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", requests.RequestException, id="another protocol"),
    ]

    @pytest.mark.parametrize(("said", "kind"), CUTS)
    def test_a_cut_answer_is_an_error_and_a_post_is_not_repeated(
        self, session, said: bytes, kind: type
    ) -> None:
        with serving(cut(said), whole()) as server:
            error = failure(post, session, server.url)
        assert isinstance(error, kind)
        assert not isinstance(error, requests.Timeout)
        assert http.was_sent(error)
        assert server.methods == ["POST"]

    @pytest.mark.parametrize(
        "said", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"], ids=["before", "in the headers"]
    )
    def test_a_get_is_repeated_once(self, session, said: bytes) -> None:
        with serving(cut(said), whole(body=b'{"second": true}')) as server:
            assert get(session, server.url).json() == {"second": True}
        assert server.methods == ["GET", "GET"]

    def test_and_only_once(self, session) -> None:
        with serving(cut()) as server:
            error = failure(get, session, server.url)
        assert server.methods == ["GET", "GET"]
        assert http.was_sent(error)

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "post"])
    def test_what_changes_something_is_never_repeated(self, session, method: str) -> None:
        with serving(cut(), whole()) as server:
            failure(session.request, method, server.url, timeout=EASY)
        assert len(server.asked) == 1


class TestRetryAfter:
    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    def test_a_get_is_repeated_once(self, session, status: int) -> None:
        with serving(whole(f"{status} No"), whole()) as server:
            assert get(session, server.url).status_code == 200
        assert len(server.asked) == 2

    def test_the_second_answer_stands(self, session) -> None:
        with serving(whole("503 No", b"busy")) as server:
            response = get(session, server.url)
        assert (response.status_code, response.content) == (503, b"busy")
        assert len(server.asked) == 2

    @pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
    def test_other_answers_are_final(self, session, status: int) -> None:
        with serving(whole(f"{status} Final")) as server:
            assert get(session, server.url).status_code == status
        assert len(server.asked) == 1

    def test_the_wish_is_honoured(self, session) -> None:
        with serving(whole("503 No", retry_after="1"), whole()) as server:
            started = time.monotonic()
            assert get(session, server.url).status_code == 200
            assert 0.9 < time.monotonic() - started < 2.5
        assert len(server.asked) == 2

    @pytest.mark.parametrize("wish", ["60", "Fri, 31 Dec 2100 23:59:59 GMT"])
    def test_a_wish_beyond_the_deadline_is_left_to_the_caller(self, session, wish: str) -> None:
        with serving(whole("503 No", b"busy", retry_after=wish), whole()) as server:
            started = time.monotonic()
            response = get(session, server.url)
            assert time.monotonic() - started < 1
        assert (response.status_code, response.content, response.headers["Retry-After"]) == (
            503,
            b"busy",
            wish,
        )
        assert len(server.asked) == 1

    @pytest.mark.parametrize(
        "wish",
        [
            "soon",
            "-1",
            "0.1",
            "9" * 5000,
            "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
            "Mon, 99 Abc 2026",
        ],
        ids=["word", "negative", "fraction", "endless", "far future", "no date"],
    )
    def test_a_wish_that_is_none_is_ignored(self, session, wish: str) -> None:
        with serving(whole("503 No", b"busy", retry_after=wish)) as server:
            response = get(session, server.url)
        assert (response.status_code, response.content) == (503, b"busy")
        assert len(server.asked) <= 2

    @pytest.mark.parametrize("status", [413, 429, 502, 503, 504])
    def test_a_post_is_not_repeated(self, session, status: int) -> None:
        with serving(whole(f"{status} No", retry_after="0"), whole()) as server:
            assert post(session, server.url).status_code == status
        assert server.methods == ["POST"]


class TestSize:
    BIG = b"x" * (QUICK.max_bytes + 1)

    @pytest.mark.parametrize(
        "data",
        [
            message(body=BIG),
            message(body=BIG * 3, content_length="99999999999"),
            message(body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(BIG), BIG), transfer_encoding="chunked"),
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BIG,
        ],
        ids=["with length", "with a false length", "in chunks", "until the end"],
    )
    def test_a_body_beyond_the_cap_is_refused(self, session, data: bytes) -> None:
        with serving(cut(data)) as server:
            error = failure(post, session, server.url)
        assert isinstance(error, http.ResponseTooLarge)
        assert http.was_sent(error)
        assert server.methods == ["POST"]

    def test_a_body_as_large_as_the_cap_is_not(self, session) -> None:
        with serving(whole(body=self.BIG[:-1])) as server:
            assert len(get(session, server.url).content) == EASY.max_bytes

    @pytest.mark.parametrize("layers", [1, 2])
    def test_a_compressed_bomb_is_not_unpacked(self, session, layers: int) -> None:
        bomb = b"\0" * 100_000_000
        for _ in range(layers):
            bomb = gzip.compress(bomb, 6)
        with serving(whole(body=bomb, content_encoding=", ".join(["gzip"] * layers))) as server:
            tracemalloc.start()
            error = failure(get, session, server.url)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert isinstance(error, http.ResponseTooLarge)
        assert peak < 5_000_000

    def test_compression_as_such_works(self, session) -> None:
        with serving(whole(body=gzip.compress(b'{"a": 1}'), content_encoding="gzip")) as server:
            assert get(session, server.url).json() == {"a": 1}

    def test_a_body_that_is_not_what_it_says(self, session) -> None:
        with serving(whole(body=b"no gzip at all", content_encoding="gzip")) as server:
            assert http.was_sent(failure(get, session, server.url))

    @pytest.mark.parametrize(
        "data", [b"x" * 200_000, b"X-A: 1\r\n" * 2000], ids=["a long line", "many lines"]
    )
    def test_endless_headers(self, session, data: bytes) -> None:
        with serving(cut(b"HTTP/1.1 200 OK\r\n" + data)) as server:
            assert http.was_sent(failure(post, session, server.url))
        assert len(server.asked) == 1


class TestRedirectsCookiesCredentials:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_redirect_is_returned_and_not_followed(
        self, session, status: int, method: str
    ) -> None:
        with (
            serving(whole()) as elsewhere,
            serving(whole(f"{status} Go", location=elsewhere.url)) as server,
        ):
            response = session.request(
                method, server.url, timeout=EASY, data={"refresh_token": SECRET}
            )
            assert response.status_code == status
            assert response.history == []
            assert (len(server.asked), elsewhere.connections) == (1, 0)

    @pytest.mark.parametrize(
        "location", ["//evil.example/", "http://[", "\x80\xff", "javascript:1"]
    )
    def test_an_odd_location_is_nobodys_error(self, session, location: str) -> None:
        data = message("302 Go").replace(
            b"\r\n", b"\r\nLocation: " + location.encode("latin-1") + b"\r\n", 1
        )
        with serving(cut(data)) as server:
            assert post(session, server.url).status_code == 302

    def test_a_redirect_to_itself_with_retry_after(self, session) -> None:
        with serving(whole("307 Go", location="/", retry_after="0")) as server:
            assert get(session, server.url).status_code == 307
        assert len(server.asked) == 1

    @pytest.mark.parametrize(
        "cookie", ["id=1", "id=1; Path=/; Max-Age=1000", "id=1; Domain=127.0.0.1", "id=1; HttpOnly"]
    )
    def test_no_cookie_is_kept(self, session, cookie: str) -> None:
        with serving(whole(set_cookie=cookie)) as server:
            for _ in range(2):
                get(session, server.url)
                post(session, server.url)
        assert not any("cookie" in asked.headers for asked in server.asked)
        assert not list(session.cookies)

    @pytest.mark.parametrize("where", ["NETRC", "HOME"])
    def test_netrc_is_ignored(self, session, monkeypatch, tmp_path: Path, where: str) -> None:
        file = tmp_path / ".netrc"
        file.write_text("machine 127.0.0.1 login somebody password p4ss\n")
        file.chmod(0o600)
        monkeypatch.delenv("NETRC", raising=False)
        monkeypatch.setenv(where, str(file if where == "NETRC" else tmp_path))
        with serving(whole()) as server:
            get(session, server.url)
            get(session, server.url, headers={"Authorization": "Bearer mine"})
            with requests.Session() as plain:  # the file is a good one: requests alone would use it
                plain.get(server.url)
        assert [asked.headers.get("authorization") for asked in server.asked[:2]] == [
            None,
            "Bearer mine",
        ]
        assert server.asked[2].headers["authorization"].startswith("Basic ")

    def test_the_user_agent_has_name_and_version(self, session) -> None:
        with serving(whole()) as server:
            get(session, server.url)
        name, _, version = server.asked[0].headers["user-agent"].partition("/")
        assert (name, bool(version)) == ("django-sipgate-provider", True)

    def test_a_proxy_of_the_environment_is_used(self, session, monkeypatch) -> None:
        with serving(of_json({"by": "proxy"})) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url)
            monkeypatch.setenv("no_proxy", "")
            assert get(session, "http://api.sipgate.invalid/v2/account").json() == {"by": "proxy"}
        assert proxy.asked[0].path == "http://api.sipgate.invalid/v2/account"

    def test_a_dead_proxy_means_not_sent(self, session, monkeypatch) -> None:
        with serving(whole()) as proxy:
            url = proxy.url
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "")
        assert not http.was_sent(failure(post, session, "http://api.sipgate.invalid/v2/account"))


class TestConnections:
    def test_one_connection_serves_many_requests(self, session) -> None:
        with serving(whole()) as server:
            for _ in range(20):
                get(session, server.url)
                post(session, server.url)
        assert (server.connections, len(server.asked)) == (1, 40)

    def test_whoever_takes_the_connection_next_does_not_spoil_an_answer(
        self, session, monkeypatch
    ) -> None:
        class ClosedMeanwhile(http._Response):
            is_closing = False

            def flush(self) -> None:
                if not self.is_closing:
                    self.is_closing = True
                    self.close()  # as the other thread does at this moment
                super().flush()

        monkeypatch.setattr(http._PlainConnection, "response_class", ClosedMeanwhile)
        with serving(of_json({"a": 1})) as server:
            assert get(session, server.url).json() == {"a": 1}

    def test_an_error_answer_keeps_the_connection(self, session) -> None:
        with serving(whole("401 No", b""), whole("500 No", b"x" * 5000), whole()) as server:
            for _ in range(3):
                post(session, server.url)
        assert server.connections == 1

    def test_closing_what_allauth_was_handed_keeps_it_open(self, session) -> None:
        with serving(whole()) as server:
            for _ in range(3):
                with session as one:
                    get(one, server.url)
        assert server.connections == 1

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_connection_closed_by_the_server_costs_nothing(self, session, method: str) -> None:
        closed = threading.Event()

        def answer_and_close(asked: Asked) -> bool:
            asked.socket.sendall(message())
            asked.socket.shutdown(2)
            closed.set()
            return False

        with serving(answer_and_close, whole(body=b'{"second": true}')) as server:
            get(session, server.url)
            assert closed.wait(5)
            assert session.request(method, server.url, data={"a": "b"}, timeout=EASY).json() == {
                "second": True
            }
        assert server.methods == ["GET", method]

    def test_a_post_does_not_use_a_connection_that_was_idle_for_long(
        self, session, monkeypatch
    ) -> None:
        monkeypatch.setattr(http, "STALE_AFTER", 0.1)
        with serving(whole()) as server:
            get(session, server.url)
            time.sleep(0.15)
            get(session, server.url)
            time.sleep(0.15)
            post(session, server.url)
            post(session, server.url)
        assert [asked.connection for asked in server.asked] == [1, 1, 2, 2]

    def test_a_connection_that_dies_under_a_post_is_told_and_not_repeated(self, session) -> None:
        with serving(whole(), cut(), whole()) as server:
            get(session, server.url)
            error = failure(post, session, server.url)
        assert http.was_sent(error)
        assert server.methods == ["GET", "POST"]

    def test_a_refused_body_does_not_spoil_the_next_answer(self, session) -> None:
        with serving(whole(body=b"x" * 300_000), whole(body=b'{"mine": true}')) as server:
            failure(get, session, server.url)
            assert get(session, server.url).json() == {"mine": True}

    def test_a_late_answer_does_not_spoil_the_next_one(self, session) -> None:
        def late(asked: Asked) -> bool:
            time.sleep(QUICK.read + 0.1)
            asked.socket.sendall(message(body=b'{"late": true}'))
            return True

        with serving(late, whole(body=b'{"mine": true}')) as server:
            failure(post, session, server.url, QUICK)
            time.sleep(0.2)
            assert get(session, server.url).json() == {"mine": True}

    def test_threads_get_their_own_answers(self, session) -> None:
        dice = random.Random(1)

        def echo(asked: Asked) -> bool:
            time.sleep(dice.random() / 200)
            asked.socket.sendall(message(body=asked.path.encode() + asked.body))
            return True

        def ask(number: int) -> list[bool]:
            right = []
            for turn in range(15):
                url, body = f"{server.url}/{number}/{turn}", f"n={number}"
                response = session.request(
                    "POST" if turn % 2 else "GET", url, data=body, timeout=EASY
                )
                right.append(response.text == f"/{number}/{turn}{body}")
            return right

        with serving(echo) as server, ThreadPoolExecutor(16) as pool:
            results = list(pool.map(ask, range(16)))
        assert all(all(right) for right in results)
        assert len(server.asked) == 16 * 15
        assert server.connections <= 16

    def test_a_slow_thread_does_not_stretch_or_shorten_anothers_deadline(self, session) -> None:
        def by_path(asked: Asked) -> bool:
            if asked.path == "/slow":
                time.sleep(0.4)
            return whole()(asked) if asked.path == "/slow" else silent()(asked)

        with serving(by_path) as server, ThreadPoolExecutor(2) as pool:
            slow = pool.submit(get, session, f"{server.url}/slow")
            hasty = pool.submit(failure, post, session, f"{server.url}/silent", QUICK)
            assert slow.result(5).status_code == 200
            assert isinstance(hasty.result(5), requests.Timeout)

    def test_a_child_process_opens_its_own_connection(self) -> None:
        # A process of its own: forking one that has threads is not safe.
        program = """
import os, sys
from sipgate_provider.remote import http
url = sys.argv[1]
before = http.session()
before.request("GET", url + "/before")
child = os.fork()
if child == 0:
    code = 1
    try:
        http.session().request("GET", url + "/child")
        code = 0 if http.session() is not before else 2
    finally:
        os._exit(code)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
http.session().request("GET", url + "/parent")
sys.exit(status or http.session() is not before)
"""
        with serving(whole()) as server:
            done = subprocess.run(
                [sys.executable, "-c", program, server.url], timeout=30, check=False
            )
        assert done.returncode == 0
        assert [(asked.path, asked.connection) for asked in server.asked] == [
            ("/before", 1),
            ("/child", 2),
            ("/parent", 1),
        ]

    def test_a_process_has_one_session(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            assert len({id(one) for one in pool.map(lambda _: http.session(), range(32))}) == 1

    def test_a_stream_may_last_longer_than_the_total_limit(self, session) -> None:
        def slow(asked: Asked) -> bool:
            asked.socket.sendall(message(body=b"", content_length="5"))
            return drip(b"abcde", 0.1)(asked)

        limits = http.Limits(connect=1, read=1, total=0.3, max_bytes=2)
        with serving(slow) as server:
            response = get(session, server.url, limits, stream=True)
            assert b"".join(response.iter_content(1)) == b"abcde"

    def test_a_stream_that_falls_silent_is_ended(self, session) -> None:
        with serving(silent(message(body=b"abc", content_length="5"))) as server:
            response = get(session, server.url, QUICK, stream=True)
            with pytest.raises(requests.RequestException):
                b"".join(response.iter_content(1))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


class TestTls:
    @pytest.fixture
    def context(self, certificate: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        return context

    def test_an_unknown_certificate_is_refused_and_nothing_is_sent(self, session, context) -> None:
        with serving(whole(), context=context) as server:
            error = failure(post, session, server.url)
        assert isinstance(error, requests.exceptions.SSLError)
        assert not http.was_sent(error)
        assert server.asked == []

    def test_a_server_without_tls_means_not_sent(self, session) -> None:
        with serving(cut(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
            error = failure(post, session, server.url.replace("http:", "https:"))
        assert not http.was_sent(error)

    def test_a_trusted_one_is_kept_open(self, session, context, certificate, monkeypatch) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with serving(whole(), context=context) as server:
            for _ in range(3):
                assert post(session, server.url).status_code == 200
        assert server.connections == 1

    def test_a_refresh_connects_once(self, session, context, certificate, monkeypatch) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with serving(whole(), context=context) as server:
            for _ in range(2):
                assert (
                    post(
                        session, server.url, replace(EASY, before_sending=lambda: None)
                    ).status_code
                    == 200
                )
        assert server.connections == 2

    def test_a_drip_is_ended_by_the_total_deadline(
        self, session, context, certificate, monkeypatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with serving(drip(message(body=b"x" * 500), 0.02), context=context) as server:
            assert isinstance(failure(post, session, server.url, QUICK), http.DeadlineExceeded)

    @pytest.mark.parametrize(
        "before", [b"", message(body=b"{", content_length="9")], ids=["at once", "in the body"]
    )
    def test_noise_behind_the_handshake_means_sent(
        self, session, context, certificate, monkeypatch, before: bytes
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))

        def noise(asked: Asked) -> bool:
            if before:
                asked.socket.sendall(before)
            os.write(asked.socket.fileno(), b"this is no record of TLS at all")
            return False

        with serving(noise, context=context) as server:
            error = failure(post, session, server.url)
        assert server.methods == ["POST"]
        assert http.was_sent(error)


FAILURES = {
    "cut": cut(),
    "cut in headers": cut(b"HTTP/1.1 200 OK\r\nA"),
    "cut in body": cut(message(body=b"{", content_length="9")),
    "silence": silent(),
    "drip": drip(message(body=b"x" * 500), 0.02),
    "too large": whole(body=b"x" * 300_000),
    "no gzip": whole(body=b"no gzip at all", content_encoding="gzip"),
    "another protocol": cut(b"SSH-2.0\r\n"),
}


class TestWhatErrorsTell:
    @pytest.mark.parametrize("kind", FAILURES)
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_an_error_and_its_causes_hold_no_secret(self, session, kind: str, method: str) -> None:
        with serving(FAILURES[kind]) as server:
            error = failure(
                session.request,
                method,
                server.url,
                params={"phonenumber": SECRET},
                data={"refresh_token": SECRET},
                headers={"Authorization": f"Bearer {HEADER_SECRET}"},
                timeout=QUICK,
            )
        assert server.asked
        assert_tells_nothing(error)
        assert error.request is None
        assert error.response is None

    @pytest.mark.parametrize("kind", FAILURES)
    def test_nor_do_ours(self, kind: str) -> None:
        with serving(FAILURES[kind]) as server:
            client = oauth.Client(
                client_id="id", client_secret=SECRET, token_url=f"{server.url}/token"
            )
            with pytest.raises(errors.SipgateError) as refreshed:
                oauth.refresh(client, SECRET, limits=QUICK)
        assert_tells_nothing(refreshed.value)


def assert_tells_nothing(error: BaseException) -> None:
    for one in _chain(error):
        told = f"{one!s} {one!r} {one.args!r} {vars(one)!r}"
        assert SECRET not in told
        assert HEADER_SECRET not in told


def _chain(error: BaseException) -> Iterator[BaseException]:
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        further = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        waiting += [each for each in further if isinstance(each, BaseException)]
