"""The short lists, read-only: last known accounts, pending revocations, pauses of the client."""

from __future__ import annotations

from allauth.socialaccount.models import SocialAccount
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from sipgate_provider.models import ClientPause, LastKnownAccount, Revocation

from .shared import ReadOnlyAdmin, moment, uid_starts


class LastKnownAccountAdmin(ReadOnlyAdmin):
    list_display = ("user", "uid", "company", "fetched")
    list_select_related = ("connection__user",)
    ordering = ("-connection",)
    sortable_by = ("company",)
    fields = ("connection", "company", "fetched", "data")
    readonly_fields = ("fetched",)
    search_fields = ("company",)
    search_help_text = gettext_lazy("The beginning of a company's name or of a sipgate uid.")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[LastKnownAccount], search_term: str
    ) -> tuple[QuerySet[LastKnownAccount], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        of_uid = SocialAccount.objects.filter(uid_starts(term)).values("pk")
        return queryset.filter(Q(company__startswith=term) | Q(pk__in=of_uid)), False

    @admin.display(description=gettext_lazy("user"))
    def user(self, row: LastKnownAccount) -> str:
        return str(row.connection.user)

    @admin.display(description=gettext_lazy("sipgate uid"))
    def uid(self, row: LastKnownAccount) -> str:
        return str(row.connection.uid)

    @admin.display(description=gettext_lazy("fetched"))
    def fetched(self, row: LastKnownAccount) -> str:
        return moment(row.fetched_at)


class RevocationAdmin(ReadOnlyAdmin):
    list_display = ("uid", "why", "created", "attempts", "attempt", "until", "last_error_code")
    ordering = ("next_attempt_at",)
    sortable_by = ("attempt",)
    readonly_fields = ("created", "attempt", "until")
    fields = (
        "uid",
        "user_key",
        "why",
        "created",
        "attempts",
        "attempt",
        "until",
        "last_error_code",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Revocation]:
        return super().get_queryset(request).filter(next_attempt_at__isnull=False).defer("sealed")

    @admin.display(description=gettext_lazy("created"))
    def created(self, row: Revocation) -> str:
        return moment(row.created_at)

    @admin.display(description=gettext_lazy("next attempt"), ordering="next_attempt_at")
    def attempt(self, row: Revocation) -> str:
        return moment(row.next_attempt_at)

    @admin.display(description=gettext_lazy("tried until"))
    def until(self, row: Revocation) -> str:
        return moment(row.give_up_at)


class ClientPauseAdmin(ReadOnlyAdmin):
    list_display = ("client_fingerprint", "begun", "ends", "error_code", "look_at", "notified")
    ordering = ("-since",)
    readonly_fields = ("begun", "ends", "look_at", "notified")
    fields = ("client_fingerprint", "begun", "ends", "error_code", "look_at", "notified")

    @admin.display(description=gettext_lazy("since"))
    def begun(self, row: ClientPause) -> str:
        return moment(row.since)

    @admin.display(description=gettext_lazy("until"))
    def ends(self, row: ClientPause) -> str:
        return moment(row.until)

    @admin.display(description=gettext_lazy("setting"))
    def look_at(self, row: ClientPause) -> str:
        return row.setting

    @admin.display(description=gettext_lazy("operators notified"))
    def notified(self, row: ClientPause) -> str:
        return moment(row.notified_at)
