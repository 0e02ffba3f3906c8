"""The adapter for allauth: it seals pending sign-ins at sipgate and shows problem pages. Other providers do not notice it.

A site names it in ``SOCIALACCOUNT_ADAPTER``, or inherits from it.
"""

from __future__ import annotations

import json
from typing import Any

from allauth import app_settings
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp, SocialLogin, SocialToken
from django.http import HttpRequest
from django.shortcuts import render

from sipgate_provider import conf, errors, problems, tokens
from sipgate_provider.remote import oauth
from sipgate_provider.remote.secret import Secret
from sipgate_provider.sign_in import callback_problems, receivers

PENDING = "sipgate_provider.pending_sign_in"


class SipgateSocialAccountAdapter(DefaultSocialAccountAdapter):
    def serialize_instance(self, instance: Any) -> Any:
        """Seal the token of a pending sign-in at sipgate, because allauth puts the result into the session."""
        grant = receivers.attached(instance) if isinstance(instance, SocialToken) else None
        serialize = super().serialize_instance
        if grant is None:
            return serialize(instance)  # type: ignore[no-untyped-call]  # allauth is untyped
        # No variable holds the token in clear: an error report shows the variables of every frame.
        plain = Secret(json.dumps({"token": serialize(instance), "grant": grant.to_dict()}))  # type: ignore[no-untyped-call]  # allauth is untyped
        return {"sealed": tokens.seal_text(plain, context=PENDING)}

    def deserialize_instance(self, model: Any, data: Any) -> Any:
        """Open what ``serialize_instance`` sealed.

        Raises:
            ValueError: it does not open (the keys changed meanwhile); allauth then starts the sign-up over.
        """
        if model is not SocialToken or not isinstance(data, dict) or "sealed" not in data:
            return super().deserialize_instance(model, data)  # type: ignore[no-untyped-call]  # allauth is untyped
        try:
            plain = json.loads(tokens.open_text(data["sealed"], context=PENDING))
        except errors.Misconfigured:
            raise ValueError(
                "The pending sign-in was sealed with a key that is not known any more."
            ) from None
        token = super().deserialize_instance(model, plain["token"])  # type: ignore[no-untyped-call]  # allauth is untyped
        receivers.attach(token, oauth.Grant.from_dict(plain["grant"]))
        return token

    def get_signup_form_initial_data(self, sociallogin: Any) -> dict[str, Any]:
        """Suggest the address that sipgate returned: the person confirms it, and allauth verifies it."""
        initial: dict[str, Any] = super().get_signup_form_initial_data(sociallogin)
        if sociallogin.account.provider == conf.PROVIDER_ID and not initial.get("email"):
            initial["email"] = sociallogin.account.extra_data.get("email", "")
        return initial

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Tell a person whose sipgate account is connected to another user of this site what they can do about it.

        allauth would send them back with one sentence, and the next attempt would end in the same way.
        """
        super().pre_social_login(request, sociallogin)
        connection = sociallogin.account
        is_connect = sociallogin.state.get("process") == "connect" and request.user.is_authenticated
        if connection.provider != conf.PROVIDER_ID or not is_connect or not sociallogin.is_existing:
            return
        if sociallogin.user == request.user or sociallogin.state.get("headless"):
            return
        next_url = sociallogin.get_redirect_url(request) or ""
        context = {
            "name": connection.get_provider_account().to_str(),
            "another_url": f"{problems.sign_in_url(next_url, process='connect')}&another=1",
            "that_url": problems.sign_in_url("", process="login"),
        }
        page = render(request, "sipgate_provider/belongs_to_another_user.html", context, status=409)
        raise ImmediateHttpResponse(page)

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
        problem = callback_problems.of_callback(
            request, error=error, failure=exception, state=state
        )
        # An answer that belongs to no sign-in has no state to look at. allauth then decides by the site's setting.
        if app_settings.HEADLESS_ONLY if state is None else state.get("headless"):
            return None  # allauth answers a headless client itself, with a redirect
        context = {"problem": problem, "auth_error": {"provider": provider, "code": error}}
        raise ImmediateHttpResponse(
            render(
                request,
                "sipgate_provider/authentication_error.html",
                context,
                status=problem.status,
            )
        )

    def list_apps(
        self, request: HttpRequest, provider: str | None = None, client_id: str | None = None
    ) -> list[SocialApp]:
        """Return the configured clients. For sipgate the settings win if they name one, and no query is made.

        allauth would combine rows and settings, and end in a server error if both name a client.
        """
        if provider == conf.PROVIDER_ID and client_id is None:
            apps = _apps_of_settings()
            if apps:
                return apps
        apps_of_both: list[SocialApp] = super().list_apps(
            request, provider=provider, client_id=client_id
        )
        return apps_of_both


def _apps_of_settings() -> list[SocialApp]:
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
