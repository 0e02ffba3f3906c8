"""Words for what sipgate writes in capitals; a value that is not known is shown as it is."""

from __future__ import annotations

from django import template
from django.utils.translation import gettext as _

register = template.Library()


@register.filter
def history_lifetime(value: str) -> str:
    known = {"NONE": _("not at all"), "THIRTY_DAYS": _("30 days"), "UNLIMITED": _("without limit"), "": "–"}
    return known.get(value, value)
