"""The list of connections and the page of one: user, state, reason, deadlines, and what to do next."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.auth import get_user_model
from django.core.exceptions import BadRequest
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sipgate_provider import accounts, conf, scopes, tokens
from sipgate_provider.models import (
    LastKnownAccount,
    Reason,
    Revocation,
    SipgateToken,
    State,
    TokenEvent,
)
from sipgate_provider.ops import notices

from . import actions, filters
from .shared import (
    NOTHING,
    ReadOnlyAdmin,
    badge,
    chips,
    instant,
    link,
    list_url,
    moment,
    newest_first,
    uid_starts,
)

HISTORY_SHOWN = 30


def outside_transactions(view: Any) -> Any:
    """Keep Django from wrapping a view in a transaction of any database, whatever ``ATOMIC_REQUESTS`` says."""
    for alias in settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


class SipgateTokenAdmin(ReadOnlyAdmin):
    list_display = ("who", "state_since_and_why", "link_ends")
    list_filter = (
        filters.AttentionFilter,
        ("state", filters.ChoicesFilter),
        ("reason", filters.ChoicesFilter),
        filters.DeadlineFilter,
        filters.ScopeFilter,
        filters.ProductLineFilter,
    )
    # Trouble first: descending order of the states happens to do that, and their index provides it.
    ordering = ("-state", "-state_since")
    search_fields = ("connection__uid",)  # shows the search field; get_search_results does the work
    search_help_text = gettext_lazy(
        "A part of a company's name, or how a sipgate uid, a user name or an email address begins."
    )
    actions = actions.ACTIONS
    change_form_template = "sipgate_provider/admin/token.html"
    fieldsets = (
        (gettext_lazy("Who"), {"fields": ("who_linked", "company", "uid", "connection_linked")}),
        (
            gettext_lazy("State"),
            {
                "fields": (
                    "state_word",
                    "why",
                    "next_step",
                    "sign_in_address",
                    "since",
                    "failing",
                    "attempt",
                    "last_error_code",
                )
            },
        ),
        (
            gettext_lazy("Deadlines"),
            {"fields": ("access_ends", "link_ends", "issued", "consented")},
        ),
        (gettext_lazy("Scope"), {"fields": ("granted", "not_granted")}),
        (
            gettext_lazy("Counters"),
            {"fields": ("refresh_count", "generation", "refreshed", "used", "consent_id", "lease")},
        ),
        (
            gettext_lazy("Fingerprints"),
            {
                "fields": ("access_fingerprint", "refresh_fingerprint", "key_id"),
                "description": gettext_lazy(
                    "For comparison only: equal fingerprints mean the same token or session, which cannot be computed "
                    "from them. The key is the entry of SIPGATE_TOKEN_KEYS that sealed the token pair."
                ),
            },
        ),
        (
            gettext_lazy("Read from the access token when it was issued"),
            {"fields": ("issuer", "client_id", "product_line", "token_type")},
        ),
    )
    readonly_fields = flatten_fieldsets(fieldsets)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[SipgateToken]:
        """Return the rows without their secrets, with everything the list shows: one query a page."""
        rows = super().get_queryset(request).defer("sealed")
        return rows.select_related("connection__user", "connection__sipgate_account")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[SipgateToken], search_term: str
    ) -> tuple[QuerySet[SipgateToken], bool]:
        term = search_term.strip()
        return (queryset.filter(pk__in=_found(term)) if term else queryset), False

    def get_sortable_by(self, request: HttpRequest) -> list[Any]:
        """Only columns that have an index. That of the deadlines covers living connections, which the filter picks."""
        ordered = ["state_since_and_why"]
        if request.GET.get(filters.DeadlineFilter.parameter_name) in {"1", "7", "30"}:
            ordered.append("link_ends")
        return ordered

    # --- who may ------------------------------------------------------------------------------------------------------

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("sipgate_provider.operate_sipgatetoken"))

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("sipgate_provider.revoke_sipgatetoken"))

    # --- pages --------------------------------------------------------------------------------------------------------

    @outside_transactions
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return super().changelist_view(
            request, {"title": _("Connections"), **(extra_context or {})}
        )

    def response_action(  # type: ignore[override]  # None means: show the list
        self, request: HttpRequest, queryset: QuerySet[SipgateToken], **more: Any
    ) -> HttpResponse | None:
        # Django 6.1 and later also pass the place where the action was chosen.
        chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if not all(actions.is_key(key) for key in chosen):
            raise BadRequest("A selected key is not a number.")
        return super().response_action(request, queryset, **more)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = {**(extra_context or {}), **self._surroundings(request, object_id)}
        return super().change_view(request, object_id, form_url, context)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: Any = None
    ) -> SipgateToken | None:
        row: SipgateToken | None = super().get_object(request, object_id, from_field)
        if row is not None:
            row._viewer = request  # type: ignore[attr-defined]  # links depend on what the person may see
        return row

    def _surroundings(self, request: HttpRequest, object_id: str) -> dict[str, Any]:
        """Return what is shown below the fields; nothing for an invalid key, or somebody who may not view the row."""
        if not actions.is_key(object_id) or not self.has_view_permission(request):
            return {}
        pk, alias = int(object_id), tokens.using()
        events = TokenEvent.objects.filter(connection_id=pk).order_by(*newest_first())
        connection = (
            SocialAccount.objects.using(alias)
            .filter(pk=pk)
            .select_related("sipgate_account")
            .first()
        )
        uid = connection.uid if connection is not None else ""
        pending = (
            Revocation.objects.filter(uid=uid, next_attempt_at__isnull=False)
            .defer("sealed")
            .order_by("created_at")
        )
        return {
            "title": accounts.name_of(connection) if connection is not None else "",
            "subtitle": None,
            "events": list(events[: HISTORY_SHOWN + 1]) if uid else [],
            "events_shown": HISTORY_SHOWN,
            "events_url": list_url(TokenEvent, q=uid)
            if request.user.has_perm("sipgate_provider.view_tokenevent")
            else "",
            "revocations": list(pending[:20]) if uid else [],
            "plans": actions.offered(self, request),
            "list_target": list_url(SipgateToken),
            "checkbox": ACTION_CHECKBOX_NAME,
        }

    # --- columns and fields -------------------------------------------------------------------------------------------

    @admin.display(description=gettext_lazy("who"))
    def who(self, row: SipgateToken) -> SafeString:
        """Company or person, and below it user name and uid."""
        connection = row.connection
        below = f"{connection.user} · {connection.uid}"
        return format_html(
            '{}<span class="sipgate-reason">{}</span>', accounts.name_of(connection), below
        )

    @admin.display(description=gettext_lazy("user"))
    def who_linked(self, row: SipgateToken) -> str | SafeString:
        user = row.connection.user
        request = getattr(row, "_viewer", None)
        if not admin.site.is_registered(type(user)):
            return str(user)
        return link(request, type(user), user, user.pk, permission=f"view_{user._meta.model_name}")

    @admin.display(description=gettext_lazy("connection"))
    def connection_linked(self, row: SipgateToken) -> str | SafeString:
        request = getattr(row, "_viewer", None)
        return link(
            request,
            SocialAccount,
            row.connection_id,
            row.connection_id,
            permission="view_socialaccount",
        )

    @admin.display(description=gettext_lazy("company"))
    def company(self, row: SipgateToken) -> str:
        known: LastKnownAccount | None = getattr(row.connection, "sipgate_account", None)
        return known.company if known and known.company else NOTHING

    @admin.display(description=gettext_lazy("user id at sipgate"))
    def uid(self, row: SipgateToken) -> str:
        return str(row.connection.uid)

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_since_and_why(self, row: SipgateToken) -> SafeString:
        return format_html(
            '{}<span class="sipgate-reason">{}</span>', badge(row), moment(row.state_since)
        )

    @admin.display(description=gettext_lazy("state"))
    def state_word(self, row: SipgateToken) -> SafeString:
        return badge(row, with_reason=False)

    @admin.display(description=gettext_lazy("why"))
    def why(self, row: SipgateToken) -> str:
        return _why(row)

    @admin.display(description=gettext_lazy("what to do next"))
    def next_step(self, row: SipgateToken) -> str:
        return _next_step(row)

    @admin.display(description=gettext_lazy("sign-in address for the user"))
    def sign_in_address(self, row: SipgateToken) -> str | SafeString:
        """An address to copy into a message, while the connection needs its person."""
        address = (
            notices.sign_in_address(row.connection) if row.state == State.NEEDS_SIGN_IN else ""
        )
        if not address or row.reason == Reason.ENDED_BY_PERSON:
            return NOTHING
        help_text = _(
            "Copy it into a message to the user. It repairs this connection only, and opens nothing by itself."
        )
        return format_html(
            '<input class="sipgate-address" readonly value="{}" aria-label="{}"><span class="sipgate-reason">{}</span>',
            address,
            _("sign-in address for the user"),
            help_text,
        )

    @admin.display(description=gettext_lazy("state since"))
    def since(self, row: SipgateToken) -> str:
        return instant(row.state_since)

    @admin.display(description=gettext_lazy("failing since"))
    def failing(self, row: SipgateToken) -> str:
        return instant(row.failing_since)

    @admin.display(description=gettext_lazy("next attempt"))
    def attempt(self, row: SipgateToken) -> str:
        return instant(row.next_attempt_at)

    @admin.display(description=gettext_lazy("granted scope"))
    def granted(self, row: SipgateToken) -> str:
        return chips(row.scopes)

    @admin.display(description=gettext_lazy("requested by this site, not granted"))
    def not_granted(self, row: SipgateToken) -> str:
        return chips(scopes.missing(row.scopes, needed=conf.scope()), tone="warn")

    @admin.display(description=gettext_lazy("access token expires"))
    def access_ends(self, row: SipgateToken) -> str:
        return instant(row.expires_at)

    @admin.display(
        description=gettext_lazy("connection ends unless used"), ordering="refresh_expires_at"
    )
    def link_ends(self, row: SipgateToken) -> str:
        return instant(row.refresh_expires_at)

    @admin.display(description=gettext_lazy("issued"))
    def issued(self, row: SipgateToken) -> str:
        return instant(row.issued_at)

    @admin.display(description=gettext_lazy("last sign-in at sipgate"))
    def consented(self, row: SipgateToken) -> str:
        return instant(row.consented_at)

    @admin.display(description=gettext_lazy("last used"))
    def used(self, row: SipgateToken) -> str:
        return instant(row.last_used_at)

    @admin.display(description=gettext_lazy("last refreshed"))
    def refreshed(self, row: SipgateToken) -> str:
        return instant(row.last_refreshed_at)

    @admin.display(description=gettext_lazy("being refreshed"))
    def lease(self, row: SipgateToken) -> str:
        return instant(row.lease_until) if row.lease_owner else _("no")


def _found(term: str) -> QuerySet[Any]:
    """Return the keys of the connections whose uid or user begins with ``term``, or whose company contains it.

    Each uses an index (that of the companies is read completely); a single condition with OR would use none. E-mail
    addresses outside of allauth's table are found only if ``term`` is complete.
    """
    connections = SocialAccount.objects.filter(provider=conf.PROVIDER_ID).order_by()
    users = get_user_model()._default_manager.order_by()
    name = f"{get_user_model().USERNAME_FIELD}__startswith"
    named = users.filter(_any(name, term)).values("pk")
    parts = [
        connections.filter(uid_starts(term)),
        connections.filter(user_id__in=named),
        connections.filter(
            pk__in=LastKnownAccount.objects.filter(company__icontains=term).values("pk")
        ),
        connections.filter(
            user_id__in=EmailAddress.objects.filter(email__startswith=term.lower()).values(
                "user_id"
            )
        ),
    ]
    if "@" in term:
        exactly = Q(**{f"{get_user_model().get_email_field_name()}__in": [term, term.lower()]})
        parts.append(connections.filter(user_id__in=users.filter(exactly).values("pk")))
    keys = [part.values("pk") for part in parts]
    return keys[0].union(*keys[1:])


def _any(lookup: str, term: str) -> Q:
    """Return a condition for the usual spellings, because an index is case-sensitive."""
    condition = Q()
    for spelling in dict.fromkeys([term, term.lower(), term[:1].upper() + term[1:], term.upper()]):
        condition |= Q(**{lookup: spelling})
    return condition


def _why(row: SipgateToken) -> str:
    return NOTHING if row.reason == Reason.NONE else str(row.get_reason_display())


def _next_step(row: SipgateToken) -> str:
    if row.state == State.ACTIVE:
        return _("Nothing.")
    if row.state == State.MISCONFIGURED:
        return _(
            "Correct the client's id and secret (the log names the setting), then refresh. The user has nothing to do."
        )
    if row.state == State.FAILING:
        if row.reason == Reason.UNEXPECTED:
            return _(
                "It is tried again automatically. If it persists, see the log: sipgate's answer was not understood."
            )
        return _(
            "Nothing yet: it is tried again automatically. If it persists, check that this server can reach sipgate."
        )
    if row.reason == Reason.ENDED_BY_PERSON:
        return _("Nothing: the user still signs in with it and can allow access again.")
    if row.reason == Reason.NO_REFRESH_TOKEN:
        return _(
            "The user must sign in again. If this happens to all users, the client may not be allowed to refresh."
        )
    return _(
        "The user must sign in again, with one click, and keeps the connection. You have nothing to do."
    )
