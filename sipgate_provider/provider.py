"""Tells allauth what a sipgate identity means. (allauth looks for this module by name.)"""

from __future__ import annotations

import re
from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.providers.base import ProviderAccount
from allauth.socialaccount.providers.oauth2.provider import OAuth2Provider
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from sipgate_provider import conf, links, tokens
from sipgate_provider.sign_in import limits, once
from sipgate_provider.sign_in.asked import Asked
from sipgate_provider.sign_in.oauth import VERIFIER, SipgateOAuth2Adapter


class SipgateAccount(ProviderAccount):
    def to_str(self) -> str:
        """Return the connection's readable name: company, person, email, or id.

        Pages, emails, messages, the admin and allauth's own texts all take it from here. The app
        knows the company after the first ``/account``; select ``sipgate_account`` to save a query.
        """
        known = getattr(self.account, "sipgate_account", None)
        company = known.company if known is not None else ""
        return company or self.person or self.account.extra_data.get("email") or self.readable_id

    @property
    def person(self) -> str:
        """The user's name at sipgate; empty unless a granted scope lets the site read it."""
        data = self.account.extra_data
        return f"{data.get('firstname') or ''} {data.get('lastname') or ''}".strip()

    @property
    def readable_id(self) -> str:
        return _("sipgate account %(id)s") % {"id": self.account.uid}


class SipgateProvider(OAuth2Provider):
    id = conf.PROVIDER_ID
    name = "sipgate"
    account_class = SipgateAccount
    oauth2_adapter_class = SipgateOAuth2Adapter
    pkce_enabled_default = True
    """RFC 9700 §2.1.1 recommends it for confidential clients, too. sipgate accepts S256."""

    def get_default_scope(self) -> list[str]:
        return conf.scope()

    def get_scope_from_request(self, request: HttpRequest) -> list[str]:
        """Return the configured scopes and those that a page of this site asks for.

        Ignore ``?scope=``, which allauth would add: a crafted link could ask for everything.
        """
        configured = self.get_scope()  # type: ignore[no-untyped-call]  # allauth is untyped
        return sorted({*configured, *(links.wanted_scopes(request) or ())})

    def get_auth_params_from_request(self, request: HttpRequest, action: str) -> dict[str, Any]:
        """Return the configured parameters.

        Ignore ``?auth_params=``, which allauth would add: it could replace ``redirect_uri``.
        """
        params = dict(self.get_auth_params())  # type: ignore[no-untyped-call]  # allauth is untyped
        is_to_ask = request.GET.get(links.PROMPT) == "login"
        return {**params, "prompt": "login"} if is_to_ask else params

    def redirect(
        self,
        request: HttpRequest,
        process: str,
        next_url: str | None = None,
        data: Any = None,
        **kwargs: Any,
    ) -> HttpResponse:
        """Redirect to sipgate, and remember in the state what the sign-in asks for."""
        scope = kwargs.pop("scope", None) or self.get_scope_from_request(request)
        asked = Asked.of({"data": data})
        if not asked.again:
            connection = links.to_repair(request)
            asked = Asked(tuple(scope), connection.pk if connection is not None else None)
        once.forget_old()
        limits.shorten(request)
        response: HttpResponse = super().redirect(
            request, process, next_url=next_url, data=asked.in_data(data), scope=scope, **kwargs
        )
        return response

    def stash_redirect_state(
        self, request: HttpRequest, process: str, *args: Any, **kwargs: Any
    ) -> str:
        """Remember the state in the session, the PKCE verifier sealed."""
        verifier = kwargs.get("pkce_code_verifier")
        if verifier:
            kwargs["pkce_code_verifier"] = tokens.seal_text(verifier, place=VERIFIER)
        return str(super().stash_redirect_state(request, process, *args, **kwargs))

    def get_callback_url(self) -> str:
        path = conf.redirect_path()
        return path or str(super().get_callback_url())  # type: ignore[no-untyped-call]  # untyped

    def extract_uid(self, data: dict[str, Any]) -> str:
        """Return ``masterSipId`` + ``sub``, such as ``1234567w0``. Each company has a ``w0``.

        It does not include the domain: one API serves both regions, and its webhooks call this the
        full user id. If this site knows the id from another domain, ``sign_in.oauth`` adds it.
        """
        return f"{data['masterSipId']}{data['sub']}"

    def extract_common_fields(self, data: dict[str, Any]) -> dict[str, Any]:
        first, last = str(data.get("firstname") or ""), str(data.get("lastname") or "")
        fields = {
            "username": _username(first, last, self.extract_uid(data)),
            "first_name": first,
            "last_name": last,
        }
        address = self._verified_address(data)
        return {**fields, "email": address} if address else fields

    def extract_email_addresses(self, data: dict[str, Any]) -> list[EmailAddress]:
        address = self._verified_address(data)
        return [EmailAddress(email=address, verified=True, primary=True)] if address else []

    def _verified_address(self, data: dict[str, Any]) -> str:
        """Return the user's address if it is verified, else an empty string.

        An administrator of a sipgate account can give its users any address. If it counted as
        verified, the owner of the address could reset the password and use an account that the
        administrator can also open with sipgate. Verified addresses are those that OpenID Connect
        calls so, and those that the site vouches for (allauth's ``VERIFIED_EMAIL``).
        """
        address = str(data.get("email") or "")
        vouched = data.get("email_verified") is True or get_adapter().is_email_verified(
            self, address
        )
        return address if address and vouched else ""


def _username(first: str, last: str, uid: str) -> str:
    """Return a name that the user recognises: ``erika.mustermann``, else ``sipgate-1234567w0``."""
    name = re.sub(r"[^\w]+", ".", f"{first} {last}".strip().lower()).strip("._")
    return name[:100] or f"sipgate-{uid}"


def is_made_up(username: str) -> bool:
    """Tell whether ``username`` was made from a sipgate id, which users never see."""
    return re.fullmatch(r"sipgate-\d+[a-z]+\d+", username) is not None


provider_classes = [SipgateProvider]
