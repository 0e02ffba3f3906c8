"""A user's connections, and what sipgate says about each, as fresh as a page can wait for.

connection → row → access token → ``GET /account`` → ``values.Account``. If sipgate does not
answer in time, pages show its last answer with the date, and the request continues in the
background.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.utils import timezone

from sipgate_provider import background, conf, database, errors, tokens, values
from sipgate_provider.client import SipgateClient, TokenClient
from sipgate_provider.models import LastKnownAccount, Reason, SipgateToken, State

REWRITE_AFTER = timedelta(minutes=5)
"""If every page asks sipgate, write the date of an unchanged account only this often."""


def connections_of(user: Any) -> list[SocialAccount]:
    """Return a user's sipgate connections with tokens and last known account, oldest first.

    One query.
    """
    rows = SocialAccount.objects.filter(user=user, provider=conf.PROVIDER_ID).order_by("pk")
    return list(rows.select_related("sipgate_token", "sipgate_account"))


def needing_sign_in(user: Any) -> list[SocialAccount]:
    """Return the user's connections that only a new sign-in can repair. One query."""
    return [view.connection for view in views_of(user, ask=False) if view.needs_sign_in]


def token_of(connection: SocialAccount) -> SipgateToken | None:
    """Return the row that was read with the connection, or None."""
    return getattr(connection, "sipgate_token", None)


def name_of(connection: SocialAccount) -> str:
    """Return the connection's readable name (``SipgateAccount.to_str``)."""
    return str(connection.get_provider_account().to_str())


@dataclass(kw_only=True)
class ConnectionView:
    """A connection and what the app knows about it now.

    ``account`` is sipgate's last answer, None if there never was one; ``fetched_at`` is its time.
    ``is_fresh``: it has just come. ``is_pending``: the request continues. ``error``: why there is
    no fresh answer. If none of the three is set, the app did not ask. A page adds ``problem``, the
    error in words, and ``refreshed``, what *Refresh now* did.
    """

    connection: SocialAccount
    token: SipgateToken | None
    account: values.Account | None = None
    fetched_at: datetime | None = None
    is_fresh: bool = False
    is_pending: bool = False
    error: errors.SipgateError | None = None
    problem: Any = None
    refreshed: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return name_of(self.connection)

    @property
    def is_access_ended(self) -> bool:
        """The user ended access on purpose, and only signs in with it: nothing is wrong."""
        return self.token is not None and self.token.reason == Reason.ENDED_BY_USER

    @property
    def needs_sign_in(self) -> bool:
        if self.is_access_ended:
            return False
        ended = self.token is None or self.token.state == State.NEEDS_SIGN_IN
        return ended or isinstance(self.error, errors.NeedsSignIn)

    @property
    def is_interrupted(self) -> bool:
        """Refreshes are failing, and sipgate has not answered just now either."""
        return self.token is not None and self.token.state == State.FAILING and not self.is_fresh

    @property
    def can_refresh(self) -> bool:
        """There are tokens, and sipgate accepts this site's client."""
        known = self.token is not None and self.token.state in {State.ACTIVE, State.FAILING}
        return known and not self.needs_sign_in

    @property
    def is_recent(self) -> bool:
        """The last answer about a working connection is young enough, and newer than its last
        sign-in."""
        token, at = self.token, self.fetched_at
        if token is None or at is None or token.state != State.ACTIVE or at < token.consented_at:
            return False
        return 0 <= (timezone.now() - at).total_seconds() < conf.account_max_age_seconds()


def views_of(user: Any, *, ask: bool = True) -> list[ConnectionView]:
    """Return a view of each connection of ``user``, errors of sipgate included.

    Args:
        ask: ask sipgate about connections whose last answer is older than
            ``SIPGATE_ACCOUNT_MAX_AGE_SECONDS``, or that do not work, and wait for at most
            ``SIPGATE_PAGE_WAIT_SECONDS``.
    """
    views = [_stored(connection) for connection in connections_of(user)]
    asked = [place for place, view in enumerate(views) if ask and not view.is_recent]
    if asked:
        database.release_connections()
    futures = [_fetching(views[place].connection) for place in asked]
    wait(futures, timeout=conf.page_wait())
    for place, future in zip(asked, futures, strict=True):
        view = views[place]
        try:
            if future.done():
                views[place] = future.result()
            else:
                view.is_pending = True
        except errors.SipgateError as error:
            view.error = error
            view.token = tokens.load(view.connection.pk) or view.token
    return views


def _fetching(connection: SocialAccount) -> Future[ConnectionView]:
    """Fetch behind the page, once for all pages that ask at the same time."""
    return background.pages.submit_once(("account", connection.pk), partial(fetch, connection))


def _stored(connection: SocialAccount) -> ConnectionView:
    known: LastKnownAccount | None = getattr(connection, "sipgate_account", None)
    return ConnectionView(
        connection=connection,
        token=token_of(connection),
        account=values.Account.parse(known.data) if known else None,
        fetched_at=known.fetched_at if known else None,
    )


def fetch(connection: SocialAccount) -> ConnectionView:
    """Ask sipgate about one connection, and store its answer.

    Raises:
        errors.SipgateError: as ``SipgateClient.account``.
    """

    def ask(token: tokens.AccessToken) -> values.Account:
        return TokenClient(token.value, scopes=token.scopes).account()

    row = token_of(connection)
    token, account = tokens.call(connection, ask, row=row)
    if row is None or row.number != token.number:
        row = tokens.load(connection.pk)
    now = timezone.now()
    _remember(connection, account, now)
    return ConnectionView(
        connection=connection, token=row, account=account, fetched_at=now, is_fresh=True
    )


def _remember(connection: SocialAccount, account: values.Account, now: datetime) -> None:
    known: LastKnownAccount | None = getattr(connection, "sipgate_account", None)
    columns = {"data": dict(account.raw), "company": account.company[:200], "fetched_at": now}
    is_known = known and known.data == columns["data"] and now - known.fetched_at < REWRITE_AFTER
    if is_known and not conf.account_max_age_seconds():
        return
    row = LastKnownAccount(connection_id=connection.pk, **columns)
    is_stored = LastKnownAccount.objects.filter(pk=row.pk).update(**columns)
    if not is_stored and SocialAccount.objects.filter(pk=row.pk).exists():
        LastKnownAccount.objects.bulk_create([row], ignore_conflicts=True)
    connection.sipgate_account = row  # where the page finds its name


def demonstrate(connection: SocialAccount) -> dict[str, Any]:
    """Do what sipgate's own example does: fetch the account, refresh the tokens, fetch again.

    Returns what a session can hold: versions and companies before and after, and milliseconds.

    Raises:
        errors.SipgateError: as ``SipgateClient.account`` and ``tokens.refresh``.
    """
    started, client = time.monotonic(), SipgateClient(connection)
    database.release_connections()
    before, row = client.account(), tokens.load(connection.pk)
    refreshed = tokens.refresh(connection, by="user")
    after = client.account()
    return {
        "connection": connection.pk,
        "before": row.number if row else 0,
        "after": refreshed.number,
        "company_before": before.company,
        "company_after": after.company,
        "duration_ms": round((time.monotonic() - started) * 1000),
    }
