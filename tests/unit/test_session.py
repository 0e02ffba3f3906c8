"""The session for everything but a refresh, against a server that says wrong things."""

from __future__ import annotations

import gzip
import io
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sipgate_provider import errors
from sipgate_provider.remote import session
from tests.processes import run_program
from tests.raw_server import cut, drip, message, of_json, serving, silent, whole

SECRET = "s3cret-that-must-not-show"
IMPATIENT = (5.0, 0.2)
CUT = {
    "before any byte": cut(),
    "in the status line": cut(b"HT"),
    "in the body": cut(message(body=b"{", content_length="9")),
    "in a chunk": cut(message(body=b"5\r\n{", transfer_encoding="chunked")),
    "another protocol": cut(b"SSH-2.0-OpenSSH_9.6\r\n"),
}
SLOW = {
    "nothing": silent(),
    "half the headers": silent(b"HTTP/1.1 200 OK\r\nContent-"),
    "half the body": silent(message(body=b"{", content_length="10")),
}


@pytest.mark.parametrize("location", ["/elsewhere", "http://[odd"])
def test_a_redirect_is_handed_on_and_not_followed(location):
    with serving(whole("302 Found", location=location)) as server:
        answer = send("GET", server.url)
    assert (answer.status, answer.headers["Location"]) == (302, location)
    assert len(server.asked) == 1


def test_an_answer_of_any_status_is_handed_on():
    with serving(whole("418 No", b'{"a": 1}', x_odd="Yes")) as server:
        answer = send("POST", server.url, json={"message": "ü"})
    assert (answer.status, answer.headers["x-odd"], answer.json()) == (418, "Yes", {"a": 1})
    asked = server.asked[0]
    assert (asked.method, asked.body) == ("POST", b'{"message": "\\u00fc"}')
    assert asked.headers["user-agent"].startswith("django-sipgate-provider/")
    assert "SECRET" not in repr(answer)


def test_a_read_is_sent_twice_and_what_changes_something_once():
    for name, broken in [*CUT.items(), ("gateway", whole("503 No"))]:
        with serving(broken, of_json({"second": True})) as server:
            assert send("GET", server.url).json() == {"second": True}, name
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            with serving(broken, of_json({})) as server:
                if name == "gateway":
                    assert send(method, server.url).status == 503
                else:
                    error = failure(method, server.url)
                    assert isinstance(error, errors.SipgateUnavailable), name
                    assert (error.code, error.sent) == ("connection", True), name
                assert server.methods == [method], name
    with serving(cut()) as server:
        failure("GET", server.url)
        assert server.methods == ["GET", "GET"], "and not a third time"


def test_silence_is_called_slow_and_is_not_tried_again():
    for name, answer in SLOW.items():
        for method in ("GET", "POST"):
            with serving(answer) as server:
                error = failure(method, server.url, timeout=IMPATIENT)
                assert isinstance(error, errors.SipgateUnavailable), name
                assert (error.code, error.sent, len(server.asked)) == ("timeout", True, 1), name


def test_what_never_left_is_told():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        for url in (nobody, "http://nobody.invalid/", "http://[", "gopher://x"):
            error = failure("POST", url)
            assert isinstance(error, errors.SipgateUnavailable), url
            assert (error.sent, error.code) == (False, "connection"), url
        assert "Connection refused" in str(failure("POST", nobody))
    with serving(whole()) as server:
        error = failure("GET", server.url, headers={"Authorization": f"{SECRET}\nX-Injected: 1"})
        assert (server.asked, getattr(error, "sent", None)) == ([], False)
        assert SECRET not in str(error)


