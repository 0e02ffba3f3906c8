"""What the site's own pages have dozens of, made cheap: translated words and moments. Load it after ``i18n``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.templatetags import i18n
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.timezone import localtime
from django.utils.translation import gettext

register = template.Library()


class Words(template.Node):
    """A text that is written in the template. Django's own node treats it like a variable, which takes six times as
    long, and a page has forty."""

    def __init__(self, text: str) -> None:
        self._text = text.replace("%", "%%")

    def render(self, context: template.Context) -> str:
        return gettext(self._text).replace("%%", "%")


@register.tag
def trans(parser: Any, token: Any) -> template.Node:
    node = i18n.do_translate(parser, token)
    text = node.filter_expression.var.literal
    has_options = node.asvar or node.noop or node.message_context or node.filter_expression.filters
    return node if text is None or has_options else Words(text)


@register.filter
def moment(at: datetime | None) -> str:
    """Return how long ago ``at`` was, or how long it still takes; the pointer shows the exact time."""
    if at is None:
        return "–"
    local = localtime(at)
    exact = date_format(local, "DATETIME_FORMAT")
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', local.isoformat(), exact, naturaltime(local)
    )
