"""Provides the one HTTP session of a process to sipgate, guarded against misbehaving servers and proxies.

Connections are kept alive and shared by all threads. There is a total deadline, which a slow answer cannot extend, and
a limit for bodies. Redirects are never followed (a 307 would carry secrets to another origin). Cookies and ``.netrc``
are not used. GETs are retried once, POSTs never. The transport adapter does all this, so that a test may replace
``requests.Session.request`` as usual.

Must not know: Django, allauth, tokens, what is asked.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import math
import os
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager, Retry
from urllib3 import Timeout as Urllib3Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.response import BaseHTTPResponse

from sipgate_provider.remote.per_process import PerProcess
from sipgate_provider.remote.secret import without_frames

DISTRIBUTION = "django-sipgate-provider"
POOL_SIZE = 64
STALE_AFTER = 20.0
"""Seconds after which a POST does not use an idle connection any more. Servers close idle connections, and a POST that
is lost in this way must not be repeated."""
CHUNK = 65_536
LONGEST_RETRY_AFTER = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds to connect, seconds of silence while reading, seconds for everything together; bytes of a body.

    With ``before_sending`` a request gets a connection of its own. It is called when that stands and nothing was sent
    yet; the total begins anew when it returns. What it raises reaches the caller, and nothing is sent. A connection
    that is given up afterwards, also by the death of the process, is reset: what has not arrived by then never does.
    """

    connect: float
    read: float
    total: float
    max_bytes: int
    before_sending: Callable[[], None] | None = None


API = Limits(connect=5, read=10, total=15, max_bytes=2 * 1024 * 1024)
DOWNLOAD = Limits(connect=5, read=30, total=60, max_bytes=0)
"""Until the body begins; a streamed body has no total deadline and no size limit, only silence ends it."""
TOKEN = Limits(connect=5, read=20, total=20, max_bytes=64 * 1024)
"""Long, because giving up on a refresh early would turn a slow answer into a lost one."""


class DeadlineExceeded(requests.exceptions.ReadTimeout):
    """The answer was not complete within the total time."""


class ResponseTooLarge(requests.exceptions.RequestException):
    """The body is larger than the limit."""


class CutInHeaders(requests.exceptions.ConnectionError):
    """The connection ended inside the header block."""


class _CutInHeaders(http.client.RemoteDisconnected):
    pass


class _Progress(threading.local):
    """The request of this thread: when it must be over (``time.monotonic``), how long a silence may last, and whether
    anything of it has left."""

    at: float = float("inf")
    read: float = API.read
    sent: bool = False
    before_sending: Callable[[], None] | None = None
    sent_over: socket.socket | None = None
    """The socket of a request with ``before_sending``, from its first byte until an answer begins."""
    _total: float = API.total

    def start(self, limits: Limits) -> None:
        self.at, self.read, self.sent = time.monotonic() + limits.total, limits.read, False
        self.before_sending, self.sent_over, self._total = limits.before_sending, None, limits.total
        if limits.before_sending is not None:
            self.at += limits.connect

    def first_byte(self, sock: socket.socket) -> None:
        """The connection is open and nothing has been sent yet."""
        before, self.before_sending = self.before_sending, None
        if before is not None:
            before()
            # A killed process closes its sockets as well: set beforehand, this resets them, and what lies in the
            # kernel's buffer is thrown away instead of being delivered when the network is back.
            _set_linger(sock, abort=True)
            self.sent_over, self.at = sock, time.monotonic() + self._total
        self.sent = True

    def left(self) -> float:
        return self.at - time.monotonic()

    def answered(self) -> None:
        """An answer begins: the connection may be closed normally."""
        if self.sent_over is not None:
            _set_linger(self.sent_over, abort=False)
            self.sent_over = None

    def end(self) -> None:
        """Reset the connection unless an answer has begun."""
        sock, self.sent_over, self.at = self.sent_over, None, float("inf")
        if sock is not None and sock.fileno() >= 0:
            # Not close(): it would wait until readers that others still hold are gone.
            os.close(sock.detach())


_progress = _Progress()


def _set_linger(sock: socket.socket, *, abort: bool) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", abort, 0))


def be_patient(silence: float) -> None:
    """Let the next read of a streamed body, in this thread, wait for ``silence`` seconds: other requests that this
    thread made meanwhile set limits of their own."""
    _progress.at, _progress.read = float("inf"), silence


