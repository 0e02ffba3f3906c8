"""The admin. It answers an operator's questions without decrypting a secret.

A connection is one of allauth's social accounts. The list shows states; a connection's page shows
the row of its tokens, the last known account and the history. Only the app writes these rows:
operators use actions. No page shows, fetches or filters by a column with ciphertext.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from allauth.socialaccount.admin import SocialAccountAdmin, SocialAppAdmin, SocialAppForm
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import BaseModelAdmin
from django.db import transaction
from django.db.models import F, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sipgate_provider import conf, connections, errors, tokens
from sipgate_provider.models import (
    Ending,
    LastKnownAccount,
    Reason,
    SipgateToken,
    State,
    TokenEvent,
)
from sipgate_provider.ops import notices
from sipgate_provider.templatetags.sipgate_admin import TONES

MOST = 20
"""Connections that one action takes: its page waits for them, and sipgate limits requests."""
PATIENCE = 20.0
"""Seconds that an action may take; web servers give up on a worker after 30."""
NEXT_STEPS = {
    State.ACTIVE: gettext_lazy("Nothing."),
    State.FAILING: gettext_lazy(
        "Nothing yet: the site tries again. If that does not help, run sipgate_doctor and see the "
        "log."
    ),
    State.MISCONFIGURED: gettext_lazy("Run sipgate_doctor and correct the client or the keys."),
    State.NEEDS_SIGN_IN: gettext_lazy("The user must sign in again and keeps the connection."),
}


def readable(model: type[Model]) -> list[str]:
    """Return the names of a model's columns except those with ciphertext (``editable=False``)."""
    return [one.name for one in model._meta.fields if one.editable]


def note(connection: SocialAccount, request: HttpRequest, text: str) -> None:
    """Record in a connection's history what an administrator did."""
    TokenEvent.objects.add(
        TokenEvent.Kind.ADMIN, connection=connection, actor=actor_of(request), note=text
    )


def actor_of(request: HttpRequest) -> str:
    return request.user.get_username()[:80]


def badge(state: str, reason: str) -> SafeString:
    """Return a state as word and colour, with its reason."""
    html = '<span class="sipgate-badge sipgate-{}">{}</span> <span class="sipgate-why">{}</span>'
    if reason == Reason.ENDED_BY_USER:
        return format_html(html, "plain", _("Sign-in only"), "")
    why = Reason(reason).label if reason else ""
    return format_html(html, TONES.get(State(state), "bad"), capfirst(State(state).label), why)


