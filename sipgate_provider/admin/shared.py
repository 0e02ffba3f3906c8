"""What the lists share: read-only rows, limited counts, and how values are shown."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.core.paginator import Paginator
from django.db.models import F, Model, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from sipgate_provider.models import Reason, SipgateToken, State

COUNTED_UP_TO = 10_000
NOTHING = "–"
TONES = {
    State.ACTIVE: "ok",
    State.FAILING: "warn",
    State.NEEDS_SIGN_IN: "bad",
    State.MISCONFIGURED: "bad",
}


class AtLeast(int):
    """A count that was not finished. It compares as a number, and is shown as "10,000+"."""

    def __str__(self) -> str:
        return f"{COUNTED_UP_TO:,}+"


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # generic only in the stubs
    """Counts at most ``COUNTED_UP_TO`` rows: counting a million would cost more than any page of the list."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # in an admin it always is one
        number = rows.order_by()[: COUNTED_UP_TO + 1].count()
        return AtLeast(number) if number > COUNTED_UP_TO else number


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic only in the stubs
    """Shows rows that only the app's own code writes."""

    actions: Any = None
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each facet would count all rows
    list_per_page = 100
    list_max_show_all = 100

    class Media:
        css = {"all": ["sipgate_provider/admin.css"]}

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        try:
            return super().get_object(request, object_id, from_field)
        except OverflowError:  # a key in the address that is too large for SQLite
            return None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Rows are deleted with their connection or user, never by themselves. On the pages that delete one of those,
        Django asks the admin of each dependent row. A refusal would make it impossible to delete users. The
        connection's own permission decides whether it may be deleted.
        """
        match = request.resolver_match
        own = f"{self.opts.app_label}_{self.opts.model_name}_"
        return obj is not None and match is not None and not (match.url_name or "").startswith(own)


def moment(value: datetime | None) -> str | SafeString:
    """Return a moment in relative words, with the absolute one in ``title``."""
    if value is None:
        return NOTHING
    local = timezone.localtime(value)
    return format_html(
        '<time class="sipgate-time" datetime="{}" title="{}">{}</time>',
        local.isoformat(timespec="seconds"),
        formats.date_format(local, "DATETIME_FORMAT"),
        naturaltime(value),
    )


def instant(value: datetime | None) -> str | SafeString:
    """Return a moment as date and time, and below it in relative words."""
    if value is None:
        return NOTHING
    written = formats.date_format(timezone.localtime(value), "SHORT_DATETIME_FORMAT")
    return format_html(
        '<span class="sipgate-time">{}</span><span class="sipgate-reason">{}</span>',
        written,
        naturaltime(value),
    )


def badge(row: SipgateToken, *, with_reason: bool = True) -> SafeString:
    """Return the state as word and colour, and the reason below it."""
    if row.reason == Reason.ENDED_BY_PERSON:
        return format_html('<span class="sipgate-badge sipgate-plain">{}</span>', _("Sign-in only"))
    tone = TONES.get(State(row.state), "bad") if row.state in State.values else "bad"
    word = format_html(
        '<span class="sipgate-badge sipgate-{}">{}</span>', tone, capfirst(row.get_state_display())
    )
    if not with_reason or row.reason == Reason.NONE:
        return word
    return format_html('{}<span class="sipgate-reason">{}</span>', word, row.get_reason_display())


def chips(words: tuple[str, ...], *, tone: str = "plain") -> str | SafeString:
    """Return scopes as small labels."""
    if not words:
        return NOTHING
    html = SafeString("")
    for word in words:
        html += format_html('<code class="sipgate-chip sipgate-{}">{}</code> ', tone, word)
    return html


def link(
    request: HttpRequest | None, model: type[Model], text: object, pk: object, *, permission: str
) -> str | SafeString:
    """Return ``text``, linked to the row's page if the person may see it."""
    opts = model._meta
    if request is None or not request.user.has_perm(f"{opts.app_label}.{permission}"):
        return str(text)
    return format_html(
        '<a href="{}">{}</a>',
        reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[pk]),
        text,
    )


def list_url(model: type[Model], **filters: object) -> str:
    opts = model._meta
    url = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
    return f"{url}?{urlencode(filters)}" if filters else url


def uid_starts(prefix: str, field: str = "uid") -> Q:
    """Return a condition for uids (digits, letters, digits) that start with ``prefix``.

    It is a range because under most collations a plain index helps ``<`` and ``>``, but not ``LIKE``.
    """
    return Q(
        **{
            f"{field}__gte": prefix,
            f"{field}__lte": prefix + "z" * 8,
            f"{field}__startswith": prefix,
        },
    )


def newest_first() -> list[Any]:
    return [F("at").desc(), F("id").desc()]
