"""Counts the site's connections and incidents, with a few queries that use an index. The result is kept for 30 s.

Must not know: pages, permissions.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.core.cache import cache
from django.db.models import Count, Min, Q
from django.db.models.functions import TruncDay, TruncHour
from django.utils import timezone

from sipgate_provider import tokens
from sipgate_provider.models import ClientPause, Revocation, SipgateToken, State, TokenEvent

CACHE_KEY = "sipgate_provider.statistics"
REMEMBERED_FOR = 30
DAYS_AHEAD = 7
COUNTED_UP_TO = 10_000
"""More than this many pending revocations are not counted to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    since: datetime
    until: datetime
    error_code: str
    setting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The numbers at ``at``: failures per hour of the last day, deadlines per coming day, both oldest first."""

    at: datetime
    states: dict[str, int]
    failures: tuple[tuple[datetime, int], ...]
    deadlines: tuple[tuple[datetime, int], ...]
    revocations: int
    oldest_revocation: datetime | None
    pauses: tuple[Pause, ...]
    in_journal: int

    @property
    def connections(self) -> int:
        return sum(self.states.values())


def current() -> Statistics:
    """Return the statistics, at most ``REMEMBERED_FOR`` seconds old. Five queries, or none."""
    known: Statistics | None = None
    # A cache that is away raises errors of its client library; counting works without a cache.
    with suppress(Exception):
        known = cache.get(CACHE_KEY)
    if known is None:
        known = measure(timezone.now())
        with suppress(Exception):
            cache.set(CACHE_KEY, known, REMEMBERED_FOR)
    return known


def measure(now: datetime) -> Statistics:
    """Count now. Five queries."""
    rows = SipgateToken.objects
    counted = dict(rows.order_by().values_list("state").annotate(number=Count("pk")))
    events = TokenEvent.objects.filter(
        kind__in=(TokenEvent.Kind.FAILED, TokenEvent.Kind.STATE),
        at__gt=now - timedelta(hours=24),
        at__lte=now,
    )
    hours = events.order_by().values_list(TruncHour("at")).annotate(number=Count("pk"))
    # Connections that can still be kept alive; the others need a new sign-in anyway.
    live = rows.filter(state__in=[State.ACTIVE, State.FAILING])
    ending = live.filter(
        refresh_expires_at__gt=now, refresh_expires_at__lte=now + timedelta(days=DAYS_AHEAD)
    )
    days = (
        ending.order_by().values_list(TruncDay("refresh_expires_at")).annotate(number=Count("pk"))
    )
    due = (
        Revocation.objects.filter(next_attempt_at__isnull=False)
        .order_by()[:COUNTED_UP_TO]
        .aggregate(Count("pk"), Min("created_at"))
    )
    pauses = ClientPause.objects.filter(until__gt=now).order_by("since")[:5]
    local = timezone.localtime(now)
    return Statistics(
        at=now,
        states={state: counted.get(state, 0) for state in State.values},
        failures=_filled(hours, _hours_until(local)),
        deadlines=_filled(days, _days_from(local)),
        revocations=due["pk__count"],
        oldest_revocation=due["created_at__min"],
        pauses=tuple(
            Pause(
                since=row.since,
                until=row.until,
                error_code=row.error_code,
                setting=row.setting,
            )
            for row in pauses
        ),
        in_journal=tokens.journal_waiting(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What a person or a monitor needs besides ``Statistics``.

    ``troubles`` counts connections that are not active by (state, reason). ``ending`` counts working connections that
    end within so many days, ``overdue`` those that keepalive should have refreshed more than ``OVERDUE_AFTER`` ago.
    """

    troubles: dict[tuple[str, str], int]
    oldest_failing_since: datetime | None
    ending: dict[int, int]
    overdue: int


ENDING_WITHIN = (1, 7, 30)
OVERDUE_AFTER = timedelta(days=1)


def details(now: datetime) -> Details:
    """Return the details now. Three queries, each with an index."""
    every = SipgateToken.objects.order_by()
    troubled = every.filter(state__in=[state for state in State.values if state != State.ACTIVE])
    rows = list(
        troubled.values_list("state", "reason").annotate(
            number=Count("pk"), since=Min("failing_since", default=None)
        )
    )
    failing = [
        since for state, _reason, _number, since in rows if since and state != State.NEEDS_SIGN_IN
    ]
    longest = now + timedelta(days=max(ENDING_WITHIN))
    live = every.filter(state__in=[State.ACTIVE, State.FAILING])
    ending = live.filter(refresh_expires_at__gt=now, refresh_expires_at__lte=longest).aggregate(
        **{
            f"d{days}": Count("pk", filter=Q(refresh_expires_at__lte=now + timedelta(days=days)))
            for days in ENDING_WITHIN
        }
    )
    overdue = live.filter(keepalive_at__lte=now - OVERDUE_AFTER).filter(
        Q(next_attempt_at=None) | Q(next_attempt_at__lte=now)
    )
    return Details(
        troubles={(state, reason): number for state, reason, number, _since in rows},
        oldest_failing_since=min(failing, default=None),
        ending={days: ending[f"d{days}"] for days in ENDING_WITHIN},
        overdue=overdue[:COUNTED_UP_TO].count(),
    )


def _hours_until(now: datetime) -> list[datetime]:
    # Counted in UTC: on the day when the clocks change, local time has an hour too few or too many.
    this = now.replace(minute=0, second=0, microsecond=0).astimezone(UTC)
    return [(this - timedelta(hours=back)).astimezone(now.tzinfo) for back in range(24, -1, -1)]


def _days_from(now: datetime) -> list[datetime]:
    # By the calendar, not by 24 hours: TruncDay answers local midnights, also across a change of the clocks.
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [(today + timedelta(days=ahead)).replace(tzinfo=None) for ahead in range(DAYS_AHEAD + 1)]
    return [timezone.make_aware(day) for day in days]


def _filled(
    counted: Iterable[tuple[datetime, int]], moments: list[datetime]
) -> tuple[tuple[datetime, int], ...]:
    numbers = {moment.timestamp(): number for moment, number in counted}
    return tuple((moment, numbers.get(moment.timestamp(), 0)) for moment in moments)
