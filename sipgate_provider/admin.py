"""Inspection of connections without opening a secret: no add, no edit, no delete, zero decryptions."""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.models import SocialApp, SocialToken
from django.contrib import admin
from django.http import HttpRequest

from .models import ClientPause, LastKnownAccount, Revocation, SipgateToken, TokenEvent

# Without an "if registered" guard on purpose: in the wrong order of INSTALLED_APPS this fails loudly, while a guard
# would leave allauth's page, with tokens in clear text, reachable.
admin.site.unregister(SocialToken)
admin.site.unregister(SocialApp)


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic only in the stubs
    """Shows rows that only the app's own code writes."""

    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(SipgateToken)
class SipgateTokenAdmin(ReadOnlyAdmin):
    list_display = ("connection", "state", "reason", "scope", "expires_at", "refresh_expires_at", "generation")
    list_filter = ("state",)
    list_select_related = ("connection__user",)
    exclude = ("sealed",)


@admin.register(TokenEvent)
class TokenEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "kind", "uid", "actor", "state", "reason", "error_code")
    list_filter = ("kind",)


@admin.register(LastKnownAccount)
class LastKnownAccountAdmin(ReadOnlyAdmin):
    list_display = ("connection", "company", "fetched_at")


@admin.register(Revocation)
class RevocationAdmin(ReadOnlyAdmin):
    list_display = ("uid", "created_at", "attempts", "next_attempt_at", "last_error_code")
    exclude = ("sealed",)


@admin.register(ClientPause)
class ClientPauseAdmin(ReadOnlyAdmin):
    list_display = ("client_fingerprint", "since", "until", "error_code", "setting")
