"""Template filters of the site's own pages."""

from __future__ import annotations

from datetime import datetime

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.timezone import localtime

register = template.Library()


@register.filter
def moment(at: datetime | None) -> str:
    """Return how long ago ``at`` was, or how far off it is; the pointer shows the exact time."""
    if at is None:
        return "–"
    local = localtime(at)
    exact = date_format(local, "DATETIME_FORMAT")
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', local.isoformat(), exact, naturaltime(local)
    )
