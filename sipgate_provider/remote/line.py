"""Sends one request in two steps, connect and send, so that a lease can be taken in between.

Names, addresses and TLS are slow and bind nobody; sending a refresh token cannot be undone.
urllib3's connection class takes both steps apart in public. Proxies and certificates are those that
requests finds in the environment.

A line that is given up is reset, also if its process dies: what the server has not read by then it
never reads.
"""

from __future__ import annotations

import functools
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlencode

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_auth_from_url, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.util import make_headers, parse_url
from urllib3.util.ssl_ import create_urllib3_context

from sipgate_provider import errors
from sipgate_provider.remote import session
from sipgate_provider.remote.secret import SecretBytes

CONNECT_SECONDS = 5.0
LONGEST_BODY = 64 * 1024
RESET = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
NO_RESET = struct.pack("ii", 0, 0)
BROKEN = (HTTPError, HTTPException, OSError)
"""What urllib3's connection, ``http.client`` and the socket raise."""


class TooLarge(Exception):
    """The body is larger than any answer of a token endpoint."""


class Line:
    """An open connection to one address. It takes one request; leaving it closes it."""

    def __init__(self, connection: HTTPConnection, target: str, headers: dict[str, str]) -> None:
        self._connection = connection
        self._target = target
        self._headers = headers

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.close()

    def send(self, form: Mapping[str, str], *, seconds: float) -> None:
        """Send a form, which then cannot be undone.

        Args:
            seconds: how long the answer may take, from now on.

        Raises:
            errors.SipgateUnavailable: the line is broken; sipgate may have received the form.
        """
        self._give_up = time.monotonic() + seconds
        headers = {**self._headers, "Content-Type": "application/x-www-form-urlencoded"}
        self._connection.timeout = seconds
        try:
            self._connection.request(
                "POST",
                self._target,
                SecretBytes(urlencode(form).encode()),
                headers,
                preload_content=False,
            )
        except BROKEN as error:
            raise _unavailable(error, sent=True) from None

    def answer(self) -> session.Answer:
        """Return the complete answer, whatever its status.

        Raises:
            errors.SipgateUnavailable: there is none; sipgate may have received what was sent.
            errors.UnexpectedResponse: it is too large.
        """
        try:
            return self._read()
        except TooLarge:
            raise errors.UnexpectedResponse("The answer is too large.", endpoint="token") from None
        except BROKEN as error:
            raise _unavailable(error, sent=True) from None

    def _read(self) -> session.Answer:
        # Apart from ``answer``, because an error report shows the variables of each frame.
        body, sock = bytearray(), self._connection.sock
        with closing(self._connection.getresponse()) as response:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_RESET)
            while part := response.read1(4096):
                body += part
                if len(body) > LONGEST_BODY:
                    raise TooLarge
                with suppress(OSError):  # all was read, and the socket is closed
                    sock.settimeout(max(self._give_up - time.monotonic(), 0.001))
        return session.Answer(status=response.status, headers=response.headers, body=bytes(body))


def connect(url: str) -> Line:
    """Connect to the server of ``url``; return a line on which nothing was sent.

    Raises:
        errors.SipgateUnavailable: there is no connection; ``sent`` is False.
        errors.Misconfigured: the proxy of the environment is not an HTTP proxy.
    """
    connection = None
    try:
        connection, target, headers = _connection(url)
        connection.connect()
    except (*BROKEN, ValueError) as error:
        if connection is not None:
            connection.close()
        raise _unavailable(error, sent=False) from None
    return Line(connection, target, headers)


def _connection(url: str) -> tuple[HTTPConnection, str, dict[str, str]]:
    """Return a connection that is not open yet, what to ask it for, and headers."""
    at = parse_url(url)
    environment = requests.Session().merge_environment_settings(url, {}, False, None, None)
    proxy = select_proxy(url, environment["proxies"])
    via = parse_url(proxy) if proxy else None
    if via is not None and via.scheme not in {"http", "https"}:
        raise errors.Misconfigured(
            f"Tokens are not refreshed through a {via.scheme} proxy: use an HTTP proxy.",
            setting="HTTPS_PROXY",
        )
    first = via or at
    secure = "https" in {at.scheme, first.scheme}
    more = {"ssl_context": _certificates(environment["verify"])} if secure else {}
    kind = HTTPSConnection if secure else HTTPConnection
    connection = kind(
        str(first.host).strip("[]"),
        first.port or (443 if first.scheme == "https" else 80),
        timeout=CONNECT_SECONDS,
        socket_options=[*HTTPConnection.default_socket_options, RESET],
        **more,  # type: ignore[arg-type]  # of the class for https only
    )
    headers = {
        "User-Agent": session.user_agent(),
        "Connection": "close",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
    }
    if via is None:
        return connection, at.request_uri, headers
    proxy_headers = _proxy_headers(str(proxy))
    if at.scheme == "http":
        return connection, url, {**headers, **proxy_headers}
    connection.set_tunnel(
        str(at.host).strip("[]"), at.port or 443, headers=proxy_headers, scheme=str(via.scheme)
    )
    return connection, at.request_uri, headers


def _proxy_headers(proxy: str) -> dict[str, str]:
    user, password = get_auth_from_url(proxy)
    return dict(make_headers(proxy_basic_auth=f"{user}:{password}")) if user else {}


@functools.lru_cache(maxsize=4)
def _certificates(verify: bool | str) -> ssl.SSLContext:
    """Return a context that trusts what requests trusts. Reading the certificates takes
    milliseconds."""
    context = create_urllib3_context()
    path = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    is_folder = Path(path).is_dir()
    context.load_verify_locations(None if is_folder else path, path if is_folder else None)
    return context


def _unavailable(error: Exception, *, sent: bool) -> errors.SipgateUnavailable:
    slow = isinstance(error, TimeoutError | ReadTimeoutError)
    happened = "did not answer in time" if slow else "cannot be reached"
    # Other texts of these errors quote what was sent.
    words = getattr(error, "verify_message", "") or getattr(error, "strerror", "")
    reason = f" ({words or type(error).__name__})"
    return errors.SipgateUnavailable(
        f"sipgate's token endpoint {happened}{reason}.",
        sent=sent,
        endpoint="token",
        code="timeout" if slow else "connection",
    )
