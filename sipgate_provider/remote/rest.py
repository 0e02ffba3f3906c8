"""Calls sipgate's REST API: returns an answer's JSON, or raises the error of its status."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from sipgate_provider import errors, metrics
from sipgate_provider.remote import session
from sipgate_provider.remote.secret import Secret
from sipgate_provider.remote.session import SupportsWrite
from sipgate_provider.remote.specification import OPERATIONS, endpoint_of, scopes_for

logger = logging.getLogger(__name__)

STATUSES = [*(str(status.value) for status in HTTPStatus), "timeout", "connection", "too_large"]
REQUESTS = metrics.counter(
    "api_requests_total",
    "Requests to sipgate's REST API, by template of the path, and by status or why there is none.",
    {"endpoint": (), "status": STATUSES},
)
SECONDS = metrics.histogram(
    "api_seconds",
    "Duration of requests to sipgate's REST API.",
    {"endpoint": ()},
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0),
)

Params = Mapping[str, Any] | Iterable[tuple[str, Any]] | None
"""A query. A list repeats its parameter; booleans and datetimes are written as sipgate expects."""
DOCUMENT_TIMEOUT = (5.0, 30.0)
LONGEST_DETAIL = 500
LONGEST_PAGE = 1000
"""sipgate's own limit for ``limit``."""
ALWAYS_THERE = frozenset({"GET /account", "GET /authorization/userinfo"})
"""Resources that every user has. If they are missing, the address is not that of sipgate's API."""
CLASSIC_REQUIRED = "classic_required"
"""``error.code`` if sipgate says that only *classic* accounts have a resource."""


def call(
    method: str,
    base_url: str,
    path: str,
    access_token: str,
    *,
    params: Params = None,
    json: Any = None,
    to: SupportsWrite | None = None,
) -> Any:
    """Send a request (a read at most twice); return the parsed JSON, or None for an empty answer.

    Args:
        path: below ``base_url``, starting with a slash, without query; never a full address.
        to: a binary file for the body, of any media type and size; the result is then None.

    Raises:
        ValueError: ``path`` is not a path, or a datetime in ``params`` is naive.
        errors.SipgateError: by status, as the tree in ``errors`` says.
    """
    check_path(path)
    method, endpoint = method.upper(), endpoint_of(method, path)
    headers: dict[str, str] = {"Authorization": Secret(f"Bearer {access_token}")}
    options: dict[str, Any] = {"params": query_of(params), "headers": headers}
    if to is not None:
        options |= {"timeout": DOCUMENT_TIMEOUT, "to": to}
        headers["Accept"] = "*/*"
    started = time.monotonic()
    try:
        answer = session.send(method, f"{base_url}{path}", endpoint=endpoint, json=json, **options)
    except errors.SipgateError as error:
        _note(endpoint, started, code=error.code or "too_large")
        raise
    _note(endpoint, started, status=answer.status)
    if not 200 <= answer.status < 300:
        raise error_of(answer, endpoint, scopes_for(method, path))
    try:
        return answer.json() if answer.body else None
    except ValueError:
        raise errors.UnexpectedResponse(
            "sipgate's answer is not JSON.", endpoint=endpoint, status=answer.status
        ) from None


def _note(
    endpoint: str, started: float, *, status: int | None = None, code: str | None = None
) -> None:
    """Count and log the result of a request: its status, or why it has none."""
    seconds, outcome = time.monotonic() - started, str(status or code)
    label = metrics.one_of(endpoint, OPERATIONS)
    REQUESTS.labels(label, metrics.one_of(outcome, STATUSES)).inc()
    SECONDS.labels(label).observe(seconds)
    took = round(seconds * 1000)
    known = errors.log_fields(endpoint=endpoint, status=status, code=code, duration_ms=took)
    logger.debug("%s: %s in %s ms", endpoint, outcome, took, extra=known)


def check_path(path: str) -> None:
    """Raise ``ValueError`` unless ``path`` stays below the API's base."""
    segments = path.split("/")
    if (
        not path.startswith("/")
        or {".", ".."} & {*segments}
        or "//" in path
        or re.search(r"[?#\\\s\x00-\x1f\x7f-\x9f%]", path)
    ):
        raise ValueError(
            "The path must be below the API base, such as '/numbers'; pass a query as params."
        )


