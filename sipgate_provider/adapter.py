"""allauth's adapter for social accounts: it stores new users completely, and shows problem pages.

A site names it in ``SOCIALACCOUNT_ADAPTER``, or a class that inherits from it. It changes nothing
for other providers.
"""

from __future__ import annotations

from typing import Any

from allauth import app_settings
from allauth.core.exceptions import ImmediateHttpResponse, SignupClosedException
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp, SocialLogin
from allauth.socialaccount.providers.base import AuthProcess
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from sipgate_provider import conf, database, links, tokens
from sipgate_provider.connections import name_of
from sipgate_provider.sign_in import receivers, trouble


class SipgateSocialAccountAdapter(DefaultSocialAccountAdapter):
    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None) -> Any:
        """Save a new user with connection and tokens, or nothing."""
        if sociallogin.account.provider != conf.PROVIDER_ID:
            return super().save_user(request, sociallogin, form)
        with transaction.atomic(using=database.using()):
            user = super().save_user(request, sociallogin, form)
            receivers.store(sociallogin)
        return user

    def get_signup_form_initial_data(self, sociallogin: Any) -> dict[str, Any]:
        """Suggest the address that sipgate returned: the user confirms it, allauth verifies it."""
        initial: dict[str, Any] = super().get_signup_form_initial_data(sociallogin)
        if sociallogin.account.provider == conf.PROVIDER_ID and not initial.get("email"):
            initial["email"] = sociallogin.account.extra_data.get("email", "")
        return initial

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Handle strangers who may not sign up, and connections that belong to other users.

        A stranger's grant is ended. A user who brings another user's connection sees a page that
        says what to do; allauth would only send them back with a sentence, time after time.
        """
        super().pre_social_login(request, sociallogin)
        connection, process = sociallogin.account, sociallogin.state.get("process")
        if connection.provider != conf.PROVIDER_ID or process == AuthProcess.REDIRECT:
            return
        if process == AuthProcess.CONNECT:
            is_headless = sociallogin.state.get("headless")
            is_others = connection.pk and sociallogin.user != request.user
            if is_others and request.user.is_authenticated and not is_headless:
                raise ImmediateHttpResponse(_belongs_to_another_user(request, sociallogin))
        elif not connection.pk and not sociallogin.is_existing:
            if self.is_open_for_signup(request, sociallogin):
                # While this grant waits for a form, ending an older one would end it as well.
                tokens.cancel_endings(connection.uid)
                return
            receivers.discard(sociallogin, why="sign-up is closed")
            raise SignupClosedException

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: str | None = None,
        exception: Exception | None = None,
        extra_context: dict[str, Any] | None = None,
    ) -> None:
        """Show what happened and what to do, with a reference that is also in the log."""
        if getattr(provider, "id", "") != conf.PROVIDER_ID:
            return super().on_authentication_error(
                request, provider, error=error, exception=exception, extra_context=extra_context
            )
        state = (extra_context or {}).get("state")
        problem = trouble.of_callback(request, error=error, failure=exception, state=state)
        # Without a state, allauth decides by the site's setting.
        if app_settings.HEADLESS_ONLY if state is None else state.get("headless"):
            return None  # allauth itself redirects a headless client
        context = {"problem": problem, "auth_error": {"provider": provider, "code": error}}
        page = "sipgate_provider/problem.html"
        raise ImmediateHttpResponse(render(request, page, context, status=problem.status))

    def list_apps(
        self, request: HttpRequest, provider: str | None = None, client_id: str | None = None
    ) -> list[SocialApp]:
        """Return the configured clients, without a query if the settings name one for sipgate.

        allauth would combine rows and settings, and end in a server error if both name a client.
        """
        if provider == conf.PROVIDER_ID and client_id is None:
            configured = apps_of_settings()
            if configured:
                return configured
        apps: list[SocialApp] = super().list_apps(request, provider=provider, client_id=client_id)
        return apps


def _belongs_to_another_user(request: HttpRequest, login: SocialLogin) -> HttpResponse:
    next_url = login.get_redirect_url(request) or ""
    context = {
        "name": name_of(login.account),
        "another_url": links.sign_in_url(next_url, process="connect", another="1"),
        "that_url": links.sign_in_url("", process="login"),
    }
    page = "sipgate_provider/belongs_to_another_user.html"
    return render(request, page, context, status=409)


def apps_of_settings() -> list[SocialApp]:
    from allauth.socialaccount import app_settings

    configured = app_settings.PROVIDERS.get(conf.PROVIDER_ID, {})
    entries = configured.get("APPS") or ([configured["APP"]] if configured.get("APP") else [])
    fields = ("name", "provider_id", "client_id", "secret", "key", "settings")
    return [
        SocialApp(
            provider=conf.PROVIDER_ID, **{name: entry[name] for name in fields if name in entry}
        )
        for entry in entries
    ]