class ReadOnly(BaseModelAdmin):  # type: ignore[type-arg]  # generic only in the stubs
    """Shows rows that only the app writes, without their secrets."""

    show_full_result_count = False
    extra = 0

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return readable(self.model)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).only(*readable(self.model))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Forbid filters by ciphertext: each answer would reveal a part of it."""
        if lookup.partition("__")[0] not in readable(self.model):
            return False
        return super().lookup_allowed(lookup, value, request)

    def has_add_permission(self, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


# --- connections --------------------------------------------------------------------------------


class TokenInline(ReadOnly, admin.StackedInline):  # type: ignore[type-arg]  # as above
    model = SipgateToken
    verbose_name_plural = gettext_lazy("State and tokens")
    readonly_fields = ("next_step", "sign_in_address")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        first = ["state", "reason", *self.readonly_fields]
        rest = super().get_fields(request, obj)
        return [*first, *(name for name in rest if name not in {*first, "connection"})]

    @admin.display(description=gettext_lazy("what to do next"))
    def next_step(self, row: SipgateToken) -> str:
        return str(NEXT_STEPS[State.ACTIVE if is_content(row) else State(row.state)])

    @admin.display(description=gettext_lazy("sign-in address for the user"))
    def sign_in_address(self, row: SipgateToken) -> str:
        """An address to copy into a message. It repairs this connection, and gives no access."""
        if row.state != State.NEEDS_SIGN_IN or is_content(row):
            return "–"
        return notices.sign_in_address(row.connection)


def is_content(row: SipgateToken) -> bool:
    """Tell whether the user ended access on purpose, and only signs in with the connection."""
    return row.reason == Reason.ENDED_BY_USER


class AccountInline(ReadOnly, admin.StackedInline):  # type: ignore[type-arg]  # as above
    model = LastKnownAccount
    verbose_name_plural = gettext_lazy("Last known account")


class HistoryInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]  # as above
    model = TokenEvent
    verbose_name_plural = gettext_lazy("History")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["at", "kind", "actor", "state", "reason", "error_code", "note", "reference"]


class AttentionFilter(admin.SimpleListFilter):
    """Connections in trouble, except those whose users ended access on purpose."""

    title = gettext_lazy("attention")
    parameter_name = "attention"

    def lookups(self, _request: HttpRequest, _admin: Any) -> list[tuple[str, Any]]:
        return [("1", _("needs attention"))]

    def queryset(
        self, _request: HttpRequest, rows: QuerySet[SocialAccount]
    ) -> QuerySet[SocialAccount]:
        if self.value() != "1":
            return rows
        troubled = [state for state in State if state != State.ACTIVE]
        rows = rows.filter(sipgate_token__state__in=troubled)
        return rows.exclude(sipgate_token__reason=Reason.ENDED_BY_USER)


class ConnectionForm(forms.ModelForm):  # type: ignore[type-arg]  # generic only in the stubs
    def clean_provider(self) -> str:
        provider = str(self.cleaned_data["provider"])
        if provider == conf.PROVIDER_ID:
            raise forms.ValidationError(
                _("Only users can make a sipgate connection, by signing in with sipgate.")
            )
        return provider


class ConnectionAdmin(SocialAccountAdmin):
    """Read-only for sipgate: a changed user or uid would give the tokens to somebody else."""

    form = ConnectionForm
    list_display = ("name", "state", "user", "uid", "ends")  # type: ignore[assignment]  # longer
    list_filter = (  # type: ignore[assignment]  # as above
        "provider",
        AttentionFilter,
        "sipgate_token__state",
        "sipgate_token__reason",
        ("sipgate_token__state_since", admin.DateFieldListFilter),
    )
    list_select_related = ("user", "sipgate_token", "sipgate_account")
    # Trouble first: that is the states' descending order.
    ordering = (
        F("sipgate_token__state").desc(nulls_last=True),
        F("sipgate_token__state_since").desc(nulls_last=True),
    )
    search_fields = ["uid", "sipgate_account__company"]
    show_full_result_count = False
    inlines = (TokenInline, HistoryInline, AccountInline)
    actions = ("refresh", "require_sign_in", "end_access")

    class Media:
        css = {"all": ["sipgate_provider/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[SocialAccount]:
        rows: QuerySet[SocialAccount] = super().get_queryset(request)
        return rows.select_related(*self.list_select_related).defer("sipgate_token__sealed")

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        is_sipgate = obj is not None and obj.provider == conf.PROVIDER_ID
        return super().get_inlines(request, obj) if is_sipgate else ()

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.provider == conf.PROVIDER_ID:
            return False
        return bool(super().has_change_permission(request, obj))

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("sipgate_provider.operate_sipgatetoken"))

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("sipgate_provider.revoke_sipgatetoken"))

    @transaction.non_atomic_requests  # while an action waits for sipgate
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(
            request, {"title": _("Connections"), **(extra_context or {})}
        )

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Record in the connection's history that an administrator disconnected it."""
        for connection in queryset:
            if connection.provider == conf.PROVIDER_ID:
                note(connection, request, "delete: the connection is removed")
        return super().log_deletions(request, queryset)

    # --- columns

    @admin.display(description=gettext_lazy("connection"))
    def name(self, connection: SocialAccount) -> str:
        is_sipgate = connection.provider == conf.PROVIDER_ID
        return connections.name_of(connection) if is_sipgate else str(connection.user)

    @admin.display(description=gettext_lazy("state"), ordering="sipgate_token__state")
    def state(self, connection: SocialAccount) -> SafeString | None:
        row = connections.token_of(connection)
        return badge(row.state, row.reason) if row is not None else None

    @admin.display(
        description=gettext_lazy("ends unless used"), ordering="sipgate_token__refresh_expires_at"
    )
    def ends(self, connection: SocialAccount) -> str | None:
        row = connections.token_of(connection)
        end = row.refresh_expires_at if row is not None else None
        # The long form does not fit beside the filters, in German.
        return date_format(timezone.localdate(end), "SHORT_DATE_FORMAT") if end else None

    # --- actions

    @admin.action(description=gettext_lazy("Refresh now"), permissions=["operate"])
    def refresh(self, request: HttpRequest, rows: QuerySet[SocialAccount]) -> HttpResponse | None:
        give_up = time.monotonic() + PATIENCE

        def refresh_one(connection: SocialAccount) -> None:
            wait = max(give_up - time.monotonic(), 0)
            tokens.refresh(connection, by=actor_of(request), wait=wait)
            note(connection, request, "refresh")

        return self._carry_out(request, rows, refresh_one, _("refreshed"))

    @admin.action(description=gettext_lazy("Require a new sign-in"), permissions=["revoke"])
    def require_sign_in(
        self, request: HttpRequest, rows: QuerySet[SocialAccount]
    ) -> HttpResponse | None:
        require = partial(tokens.require_sign_in, by=actor_of(request))
        ask = _(
            "Their users must sign in to sipgate again. Until then, the site does not refresh them."
        )
        return self._carry_out(request, rows, require, _("needs sign-in"), ask)

    @admin.action(description=gettext_lazy("End access at sipgate"), permissions=["revoke"])
    def end_access(
        self, request: HttpRequest, rows: QuerySet[SocialAccount]
    ) -> HttpResponse | None:
        end = partial(tokens.end, by=actor_of(request))
        ask = _("The site deletes their tokens, and their users must sign in to sipgate again.")
        return self._carry_out(request, rows, end, _("access ended"), ask)

    def _carry_out(
        self,
        request: HttpRequest,
        rows: QuerySet[SocialAccount],
        work: Callable[[SocialAccount], object],
        done: str,
        ask: str = "",
    ) -> HttpResponse | None:
        """Do ``work`` for each connection and report the result; with ``ask``, ask first."""
        chosen = list(rows.filter(provider=conf.PROVIDER_ID)[: MOST + 1])
        if len(chosen) > MOST:
            text = _("Select at most %(number)s connections. Nothing was done.")
            messages.error(request, text % {"number": MOST})
            return None
        if ask and "confirmed" not in request.POST:
            context = {
                **self.admin_site.each_context(request),
                "title": _("Are you sure?"),
                "text": ask,
                "connections": chosen,
                "action": request.POST["action"],
                "media": self.media,
            }
            return TemplateResponse(request, "sipgate_provider/admin/confirm.html", context)
        for connection in chosen:
            # The uid first: the page capitalises each message, which would change a name.
            name = f"{connection.uid} ({connection.user})"
            try:
                work(connection)
            except errors.SipgateError as error:
                messages.error(request, f"{name}: {error.message} ({error.reference})")
            else:
                messages.success(request, f"{name}: {done}")
        return None


