"""The line of a refresh: connect, then send, then answer; each failure tells whether the form may
have arrived."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sipgate_provider import errors
from sipgate_provider.remote import line, session
from sipgate_provider.remote.secret import Secret
from tests.raw_server import Asked, cut, drip, message, serving, silent, whole

FORM = {"grant_type": "refresh_token", "refresh_token": Secret("rt+/= ü")}


def test_it_connects_before_it_sends():
    with serving(whole(body=b'{"a": 1}', x_odd="Yes")) as server:
        with line.connect(f"{server.url}/token?x=1") as opened:
            assert server.asked == []
            opened.send(FORM, seconds=5)
            answer = opened.answer()
        [asked] = server.asked
    assert (answer.status, answer.headers["x-odd"], answer.json()) == (200, "Yes", {"a": 1})
    assert (asked.method, asked.path, asked.form) == ("POST", "/token?x=1", {**FORM})
    assert asked.headers["connection"] == "close"
    assert asked.headers["user-agent"].startswith("django-sipgate-provider/")


def test_what_is_not_an_answer_may_have_arrived():
    for name, odd, code in [
        ("cut before any byte", cut(), "connection"),
        ("cut in the body", cut(message(body=b"{", content_length="9")), "connection"),
        ("another protocol", cut(b"SSH-2.0-OpenSSH_9.6\r\n"), "connection"),
        ("silence", silent(), "timeout"),
        ("silence in the body", silent(message(body=b"{", content_length="9")), "timeout"),
        ("a drip", dripping, "timeout"),
    ]:
        with serving(odd) as server:
            error = failure(server.url)
        assert isinstance(error, errors.SipgateUnavailable), name
        assert (error.code, error.sent, error.endpoint) == (code, True, "token"), name
        assert "rt" not in str(error).split(), name


def test_an_answer_has_a_largest_size():
    with serving(whole(body=b"x" * (line.LONGEST_BODY + 1))) as server:
        assert isinstance(failure(server.url), errors.UnexpectedResponse)


def test_without_a_connection_nothing_was_sent():
    with serving(whole()) as server:
        closed = server.url
    for url in (closed, "http://no-such-host.invalid/", f"http://{'x' * 70}.example/", "http://[/"):
        with pytest.raises(errors.SipgateUnavailable) as caught:
            line.connect(url)
        assert not caught.value.sent, url


def test_one_that_is_given_up_is_reset():
    """What the server has not read by then it never reads: no FIN that lets it work on."""
    with listening() as (listener, url):
        opened = line.connect(url)
        accepted, _ = listener.accept()
        opened.send(FORM, seconds=5)
        opened.__exit__(None, None, None)
        accepted.settimeout(5)
        with accepted, pytest.raises(ConnectionResetError):
            b"".join(iter(lambda: accepted.recv(65_536), b""))


def test_a_certificate_has_to_be_trusted(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(whole(), context=context) as server:
        url = server.url.replace("http://", "https://")
        with pytest.raises(errors.SipgateUnavailable, match="certificate") as caught:
            line.connect(url)
        assert not caught.value.sent
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert post(url).status == 200
        assert [asked.method for asked in server.asked] == ["POST"]


def test_a_proxy_of_the_environment_is_used(certificate, monkeypatch):
    with serving(whole()) as proxy:
        address = proxy.url.replace("http://", "http://user:pass@")
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("NO_PROXY", "")
        assert post("http://sipgate.example/token").status == 200
        [asked] = proxy.asked
        assert asked.path == "http://sipgate.example/token"
        assert asked.headers["proxy-authorization"].startswith("Basic ")
        monkeypatch.setenv("NO_PROXY", "nobody.invalid")
        with pytest.raises(errors.SipgateUnavailable):
            line.connect("http://nobody.invalid/token")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("NO_PROXY", "")
    with serving(whole(), context=context) as server, tunnel() as (url, asked_for):
        monkeypatch.setenv("HTTPS_PROXY", url)
        target = server.url.replace("http://", "https://")
        assert post(f"{target}/token").status == 200
        assert asked_for == [target.removeprefix("https://")]
        assert [asked.path for asked in server.asked] == ["/token"]


def test_another_kind_of_proxy_is_said_to_be_unsupported(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(errors.Misconfigured, match="use an HTTP proxy"):
        line.connect("https://sipgate.example/token")


def post(url: str) -> session.Answer:
    with line.connect(url) as opened:
        opened.send(FORM, seconds=0.5)
        return opened.answer()


def failure(url: str) -> errors.SipgateError:
    with pytest.raises(errors.SipgateError) as caught:
        post(url)
    return caught.value


def dripping(asked: Asked) -> bool:
    """Answer with a body of which each byte comes in time, and the whole does not."""
    asked.socket.sendall(message(body=b"", content_length="100"))
    return drip(b"x" * 100, 0.05)(asked)


@contextmanager
def listening() -> Iterator[tuple[socket.socket, str]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}/"


@contextmanager
def tunnel() -> Iterator[tuple[str, list[str]]]:
    """A proxy that connects once to wherever it is asked."""
    asked_for: list[str] = []

    def pipe(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65_536):
            target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        client, _ = listener.accept()
        head = client.recv(65_536).split(b" ")
        asked_for.append(head[1].decode())
        host, port = asked_for[0].rsplit(":", 1)
        with client, socket.create_connection((host, int(port))) as server:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=pipe, args=(server, client))
            back.start()
            pipe(client, server)
            back.join()

    with listening() as (listener, url):
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield url, asked_for
        thread.join(10)