class _DeadlineReader(io.RawIOBase):
    """Reads a socket, each time waiting only as long as the deadline allows, so that a slow answer cannot extend it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = _progress.left()
        if left <= 0:
            raise TimeoutError("total deadline exceeded")
        self._socket.settimeout(min(_progress.read, left))
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
            raise _CutInHeaders("connection ended inside the headers")
        if isinstance(self.fp, _Buffered):
            self.fp.in_headers = False

    def flush(self) -> None:
        """Do nothing: there is nothing to write. http.client's method fails if the response is closed, and ``close``
        calls it. urllib3 gives a connection back before it closes the response; whoever takes the connection meanwhile
        and renews it closes the response, too, and an answer that was read completely would be lost.
        """


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


_lookups: PerProcess[dict[tuple[str, int], Future[list[str]]]] = PerProcess(dict)


def _addresses(name: str, port: int, seconds: float) -> list[str]:
    """Return the addresses of a host, or none if that takes too long. All callers share one thread per lookup."""
    running = _lookups.get()
    future = running.get((name, port))
    if future is None:
        future = running[name, port] = Future()
        # It is a daemon, so that a resolver that hangs does not keep the process from ending.
        thread = threading.Thread(
            target=_look_up, args=(name, port, future), daemon=True, name="sipgate-resolver"
        )
        try:
            thread.start()
        except RuntimeError:  # no thread can be started now: resolve without a time limit
            _look_up(name, port, future)
    try:
        return future.result(seconds)
    except TimeoutError:
        return []


def _look_up(name: str, port: int, future: Future[list[str]]) -> None:
    try:
        found = socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM)
        future.set_result(list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)))
    except OSError as error:
        future.set_exception(error)
    except UnicodeError:
        future.set_exception(socket.gaierror(socket.EAI_NONAME, "not a name that can be looked up"))
    finally:
        _lookups.get().pop((name, port), None)


class _Stamped:
    """Remembers when a kept connection was used last, reconnects a stale one before a request is sent, and tells the
    thread's progress when that happens."""

    response_class = _Response
    last_used = 0.0
    is_used = False
    """A request was sent over this connection."""
    sock: Any
    port: Any
    timeout: Any
    _dns_host: Any

    def request(self, method: str, *args: Any, **kwargs: Any) -> None:
        is_old = method not in {"GET", "HEAD"} and time.monotonic() - self.last_used > STALE_AFTER
        # Over TLS, urllib3 has connected just before: what is new is not connected again.
        if (
            self.sock is not None
            and self.is_used
            and (is_old or _progress.before_sending is not None)
        ):
            self._close_but_keep_tunnel()
        super().request(method, *args, **kwargs)  # type: ignore[misc]  # of the connection this is mixed into

    def _close_but_keep_tunnel(self) -> None:
        """Close; the next use connects again, through the same proxy. Closing alone would forget the tunnel."""
        connection: Any = self
        name, port = connection._tunnel_host, connection._tunnel_port
        headers, scheme = connection._tunnel_headers, connection._tunnel_scheme
        connection.close()
        if name:
            connection.set_tunnel(name, port, headers=headers, scheme=scheme)

    def _new_conn(self) -> socket.socket:
        """Connect within the time for it, name resolution and all addresses included; ``getaddrinfo`` has no limit."""
        name, seconds = self._dns_host, self.timeout
        until = time.monotonic() + seconds
        failure: HTTPError = ConnectTimeoutError(self, "The name was not resolved in time.")
        try:
            for address in _addresses(name, self.port, seconds):
                self._dns_host, self.timeout = address, max(until - time.monotonic(), 0.001)
                try:
                    return super()._new_conn()  # type: ignore[misc,no-any-return]  # of the connection this is mixed into
                except (NewConnectionError, ConnectTimeoutError) as error:
                    failure = error
        except socket.gaierror as error:
            raise NameResolutionError(name, self, error) from error  # type: ignore[arg-type]  # mixed into a connection
        finally:
            self._dns_host, self.timeout = name, seconds
        raise failure

    def connect(self) -> None:
        # What a proxy is told while connecting goes through send as well.
        sent, before, _progress.before_sending = _progress.sent, _progress.before_sending, None
        try:
            super().connect()  # type: ignore[misc]  # of the connection this is mixed into
            # Over TLS, urllib3 connects before it asks: a new connection must not look like a stale one.
            self.last_used, self.is_used = time.monotonic(), False
        finally:
            _progress.sent, _progress.before_sending = sent, before

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        # Errors do not tell a handshake that failed from an answer that did: this does.
        _progress.first_byte(self.sock)
        super().send(data)  # type: ignore[misc]  # of the connection this is mixed into

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]  # of the connection this is mixed into
        self.last_used, self.is_used = time.monotonic(), True
        _progress.answered()
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


