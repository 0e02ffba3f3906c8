"""The client that integrators use: calls sipgate's REST API on behalf of a connection.

::

    client = SipgateClient.for_user(request.user)
    client.get("/numbers", params={"limit": 10})          # parsed JSON
    client.account().company                              # a value
    for call in client.history(types=["CALL"]): ...       # all pages
    await in_thread(client.get)("/numbers")               # the same, without blocking the event loop
    await in_thread(list)(client.history())

Every call asks ``tokens`` for an access token. A valid one costs one query, an old one is refreshed.
While sipgate is asked, this thread holds no database connection, unless the caller is inside a transaction. So do not
call from within ``QuerySet.iterator()`` on PostgreSQL, whose cursor would be gone; make a list first.

A 401 is answered with one refreshed token and one more try, also of a POST: sipgate did nothing. A POST whose
connection breaks is *not* repeated, since it may have been carried out; reads are, once.

Nothing here is a coroutine: ``in_thread`` makes one of any callable, which runs in a thread of a pool of its own and
gives its database connections back. The work goes on in its thread if the task is cancelled.

Must not know: requests of our own site, templates, how tokens are stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from allauth.socialaccount.models import SocialAccount

from sipgate_provider import api, conf, errors, scopes, tokens
from sipgate_provider.remote import rest
from sipgate_provider.remote.session import SupportsWrite
from sipgate_provider.remote.specification import endpoint_of
from sipgate_provider.tokens import in_thread

__all__ = ["SipgateClient", "in_thread"]


class SipgateClient:
    """Calls the API on behalf of one connection. Cheap to make, safe to share between threads; keeps no token."""

    def __init__(self, connection: SocialAccount, *, wait: float | None = None) -> None:
        """Make a client. sipgate and the database are not asked yet.

        Args:
            connection: allauth's ``SocialAccount`` of a sipgate identity, stored.
            wait: seconds that a call waits for a refreshed token, 0 or more; ``SIPGATE_WAIT_SECONDS`` by default.

        Raises:
            ValueError: the connection is another provider's, or not stored.
        """
        if connection.provider != conf.PROVIDER_ID or connection.pk is None:
            raise ValueError("A stored sipgate connection is needed.")
        self.connection = connection
        self.wait = wait

    def __repr__(self) -> str:
        return f"<SipgateClient {self.connection.uid}>"

    # --- whose ------------------------------------------------------------------------------------------------------

    @classmethod
    def for_user(cls, user: Any, *, wait: float | None = None) -> SipgateClient:
        """Return the client of a user's connection, the oldest if there are several (see ``all_for_user``). One query.

        Raises:
            errors.NotConnected: there is none, or ``user`` is anonymous.
        """
        connection = _of(user).first() if getattr(user, "pk", None) is not None else None
        if connection is None:
            raise errors.NotConnected("This user has no sipgate connection.")
        return cls(connection, wait=wait)

    @classmethod
    def all_for_user(cls, user: Any, *, wait: float | None = None) -> Iterator[SipgateClient]:
        """Yield a client for each of a user's connections, oldest first. One query."""
        for connection in list(_of(user)) if getattr(user, "pk", None) is not None else ():
            yield cls(connection, wait=wait)

    @classmethod
    def for_uid(cls, uid: str, *, wait: float | None = None) -> SipgateClient:
        """Return the client of a sipgate uid, such as ``1234567w0`` (a webhook's full user id). One query.

        Raises:
            errors.NotConnected: nobody is connected to it.
        """
        connection = SocialAccount.objects.filter(provider=conf.PROVIDER_ID, uid=uid).first()
        if connection is None:
            raise errors.NotConnected("Nobody is connected to this sipgate uid.")
        return cls(connection, wait=wait)

    @property
    def user_id(self) -> str:
        """sipgate's id of the person inside their account, such as ``w0``, which paths of the API need."""
        sub = (self.connection.extra_data or {}).get("sub") or self.connection.uid.lstrip(
            "0123456789"
        )
        return str(sub)

    # --- calls ------------------------------------------------------------------------------------------------------

    def get(self, path: str, *, params: rest.Params = None) -> Any:
        """Request ``path`` and return the parsed JSON, None for an empty answer.

        Args:
            path: below the API's base, such as ``"/numbers"``; without query.
            params: the query; lists repeat a parameter, booleans and ``datetime`` are written as sipgate wants them.

        Raises:
            ValueError: ``path`` is not one.
            errors.NotConnected, errors.NeedsSignIn: a person has to act. ``AccessRejected``: 401 for a refreshed token.
            errors.MissingPermission: 403; ``scopes`` names those of the specification. ``NotAvailable``: 403 although
                one of them was granted.
            errors.PaymentRequired, errors.NotFound, errors.Conflict, errors.RequestFailed: 402, 404, 409, other 4xx.
            errors.RateLimited, errors.SipgateUnavailable: 429; network, time-out, 5xx.
            errors.UnexpectedResponse: an answer that is not understood.
            errors.Misconfigured: this site's settings; ``CallerHoldsLock``: leave the transaction (SQLite).
        """
        return self.request("GET", path, params=params)

    def post(self, path: str, *, params: rest.Params = None, json: Any = None) -> Any:
        """Send ``json`` to ``path``; parameters, result and errors are those of ``get``.

        It is not repeated if the connection breaks: ``SipgateUnavailable.sent`` tells whether sipgate may have carried
        it out. For example, send an SMS (``sessions:sms:write``)::

            client.post("/sessions/sms", json={"smsId": "s0", "recipient": "+4915799912345", "message": "Hello!"})
        """
        return self.request("POST", path, params=params, json=json)

    def put(self, path: str, *, params: rest.Params = None, json: Any = None) -> Any:
        """Replace what is at ``path``; as ``post``."""
        return self.request("PUT", path, params=params, json=json)

    def patch(self, path: str, *, params: rest.Params = None, json: Any = None) -> Any:
        """Change what is at ``path``; as ``post``."""
        return self.request("PATCH", path, params=params, json=json)

    def delete(self, path: str, *, params: rest.Params = None, json: Any = None) -> Any:
        """Delete what is at ``path``; as ``post``."""
        return self.request("DELETE", path, params=params, json=json)

    def request(
        self, method: str, path: str, *, params: rest.Params = None, json: Any = None
    ) -> Any:
        """Send a request with any method; otherwise as ``get``."""
        return self._request(method, path, params=params, json=json)

    def _request(self, method: str, path: str, **options: Any) -> Any:
        rest.check_path(path)
        return tokens.call(
            self.connection, partial(self._ask, method, path, options), wait=self.wait
        )[1]

    def _ask(
        self, method: str, path: str, options: dict[str, Any], token: tokens.AccessToken
    ) -> Any:
        try:
            return rest.call(method, conf.api_url(), path, token.value, **options)
        except errors.MissingPermission as error:
            raise scopes.explained(error, token.scopes) from None

    # --- lists and documents ------------------------------------------------------------------------------------

    def iterate(
        self, path: str, params: rest.Params = None, *, page_size: int = 100
    ) -> Iterator[Any]:
        """Yield the items of a paged list, asking for the next page when it is needed. Raises as ``get``.

        Args:
            params: without ``offset`` and ``limit``, which are set here.
            page_size: items per request, 1 to 1000.

        The list may change while it is read, as when the caller archives what it has read: no item comes twice, and
        none is left out if sipgate tells the list's total, as it does for history and contacts.
        """
        if not 1 <= page_size <= rest.LONGEST_PAGE:
            raise ValueError(f"page_size must be from 1 to {rest.LONGEST_PAGE}.")
        query = rest.query_of(params)
        if {"offset", "limit"} & {name for name, _ in query}:
            raise ValueError("offset and limit are set by the iteration: use page_size.")

        def ask(offset: int, limit: int) -> Any:
            return self.get(path, params=[*query, ("offset", offset), ("limit", limit)])

        return rest.paged(ask, page_size=page_size, endpoint=endpoint_of("GET", path))

    def download(self, path: str, to: SupportsWrite, *, params: rest.Params = None) -> None:
        """Write a document (a fax, a recording) of any size to a binary file.

        Args:
            path: below the API's base, or an address as sipgate writes it into ``documentUrl`` if it lies there; the
                access token is sent nowhere else.

        Raises as ``get``, and whatever ``to.write`` raises; then the file has a part of the document. ``ValueError``
        also for an address outside of the API.
        """
        path, query = _place(path)
        self._request("GET", path, params=query + rest.query_of(params), to=to)

    # --- values -----------------------------------------------------------------------------------------------------

    def account(self) -> api.Account:
        """Return company and product (``account:read``). Raises as ``get``; so do all of these."""
        return api.Account.parse(self.get("/account"))

    def identity(self) -> api.Identity:
        """Return whose connection this is (any scope)."""
        return api.Identity.parse(self.get("/authorization/userinfo"))

    def user(self, user_id: str | None = None) -> api.User:
        """Return a person of the account, by default this one (``users:read``)."""
        return api.User.parse(self.get(f"/users/{_segment(user_id or self.user_id)}"))

    def users(self) -> list[api.User]:
        """Return the people of the account (``users:read``; perhaps for administrators only)."""
        return [api.User.parse(row) for row in rest.items_of(self.get("/users"))]

    def devices(self, user_id: str | None = None) -> list[api.Device]:
        """Return a person's telephones, by default this one's (``devices:read``)."""
        return [
            api.Device.parse(row)
            for row in rest.items_of(self.get(f"/{_segment(user_id or self.user_id)}/devices"))
        ]

    def balance(self) -> api.Balance:
        """Return the prepaid balance (``balance:read``)."""
        return api.Balance.parse(self.get("/balance"))

    def numbers(self, *, page_size: int = 100) -> Iterator[api.Number]:
        """Yield the telephone numbers of the account (``numbers:read``)."""
        return map(api.Number.parse, self.iterate("/numbers", page_size=page_size))

    def history(self, *, page_size: int = 100, **filters: Any) -> Iterator[api.HistoryEntry]:
        """Yield calls, faxes, SMS and voicemails, newest first (``history:read``).

        ``filters`` are sipgate's: ``types``, ``directions``, ``connectionIds`` (lists), ``from_`` and ``to``
        (``datetime``), ``phonenumber``, ``archived``, ``starred``.
        """
        params = {name.rstrip("_"): value for name, value in filters.items()}
        return map(api.HistoryEntry.parse, self.iterate("/history", params, page_size=page_size))


def _of(user: Any) -> Any:
    return SocialAccount.objects.filter(user_id=user.pk, provider=conf.PROVIDER_ID).order_by("pk")


def _place(address: str) -> tuple[str, list[tuple[str, Any]]]:
    """Return path and query, below the API's base, of a path or of an address as sipgate writes it."""
    base, parts = urlsplit(conf.api_url()), urlsplit(address)
    elsewhere = (parts.scheme or parts.netloc) and (parts.scheme, parts.netloc) != (
        base.scheme,
        base.netloc,
    )
    below = parts.path.startswith(f"{base.path}/")
    if elsewhere or parts.fragment or (parts.netloc and not below):
        raise ValueError(
            "The address is not below the API's base; the access token is sent nowhere else."
        )
    path = parts.path.removeprefix(base.path) if below else parts.path
    rest.check_path(path)
    return path, parse_qsl(parts.query, keep_blank_values=True)


def _segment(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError("A sipgate id is needed, such as 'w0'.")
    return value


# --- threads of asynchronous calls ------------------------------------------------------------------------------------
