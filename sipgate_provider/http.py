"""The one HTTP session of a process towards sipgate: guarded against everything a server, or somebody between, can do.

Kept alive and shared by all threads; a total deadline that a dripping answer cannot stretch; bodies capped; redirects
never followed (a 307 would carry secrets to another origin); no cookies, no ``.netrc``; GETs retried once, POSTs never.

All of it sits in the transport adapter, so that a test may replace ``requests.Session.request`` as usual.

Must not know: Django, allauth, tokens, what is asked.
"""

from __future__ import annotations

import http.client
import io
import os
import random
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from importlib import metadata
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager, Retry
from urllib3 import Timeout as Urllib3Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    ResponseError,
)
from urllib3.response import BaseHTTPResponse

DISTRIBUTION = "django-sipgate-provider"
POOL_SIZE = 64
STALE_AFTER = 20.0
"""Seconds a kept connection may have been idle before a POST prefers a new one: servers close idle ones, and a POST
that meets that moment must not be repeated."""
CHUNK = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds to connect, seconds of silence while reading, seconds for everything together; bytes of a body."""

    connect: float
    read: float
    total: float
    max_bytes: int


API = Limits(connect=5, read=10, total=15, max_bytes=2 * 1024 * 1024)
DOWNLOAD = Limits(connect=5, read=30, total=60, max_bytes=0)
"""Until the body begins; a streamed body has no total deadline and no size limit, only silence ends it."""
TOKEN = Limits(connect=5, read=25, total=30, max_bytes=64 * 1024)
"""Patient: giving up on a refresh early is what turns *slow* into *lost*."""


class DeadlineExceeded(requests.exceptions.ReadTimeout):
    """The answer was not complete within the total time."""


class ResponseTooLarge(requests.exceptions.RequestException):
    """The body is larger than the limit."""


class CutInHeaders(requests.exceptions.ConnectionError):
    """The connection ended inside the header block."""


class _Deadline(threading.local):
    """When the request of this thread must be over (``time.monotonic``), and how long a silence may last."""

    at: float = float("inf")
    read: float = API.read

    def left(self) -> float:
        return self.at - time.monotonic()


_deadline = _Deadline()


def be_patient(silence: float) -> None:
    """Let the next read of a streamed body, in this thread, wait for ``silence`` seconds: other requests that this
    thread made meanwhile set limits of their own."""
    _deadline.at, _deadline.read = float("inf"), silence


class _DeadlineReader(io.RawIOBase):
    """Reads a socket, each time with no more patience than is left in all: a drip cannot stretch the deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = _deadline.left()
        if left <= 0:
            raise TimeoutError("total deadline exceeded")
        self._socket.settimeout(min(_deadline.read, left))
        return self._socket.recv_into(buffer)


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._plain = self.fp  # keeps the socket open exactly as long as http.client expects
        self.fp = _Buffered(_DeadlineReader(sock), self._plain)

    def begin(self) -> None:
        super().begin()
        # http.client takes the end of a stream for the end of the headers.
        if isinstance(self.fp, _Buffered) and self.fp.ended_in_headers:
            self.close()
            raise http.client.RemoteDisconnected("connection ended inside the headers")
        if isinstance(self.fp, _Buffered):
            self.fp.in_headers = False


class _Buffered(io.BufferedReader):
    """A buffered deadline reader that notices an end of stream inside the header block."""

    def __init__(self, raw: _DeadlineReader, plain: Any) -> None:
        super().__init__(raw)
        self._plain_file = plain
        self.in_headers = True
        self.ended_in_headers = False

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(-1 if size is None else size)
        if self.in_headers and not line.endswith(b"\n") and len(line) < 65_537:
            self.ended_in_headers = True
        return line

    def close(self) -> None:
        super().close()
        self._plain_file.close()


class _Stamped:
    """Remembers when a kept connection was used last, and reconnects a stale one before a request is sent."""

    response_class = _Response
    last_used = 0.0
    sock: Any

    def request(self, method: str, *args: Any, **kwargs: Any) -> None:
        if method not in {"GET", "HEAD"} and self.sock is not None and time.monotonic() - self.last_used > STALE_AFTER:
            self.close()  # type: ignore[attr-defined]  # of the connection this is mixed into
        super().request(method, *args, **kwargs)  # type: ignore[misc]  # of the connection this is mixed into

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]  # of the connection this is mixed into
        self.last_used = time.monotonic()
        return response


class _PlainConnection(_Stamped, HTTPConnection):  # type: ignore[misc]  # the mixin's attributes are the connection's
    pass


class _TlsConnection(_Stamped, HTTPSConnection):  # type: ignore[misc]  # the mixin's attributes are the connection's
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


POOLS = {"http": _PlainPool, "https": _TlsPool}