NEVER = Retry(
    total=0,
    connect=0,
    read=0,
    redirect=0,
    status=0,
    other=0,
    raise_on_status=False,
    raise_on_redirect=False,
)
"""urllib3 repeats nothing: what it would repeat it also logs, with the query."""
READS = frozenset({"GET", "HEAD"})
TRY_AGAIN = frozenset({429, 502, 503, 504})
ENOUGH_LEFT = 0.5
"""Seconds that a second try needs at least."""


class GuardedAdapter(HTTPAdapter):
    def __init__(self) -> None:
        super().__init__(pool_connections=8, pool_maxsize=POOL_SIZE, max_retries=NEVER)

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
        _progress.start(limits)
        try:
            first = self._ask(
                request, limits, stream=stream, verify=verify, cert=cert, proxies=proxies
            )
            if request.method not in READS or not _pause(first):
                return _outcome(first)
            if isinstance(first, requests.Response):
                first.close()
            return _outcome(
                self._ask(request, limits, stream=stream, verify=verify, cert=cert, proxies=proxies)
            )
        except BaseException as error:
            # A worker's time limit, say, that ends the wait for an answer: the frames below hold the body.
            raise without_frames(error)  # noqa: B904  # the same error, not another one
        finally:
            # A download lasts as long as it lasts: only silence ends it.
            _progress.end()

    def _ask(
        self, request: requests.PreparedRequest, limits: Limits, *, stream: bool, **options: Any
    ) -> requests.Response | requests.exceptions.RequestException:
        """Send once; return the answer, or the error under a name that tells what happened."""
        timeout = Urllib3Timeout(
            connect=min(limits.connect, max(_progress.left(), 0.001)), read=limits.read
        )
        try:
            response = HTTPAdapter.send(self, request, stream=True, timeout=timeout, **options)  # type: ignore[arg-type]  # urllib3's own kind of time-out
            if not stream:
                _read_body(response, limits)
        except requests.exceptions.RequestException as error:
            return _named(error)
        return response


def _outcome(found: requests.Response | requests.exceptions.RequestException) -> requests.Response:
    # Raised outside of the except block, because the library's error quotes the query and carries the request.
    if isinstance(found, requests.exceptions.RequestException):
        raise found
    return found


def _pause(found: requests.Response | requests.exceptions.RequestException) -> bool:
    """Tell whether a read is worth a second try, after having waited for as long as the server wishes."""
    if isinstance(found, requests.Response):
        wish = retry_after(found) or 0.0
        again = found.status_code in TRY_AGAIN
    else:
        # Not after a time-out: the second answer would be late, too, and the deadline is near.
        wish = 0.0
        cut = requests.exceptions.ConnectionError | requests.exceptions.ChunkedEncodingError
        hopeless = requests.exceptions.ReadTimeout | requests.exceptions.SSLError
        again = isinstance(found, cut) and not isinstance(found, hopeless)
    if not again or wish >= _progress.left() - ENOUGH_LEFT:
        return False
    time.sleep(wish or random.uniform(0.05, 0.2))  # noqa: S311  # jitter, not a secret
    return True


