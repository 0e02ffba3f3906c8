"""For the admin's front page: ``{% sipgate_overview %}`` draws the state of the connections."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from django import template
from django.db.models import Count, QuerySet
from django.db.models.functions import TruncDay
from django.urls import reverse
from django.utils import timezone

from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent

register = template.Library()

DAYS = 7
TONES = {State.ACTIVE: "ok", State.FAILING: "warn"}
FAILURES = (TokenEvent.Kind.FAILED, TokenEvent.Kind.STATE)
WIDTH, HEIGHT = 50, 70
"""Of a day in the picture."""


@register.inclusion_tag("sipgate_provider/admin/overview.html", takes_context=True)
def sipgate_overview(context: template.Context) -> dict[str, Any]:
    """Draw states, and refreshes and failures by day, for staff who may view tokens. Three queries.

    A connection counts on the day of its last refresh: an old one is neither used nor kept alive.
    """
    if not context["request"].user.has_perm("sipgate_provider.view_sipgatetoken"):
        return {}
    today = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    first = today - timedelta(days=DAYS - 1)
    refreshed = _by_day(SipgateToken.objects.all(), "last_refreshed_at", first)
    failed = _by_day(TokenEvent.objects.filter(kind__in=FAILURES), "at", first)
    highest = max([1, *refreshed.values(), *failed.values()])
    days = []
    for place in range(DAYS):
        at = (first + timedelta(days=place)).date()
        day: dict[str, Any] = {"at": at, "x": place * WIDTH + 6}
        for name, counted in (("refreshed", refreshed), ("failed", failed)):
            number = counted.get(at, 0)
            height = -(-HEIGHT * number // highest)  # rounded up: one failure can be seen
            day |= {name: number, f"{name}_height": height, f"{name}_y": HEIGHT - height}
        days.append(day)
    return {"states": _states(), "days": days}


def _states() -> list[dict[str, Any]]:
    """Return each state's number of connections, and the address of their list."""
    rows = SipgateToken.objects.exclude(reason=Reason.ENDED_BY_USER).order_by()
    counted = dict(rows.values_list("state").annotate(number=Count("pk")))
    url = reverse("admin:socialaccount_socialaccount_changelist")
    return [
        {
            "label": state.label,
            "tone": TONES.get(state, "bad"),
            "number": counted.get(state.value, 0),
            "url": f"{url}?sipgate_token__state__exact={state.value}"
            + ("" if state is State.ACTIVE else "&attention=1"),
        }
        for state in State
    ]


def _by_day(rows: QuerySet[Any], moment: str, first: datetime) -> dict[date, int]:
    rows = rows.filter(**{f"{moment}__gte": first}).order_by()
    counted = rows.values_list(TruncDay(moment)).annotate(number=Count("pk"))
    return {timezone.localtime(day).date(): number for day, number in counted}
