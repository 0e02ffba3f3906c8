"""For the admin's templates: moments, and the dashboard of its front page (``{% sipgate_dashboard %}``).

Django imports every installed app's tags at its start, also in a site without the admin, which cannot import admin
modules. So admin modules are imported when a tag runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django import template
from django.db.models import Model
from django.utils import formats, timezone
from django.utils.translation import gettext as _

from sipgate_provider.models import Reason, Revocation, SipgateToken, State, TokenEvent
from sipgate_provider.ops import statistics

register = template.Library()

BAR_HEIGHT = 56
CHART_WIDTH = 300


@register.filter
def moment(value: datetime | None) -> str:
    """Return a moment in relative words, with the absolute one in ``title``."""
    from sipgate_provider.admin import shared

    return shared.moment(value)


@register.inclusion_tag("sipgate_provider/admin/dashboard_or_nothing.html", takes_context=True)
def sipgate_dashboard(context: template.Context) -> dict[str, Any]:
    """Show the statistics to staff who may view tokens. Show nothing to others, without a query."""
    from sipgate_provider.admin import shared

    user = context["request"].user
    if not user.has_perm("sipgate_provider.view_sipgatetoken"):
        return {}
    now = statistics.current()
    ended = SipgateToken.objects.filter(
        state=State.NEEDS_SIGN_IN, reason=Reason.ENDED_BY_PERSON
    ).count()
    states = {
        **now.states,
        State.NEEDS_SIGN_IN.value: max(now.states[State.NEEDS_SIGN_IN] - ended, 0),
    }
    return {
        "statistics": now,
        "states": _states(states),
        "ended": ended,
        "ended_url": shared.list_url(SipgateToken, reason__exact=Reason.ENDED_BY_PERSON.value),
        "attention": sum(number for state, number in states.items() if state != State.ACTIVE),
        "attention_url": shared.list_url(SipgateToken, attention="1"),
        "failures": _chart(now.failures, "DATETIME_FORMAT"),
        "failures_label": _("Failures per hour"),
        "failures_url": _url(user, TokenEvent, kind__in="failed,state", since="24h"),
        "deadlines": _chart(now.deadlines, "DATE_FORMAT"),
        "deadlines_label": _("Ending per day"),
        "deadlines_url": shared.list_url(SipgateToken, deadline="7"),
        "revocations_url": _url(user, Revocation),
    }


def _url(user: Any, model: type[Model], **filters: object) -> str:
    from sipgate_provider.admin import shared

    name = model._meta.model_name
    return (
        shared.list_url(model, **filters) if user.has_perm(f"sipgate_provider.view_{name}") else ""
    )


def _states(counted: dict[str, int]) -> list[dict[str, Any]]:
    """Return the parts of one bar. Coordinates are text, because numbers would be localised (decimal comma)."""
    from sipgate_provider.admin import shared

    total, begun, parts = max(sum(counted.values()), 1), 0, []
    for state in State:
        number = counted.get(state, 0)
        x, end = CHART_WIDTH * begun // total, CHART_WIDTH * (begun + number) // total
        width = max(end - x, 2) if number else 0
        parts.append(
            {
                "tone": shared.TONES[state],
                "label": state.label,
                "number": number,
                "x": str(min(x, CHART_WIDTH - width)),
                "width": str(width),
                "url": shared.list_url(SipgateToken, state__exact=state.value),
            }
        )
        begun += number
    return parts


def _chart(counted: Sequence[tuple[datetime, int]], date_format: str) -> dict[str, Any]:
    step = CHART_WIDTH // max(len(counted), 1)
    highest = max((number for _moment, number in counted), default=0) or 1
    bars = []
    for position, (at, number) in enumerate(counted):
        height = max(BAR_HEIGHT * number // highest, 2) if number else 0
        bars.append(
            {
                "x": str(position * step),
                "width": str(step - 2),
                "y": str(59 - height),
                "height": str(height),
                "number": number,
                "label": formats.date_format(timezone.localtime(at), date_format),
            }
        )
    return {
        "bars": bars,
        "width": str(step * len(counted)),
        "total": sum(number for _moment, number in counted),
    }