def test_a_certificate_has_to_be_trusted(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(whole(), context=context) as server:
        error = failure("POST", server.url)
        assert isinstance(error, errors.SipgateUnavailable)
        assert (error.sent, server.asked) == (False, [])
        assert "self-signed certificate" in str(error)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        before = server.connections
        for _ in range(3):
            assert send("POST", server.url).status == 200
        assert server.connections == before + 1, "kept open"


def test_a_proxy_of_the_environment_is_used(monkeypatch):
    with serving(of_json({"by": "proxy"})) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert send("GET", "http://api.sipgate.invalid/v2").json() == {"by": "proxy"}
        assert proxy.asked[0].path == "http://api.sipgate.invalid/v2"
    error = failure("POST", "http://api.sipgate.invalid/v2")
    assert isinstance(error, errors.SipgateUnavailable)
    assert error.sent is False


def test_nothing_is_followed_and_nothing_is_kept(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(whole("307 Go", location="/elsewhere", set_cookie="a=b"), whole()) as server:
        assert send("POST", server.url).status == 307
        send("GET", server.url)
    assert [asked.path for asked in server.asked] == ["/", "/"]
    for asked in server.asked:
        assert not {"cookie", "authorization"} & {*asked.headers}


def test_bodies_have_a_limit_unless_they_go_to_a_file():
    large = b"x" * (session.LONGEST_BODY + 1)
    bomb = gzip.compress(b"x" * (20 * session.LONGEST_BODY))
    for answer in (whole(body=large), whole(body=bomb, content_encoding="gzip")):
        with serving(answer) as server:
            assert isinstance(failure("GET", server.url), errors.UnexpectedResponse)
    with serving(whole(body=large), whole("404 No", b"why")) as server:
        file = io.BytesIO()
        assert send("GET", server.url, to=file).body == b""
        assert file.getvalue() == large
        assert send("GET", server.url, to=file).body == b"why"
        assert len(file.getvalue()) == len(large), "a page of an error is no document"


def test_a_document_that_is_cut_is_not_taken_for_the_end():
    with serving(cut(message(body=b"x" * 100, content_length="1000"))) as server:
        error = failure("GET", server.url, to=io.BytesIO())
    assert (error.code, server.methods) == ("connection", ["GET"])


def test_a_document_may_take_its_time():
    whole_body = message(body=b"x" * 20)
    start = len(whole_body) - 20

    def steady(asked):
        asked.socket.sendall(whole_body[:start])
        return drip(whole_body[start:], 0.1)(asked)

    with serving(steady) as server:
        file = io.BytesIO()
        send("GET", server.url, to=file, timeout=(5, 1.5))
    assert len(file.getvalue()) == 20


def test_connections_are_kept_and_threads_get_their_own_answers():
    session.session()  # else two threads may each make one

    def echo(asked):
        asked.socket.sendall(message(body=asked.path.encode()))
        return True

    def ask(number):
        return all(
            send("GET", f"{server.url}/{number}/{turn}").body == f"/{number}/{turn}".encode()
            for turn in range(10)
        )

    with serving(echo) as server, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    assert len(server.asked) == 80
    assert server.connections <= 8


def test_a_child_process_opens_its_own_connection():
    program = """
import os, sys
from sipgate_provider.remote import session
from sipgate_provider.remote.secret import Secret
ask = lambda path: session.send("GET", sys.argv[1] + path, endpoint="")
ask("/before")
child = os.fork()
if child == 0:
    ask("/child")
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
ask("/parent")
sys.exit(code)
"""
    with serving(whole()) as server:
        done = run_program(program, server.url)
    assert done.returncode == 0
    assert [(asked.path, asked.connection) for asked in server.asked] == [
        ("/before", 1),
        ("/child", 2),
        ("/parent", 1),
    ]


def test_retry_after():
    for value, seconds in {
        "7": 7,
        "999999999": 21_600,
        "Thu, 01 Jan 1970 00:00:00 GMT": 0,
        "": None,
        "soon": None,
        "-5": None,
    }.items():
        assert session.retry_after({"Retry-After": value}) == seconds, value
    assert session.retry_after({}) is None
    assert session.retry_after({"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}) == 21_600


def test_json_is_such_that_a_database_can_hold_it():
    for raw, value in {
        b'{"a": 1, "b": -5, "c": 1.5}': {"a": 1, "b": -5, "c": 1.5},
        b"[NaN, 1e999, -Infinity]": [None, None, None],
        b'{"\\ud800": "a\\u0000b"}': {"": "ab"},
        b'\xef\xbb\xbf"\xff"': "\ufffd",
    }.items():
        assert session.json_of(raw) == value, raw
    for raw in (b"", b"{", b"<html>", b"[" * 100_000, b"9" * 5000):
        with pytest.raises(ValueError):
            session.json_of(raw)


def send(method: str, url: str, **options: Any) -> session.Answer:
    return session.send(method, url, endpoint="GET /thing", **options)


def failure(method: str, url: str, **options: Any) -> errors.SipgateError:
    with pytest.raises(errors.SipgateError) as caught:
        send(method, url, **options)
    return caught.value
