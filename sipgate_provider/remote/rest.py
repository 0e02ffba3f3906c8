"""Sends one request to sipgate's REST API, and returns the answer or raises the error that its status means."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

import requests

from sipgate_provider import errors, metrics
from sipgate_provider.remote import http, log_fields, oauth
from sipgate_provider.remote.required_scopes import OPERATIONS
from sipgate_provider.remote.secret import Secret, without_frames

logger = logging.getLogger(__name__)

STATUSES = [*(str(status.value) for status in HTTPStatus), "timeout", "connection", "too_large"]
REQUESTS = metrics.Counter(
    "api_requests_total",
    "Requests to sipgate's REST API, by template of the path and by status, or what there was instead of an answer.",
    {"endpoint": None, "status": STATUSES},
)
SECONDS = metrics.Histogram(
    "api_seconds",
    "Duration of requests to sipgate's REST API.",
    {"endpoint": None},
    buckets=(
        0.025,
        0.05,
        0.1,
        0.25,
        0.5,
        1.0,
        2.5,
        5.0,
        10.0,
        15.0,
    ),  # up to the API's total deadline
)


def call(
    method: str,
    base_url: str,
    path: str,
    access_token: str,
    *,
    params: Any = None,
    json: Any = None,
    limits: http.Limits = http.API,
    stream: bool = False,
    accept: str | None = None,
) -> requests.Response:
    """Ask once (reads: twice at most) and return a successful answer.

    Args:
        path: below ``base_url``, starting with a slash, without query; never a full address.
        stream: leave the body to the caller, who closes the answer; then only silence ends it (see ``Document``).
        accept: accepted media types; JSON by default.

    Raises:
        ValueError: the path is not one.
        errors.SipgateError: by status, as the tree in ``errors`` says.
    """
    check_path(path)
    endpoint = endpoint_of(method, path)
    headers: dict[str, str] = {"Authorization": Secret(f"Bearer {access_token}")}
    if accept is not None:
        headers["Accept"] = accept
    started = time.monotonic()
    try:
        response = http.send(
            method.upper(),
            f"{base_url}{path}",
            limits=limits,
            params=params,
            json=json,
            headers=headers,
            stream=stream,
        )
    except requests.exceptions.InvalidJSONError:
        raise ValueError("The body of the request is not JSON.") from None
    except http.ResponseTooLarge as error:
        _count(method, path, "too_large", started)
        raise errors.UnexpectedResponse(
            "The answer is too large.", endpoint=endpoint
        ) from without_frames(error)
    except requests.RequestException as error:
        _count(method, path, "timeout" if http.timed_out(error) else "connection", started)
        raise oauth.unavailable(error, endpoint=endpoint) from without_frames(error)
    _count(method, path, str(response.status_code), started)
    if not 200 <= response.status_code < 300:
        _raise_for_status(response, endpoint, scopes_for(method, path))
    return response


def _count(method: str, path: str, status: str, started: float) -> None:
    """Count and log a request; ``status`` is that of the answer, or says why there was none."""
    seconds = time.monotonic() - started
    if REQUESTS.is_on:
        # Not endpoint_of: it keeps the words of unknown paths, and there may be any number of them.
        template = _template(method.upper(), path)
        endpoint = f"{method.upper()} {template}" if template else metrics.OTHER
        REQUESTS.count(endpoint, status)
        SECONDS.observe(seconds, endpoint)
    if logger.isEnabledFor(logging.DEBUG):
        endpoint, milliseconds = endpoint_of(method, path), round(seconds * 1000)
        logger.debug(
            "%s: %s in %s ms",
            endpoint,
            status,
            milliseconds,
            extra=log_fields.fields(
                endpoint=endpoint,
                duration_ms=milliseconds,
                status=int(status) if status.isdigit() else None,
                code="" if status.isdigit() else status,
            ),
        )


ALWAYS_THERE = frozenset({"GET /account", "GET /authorization/userinfo"})
"""Resources that everybody has. If they are missing, the address is not that of sipgate's API."""


