"""The client that integrators use: calls sipgate's REST API on behalf of a connection.

::

    client = SipgateClient.for_user(request.user)
    client.account().company                              # a value
    for call in client.history(types=["CALL"]): ...       # all pages
    client.send_sms("+4915799912345", "Hello!")
    client.get("/numbers", params={"limit": 10})          # any path: parsed JSON
    await in_thread(client.account)()                     # without blocking the event loop
    await in_thread(list)(client.numbers())

Every call asks ``tokens`` for an access token. A valid one costs one query, an old one is
refreshed. While sipgate is asked, this thread holds no database connection, unless the caller is
inside a transaction. So do not call from within ``QuerySet.iterator()`` on PostgreSQL, whose cursor
would be gone; make a list first.

A 401 is answered with one refreshed token and one more try, also of a POST: sipgate did nothing. A
POST whose connection breaks is *not* repeated, since it may have been carried out; reads are, once.

Nothing here is a coroutine: ``in_thread`` makes one of any callable, which runs in a thread of a
pool of its own and gives its database connections back. The work goes on in its thread if the task
is cancelled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from allauth.socialaccount.models import SocialAccount

from sipgate_provider import conf, errors, scopes, tokens
from sipgate_provider.remote import rest
from sipgate_provider.remote.secret import Secret
from sipgate_provider.resources import Resources
from sipgate_provider.tokens import in_thread

__all__ = ["SipgateClient", "TokenClient", "in_thread"]


class SipgateClient(Resources):
    """Calls the API on behalf of one connection. Threads may share it; it keeps no token."""

    def __init__(self, connection: SocialAccount, *, wait: float | None = None) -> None:
        """Make a client. sipgate and the database are not asked yet.

        Args:
            connection: allauth's ``SocialAccount`` of a sipgate identity, stored.
            wait: seconds that a call waits for a refreshed token, 0 or more;
                ``SIPGATE_WAIT_SECONDS`` by default.

        Raises:
            ValueError: the connection is another provider's, or not stored.
        """
        if connection.provider != conf.PROVIDER_ID or connection.pk is None:
            raise ValueError("A stored sipgate connection is needed.")
        self.connection = connection
        self.wait = wait
        sub = (connection.extra_data or {}).get("sub") or connection.uid.lstrip("0123456789")
        self.user_id = str(sub)

    def __repr__(self) -> str:
        return f"<SipgateClient {self.connection.uid}>"

    @classmethod
    def for_user(cls, user: Any, *, wait: float | None = None) -> SipgateClient:
        """Return the client of a user's connection, the oldest if there are several. One query.

        Raises:
            errors.NotConnected: there is none, or ``user`` is anonymous.
        """
        clients = cls.all_for_user(user, wait=wait)
        if not clients:
            raise errors.NotConnected("This user has no sipgate connection.")
        return clients[0]

    @classmethod
    def all_for_user(cls, user: Any, *, wait: float | None = None) -> list[SipgateClient]:
        """Return a client for each of a user's connections, oldest first. One query."""
        if getattr(user, "pk", None) is None:
            return []
        rows = SocialAccount.objects.filter(user_id=user.pk, provider=conf.PROVIDER_ID)
        return [cls(connection, wait=wait) for connection in rows.order_by("pk")]

    @classmethod
    def for_uid(cls, uid: str, *, wait: float | None = None) -> SipgateClient:
        """Return the client of a sipgate uid (a webhook's full user id): ``1234567w0``. One query.

        Raises:
            errors.NotConnected: nobody is connected to it.
        """
        connection = SocialAccount.objects.filter(provider=conf.PROVIDER_ID, uid=uid).first()
        if connection is None:
            raise errors.NotConnected("Nobody is connected to this sipgate uid.")
        return cls(connection, wait=wait)

    @property
    def product_line(self) -> str:
        """``CLASSIC_PBX`` or ``NEO_PBX``, as sipgate's tokens say, or empty. One query."""
        row = tokens.load(self.connection.pk)
        return row.product_line if row else ""

    def _request(self, method: str, path: str, **options: Any) -> Any:
        rest.check_path(path)

        def ask(token: tokens.AccessToken) -> Any:
            return TokenClient(token.value, scopes=token.scopes)._request(method, path, **options)

        return tokens.call(self.connection, ask, wait=self.wait)[1]


class TokenClient(Resources):
    """Calls the API with an access token that the caller holds, as a sign-in does.

    ``scopes`` are those that were granted. Paths with the person's id need one as a parameter.
    """

    product_line = ""

    def __init__(self, access_token: str, *, scopes: Iterable[str] = ()) -> None:
        self._access_token = Secret(access_token)
        self._scopes = tuple(scopes)
        self.user_id = ""

    def _request(self, method: str, path: str, **options: Any) -> Any:
        try:
            return rest.call(method, conf.api_url(), path, self._access_token, **options)
        except errors.MissingPermission as error:
            raise scopes.explained(error, self._scopes) from None
