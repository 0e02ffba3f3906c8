"""Filters of the two long lists. None of them queries the database for its choices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

from django.contrib import admin
from django.contrib.admin.views.main import PAGE_VAR
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from sipgate_provider import conf
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.remote.specification import OPERATIONS

SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")
"""One scope (RFC 6749 §3.3)."""


COLLAPSED = "sipgate_provider/admin/filter.html"
"""Template of a filter that is collapsed until something is chosen."""


class ChoicesFilter(admin.ChoicesFieldListFilter):
    template = COLLAPSED


class AttentionFilter(admin.SimpleListFilter):
    """Connections that need attention. Those whose person ended access but goes on signing in do not."""

    title = _("attention")
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("1", _("needs attention"))]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[SipgateToken]
    ) -> QuerySet[SipgateToken]:
        if self.value() != "1":
            return queryset
        # Not "all except active", which could not use an index.
        troubled = [state for state in State.values if state != State.ACTIVE]
        return queryset.filter(state__in=troubled).exclude(reason=Reason.ENDED_BY_PERSON)


class DeadlineFilter(admin.SimpleListFilter):
    template = COLLAPSED
    title = _("end of the connection")
    parameter_name = "deadline"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("1", _("within a day")),
            ("7", _("within 7 days")),
            ("30", _("within 30 days")),
            ("ended", _("over")),
            ("none", _("not known")),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[SipgateToken]
    ) -> QuerySet[SipgateToken]:
        value, now = self.value(), timezone.now()
        if value == "ended":
            return queryset.filter(refresh_expires_at__lte=now)
        if value == "none":
            return queryset.filter(refresh_expires_at=None)
        if value in {"1", "7", "30"}:
            # Only connections that can still be kept alive; the others need a new sign-in anyway.
            ends = now + timedelta(days=int(value))
            return queryset.filter(
                state__in=[State.ACTIVE, State.FAILING],
                refresh_expires_at__gt=now,
                refresh_expires_at__lte=ends,
            )
        return queryset


class ScopeFilter(admin.SimpleListFilter):
    """One granted scope, as a text field, because sipgate has more than eighty."""

    title = _("granted scope")
    parameter_name = "scope"
    template = "sipgate_provider/admin/scope_filter.html"
    others: list[tuple[str, str]] = []

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(scope, scope) for scope in _known_scopes()]

    def choices(self, changelist: Any) -> Iterator[Any]:
        query = changelist.get_query_string(remove=[self.parameter_name]).removeprefix("?")
        self.others = [(name, value) for name, value in parse_qsl(query) if name != PAGE_VAR]
        return super().choices(changelist)

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[SipgateToken]
    ) -> QuerySet[SipgateToken]:
        scope = (self.value() or "").strip()
        if not scope:
            return queryset
        if not SCOPE.fullmatch(scope):
            return queryset.none()
        return queryset.filter(
            Q(scope=scope)
            | Q(scope__startswith=f"{scope} ")
            | Q(scope__endswith=f" {scope}")
            | Q(scope__contains=f" {scope} ")
        )


def _known_scopes() -> list[str]:
    return sorted({scope for scopes in OPERATIONS.values() for scope in scopes} | set(conf.scope()))


class ProductLineFilter(admin.SimpleListFilter):
    template = COLLAPSED
    title = _("product line")
    parameter_name = "line"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("CLASSIC_PBX", "CLASSIC_PBX"),
            ("NEO_PBX", "NEO_PBX"),
            ("other", _("another")),
            ("none", _("not known")),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[SipgateToken]
    ) -> QuerySet[SipgateToken]:
        value = self.value()
        if value == "none":
            return queryset.filter(product_line="")
        if value == "other":
            return queryset.exclude(product_line__in=["", "CLASSIC_PBX", "NEO_PBX"])
        return queryset.filter(product_line=value) if value else queryset


class SinceFilter(admin.SimpleListFilter):
    """Replaces Django's date hierarchy, which groups the whole table by day for each page."""

    title = _("time")
    parameter_name = "since"
    HOURS = {"1h": 1, "24h": 24, "7d": 7 * 24, "30d": 30 * 24}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("1h", _("the last hour")),
            ("24h", _("the last 24 hours")),
            ("7d", _("the last 7 days")),
            ("30d", _("the last 30 days")),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[TokenEvent]
    ) -> QuerySet[TokenEvent]:
        hours = self.HOURS.get(self.value() or "")
        return (
            queryset.filter(at__gte=timezone.now() - timedelta(hours=hours)) if hours else queryset
        )