def retry_after(response: requests.Response) -> float | None:
    """Return ``Retry-After`` in seconds from now (number or date, RFC 9110 §10.2.3), at most a day; None if absent."""
    value = str(response.headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(value)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def json_of(raw: bytes) -> Any:
    """Return the value of a JSON text as plain data that a database can hold.

    A token answer comes only once, so odd parts are replaced and the rest is kept: bytes that are not UTF-8 become
    U+FFFD, numbers without a value (``NaN``, ``1e999``, thousands of digits) become None, NUL and lone surrogates are
    removed.

    Raises:
        ValueError: no JSON.
    """
    text = raw.decode("utf-8-sig", "replace")
    try:
        return _storable(
            json.loads(
                text, parse_int=_number, parse_float=_number, parse_constant=lambda _name: None
            )
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _number(text: str) -> int | float | None:
    if len(text) < 19 and text.lstrip("-").isdigit():
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else None


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "ignore").decode()
    if isinstance(value, list):
        return [_storable(part) for part in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(part) for key, part in value.items()}
    return value


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
    response._content = b"".join(
        parts
    )  # what Response.content would have stored; there is no public way
    raw: BaseHTTPResponse = response.raw
    raw.release_conn()


def _named(error: requests.exceptions.RequestException) -> requests.exceptions.RequestException:
    """Return an error that says what happened, without URL, request and body, which hold secrets."""
    reason = _reason(error)
    named: requests.exceptions.RequestException
    if isinstance(error, ResponseTooLarge):
        named = error
    elif _progress.left() <= 0:
        named = DeadlineExceeded("The answer was not complete in time.")
    elif isinstance(reason, _CutInHeaders):
        named = CutInHeaders("The connection ended inside the headers.")
    elif isinstance(reason, ReadTimeoutError):
        # requests calls a silence within the body a connection error.
        named = requests.exceptions.ReadTimeout("The server was silent for too long.")
    else:
        named = type(error)(f"{type(reason).__name__}: {_told(reason)}".rstrip(": "))
    named.sent = _progress.sent  # type: ignore[attr-defined]  # read by was_sent
    return named


def _reason(error: BaseException) -> BaseException:
    """Return the innermost of the errors that libraries wrap around each other."""
    if isinstance(error, ReadTimeoutError):
        return error
    inner = (getattr(error, "reason", None), *reversed(error.args), error.__cause__)
    found = next((one for one in inner if isinstance(one, BaseException)), None)
    return error if found is None else _reason(found)


def _told(reason: BaseException) -> str:
    """Return the operating system's text, if there is one. Other texts may quote what was sent or answered."""
    text = getattr(reason, "verify_message", "") or getattr(reason, "strerror", "")
    return str(text or "")


def was_sent(error: requests.exceptions.RequestException) -> bool:
    """Tell whether a failed request may have reached the server. True if in doubt."""
    return bool(getattr(error, "sent", not isinstance(error, NEVER_LEFT)))


NEVER_LEFT = (
    requests.exceptions.ConnectTimeout,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader,
)
"""Errors that requests itself raises before the adapter is asked."""


def timed_out(error: requests.exceptions.RequestException) -> bool:
    """Tell whether silence or the deadline ended a request; requests calls silence within a body a connection error."""
    cause = error.args[0] if error.args else None
    return isinstance(error, requests.exceptions.Timeout) or isinstance(cause, ReadTimeoutError)


class GuardedSession(requests.Session):
    """A ``requests.Session`` that stays open, keeps no cookies, reads no ``.netrc`` and follows no redirect."""

    def __init__(self) -> None:
        super().__init__()
        self.headers.update({"User-Agent": user_agent(), "Accept": "application/json"})
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # requests reads .netrc only if there is no auth; proxies of the environment are still used.
        self.auth = _no_credentials
        adapter = GuardedAdapter()
        self.mount("https://", adapter)
        self.mount("http://", adapter)
        self._environment: dict[tuple[str, str], dict[str, Any]] = {}

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Return what requests makes of the environment, looked up once per server: it costs as much as the rest of
        preparing a request, and a process' environment does not change."""
        if proxies or verify not in {None, True} or cert is not None:
            return super().merge_environment_settings(url, proxies, stream, verify, cert)
        parts = urlsplit(str(url))
        key = (parts.scheme, parts.netloc)
        found = self._environment.get(key)
        if found is None:
            found = dict(super().merge_environment_settings(url, {}, None, verify, cert))
            self._environment[key] = found
        return {**found, "proxies": dict(found["proxies"]), "stream": stream}

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


_session = PerProcess(GuardedSession)


def session() -> GuardedSession:
    """Return the session of this process."""
    return _session.get()


def send(method: str, url: str, *, limits: Limits, **options: Any) -> requests.Response:
    """Send a request in the session of this process, within ``limits``; ``options`` as in ``requests``.

    Raises:
        requests.RequestException: there is no complete answer; ``was_sent`` and ``timed_out`` tell more.
    """
    # requests annotates its own kinds of time-outs only; our adapter understands Limits.
    return session().request(method, url, timeout=limits, **options)  # type: ignore[arg-type]  # see above


__all__ = [
    "API",
    "TOKEN",
    "GuardedSession",
    "Limits",
    "be_patient",
    "json_of",
    "retry_after",
    "send",
    "session",
    "timed_out",
    "was_sent",
]
