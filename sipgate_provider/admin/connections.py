"""allauth's list of connections, with a link to the token, and without a way to give a token to somebody else."""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.admin import SocialAccountAdmin
from allauth.socialaccount.models import SocialAccount
from django import forms
from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sipgate_provider import accounts, conf, tokens
from sipgate_provider.models import TokenEvent

from .shared import NOTHING, badge


class ConnectionForm(forms.ModelForm):  # type: ignore[type-arg]  # generic only in the stubs
    class Meta:
        model = SocialAccount
        fields = ("user", "provider", "uid", "extra_data")

    def clean_provider(self) -> str:
        provider = str(self.cleaned_data["provider"])
        if provider == conf.PROVIDER_ID:
            raise forms.ValidationError(
                _("Only users can make a sipgate connection, by signing in with sipgate.")
            )
        return provider


class ConnectionAdmin(SocialAccountAdmin):
    """Read-only: with another user, uid or provider, a connection's token would belong to somebody else."""

    form = ConnectionForm
    list_display = ("user", "uid", "provider")
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": ["sipgate_provider/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[SocialAccount]:
        rows: QuerySet[SocialAccount] = super().get_queryset(request)
        return rows.select_related("user", "sipgate_token").defer("sipgate_token__sealed")

    # The token's state is for those who may view tokens.

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        return (*self.list_display, *_token_column(request))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return _token_column(request) if obj is not None else ()

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (*ConnectionForm.Meta.fields, *self.get_readonly_fields(request, obj))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.provider == conf.PROVIDER_ID:
            return False
        return bool(super().has_change_permission(request, obj))

    @admin.display(description=gettext_lazy("sipgate token"))
    def sipgate_token_state(self, connection: SocialAccount) -> str | SafeString:
        row = accounts.token_of(connection)
        if row is None:
            return NOTHING
        url = reverse("admin:sipgate_provider_sipgatetoken_change", args=[row.pk])
        return format_html('<a href="{}">{}</a>', url, badge(row, with_reason=False))

    def delete_model(self, request: HttpRequest, obj: SocialAccount) -> None:
        self._note(request, obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[SocialAccount]) -> None:
        with transaction.atomic(using=tokens.using()):
            for connection in queryset.filter(provider=conf.PROVIDER_ID).iterator():
                self._note(request, connection)
            super().delete_queryset(request, queryset)

    def _note(self, request: HttpRequest, connection: SocialAccount) -> None:
        if connection.provider == conf.PROVIDER_ID:
            TokenEvent.objects.add(
                TokenEvent.Kind.ADMIN,
                connection=connection,
                actor=request.user.get_username()[:80],
                note="delete: the connection is removed",
            )


def _token_column(request: HttpRequest) -> tuple[str, ...]:
    return (
        ("sipgate_token_state",)
        if request.user.has_perm("sipgate_provider.view_sipgatetoken")
        else ()
    )