def _raise_for_status(response: requests.Response, endpoint: str, scopes: tuple[str, ...]) -> None:
    status = response.status_code
    response.close()
    where: dict[str, Any] = {"endpoint": endpoint, "status": status}
    text = f"sipgate answered {endpoint} with HTTP {status}."
    if endpoint in ALWAYS_THERE and (status in {404, 405} or 300 <= status < 400):
        raise errors.Misconfigured(
            f"{text} SIPGATE_API_URL is not the API's address.", setting="SIPGATE_API_URL", **where
        )
    if status == 401:
        raise errors.AccessRejected(text, reason="rejected", **where)
    if status == 403:
        raise errors.MissingPermission(text, scopes=scopes, **where)
    if status == 429:
        raise errors.RateLimited(text, retry_after=http.retry_after(response), **where)
    if status == 408 or status >= 500:
        raise errors.SipgateUnavailable(text, retry_after=http.retry_after(response), **where)
    if 300 <= status < 400 or status < 200:
        raise errors.UnexpectedResponse(text, **where)
    kinds = {402: errors.PaymentRequired, 404: errors.NotFound, 409: errors.Conflict}
    raise kinds.get(status, errors.RequestFailed)(text, **where)


class Document:
    """A body that is read piece by piece: a fax, a recording. It may be far larger than memory.

    ``size`` is the number of bytes that sipgate announced (None if it did not), ``received`` what has arrived so far.
    """

    def __init__(self, response: requests.Response, *, endpoint: str, silence: float) -> None:
        self._response = response
        self._endpoint = endpoint
        self._silence = silence
        self.content_type = str(response.headers.get("Content-Type") or "")
        announced = str(response.headers.get("Content-Length") or "")
        plain = not response.headers.get("Content-Encoding")
        self.size = (
            int(announced) if plain and announced.isascii() and announced.isdigit() else None
        )
        self.received = 0

    def __repr__(self) -> str:
        return f"<Document {self._endpoint} {self.content_type} {self.received}/{self.size}>"

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in pieces, once.

        Raises:
            errors.SipgateUnavailable: the connection broke, or nothing came for ``silence`` seconds.
        """
        pieces = self._response.iter_content(http.CHUNK)
        while True:
            http.be_patient(self._silence)
            try:
                piece = next(pieces, None)
            except requests.RequestException as error:
                raise oauth.unavailable(error, endpoint=self._endpoint) from without_frames(error)
            if piece is None:
                return
            self.received += len(piece)
            yield piece

    def copy_to(self, file: SupportsWrite) -> int:
        """Write the body to a binary file; return the number of bytes. Raises as iteration; a part is written then."""
        for piece in self:
            file.write(piece)
        return self.received


class SupportsWrite(Protocol):
    def write(self, data: bytes, /) -> object: ...


def data(response: requests.Response, *, endpoint: str | None = None) -> Any:
    """Return the JSON of an answer, None for an empty one.

    Raises:
        errors.UnexpectedResponse: it is not JSON.
    """
    if not response.content:
        return None
    try:
        return http.json_of(response.content)
    except ValueError:
        raise errors.UnexpectedResponse(
            "sipgate's answer is not JSON.", endpoint=endpoint, status=response.status_code
        ) from None


def check_path(path: str) -> None:
    """Raise ``ValueError`` unless ``path`` stays below the API's base."""
    segments = path.split("/")
    if (
        not path.startswith("/")
        or "//" in path
        or ".." in segments
        or "." in segments
        or re.search(r"[?#\\\s\x00-\x1f\x7f-\x9f%]", path)
    ):
        raise ValueError(
            "A path below the API base is needed, such as '/numbers', without query and host; pass params instead."
        )


def scopes_for(method: str, path: str) -> tuple[str, ...]:
    """Return the scopes that the specification names for an operation; any one suffices. ``()`` if it is unknown."""
    template = _template(method.upper(), path)
    return OPERATIONS[method.upper(), template] if template else ()


def endpoint_of(method: str, path: str) -> str:
    """Return a name for logs and errors: the template of the path, so that no id of a person gets there.

    Of a path that is not in the specification, plain words stay; whatever else is between slashes becomes ``{id}``.
    """
    template = _template(method.upper(), path) or re.sub(
        r"/(?![A-Za-z-]{1,30}(?:/|$))[^/]+", "/{id}", path
    )
    return f"{method.upper()} {template}"


@lru_cache(maxsize=1024)
def _template(method: str, path: str) -> str | None:
    if (method, path) in OPERATIONS:
        return path
    return next(
        (template for pattern, template in _patterns(method) if pattern.fullmatch(path)), None
    )


@lru_cache(maxsize=16)
def _patterns(method: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    # Templates with fewer variables first: /users/{id} before /{userId}/{thing}.
    templates = sorted(
        (path for verb, path in OPERATIONS if verb == method and "{" in path),
        key=lambda path: path.count("{"),
    )
    return tuple(
        (re.compile(re.sub(r"\\\{[^/]*?\\\}", "[^/]+", re.escape(path))), path)
        for path in templates
    )
