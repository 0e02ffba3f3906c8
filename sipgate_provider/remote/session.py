"""Speaks HTTP to sipgate for everything but a refresh: plain requests, with limits.

It follows no redirects (a 307 would carry secrets to another origin) and uses no cookies and no
``.netrc``. Proxies and certificates of the environment count, as in any program that uses requests.
It repeats a read once if the connection breaks or a gateway answers for sipgate; it sends every
other request once.

Errors contain no address, header or body: the exceptions of requests, which contain all of them,
are not chained.
"""

from __future__ import annotations

import functools
import json
import math
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from importlib import metadata
from typing import Any, Protocol
from urllib.parse import urlencode

import requests
from requests import exceptions
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InvalidHeader, NewConnectionError, ReadTimeoutError
from urllib3.util import Retry

from sipgate_provider import errors
from sipgate_provider.remote.secret import SecretBytes

DISTRIBUTION = "django-sipgate-provider"
TIMEOUT = (5.0, 10.0)
"""Seconds to connect, and seconds to wait for each next byte."""
LONGEST_BODY = 2 * 1024 * 1024
CHUNK = 65_536
READS = frozenset({"GET", "HEAD"})
GATEWAY = frozenset({502, 503, 504})
LONGEST_RETRY_AFTER = 21_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A complete answer of any status. Names in ``headers`` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Return the body as plain data that a database can hold.

        Raises:
            ValueError: it is not JSON.
        """
        return json_of(self.body)


class SupportsWrite(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Session(requests.Session):
    def __init__(self) -> None:
        super().__init__()
        self.headers.update({"User-Agent": user_agent(), "Accept": "application/json"})
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.auth = lambda request: request  # requests reads .netrc only where there is none
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(pool_maxsize=64))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Never follow: the caller sees the 3xx. With ``allow_redirects=False``, requests would
        still parse the address, which may raise, and read a body of any size."""
        return


@functools.cache
def session() -> Session:
    """Return the session of this process, whose connections all threads share."""
    return Session()


if hasattr(os, "register_at_fork"):
    # A child must not share sockets with its parent: each would read the other's answers.
    os.register_at_fork(after_in_child=session.cache_clear)


def send(
    method: str,
    url: str,
    *,
    endpoint: str,
    timeout: tuple[float, float] = TIMEOUT,
    to: SupportsWrite | None = None,
    form: Mapping[str, str] | None = None,
    **options: Any,
) -> Answer:
    """Send a request and return the answer, whatever its status.

    Args:
        endpoint: its name in errors.
        timeout: seconds to connect, and seconds of silence.
        to: a binary file for the body of a successful answer, which may then have any size;
            ``Answer.body`` is empty.
        form: the body, which no error report shows.
        options: ``params``, ``json``, ``headers``, as in requests.

    Raises:
        ValueError: ``json`` cannot be written as JSON.
        errors.SipgateUnavailable: there is no complete answer; ``sent`` tells whether the request
            may have arrived.
        errors.UnexpectedResponse: the answer is too large.
    """
    if form is not None:
        # requests would keep the text of the form in variables, which an error report prints.
        options["data"] = SecretBytes(urlencode(form).encode())
        options["headers"] = {"Content-Type": "application/x-www-form-urlencoded"}
    tries = 2 if method in READS and to is None else 1
    while True:
        tries -= 1
        try:
            answer = _answer(method, url, timeout, to, options)
        except exceptions.InvalidJSONError:
            raise ValueError("The body of the request is not JSON.") from None
        except (requests.RequestException, TooLarge) as error:
            if tries == 0 or not _is_cut(error):
                raise _failure(error, endpoint) from None
        else:
            if tries == 0 or answer.status not in GATEWAY:
                return answer


class TooLarge(Exception):
    """The body is larger than any answer of sipgate's API."""


def _answer(
    method: str,
    url: str,
    timeout: tuple[float, float],
    to: SupportsWrite | None,
    options: dict[str, Any],
) -> Answer:
    with session().request(method, url, timeout=timeout, stream=True, **options) as response:
        status, headers, parts, size = response.status_code, response.headers, [], 0
        for part in response.iter_content(CHUNK):
            if to is not None and 200 <= status < 300:
                to.write(part)
                continue
            parts.append(part)
            size += len(part)
            if size > LONGEST_BODY:
                raise TooLarge
    return Answer(status=status, headers=headers, body=b"".join(parts))


def _is_cut(error: Exception) -> bool:
    """Tell whether a connection broke. After a time-out, a second answer would be late, too."""
    cut = isinstance(error, exceptions.ConnectionError | exceptions.ChunkedEncodingError)
    return cut and not timed_out(error) and not isinstance(error, exceptions.SSLError)


def timed_out(error: Exception) -> bool:
    cause = error.args[0] if error.args else None  # requests hides a silence within a body
    return isinstance(error, exceptions.Timeout) or isinstance(cause, ReadTimeoutError)


def _failure(error: Exception, endpoint: str) -> errors.SipgateError:
    """Return the app's error for a request without an answer."""
    if isinstance(error, TooLarge):
        return errors.UnexpectedResponse("The answer is too large.", endpoint=endpoint)
    slow, reason = timed_out(error), _reason(error)
    happened = "did not answer in time" if slow else "cannot be reached"
    return errors.SipgateUnavailable(
        f"sipgate's endpoint {endpoint} {happened}{f' ({reason})' if reason else ''}.",
        sent=_may_have_arrived(error),
        endpoint=endpoint,
        code="timeout" if slow else "connection",
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


NEVER_LEFT = (
    exceptions.ConnectTimeout,
    exceptions.ProxyError,
    NewConnectionError,
    ssl.SSLCertVerificationError,
)


def _may_have_arrived(error: Exception) -> bool:
    """Tell whether sipgate may have received the request; True if in doubt."""
    is_invalid = isinstance(error, ValueError)  # an address or a header that requests does not send
    return not is_invalid and not any(isinstance(cause, NEVER_LEFT) for cause in _causes(error))


def _reason(error: Exception) -> str:
    """Return the operating system's words. Other texts of these errors quote address or header."""
    for cause in _causes(error):
        words = getattr(cause, "verify_message", "") or getattr(cause, "strerror", "")
        if words:
            return str(words)
    return ""


def user_agent() -> str:
    try:
        version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        version = "dev"
    return f"{DISTRIBUTION}/{version}"


# --- reading an answer ----------------------------------------------------------------------------


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return ``Retry-After`` in seconds from now (RFC 9110 §10.2.3), at most six hours; None if
    there is none."""
    try:
        seconds = Retry().parse_retry_after(headers.get("Retry-After", ""))
    except (InvalidHeader, ValueError, OverflowError):
        return None
    return min(float(seconds), LONGEST_RETRY_AFTER)


def printable(text: str, most: int) -> str:
    """Return the beginning of what somebody else wrote, in one line."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:most]


def json_of(raw: bytes) -> Any:
    """Return the value of a JSON text as plain data that a database can hold.

    Odd parts are replaced and the rest is kept: bytes that are not UTF-8 become U+FFFD, numbers
    without a value (``NaN``, ``1e999``) None; NUL and lone surrogates are removed.

    Raises:
        ValueError: no JSON.
    """
    try:
        return _storable(json.loads(raw.decode("utf-8-sig", "replace")))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "ignore").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_storable(part) for part in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(part) for key, part in value.items()}
    return value
