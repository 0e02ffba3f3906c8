"""Asks sipgate, for allauth, who has signed in: exchanges the code and reads the identity.

No token leaves this module in clear text: allauth's token value holds the sealed answer of sipgate,
so no session, table or report of allauth's can show it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from allauth.socialaccount.models import SocialAccount, SocialApp, SocialLogin, SocialToken
from allauth.socialaccount.providers.oauth2.client import OAuth2Client
from allauth.socialaccount.providers.oauth2.views import OAuth2Adapter
from django.conf import settings
from django.core.exceptions import MultipleObjectsReturned, ValidationError
from django.db import transaction
from django.http import HttpRequest

from sipgate_provider import addresses, conf, database, errors, scopes, tokens
from sipgate_provider.client import TokenClient
from sipgate_provider.remote import oauth
from sipgate_provider.remote.secret import Secret
from sipgate_provider.remote.session import printable

from . import repair, trouble

VERIFIER = "sipgate_provider.pkce_verifier"
PENDING = "sipgate_provider.pending_sign_in"
ELSEWHERE = (
    "Users sign in with sipgate only through its callback. Use allauth's headless API "
    "(auth/provider/redirect) instead of this address."
)
"""Answer to REST libraries that pass a browser's code or token to allauth's adapter."""


class SipgateOAuth2Client(OAuth2Client):
    def get_access_token(self, code: str, *_args: Any, **_kwargs: Any) -> Any:
        """Reject a code that did not come to our callback, which checks state and issuer."""
        raise ValidationError(ELSEWHERE)


class SipgateOAuth2Adapter(OAuth2Adapter):
    """What allauth's callback view calls, from ``get_access_token_data`` on in its order."""

    provider_id = conf.PROVIDER_ID
    client_class = SipgateOAuth2Client
    code = Secret("")
    """The callback's code, which the view has removed from the request."""
    state: dict[str, Any] | None = None
    """allauth's state of this sign-in. The view sets it when it uses the state."""
    _provider: Any = None
    to_the_end: ExitStack
    """The view's: contexts entered here end with the sign-in, or are undone with it."""

    @property  # read at the moment of use, as allauth's own OpenID Connect adapter does
    def authorize_url(self) -> str:
        return conf.auth_url()

    @property
    def access_token_url(self) -> str:  # type: ignore[override]  # allauth annotates an attribute
        return conf.token_url()

    def get_provider(self) -> Any:
        """Return the provider.

        Raises:
            errors.Misconfigured: no client is configured, or more than one.
        """
        provider_of_allauth: Any = super().get_provider
        try:
            self._provider = self._provider or provider_of_allauth()
        except (SocialApp.DoesNotExist, MultipleObjectsReturned) as error:
            number = "No" if isinstance(error, SocialApp.DoesNotExist) else "More than one"
            text = f"{number} sipgate client is configured: manage.py sipgate_doctor says more."
            raise errors.Misconfigured(text, setting=errors.CLIENT_ID) from error
        return self._provider

    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:
        return conf.redirect_uri() or str(super().get_callback_url(request, app))

    def get_access_token_data(
        self,
        request: HttpRequest,
        app: SocialApp,
        client: SipgateOAuth2Client,
        pkce_code_verifier: str | None = None,
    ) -> oauth.Tokens:
        """Exchange the callback's code. While sipgate answers, no database connection is held.

        Raises:
            errors.SipgateError, errors.TokenRejected: as ``oauth.exchange_code``.
            errors.Misconfigured: the callback names another authorization server (RFC 9207).
        """
        _check_issuer(request.GET.get("iss", ""))
        verifier = None
        if pkce_code_verifier:
            verifier = tokens.open_text(pkce_code_verifier, place=VERIFIER)
        database.release_connections()
        self.did_fetch_access_token = True
        return oauth.exchange_code(
            oauth.Client(
                client_id=app.client_id, client_secret=app.secret, token_url=conf.token_url()
            ),
            code=self.code,
            redirect_uri=client.callback_url,
            code_verifier=verifier,
        )

    def parse_token(self, data: Any) -> SocialToken:
        """Return allauth's token value, which holds the sealed answer of sipgate."""
        if not isinstance(data, oauth.Tokens):
            raise ValidationError(ELSEWHERE)
        return SocialToken(token=sealed(data))

    def complete_login(
        self, request: HttpRequest, app: SocialApp, token: SocialToken, **kwargs: Any
    ) -> SocialLogin:
        """Ask sipgate who signed in, and begin the transaction that completes the sign-in.

        One request, or two if the granted scopes include name and email.

        Raises:
            errors.SipgateError: sipgate did not say.
            ImmediateHttpResponse: the sign-in was to repair another user's connection. Nothing has
                changed.
        """
        grant: oauth.Tokens = kwargs["response"]
        identity = self.identity(grant)
        login: SocialLogin = self.get_provider().sociallogin_from_response(request, identity)
        login.account.uid = _uid(login.account)
        repair.turn_away_others(request, login.account, grant, self.state or {})
        self.to_the_end.enter_context(_all_or_nothing(request))
        return login

    def identity(self, grant: oauth.Tokens) -> dict[str, Any]:
        """Return what sipgate says about the user, for allauth to read and to keep."""
        who = TokenClient(grant.access_token).identity()
        chosen = self.request.COOKIES.get(settings.LANGUAGE_COOKIE_NAME, "")
        data = {
            "sub": who.sub,
            "masterSipId": who.master_sip_id,
            "domain": who.domain,
            "locale": who.locale,
            "language": chosen if chosen in dict(settings.LANGUAGES) else "",
            **_person(grant, who.sub),
        }
        return {name: value for name, value in data.items() if value}


