"""The client that integrators use: calls sipgate's REST API on behalf of a connection.

::

    client = SipgateClient.for_user(request.user)
    client.account().company                              # a value
    for call in client.history(types=["CALL"]): ...       # all pages
    client.send_sms("+4915799912345", "Hello!")
    client.get("/numbers", params={"limit": 10})          # any path: parsed JSON
    await in_thread(client.account)()                     # without blocking the event loop
    await in_thread(list)(client.numbers())

The methods are in ``resources``, what they return is in ``values``.

Every call asks ``tokens`` for an access token. A valid one costs one query; an old one is refreshed
first. While the call waits for sipgate, its thread holds no database connection, unless the caller
is inside a transaction. So do not call from within ``QuerySet.iterator()`` on PostgreSQL, whose
cursor would be closed; make a list first.

After a 401, the client refreshes the token and sends the request once more, even a POST: sipgate
did nothing. A POST whose connection breaks is *not* repeated, since sipgate may have carried it
out; a read is, once.

Nothing here is a coroutine. ``in_thread`` turns any callable into one: it runs in a separate pool
of threads and gives its database connections back. If the task is cancelled, the work continues in
its thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from allauth.socialaccount.models import SocialAccount

from sipgate_provider import conf, errors, scopes, tokens
from sipgate_provider.background import in_thread
from sipgate_provider.remote import rest
from sipgate_provider.remote.secret import Secret
from sipgate_provider.resources import Resources

__all__ = ["SipgateClient", "TokenClient", "in_thread"]


class SipgateClient(Resources):
    """Calls the API on behalf of one connection. Threads may share it; it keeps no token."""

    def __init__(self, connection: SocialAccount) -> None:
        """Make a client, without asking sipgate or the database.

        Args:
            connection: allauth's ``SocialAccount`` of a sipgate identity, saved.

        Raises:
            ValueError: the connection is another provider's, or not saved.
        """
        if connection.provider != conf.PROVIDER_ID or connection.pk is None:
            raise ValueError("SipgateClient needs a saved sipgate connection.")
        self.connection = connection
        sub = (connection.extra_data or {}).get("sub") or connection.uid.lstrip("0123456789")
        self.user_id = str(sub)

    def __repr__(self) -> str:
        return f"<SipgateClient {self.connection.uid}>"

    @classmethod
    def for_user(cls, user: Any) -> SipgateClient:
        """Return the client of a user's connection, of the oldest if there are several.

        Raises:
            errors.NotConnected: there is none, or ``user`` is anonymous.
        """
        clients = cls.all_for_user(user)
        if not clients:
            raise errors.NotConnected("This user has no sipgate connection.")
        return clients[0]

    @classmethod
    def all_for_user(cls, user: Any) -> list[SipgateClient]:
        """Return a client for each of a user's connections, the oldest first."""
        if getattr(user, "pk", None) is None:
            return []
        rows = SocialAccount.objects.filter(user_id=user.pk, provider=conf.PROVIDER_ID)
        return [cls(connection) for connection in rows.order_by("pk")]

    @classmethod
    def for_uid(cls, uid: str) -> SipgateClient:
        """Return the client of a sipgate uid (a webhook's full user id), such as ``1234567w0``.

        Raises:
            errors.NotConnected: no user is connected to it.
        """
        connection = SocialAccount.objects.filter(provider=conf.PROVIDER_ID, uid=uid).first()
        if connection is None:
            raise errors.NotConnected("No user is connected to this sipgate uid.")
        return cls(connection)

    @property
    def product_line(self) -> str:
        """``CLASSIC_PBX`` or ``NEO_PBX``, as sipgate's tokens say; empty if they do not."""
        row = tokens.load(self.connection.pk)
        return row.product_line if row else ""

    def _request(self, method: str, path: str, **options: Any) -> Any:
        rest.check_path(path)

        def ask(token: tokens.AccessToken) -> Any:
            return TokenClient(token.value, scopes=token.scopes)._request(method, path, **options)

        return tokens.call(self.connection, ask)[1]


class TokenClient(Resources):
    """Calls the API with an access token that the caller holds, as a sign-in does.

    ``scopes`` are those that were granted. It does not know the user's id at sipgate, so methods
    whose path contains one need it as an argument.
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
