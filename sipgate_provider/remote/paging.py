"""Reads a list page by page: it knows how far it has read, and when the list ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sipgate_provider import errors
from sipgate_provider.remote import rest

Params = Mapping[str, Any] | Iterable[tuple[str, Any]] | None


LONGEST_PAGE = 1000
"""sipgate's own limit for ``limit``."""


MOST_PAGES = 10_000


class Pages:
    """The position in a paged list. It knows when to stop, and sends no requests."""

    def __init__(self, path: str, params: Params, page_size: int) -> None:
        if not 1 <= page_size <= LONGEST_PAGE:
            raise ValueError(f"page_size must be from 1 to {LONGEST_PAGE}.")
        self._params = query_of(params)
        if {"offset", "limit"} & {name for name, _ in self._params}:
            raise ValueError("offset and limit are set by the iteration: use page_size.")
        self._endpoint = rest.endpoint_of("GET", path)
        self._page_size = page_size
        self._offset = self._pages = 0
        self._before: list[Any] = []
        self.over = False

    def query(self) -> list[tuple[str, Any]]:
        return [*self._params, ("offset", self._offset), ("limit", self._page_size)]

    def take(self, answer: Any) -> list[Any]:
        """Return the new items of ``answer``, and move on.

        Without a total, or with an odd one, only an empty page is the end: a short one may be a limit of sipgate's. A
        server that ignores ``offset`` sends the same page again: that is an end, too.
        """
        items = items_of(answer, endpoint=self._endpoint)
        known = {_id(item) for item in self._before} - {None}
        fresh = [item for item in items if _id(item) not in known]
        total = answer.get("totalCount") if isinstance(answer, Mapping) else None
        self._offset += len(items)
        self._pages += 1
        counted = (
            isinstance(total, int)
            and not isinstance(total, bool)
            and total > 0
            and self._offset >= total
        )
        self.over = not fresh or items == self._before or counted
        if items == self._before:
            fresh = []
        if not self.over and self._pages >= MOST_PAGES:
            raise errors.UnexpectedResponse("sipgate's list does not end.", endpoint=self._endpoint)
        self._before = items
        return fresh


def _id(item: Any) -> str | None:
    found = item.get("id") if isinstance(item, Mapping) else None
    return str(found) if isinstance(found, str | int) and found != "" else None


def items_of(answer: Any, *, endpoint: str | None = None) -> list[Any]:
    items = answer.get("items") if isinstance(answer, Mapping) else None
    if not isinstance(items, list):
        raise errors.UnexpectedResponse(
            "sipgate answered with something that is no list.", endpoint=endpoint
        )
    return items


def query_of(params: Params) -> list[tuple[str, Any]]:
    pairs = params.items() if isinstance(params, Mapping) else params or ()
    return [(name, _value(value)) for name, value in pairs]


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple | set | frozenset):
        return [_value(one) for one in value]
    return value