class _RetryOnce(Retry):
    """One more try for reads, unless the server wishes for more time than is left."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> Self:
        if response is not None and (self.get_retry_after(response) or 0) >= _deadline.left() - 0.5:
            raise MaxRetryError(_pool, url or "", ResponseError("Retry-After is beyond the deadline"))
        if response is None and _deadline.left() <= 0.5:
            raise MaxRetryError(_pool, url or "", error)
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def get_backoff_time(self) -> float:
        return random.uniform(0.05, 0.2)  # noqa: S311  # jitter, not a secret


READS = _RetryOnce(
    total=1, connect=1, read=1, status=1, other=0, redirect=0, allowed_methods=frozenset({"GET", "HEAD"}),
    status_forcelist=(429, 502, 503, 504), respect_retry_after_header=True, raise_on_status=False, raise_on_redirect=False,
)  # fmt: skip
NEVER = Retry(total=0, connect=0, read=0, redirect=0, status=0, other=0, raise_on_status=False, raise_on_redirect=False)


class GuardedAdapter(HTTPAdapter):
    def __init__(self) -> None:
        super().__init__(pool_connections=8, pool_maxsize=POOL_SIZE, max_retries=READS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _guard(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> ProxyManager:
        manager: ProxyManager = super().proxy_manager_for(proxy, **kwargs)
        _guard(manager)
        return manager

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send once (reads: twice at most) and return a complete answer within the limits.

        ``timeout`` may be ``Limits``; anything else means ``API``'s. With ``stream`` the body is left to the caller.
        """
        limits = timeout if isinstance(timeout, Limits) else API
        _deadline.at, _deadline.read = time.monotonic() + limits.total, limits.read
        try:
            response = self._send(request, limits, verify=verify, cert=cert, proxies=proxies)
            if stream:
                return response  # a download lasts as long as it lasts: only silence ends it
            _read_body(response, limits)
            return response
        except requests.exceptions.RequestException as error:
            named = _named(error)
            if named is error:
                raise
            raise named from error
        finally:
            _deadline.at = float("inf")

    def _send(self, request: requests.PreparedRequest, limits: Limits, **options: Any) -> requests.Response:
        timeout = Urllib3Timeout(connect=limits.connect, read=limits.read)
        sender = self if request.method in {"GET", "HEAD"} else _once(self)
        return HTTPAdapter.send(sender, request, stream=True, timeout=timeout, **options)  # type: ignore[arg-type]


class _Once:
    """A view of an adapter that never retries; the adapter itself is shared by threads and must not be changed."""

    max_retries = NEVER

    def __init__(self, adapter: GuardedAdapter) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


def _once(adapter: GuardedAdapter) -> Any:
    return _Once(adapter)


def _guard(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = POOLS


def _read_body(response: requests.Response, limits: Limits) -> None:
    parts, size = [], 0
    for part in response.iter_content(CHUNK):
        size += len(part)
        if size > limits.max_bytes:
            response.close()
            raise ResponseTooLarge(f"The answer is larger than {limits.max_bytes} bytes.")
        parts.append(part)
    response._content = b"".join(parts)  # what Response.content would have stored; there is no public way
    raw: BaseHTTPResponse = response.raw
    raw.release_conn()


def _named(error: requests.exceptions.RequestException) -> requests.exceptions.RequestException:
    """Return the error under a name that says what happened, without request and body, which hold secrets."""
    text = repr(error.args)
    named: requests.exceptions.RequestException = error
    if _deadline.left() <= 0 and not isinstance(error, ResponseTooLarge):
        named = DeadlineExceeded("The answer was not complete in time.")
    elif "inside the headers" in text:
        named = CutInHeaders("The connection ended inside the headers.")
    named.sent = _sent(error)  # type: ignore[attr-defined]  # read by was_sent
    named.request = named.response = error.request = error.response = None
    return named


def was_sent(error: requests.exceptions.RequestException) -> bool:
    """Tell whether a failed request may have reached the server. True if in doubt."""
    return bool(getattr(error, "sent", True)) and _sent(error)


def timed_out(error: requests.exceptions.RequestException) -> bool:
    """Tell whether silence or the deadline ended a request; requests calls silence within a body a connection error."""
    cause = error.args[0] if error.args else None
    return isinstance(error, requests.exceptions.Timeout) or isinstance(cause, ReadTimeoutError)


def _sent(error: BaseException) -> bool:
    if isinstance(
        error, requests.exceptions.ConnectTimeout | requests.exceptions.InvalidURL | requests.exceptions.MissingSchema
    ):
        return False
    cause: Any = error.args[0] if error.args else None
    reason = getattr(cause, "reason", cause)
    if isinstance(reason, ReadTimeoutError):
        return True
    if isinstance(reason, NewConnectionError | NameResolutionError | ConnectTimeoutError | ProxyError):
        return False
    # A failed TLS handshake: nothing of HTTP was said yet.
    return not isinstance(error, requests.exceptions.SSLError)


class GuardedSession(requests.Session):
    """A ``requests.Session`` that stays open, keeps no cookies, reads no ``.netrc`` and follows no redirect."""

    def __init__(self) -> None:
        super().__init__()
        self.headers.update({"User-Agent": user_agent(), "Accept": "application/json"})
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # requests consults .netrc only if there is no auth; proxies from the environment stay honoured.
        self.auth = _no_credentials
        adapter = GuardedAdapter()
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Never follow: the caller sees the 3xx."""
        return

    def close(self) -> None:
        """Stay open: allauth closes what it was handed after each request, and the connections are shared."""


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def user_agent() -> str:
    try:
        version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        version = "dev"
    return f"{DISTRIBUTION}/{version}"


_lock = threading.Lock()
_session: GuardedSession | None = None


def session() -> GuardedSession:
    """Return the session of this process."""
    global _session
    if _session is None:
        with _lock:
            if _session is None:
                _session = GuardedSession()
    return _session


def _forget_session() -> None:
    # Sockets must not be shared between processes: two of them would read each other's answers.
    global _session, _lock
    _session, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_session)

__all__ = ["API", "TOKEN", "GuardedSession", "HTTPError", "Limits", "session", "timed_out", "was_sent"]
