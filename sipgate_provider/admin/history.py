"""The list of all events, also as CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sipgate_provider.errors import REFERENCE_ALPHABET
from sipgate_provider.models import TokenEvent

from .filters import ChoicesFilter, SinceFilter
from .shared import NOTHING, ReadOnlyAdmin, instant, list_url, newest_first, uid_starts

CHUNK = 1000
REFERENCE = re.compile(f"[{REFERENCE_ALPHABET}]{{8}}")
DETAILS = ("state", "reason", "error_code", "generation", "duration_ms", "note", "reference")
COLUMNS = ("at", "kind", "uid", "connection_id", "user_id", "actor", *DETAILS)


class TokenEventAdmin(ReadOnlyAdmin):
    list_display = ("when", "what", "whom", "actor")
    list_filter = (("kind", ChoicesFilter), SinceFilter)
    list_select_related = ("user",)
    search_fields = ("uid",)
    search_help_text = gettext_lazy("The beginning of a sipgate uid, or a full reference number.")
    sortable_by = ("when",)
    change_list_template = "sipgate_provider/admin/history.html"
    fields = ("at", "kind", "uid", "user", "actor", *DETAILS)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[TokenEvent], search_term: str
    ) -> tuple[QuerySet[TokenEvent], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if REFERENCE.fullmatch(term) and not term.isdigit():  # uids have small letters
            return queryset.filter(reference=term), False
        return queryset.filter(uid_starts(term)), False

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.export)
        return [
            path("export.csv", view, name="sipgate_provider_tokenevent_export"),
            *super().get_urls(),
        ]

    @admin.display(description=gettext_lazy("at"), ordering="at")
    def when(self, event: TokenEvent) -> str:
        return instant(event.at)

    @admin.display(description=gettext_lazy("event"))
    def what(self, event: TokenEvent) -> SafeString:
        """What happened, and its details below."""
        took = f"{event.duration_ms} ms" if event.duration_ms is not None else ""
        state = event.get_state_display() if event.state else ""
        reason = event.get_reason_display() if event.reason else ""
        facts = (state, reason, event.error_code, event.note, took, event.reference)
        below = " · ".join(str(fact) for fact in facts if fact)
        word = capfirst(event.get_kind_display())
        return (
            format_html('{}<span class="sipgate-reason">{}</span>', word, below)
            if below
            else format_html("{}", word)
        )

    @admin.display(description=gettext_lazy("who"))
    def whom(self, event: TokenEvent) -> SafeString | str:
        if not event.uid and event.user is None:
            return NOTHING
        return format_html(
            '{}<span class="sipgate-reason">{}</span>', event.user or NOTHING, event.uid
        )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return super().changelist_view(
            request, {"title": _("History of all connections"), **(extra_context or {})}
        )

    def export(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """Answer with the filtered history as CSV, newest first, however long it is."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            rows = self.get_changelist_instance(request).get_queryset(request)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(list_url(TokenEvent))
        name = f"sipgate-history-{timezone.localdate():%Y-%m-%d}.csv"
        return StreamingHttpResponse(
            _lines(rows),
            content_type="text/csv; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="{name}"',
                "Cache-Control": "no-store",
            },
        )


class _Echo:
    """A file that returns what is written to it."""

    def write(self, text: str) -> str:
        return text


def _lines(rows: QuerySet[TokenEvent]) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(COLUMNS)
    for values in _chunked(rows):
        yield writer.writerow([cell(value) for value in values])


def _chunked(rows: QuerySet[TokenEvent]) -> Iterator[tuple[Any, ...]]:
    """Yield rows, newest first, a thousand per query.

    Each query begins after the last row seen. So no cursor stays open in the database during a slow download, and the
    index finds the place, which OFFSET would have to count to.
    """
    rows = rows.select_related(None).order_by(*newest_first())
    behind = Q()
    while True:
        chunk = list(rows.filter(behind).values_list("id", *COLUMNS)[:CHUNK])
        for _id, *values in chunk:
            yield tuple(values)
        if len(chunk) < CHUNK:
            return
        last_id, last_at = chunk[-1][:2]
        behind = Q(at__lte=last_at) & (Q(at__lt=last_at) | Q(id__lt=last_id))


def cell(value: object) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if hasattr(value, "isoformat"):
        return str(value.isoformat(timespec="milliseconds"))
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
