"""Returns a user's sipgate accounts, as fresh as possible within the time that a page has.

user → connection → token row → usable access token → ``/account`` → ``Account`` value. If sipgate does not answer in
time, its last answer is shown with its date, and the request goes on behind the page.

Must not know: HTTP status codes of our site, templates.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.utils import timezone

from sipgate_provider import conf, errors, tokens, values
from sipgate_provider.client import TokenClient
from sipgate_provider.models import LastKnownAccount, Reason, SipgateToken, State

REWRITE_AFTER = timedelta(minutes=5)
"""If every page asks sipgate, the date of an unchanged account is written only this often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """One connection of a user with what is known of it now.

    ``account`` is None if sipgate never answered. ``is_fresh``: it answered just now; else ``fetched_at`` tells when.
    ``is_pending``: it has not answered yet, and the request goes on. ``error`` is the reason why there is no fresh
    answer. If none of these is set, sipgate was not asked.
    """

    connection: SocialAccount
    token: SipgateToken | None
    account: values.Account | None
    fetched_at: datetime | None
    is_fresh: bool
    is_pending: bool
    error: errors.SipgateError | None
    now: datetime

    @property
    def name(self) -> str:
        return name_of(self.connection)

    @property
    def access_left(self) -> int:
        """Seconds until the access token ends; negative if it has ended."""
        return int((self.token.expires_at - self.now).total_seconds()) if self.token else 0

    @property
    def is_access_ended(self) -> bool:
        """The person ended access and goes on signing in with this connection: nothing is wrong."""
        return self.token is not None and self.token.reason == Reason.ENDED_BY_PERSON

    @property
    def needs_sign_in(self) -> bool:
        if self.token is None or isinstance(self.error, errors.NeedsSignIn):
            return not self.is_access_ended
        return self.token.state == State.NEEDS_SIGN_IN and not self.is_access_ended

    @property
    def is_interrupted(self) -> bool:
        """Refreshes fail at the moment, and sipgate has not answered just now either."""
        return self.token is not None and self.token.state == State.FAILING and not self.is_fresh

    @property
    def can_refresh(self) -> bool:
        """A refresh can help: there is a pair, and sipgate accepts this site's client."""
        return (
            not self.needs_sign_in
            and self.token is not None
            and self.token.state in {State.ACTIVE, State.FAILING}
        )


def name_of(connection: SocialAccount) -> str:
    """Return the connection's name for people (``SipgateAccount.to_str``)."""
    return str(connection.get_provider_account().to_str())


def connections_of(user: Any) -> list[SocialAccount]:
    """Return the user's sipgate connections with token and last known account, oldest first. One query."""
    rows = SocialAccount.objects.filter(user=user, provider=conf.PROVIDER_ID)
    # Sorted here: to build ORDER BY, Django compares every column.
    return sorted(
        rows.select_related("sipgate_token", "sipgate_account"), key=lambda row: int(row.pk)
    )


def needing_sign_in(user: Any) -> list[SocialAccount]:
    """Return the user's connections that need a new sign-in. One query."""
    rows = SocialAccount.objects.filter(user=user, provider=conf.PROVIDER_ID).select_related(
        "sipgate_account"
    )
    rows = rows.filter(sipgate_token__state=State.NEEDS_SIGN_IN).exclude(
        sipgate_token__reason=Reason.ENDED_BY_PERSON
    )
    return list(rows.order_by("pk"))


def token_of(connection: SocialAccount) -> SipgateToken | None:
    """Return the token row that was read with the connection, or None."""
    row: SipgateToken | None = getattr(connection, "sipgate_token", None)
    return row


def views_of(user: Any, *, wait: float | None = None) -> list[AccountView]:
    """Return what is known of every connection of ``user``, asking sipgate for at most ``wait`` seconds in all.

    sipgate is not asked about a working connection whose last answer is younger than
    ``SIPGATE_ACCOUNT_MAX_AGE_SECONDS``. No error of sipgate is raised: each view has its own.
    """
    connections = connections_of(user)
    asked = [row for row in connections if not _is_recent(row)]
    if asked:
        tokens.release_connections()
    futures = {
        row.pk: tokens.pages.submit_once(("account", row.pk), partial(fetch, row)) for row in asked
    }
    patience = conf.page_wait() if wait is None else wait
    outcomes = [
        _outcome(futures[row.pk], patience) if row.pk in futures else _Outcome()
        for row in connections
    ]
    return _views(connections, outcomes)


def _is_recent(connection: SocialAccount) -> bool:
    """Tell whether what is known of a working connection is young enough to be shown. After a consent it is not."""
    token, known = token_of(connection), _known(connection)
    if (
        token is None
        or known is None
        or token.state != State.ACTIVE
        or known.fetched_at < token.consented_at
    ):
        return False
    return 0 <= (timezone.now() - known.fetched_at).total_seconds() < conf.account_max_age_seconds()


def _known(connection: SocialAccount) -> LastKnownAccount | None:
    row: LastKnownAccount | None = getattr(connection, "sipgate_account", None)
    return row


