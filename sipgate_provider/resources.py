"""sipgate's resources as methods, which ``SipgateClient`` and ``TokenClient`` inherit."""

from __future__ import annotations

import base64
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from sipgate_provider import conf, errors, values
from sipgate_provider.remote import rest
from sipgate_provider.remote.session import SupportsWrite
from sipgate_provider.remote.specification import endpoint_of
from sipgate_provider.values import Direction, EntryType, FaxStatus

NEO = "NEO_PBX"
USUAL_PAGE = 100
LONGEST_FAX = 28_330_000
"""Characters of base64, by the specification."""
Member = TypeVar("Member", bound=StrEnum)


class Resources(ABC):
    """Methods for sipgate's resources. ``get`` to ``download`` take any path; the others return
    values.

    Each raises what ``get`` raises. Telephone numbers are E.164 (``+4921199990000``).
    """

    user_id: str
    """sipgate's id of the user inside their account, such as ``w0``; paths of the API need it."""

    @property
    @abstractmethod
    def product_line(self) -> str:
        """``CLASSIC_PBX`` or ``NEO_PBX``, as sipgate's tokens say; empty if they do not."""

    @abstractmethod
    def _request(self, method: str, path: str, **options: Any) -> Any:
        """Send a request and return the parsed JSON. ``options`` are those of ``rest.call``."""

    # --- any path -------------------------------------------------------------------------------

    def get(self, path: str, *, params: rest.Params = None) -> Any:
        """Request ``path`` and return the parsed JSON, or ``None`` for an empty answer.

        Args:
            path: below the API's base, such as ``"/numbers"``; without query.
            params: the query. A list repeats its parameter; booleans and aware datetimes are
                written as sipgate expects them.

        Raises:
            ValueError: ``path`` is not a path, or a datetime is naive.
            errors.NotConnected, errors.NeedsSignIn: the user has to act. ``AccessRejected``: 401
                for a refreshed token.
            errors.MissingPermission: 403; ``scopes`` names those of the specification.
                ``NotAvailable``: 403 although one of them was granted, or because the resource is
                not for this product line.
            errors.PaymentRequired, errors.NotFound, errors.Conflict, errors.RequestFailed: 402,
                404, 409, other 4xx; ``detail`` has sipgate's words.
            errors.RateLimited, errors.SipgateUnavailable: 429; network, time-out, 5xx.
            errors.UnexpectedResponse: the app does not understand the answer.
            errors.Misconfigured: this site's settings. ``CallerHoldsLock``: leave the transaction
                (SQLite).
        """
        return self._request("GET", path, params=params)

    def post(self, path: str, *, params: rest.Params = None, json: Any = None) -> Any:
        """Send ``json`` to ``path``; the rest is as for ``get``.

        If the connection breaks, the request is not repeated: ``SipgateUnavailable.sent`` tells
        whether sipgate may have carried it out. This holds for everything that is not a read.
        """
        return self._request("POST", path, params=params, json=json)

    def put(self, path: str, *, params: rest.Params = None, json: Any = None) -> Any:
        """Replace what is at ``path``; the rest is as for ``post``."""
        return self._request("PUT", path, params=params, json=json)

    def patch(self, path: str, *, params: rest.Params = None, json: Any = None) -> Any:
        """Change what is at ``path``; the rest is as for ``post``."""
        return self._request("PATCH", path, params=params, json=json)

    def delete(self, path: str, *, params: rest.Params = None, json: Any = None) -> Any:
        """Delete what is at ``path``; the rest is as for ``post``."""
        return self._request("DELETE", path, params=params, json=json)

    def iterate(
        self,
        path: str,
        params: rest.Params = None,
        *,
        page_size: int = USUAL_PAGE,
        limit: int | None = None,
    ) -> Iterator[Any]:
        """Yield the items of a paged list, and request each page when it is needed.

        Args:
            params: the query without ``offset`` and ``limit``, which this method sets.
            page_size: items per request, 1 to 1000.
            limit: at most this many items, 0 or more.

        The list may change meanwhile, for example if the caller archives what it has read. No item
        comes twice, and none is left out if sipgate names the list's total, as it does for history
        and contacts.
        """
        if not 1 <= page_size <= rest.LONGEST_PAGE:
            raise ValueError(f"page_size must be from 1 to {rest.LONGEST_PAGE}.")
        query = rest.query_of(params)
        if {"offset", "limit"} & {name for name, _ in query}:
            raise ValueError("iterate sets offset and limit itself: use page_size or limit.")

        def ask(offset: int, size: int) -> Any:
            return self.get(path, params=[*query, ("offset", offset), ("limit", size)])

        size = page_size if limit is None else max(min(page_size, limit), 1)
        return islice(rest.paged(ask, page_size=size, endpoint=endpoint_of("GET", path)), limit)

    def download(self, path: str, to: SupportsWrite) -> None:
        """Write a document (a fax, a recording) of any size to a binary file.

        Args:
            path: below the API's base, or a whole address from there, such as a ``documentUrl``;
                it may have a query. The access token is sent nowhere else.

        Also raises what ``to.write`` raises, and ``ValueError`` for an address outside of the API.
        After an error, the file holds a part of the document.
        """
        path, query = _place(path)
        self._request("GET", path, params=query, to=to)

    # --- people, telephones, money --------------------------------------------------------------

    def account(self) -> values.Account:
        """Return company and product (``account:read``)."""
        return values.Account.parse(self.get("/account"))

    def identity(self) -> values.Identity:
        """Return the identity that granted access (any scope)."""
        return values.Identity.parse(self.get("/authorization/userinfo"))

    def user(self, user_id: str | None = None) -> values.User:
        """Return a user of the account, by default this one (``users:read``)."""
        return values.User.parse(self.get(f"/users/{_segment(user_id or self.user_id)}"))

    def users(self) -> list[values.User]:
        """Return the users of the account (``users:read``; perhaps for administrators only)."""
        return [values.User.parse(row) for row in self._items("/users")]

    def devices(self, user_id: str | None = None) -> list[values.Device]:
        """Return a user's telephones, by default this one's (``devices:read``)."""
        rows = self._items(f"/{_segment(user_id or self.user_id)}/devices")
        return [values.Device.parse(row) for row in rows]

    def balance(self) -> values.Balance:
        """Return the prepaid balance (``balance:read``)."""
        return values.Balance.parse(self.get("/balance"))

    def numbers(self, *, limit: int | None = None) -> Iterator[values.Number]:
        """Yield the telephone numbers of the account, at most ``limit`` (``numbers:read``)."""
        return map(values.Number.parse, self.iterate("/numbers", limit=limit))

    # --- history --------------------------------------------------------------------------------

    def history(
        self,
        *,
        types: Iterable[EntryType | str] = (),
        directions: Iterable[Direction | str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        archived: bool = False,
        starred: bool | None = None,
        number: str = "",
        extensions: Iterable[str] = (),
        limit: int | None = None,
    ) -> Iterator[values.HistoryEntry]:
        """Yield calls, faxes, SMS and voicemails, newest first (``history:read``); none on *neo*.

        Args:
            types, directions: only these; words as in ``EntryType`` and ``Direction``.
            since, until: only from or up to this moment, with a time zone.
            archived: the archived entries instead of the others.
            starred: only entries with a star, or only those without.
            number: only to or from this telephone number.
            extensions: only of these lines, such as ``p0``.
            limit: at most this many.

        Also raises ``ValueError`` for an unknown word and for a naive datetime.
        """
        star = None if starred is None else ("STARRED" if starred else "UNSTARRED")
        filters = {
            "types": _members(EntryType, types),
            "directions": _members(Direction, directions),
            "from": since,
            "to": until,
            "archived": archived or None,
            "starred": star,
            "phonenumber": number or None,
            "connectionIds": list(extensions),
        }
        given = {name: value for name, value in filters.items() if value not in (None, [])}
        return map(values.HistoryEntry.parse, self.iterate("/history", given, limit=limit))

    def history_entry(self, entry_id: str) -> values.HistoryEntry:
        """Return one entry (``history:read``)."""
        return values.HistoryEntry.parse(self.get(f"/history/{_segment(entry_id)}"))

    def update_history_entry(
        self,
        entry_id: str,
        *,
        read: bool | None = None,
        archived: bool | None = None,
        starred: bool | None = None,
        note: str | None = None,
    ) -> None:
        """Mark or archive an entry, or write a note (``history:write``).

        Only the given arguments are sent. Uncertain: the specification does not say whether sipgate
        keeps the rest.
        """
        body = {"read": read, "archived": archived, "starred": starred, "note": note}
        self.put(f"/history/{_segment(entry_id)}", json=_given(body))

    # --- calls, SMS, faxes ----------------------------------------------------------------------

    def dial(self, device_id: str, number: str, *, caller_id: str = "") -> str:
        """Call ``number`` from one of the user's telephones; return sipgate's id of the call.

        On *classic* (``sessions:calls:write``), the telephone rings first, and sipgate connects
        whoever answers it. On *neo* (``rtcm:write``), sipgate calls the number at once. Uncertain:
        neo's path is newer than the specification, which does not say what it answers; without an
        id in the answer, the result is empty.

        Args:
            device_id: a telephone, such as ``e0`` (see ``devices``).
            caller_id: which number of the account to show; by default the telephone's own.
        """
        if self.product_line == NEO:
            body = {"deviceId": device_id, "targetNumber": number, "callerId": caller_id or None}
            return _id_in(self.post("/calls", json=_given(body)), "callId")
        body = {"caller": device_id, "callee": number, "callerId": caller_id or None}
        return _id_in(self.post("/sessions/calls", json=_given(body)), "sessionId")

    def send_sms(
        self, recipient: str, message: str, *, sms_id: str = "", send_at: datetime | None = None
    ) -> None:
        """Send an SMS (``sessions:sms:write``), now or at ``send_at``, which has a time zone.

        Args:
            sms_id: the SMS extension that sends, such as ``s0``; by default the user's first
                (``sms:read``).
        """
        if send_at is not None and send_at.tzinfo is None:
            raise ValueError("send_at needs its time zone: django.utils.timezone.make_aware.")
        body = {
            "smsId": sms_id or self._extension("sms"),
            "recipient": recipient,
            "message": message,
            "sendAt": None if send_at is None else int(send_at.timestamp()),
        }
        self.post("/sessions/sms", json=_given(body))

    def send_fax(
        self,
        recipient: str,
        document: bytes,
        *,
        filename: str = "fax.pdf",
        faxline_id: str = "",
    ) -> str:
        """Send a PDF as a fax (``sessions:fax:write``); return the id for ``fax_status``.

        Args:
            document: the PDF, up to 21 MB.
            faxline_id: the line that sends, such as ``f0``; by default the user's first
                (``faxlines:read``).

        Also raises ``ValueError`` if the document is too large.
        """
        content = base64.b64encode(document).decode()
        if len(content) > LONGEST_FAX:
            raise ValueError("The document is larger than sipgate's limit for faxes.")
        body = {
            "faxlineId": faxline_id or self._extension("faxlines"),
            "recipient": recipient,
            "filename": filename,
            "base64Content": content,
        }
        return _id_in(self.post("/sessions/fax", json=body), "sessionId")

    def fax_status(self, session_id: str) -> FaxStatus | str:
        """Return a fax's status, from ``PENDING`` to ``SENT`` or ``FAILED`` (``history:read``)."""
        return self.history_entry(session_id).fax_status

    # --- contacts -------------------------------------------------------------------------------

    def contacts(
        self, *, numbers: Iterable[str] = (), limit: int | None = None
    ) -> Iterator[values.Contact]:
        """Yield the contacts, or those with one of ``numbers`` (``contacts:read``)."""
        wanted = list(numbers)
        params = {"phonenumbers": wanted} if wanted else None
        return map(values.Contact.parse, self.iterate("/contacts", params, limit=limit))

    def create_contact(
        self,
        name: str,
        *,
        numbers: Iterable[str] = (),
        emails: Iterable[str] = (),
        shared: bool = False,
    ) -> None:
        """Add a contact of the user, or a ``shared`` one of the account (``contacts:write``).

        Numbers and emails are sent without a type. Uncertain: the specification does not say
        whether sipgate takes them so.
        """
        body = {
            "name": name,
            "scope": "SHARED" if shared else "PRIVATE",
            "numbers": [{"number": number, "type": []} for number in numbers],
            "emails": [{"email": email, "type": []} for email in emails],
        }
        self.post("/contacts", json=body)

    def delete_contact(self, contact_id: str) -> None:
        """Delete a contact (``contacts:write``)."""
        self.delete(f"/contacts/{_segment(contact_id)}")

    # --- parts ----------------------------------------------------------------------------------

    def _items(self, path: str) -> list[Any]:
        return rest.items_of(self.get(path), endpoint=endpoint_of("GET", path))

    def _extension(self, kind: str) -> str:
        path = f"/{_segment(self.user_id)}/{kind}"
        found = [_id_in(row, "id") for row in self._items(path)]
        if not found:
            raise errors.NotAvailable(
                "This user has no such extension at sipgate.", endpoint=endpoint_of("GET", path)
            )
        return found[0]


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _members(kind: type[Member], words: Iterable[Member | str]) -> list[Member]:
    return [kind(word) for word in ([words] if isinstance(words, str) else words)]


def _id_in(answer: Any, name: str) -> str:
    found = answer.get(name) if isinstance(answer, Mapping) else None
    return str(found) if isinstance(found, str | int) else ""


def _place(address: str) -> tuple[str, list[tuple[str, Any]]]:
    """Return path and query, below the API's base, of a path or a whole address."""
    base, parts = urlsplit(conf.api_url()), urlsplit(address)
    origin = (parts.scheme, parts.netloc)
    below = parts.path.startswith(f"{base.path}/")
    elsewhere = origin != ("", "") and (origin != (base.scheme, base.netloc) or not below)
    if elsewhere or parts.fragment:
        raise ValueError(
            "The address is not below the API's base; the access token is sent nowhere else."
        )
    path = parts.path.removeprefix(base.path) if below else parts.path
    rest.check_path(path)
    return path, parse_qsl(parts.query, keep_blank_values=True)


def _segment(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError("Not an id of sipgate's, such as 'w0'.")
    return value