def query_of(params: Params) -> list[tuple[str, Any]]:
    pairs = params.items() if isinstance(params, Mapping) else params or ()
    return [(name, _written(value)) for name, value in pairs]


def _written(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("A datetime needs its time zone: django.utils.timezone.make_aware.")
        return value.isoformat()
    if isinstance(value, list | tuple | set | frozenset):
        return [_written(one) for one in value]
    return value


# --- errors ---------------------------------------------------------------------------------------

KINDS: dict[int, type[errors.SipgateError]] = {
    401: errors.AccessRejected,
    402: errors.PaymentRequired,
    404: errors.NotFound,
    408: errors.SipgateUnavailable,
    409: errors.Conflict,
}


def error_of(
    answer: session.Answer, endpoint: str, scopes: tuple[str, ...] = ()
) -> errors.SipgateError:
    """Return the error that a status means. Of sipgate's words, only neo's sentence for 403
    counts."""
    status = answer.status
    text = f"sipgate answered {endpoint} with HTTP {status}."
    told: errors.Details = {"endpoint": endpoint, "status": status, "detail": _detail(answer.body)}
    if endpoint in ALWAYS_THERE and (status in {404, 405} or 300 <= status < 400):
        text += " SIPGATE_API_URL is not the API's address."
        return errors.Misconfigured(text, setting="SIPGATE_API_URL", **told)
    if status == 403 and "classic pbx" in told["detail"].lower():
        text += " Only accounts of the product line classic have this resource."
        told["code"] = CLASSIC_REQUIRED
        return errors.NotAvailable(text, scopes=scopes, **told)
    if status == 403:
        return errors.MissingPermission(text, scopes=scopes, **told)
    if status == 429:
        return errors.RateLimited(text, retry_after=session.retry_after(answer.headers), **told)
    if status >= 500:
        wait = session.retry_after(answer.headers)
        return errors.SipgateUnavailable(text, retry_after=wait, **told)
    if status < 400:
        return errors.UnexpectedResponse(text, **told)
    return KINDS.get(status, errors.RequestFailed)(text, **told)


def _detail(body: bytes) -> str:
    """Return the beginning of sipgate's answer. Its ``repr`` hides it, since it may quote the
    request."""
    words = body[: 4 * LONGEST_DETAIL].decode("utf-8", "replace")
    return Secret(session.printable(words, LONGEST_DETAIL))


# --- lists ----------------------------------------------------------------------------------------


def items_of(answer: Any, *, endpoint: str | None = None) -> list[Any]:
    """Return the items of a list.

    Raises:
        errors.UnexpectedResponse: the answer is not a list.
    """
    items = answer.get("items") if isinstance(answer, Mapping) else None
    if not isinstance(items, list):
        raise errors.UnexpectedResponse("sipgate's answer is not a list.", endpoint=endpoint)
    return items


def paged(
    ask: Callable[[int, int], Any], *, page_size: int, endpoint: str | None = None
) -> Iterator[Any]:
    """Yield the items of all pages, each ``id`` once. ``ask`` gets the answer for offset and limit.

    A list may change while it is read. If its total shrinks, this asks again for the items that
    moved up; if it grows at its front, known items are skipped. Without a total, only an empty page
    ends the list, because sipgate may have limited a short one. A server that ignores the offset
    sends the same page again, which ends the list, too.
    """
    offset = 0
    total: int | None = None
    before: list[Any] | None = None
    seen: set[str | int | None] = set()
    while True:
        answer = ask(offset, page_size)
        items, last, total = items_of(answer, endpoint=endpoint), total, _total_of(answer)
        if total is not None and last is not None and total < last and offset:
            offset, before = max(offset - (last - total), 0), None
            continue
        if not items or items == before:
            return
        for item in items:
            name = _id_of(item)
            if name is None or name not in seen:
                seen.add(name)
                yield item
        offset, before = offset + len(items), items
        if total is not None and offset >= total:
            return


def _id_of(item: Any) -> str | int | None:
    found = item.get("id") if isinstance(item, Mapping) else None
    return found if isinstance(found, str | int) else None


def _total_of(answer: Mapping[str, Any]) -> int | None:
    total = answer.get("totalCount")
    if isinstance(total, bool) or not isinstance(total, int) or total <= 0:
        return None
    return total