def known_views_of(user: Any) -> list[AccountView]:
    """Return what is known without asking sipgate."""
    connections = connections_of(user)
    return _views(connections, [_Outcome() for _ in connections])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    account: values.Account
    at: datetime
    token: SipgateToken | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    fetched: Fetched | None = None
    error: errors.SipgateError | None = None
    pending: bool = False


def fetch(connection: SocialAccount) -> Fetched:
    """Ask sipgate for the account of one connection, through the gate; a 401 is answered with one refreshed token.

    Raises:
        errors.SipgateError: as ``tokens.usable`` and the client.
    """
    row, started = token_of(connection), time.monotonic()
    token, account = tokens.call(connection, _read_account, row=row)
    now = timezone.now()
    # A page that gave up waiting looks at the date to learn that the answer has come.
    _remember(connection, account, now, at_once=time.monotonic() - started > conf.page_wait())
    refreshed = row is None or row.generation != token.generation
    return Fetched(account=account, at=now, token=tokens.load(connection.pk) if refreshed else row)


def _read_account(token: tokens.AccessToken) -> values.Account:
    return TokenClient(token.value, scopes=token.scopes).account()


def _remember(
    connection: SocialAccount, account: values.Account, now: datetime, *, at_once: bool
) -> None:
    known, data = _known(connection), dict(account.raw)
    is_dated = known is not None and known.data == data and now - known.fetched_at < REWRITE_AFTER
    if is_dated and not at_once and not conf.account_max_age_seconds():
        return
    values = {"data": data, "company": account.company[:200], "fetched_at": now}
    rows = LastKnownAccount.objects
    if (
        not rows.filter(pk=connection.pk).update(**values)
        and SocialAccount.objects.filter(pk=connection.pk).exists()
    ):
        rows.bulk_create(
            [LastKnownAccount(connection_id=connection.pk, **values)], ignore_conflicts=True
        )
    connection.sipgate_account = LastKnownAccount(
        connection_id=connection.pk, **values
    )  # the page's name of it


def _outcome(future: Future[Fetched], wait: float) -> _Outcome:
    # Counted from when sipgate was asked: somebody who reloads the page while it hangs does not wait once more.
    try:
        return _Outcome(
            fetched=future.result(timeout=max(wait - tokens.seconds_under_way(future), 0))
        )
    except FutureTimeout:
        return _Outcome(pending=True)
    except errors.SipgateError as error:
        return _Outcome(error=error)


def _views(connections: Iterable[SocialAccount], outcomes: Iterable[_Outcome]) -> list[AccountView]:
    now = timezone.now()
    return [
        _view(connection, outcome, now)
        for connection, outcome in zip(connections, outcomes, strict=True)
    ]


def _view(connection: SocialAccount, outcome: _Outcome, now: datetime) -> AccountView:
    token = token_of(connection)
    known = _known(connection)
    account, at = (values.Account.parse(known.data), known.fetched_at) if known else (None, None)
    if outcome.fetched is not None:
        account, at, token = (
            outcome.fetched.account,
            outcome.fetched.at,
            outcome.fetched.token or token,
        )
    elif outcome.error is not None:
        token = tokens.load(connection.pk) or token
    return AccountView(
        connection=connection,
        token=token,
        account=account,
        fetched_at=at,
        is_fresh=outcome.fetched is not None,
        is_pending=outcome.pending,
        error=outcome.error,
        now=now,
    )


def end_access(user: Any, connection_id: int) -> SocialAccount:
    """Forget the token pair of a connection of ``user``, who goes on signing in with it; return the connection.

    Later sign-ins store nothing and end their grant, until the person connects again.

    Raises:
        errors.NotConnected: ``user`` has no such connection.
        errors.SipgateUnavailable: the pair was being refreshed all the time; nothing was changed.
    """
    connection = _own(user, connection_id)
    tokens.end_access(connection)
    return connection


def _own(user: Any, connection_id: int) -> SocialAccount:
    connection = next((row for row in connections_of(user) if row.pk == connection_id), None)
    if connection is None:
        raise errors.NotConnected("This user has no such connection.")
    return connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """What sipgate's own example shows: account, refresh, account again."""

    before: int
    after: int
    account_before: values.Account
    account_after: values.Account
    duration_ms: int


def demonstrate(user: Any, connection_id: int, *, actor: str = "person") -> Demonstration:
    """Fetch the account, refresh the token, fetch again. Only a connection of ``user`` is looked at.

    Raises:
        errors.NotConnected: ``user`` has no such connection.
        errors.SipgateError: as ``fetch`` and ``tokens.refresh``.
    """
    connection = _own(user, connection_id)
    started = time.monotonic()
    tokens.release_connections()
    first = fetch(connection)
    generation = first.token.generation if first.token else 0
    row = tokens.refresh(connection, by=actor)
    second = fetch(_own(user, connection_id))
    return Demonstration(
        before=generation,
        after=row.generation,
        account_before=first.account,
        account_after=second.account,
        duration_ms=round((time.monotonic() - started) * 1000),
    )