# --- short lists, and allauth's other models ----------------------------------------------------


class HistoryAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]  # as above
    list_display = ("at", "kind", "uid", "user", "state", "reason", "error_code", "actor")
    list_filter = ("kind", "state", "reason", ("at", admin.DateFieldListFilter))
    list_select_related = ("user",)
    search_fields = ("uid__startswith", "reference__exact")


class EndingAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]  # as above
    list_display = ("uid", "why", "created_at", "attempts", "next_attempt_at", "last_error_code")


class ClientForm(SocialAppForm):
    """Accepts a client's secret, and never shows it."""

    class Meta(SocialAppForm.Meta):
        help_texts = dict.fromkeys(
            ("secret", "key"),
            gettext_lazy("Never shown. Leave it empty to keep the current value."),
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.Meta.help_texts:
            self.fields[name].widget = forms.PasswordInput(attrs={"autocomplete": "off"})
            self.initial[name] = ""

    def clean_secret(self) -> str:
        return str(self.cleaned_data["secret"] or self.instance.secret)

    def clean_key(self) -> str:
        return str(self.cleaned_data["key"] or self.instance.key)


class ClientAdmin(SocialAppAdmin):
    form = ClientForm


# This module has imported allauth's, so these are registered by now in any order of INSTALLED_APPS.
# allauth's page for SocialToken would show tokens in clear text.
admin.site.unregister(SocialToken)
admin.site.unregister(SocialApp)
admin.site.unregister(SocialAccount)

admin.site.register(SocialApp, ClientAdmin)
admin.site.register(SocialAccount, ConnectionAdmin)
admin.site.register(TokenEvent, HistoryAdmin)
admin.site.register(Ending, EndingAdmin)