def _person(grant: oauth.Tokens, sub: str) -> dict[str, Any]:
    """Return name and email address, as far as the scopes allow.

    An email address counts as verified only if OpenID Connect says so. The claims come straight
    from the token endpoint, so their signature need not be checked (Core §3.1.3.7).
    """
    claims = oauth.jwt_claims(grant.id_token or "")
    if _text(claims.get("email")):
        return {
            "email": _text(claims.get("email")),
            "email_verified": claims.get("email_verified") is True,
            "firstname": _text(claims.get("given_name")),
            "lastname": _text(claims.get("family_name")),
        }
    granted = conf.scope() if grant.scope is None else grant.scope
    if not scopes.suffices(granted, needed="users:read"):
        return {}
    try:
        user = TokenClient(grant.access_token).user(sub)
    except (errors.MissingPermission, errors.NotFound):
        return {}  # a colleague without this right may sign in as well, without a name
    return {"email": user.email, "firstname": user.firstname, "lastname": user.lastname}


@contextmanager
def _all_or_nothing(request: HttpRequest) -> Iterator[None]:
    """Roll back if the sign-in ends in an error, even if allauth has caught it."""
    with transaction.atomic(using=database.using()):
        yield
        if trouble.has_failed(request):
            transaction.set_rollback(True, using=database.using())


def sealed(grant: oauth.Tokens) -> str:
    """Return sipgate's answer as a text that only ``opened`` can read.

    Raises:
        errors.Misconfigured: ``SIPGATE_TOKEN_KEYS`` has no usable key.
    """
    return tokens.seal_text(grant.to_text(), place=PENDING)


def opened(text: str) -> oauth.Tokens:
    """Return what ``sealed`` was given.

    Raises:
        errors.Misconfigured: the text is not from ``sealed``, or its key is gone.
    """
    return oauth.Tokens.from_text(tokens.open_text(text, place=PENDING))


def _check_issuer(named: str) -> None:
    """Raise ``errors.Misconfigured`` if the callback names another authorization server."""
    expected = conf.issuer()
    if not named or not expected or named == expected:
        return
    derived = expected == addresses.issuer_from(conf.auth_url())
    setting = "SIPGATE_AUTH_URL" if derived else "SIPGATE_ISSUER"
    named = printable(named, 300)
    text = f"The callback's iss is {named!r}, not {expected!r}, which follows from {setting}."
    raise errors.Misconfigured(text, setting=setting, endpoint="callback", code="iss")


def _uid(account: SocialAccount) -> str:
    """Return the account's uid, with its domain if this site knows the id from another region."""
    uid, domain = account.uid, account.extra_data.get("domain", "")
    known = SocialAccount.objects.using(database.using()).filter(provider=account.provider, uid=uid)
    data = known.values_list("extra_data", flat=True).first() or {}
    is_other = bool(domain and data.get("domain")) and domain != data["domain"]
    return f"{uid}@{domain}"[:191] if is_other else uid


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
