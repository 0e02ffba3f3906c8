"""allauth's adapter for sipgate (endpoints, code exchange, identity) and the two views of a sign-in. allauth fixes the
names.

The callback is written here and not inherited, because allauth's own cannot keep three promises: no transaction and no
database connection is held while sipgate is asked; no answer of sipgate ends in a server error; and the database part
is done completely or not at all, so that no incomplete user is left.

Must not know: token rows (``receivers`` stores what a completed sign-in brought).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import wraps
from typing import Any
from urllib.parse import urlencode, urlsplit

from allauth.account.adapter import get_adapter as get_account_adapter
from allauth.account.app_settings import TEMPLATE_EXTENSION
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.helpers import complete_social_login, render_authentication_error
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialLogin, SocialToken
from allauth.socialaccount.providers.base import AuthError, AuthProcess, ProviderException
from allauth.socialaccount.providers.oauth2.client import OAuth2Client
from allauth.socialaccount.providers.oauth2.views import (
    OAuth2Adapter,
    OAuth2CallbackView,
    OAuth2LoginView,
)
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.core.exceptions import MultipleObjectsReturned, PermissionDenied
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.http.response import HttpResponseRedirectBase
from django.shortcuts import render, resolve_url
from django.utils.cache import add_never_cache_headers
from django.views.decorators.debug import sensitive_variables
from requests import RequestException

from sipgate_provider import conf, endpoints, errors, problems, scopes, tokens
from sipgate_provider.client import TokenClient
from sipgate_provider.models import UsedState
from sipgate_provider.remote import oauth

from . import another_account, authorization_response, former_scopes, receivers, repair, states
from .authorization_response import AuthorizationResponse

logger = logging.getLogger(__name__)

VERIFIER = "sipgate_provider.pkce_verifier"
BEGUN_AGAIN = "sipgate_begun_again"
"""Key in a state's data: this sign-in was begun again because of a revocation, and is not begun a third time."""


class SipgateOAuth2Client(OAuth2Client):
    def get_redirect_url(
        self, authorization_url: str, scope: list[str], extra_params: dict[str, Any]
    ) -> str:
        """Return the authorization URL; scopes are sorted, so that the same scopes give the same URL."""
        url = str(
            super().get_redirect_url(
                authorization_url, [], {**extra_params, "scope": " ".join(sorted(set(scope)))}
            )
        )
        if "?" in authorization_url:  # allauth always starts a query of its own
            url = authorization_url + "&" + url.removeprefix(authorization_url + "?")
        return url

    @sensitive_variables("code", "pkce_code_verifier")
    def get_access_token(
        self,
        code: str,
        pkce_code_verifier: str | None = None,
        extra_data: dict[str, str] | None = None,
    ) -> oauth.Grant:
        """Exchange the code; raises as ``oauth.exchange_code``."""
        client = oauth.Client(
            client_id=self.consumer_key,
            client_secret=self.consumer_secret,
            token_url=self.access_token_url,
        )
        return oauth.exchange_code(
            client, code=code, redirect_uri=self.callback_url, code_verifier=pkce_code_verifier
        )


class SipgateOAuth2Adapter(OAuth2Adapter):
    provider_id = conf.PROVIDER_ID
    client_class = SipgateOAuth2Client

    @property  # read at the moment of use, as allauth's own OpenID Connect adapter does
    def authorize_url(self) -> str:
        return conf.auth_url()

    @property
    def access_token_url(self) -> str:  # type: ignore[override]  # allauth annotates an attribute
        return conf.token_url()

    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:
        return conf.redirect_uri() or str(super().get_callback_url(request, app))

    def parse_token(self, data: oauth.Grant) -> SocialToken:
        """Return allauth's token value; the whole grant travels with it to ``receivers``."""
        token = SocialToken(token=data.access_token, token_secret=data.refresh_token or "")
        if data.expires_in:
            token.expires_at = data.issued_at + _seconds(data.expires_in)
        receivers.attach(token, data)
        return token

    def complete_login(
        self, request: HttpRequest, app: SocialApp, token: SocialToken, **kwargs: Any
    ) -> SocialLogin:
        """Ask sipgate who signed in: one request, or two if the granted scopes include name and e-mail.

        Raises:
            errors.SipgateError: sipgate did not say.
        """
        grant: oauth.Grant = kwargs["response"]
        return self.sociallogin(request, self.identity(grant))

    def sociallogin(self, request: HttpRequest, identity: dict[str, Any]) -> SocialLogin:
        """Return a fresh, unsaved sign-in of ``identity``."""
        login: SocialLogin = self.get_provider().sociallogin_from_response(request, identity)  # type: ignore[no-untyped-call]  # allauth is untyped
        return login

    @sensitive_variables("grant")
    def identity(self, grant: oauth.Grant) -> dict[str, Any]:
        """Return sipgate's identity resource with what else is known about the person.

        An e-mail counts as verified only if OpenID Connect says so; its claims come straight from the token endpoint,
        over TLS, so their signature need not be checked (OpenID Connect Core §3.1.3.7).
        """
        who = TokenClient(grant.access_token).identity()
        data: dict[str, Any] = {
            "sub": who.sub,
            "masterSipId": who.master_sip_id,
            "domain": who.domain,
            "locale": who.locale,
        }
        chosen = self.request.COOKIES.get(settings.LANGUAGE_COOKIE_NAME, "")
        data["language"] = chosen if chosen in dict(settings.LANGUAGES) else ""
        data["oidc_sub"] = _text(oauth.jwt_claims(grant.access_token).get("sub"))
        claims = oauth.jwt_claims(grant.id_token) if grant.id_token else {}
        if _text(claims.get("email")):
            data |= {
                "email": _text(claims.get("email")),
                "email_verified": claims.get("email_verified") is True,
            }
            data |= {
                "firstname": _text(claims.get("given_name")),
                "lastname": _text(claims.get("family_name")),
            }
        granted = conf.scope() if grant.scope is None else grant.scope
        if not data.get("email") and scopes.suffices(granted, needed="users:read"):
            data |= self._person(grant.access_token, who.sub)
        return data

    def _person(self, access_token: str, sub: str) -> dict[str, Any]:
        try:
            user = TokenClient(access_token).user(sub)
        except (errors.MissingPermission, errors.NotFound):
            return {}  # a colleague without rights may sign in all the same, without a name
        return {
            "email": user.email,
            "email_verified": False,
            "firstname": user.firstname,
            "lastname": user.lastname,
        }


class SipgateLoginView(OAuth2LoginView):
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method not in {"GET", "POST"}:
            # allauth takes whatever is not GET for the confirmed form; HEAD and OPTIONS pass without a CSRF token.
            return HttpResponseNotAllowed(["GET", "POST"])
        elsewhere = _canonical_url(request)
        if elsewhere:
            return HttpResponseRedirect(elsewhere)
        if repair.FIELD in request.GET and repair.named(request) is None:
            response = repair.gone(request)
        elif another_account.leaves(request):
            response = super().dispatch(request, *args, **kwargs)
        else:
            response = another_account.page(request, self.get_provider())  # type: ignore[no-untyped-call]  # allauth is untyped
        add_never_cache_headers(response)
        return response


@dataclass(frozen=True, slots=True)
class Completed:
    """A completed sign-in: the site's answer, whose it is, and the detour that is to follow, if any.

    ``uid`` is empty if nothing was stored, since somebody else was expected.
    """

    response: HttpResponse
    uid: str
    may_end_others: bool = False
    """Somebody else may have signed out of sipgate in this browser for it."""
    former: dict[str, Any] = field(default_factory=dict)
    destination: str = ""

    @property
    def location(self) -> str:
        return self.response.url if isinstance(self.response, HttpResponseRedirectBase) else ""


class SipgateCallbackView(OAuth2CallbackView):
    adapter: SipgateOAuth2Adapter

    def dispatch(self, request: HttpRequest, *, answer: AuthorizationResponse) -> HttpResponse:
        if request.method != "GET":
            return HttpResponseNotAllowed(["GET"])
        response = self._dispatch(self.adapter.get_provider(), answer)  # type: ignore[no-untyped-call]  # allauth is untyped
        add_never_cache_headers(response)
        return response

    def _dispatch(self, provider: Any, answer: AuthorizationResponse) -> HttpResponse:
        has_code = bool(answer.code) and not answer.error
        began = states.begun_at(self.request, answer.state)
        if (
            has_code
            and states.begun_here(self.request, answer.state)
            and states.use(self.request, answer.state)
        ):
            # It is used before it leaves the session, so that a request that does not find it there finds the row.
            state = self._unstash(provider, answer.state)
            if state is not None:
                return self._first(provider, state, answer, began)
            states.finish(answer.state, outcome=states.Outcome.FAILED)
        used = states.used(self.request, answer.state)
        if used is not None:
            return self._repeated(provider, answer, used)
        state = None if has_code else self._unstash(provider, answer.state)
        if state is None:
            return self._unknown(provider, answer)
        if former_scopes.MARK in (state.get("data") or {}):
            return self._without_former(state, cause=problems.printable(answer.error)[:80])
        return self._refused(provider, answer, state)

    def _refused(
        self, provider: Any, answer: AuthorizationResponse, state: dict[str, Any] | None
    ) -> HttpResponse:
        cancelled = answer.error == self.adapter.login_cancelled_error
        return self._failed(
            provider, state, error=AuthError.CANCELLED if cancelled else AuthError.UNKNOWN
        )

    def _unstash(self, provider: Any, state_id: str) -> dict[str, Any] | None:
        """Take a state out of the session that began it; None if it is not there (any more)."""
        try:
            state: dict[str, Any] = provider.unstash_redirect_state(self.request, state_id)
        except PermissionDenied:
            return None
        except UpdateError:  # a sign-in in another tab has just replaced the session
            states.leave_session_alone(self.request)
            return None
        return state

    def _first(
        self, provider: Any, state: dict[str, Any], answer: AuthorizationResponse, began: datetime
    ) -> HttpResponse:
        """Complete the sign-in; whoever repeats this callback meanwhile waits for ``states.finish``.

        If an old grant of the same identity was ended meanwhile, the new one may have ended, too: it begins again,
        once.
        """
        outcome, done = states.Outcome.FAILED, None
        data = state.get("data") or {}
        may_begin_again = not data.get(BEGUN_AGAIN)
        complete = self._add_former if former_scopes.MARK in data else self._complete
        try:
            done = complete(provider, state, answer)
            if done.uid and may_begin_again and tokens.may_have_ended(done.uid, since=began):
                return self._begin_again(provider, state, mark=BEGUN_AGAIN)
            if done.location:
                if done.may_end_others and state.get("process") == AuthProcess.CONNECT:
                    another_account.try_others(self.request, done.uid)
                outcome = states.Outcome.COMPLETED
                states.note_completed(self.request, answer.state)
            return done.response
        except CAUGHT as failure:
            was_refused = isinstance(failure, errors.TokenRefused)
            if was_refused and may_begin_again and tokens.ended_since(began):
                return self._begin_again(provider, state, mark=BEGUN_AGAIN)
            if complete == self._add_former:
                return self._without_former(state, cause=problems.cause(failure))
            return self._failed(provider, state, failure=failure)
        finally:
            states.finish(
                answer.state,
                outcome=outcome,
                location=done.location if done else "",
                former=done.former if done else {},
                destination=done.destination if done else "",
            )

    def _repeated(
        self, provider: Any, answer: AuthorizationResponse, used: UsedState
    ) -> HttpResponse:
        """Send this browser where the first callback went, or begin the sign-in again, once.

        First redirect to this address without the code. By then the cookie of the first callback's session has arrived,
        if it ever does.
        """
        if answer.code:
            states.wait(used)
            states.leave_session_alone(self.request)
            return HttpResponseRedirect(self._here(answer))
        if states.holds(self.request, used):
            if used.former and self.request.user.is_authenticated:
                if states.begin_again(used):
                    return self._ask_for_former(provider, used)
                return HttpResponseRedirect(self._destination(used))
            return HttpResponseRedirect(
                used.location or used.asked.get("next") or resolve_url(settings.LOGIN_REDIRECT_URL)
            )
        if states.begin_again(used):
            return self._begin_again(provider, used.asked)
        return self._unknown(provider, answer)

    def _begin_again(self, provider: Any, asked: dict[str, Any], *, mark: str = "") -> HttpResponse:
        """Begin the same sign-in again. sipgate usually answers without a page, since its session lives."""
        data = {**(asked.get("data") or {}), **({mark: True} if mark else {})}
        again: HttpResponse = provider.redirect(
            self.request,
            asked.get("process", AuthProcess.LOGIN),
            next_url=asked.get("next"),
            data=data,
            scope=data.get("sipgate_scope"),
            **({"headless": True} if asked.get("headless") else {}),
        )
        return again

    def _unknown(self, provider: Any, answer: AuthorizationResponse) -> HttpResponse:
        """Answer a callback that this browser did not begin, or began too long ago."""
        if self.request.session.is_empty():
            states.leave_session_alone(self.request)
        strict = str(settings.SESSION_COOKIE_SAMESITE).lower() == "strict"
        if strict and answer.state and "_redir" not in self.request.GET:
            # Browsers do not send the session's cookie with a redirect from another site, but do with one from here.
            here = {
                "provider": provider,
                "redirect_to": f"{self.request.path}?{answer.query}&_redir=",
            }
            return render(self.request, f"socialaccount/login_redirect.{TEMPLATE_EXTENSION}", here)
        next_step = (
            ""
            if answer.state or answer.error or answer.code
            else another_account.next_step(self.request)
        )
        return (
            HttpResponseRedirect(next_step) if next_step else self._refused(provider, answer, None)
        )

    def _exchange(
        self, provider: Any, state: dict[str, Any], answer: AuthorizationResponse
    ) -> tuple[oauth.Grant, dict[str, Any]]:
        """Exchange the code; return the grant and whose it is. No database connection is held meanwhile."""
        _check_issuer(answer.iss)
        verifier = state.pop("pkce_code_verifier", None)
        if verifier:
            verifier = tokens.open_text(verifier, context=VERIFIER)
        client = self.adapter.get_client(self.request, provider.app)
        tokens.release_connections()
        grant = client.get_access_token(answer.code, pkce_code_verifier=verifier)
        return grant, self.adapter.identity(grant)

    def _complete(
        self, provider: Any, state: dict[str, Any], answer: AuthorizationResponse
    ) -> Completed:
        grant, identity = self._exchange(provider, state, answer)
        repairs = repair.asked_for(state)
        for last in (False, True):
            login = self.adapter.sociallogin(self.request, identity)
            login.token, login.state = self.adapter.parse_token(grant), {**state}
            if provider.app.pk:
                login.token.app = provider.app
            try:
                # The database of the connections; a router may choose another than the default one.
                with transaction.atomic(using=tokens.using()):
                    if not repair.is_for(repairs, login.account.uid):
                        break
                    before = former_scopes.known(login)
                    _refuse_other_domain(login, before.domain)
                    compared = former_scopes.compare(self.request, login, grant, before)
                    former, destination = self._detour(login, answer, compared)
                    response: HttpResponse = complete_social_login(self.request, login)
                    if not login.account.pk:  # a sign-up that waits for a form holds a grant, too
                        tokens.cancel_endings(login.account.uid)
                former_scopes.tell(self.request, compared.refused)
                changed = repair.forget_met(self.request) or before.user_id is None
                return Completed(
                    response,
                    uid=login.account.uid,
                    may_end_others=changed,
                    former=former,
                    destination=destination,
                )
            except IntegrityError:
                # Another tab created this user a moment ago, and the second attempt finds it. A second failure is a
                # bug.
                if last:
                    raise
        assert repairs is not None  # noqa: S101  # narrows the type: any identity will do otherwise
        return self._somebody_else(state, grant, login.account, repairs)

    def _somebody_else(
        self, state: dict[str, Any], grant: oauth.Grant, account: SocialAccount, repairs: int
    ) -> Completed:
        """Connect, sign in and sign up nobody: end what was granted, and go to the page that says who is needed."""
        name = _name(account, grant)
        tokens.discard(
            grant, uid=account.uid, user=self.request.user.pk, why="somebody else was expected"
        )
        repair.note_met(self.request, repairs, name)
        address = another_account.url(
            next_url=state.get("next") or "", process=state.get("process") or "", repairs=repairs
        )
        return Completed(HttpResponseRedirect(address), uid="")

    def _detour(
        self, login: SocialLogin, answer: AuthorizationResponse, compared: former_scopes.Compared
    ) -> tuple[dict[str, Any], str]:
        """If a sign-in did not ask for all that was allowed before, send it to sipgate again to ask for the rest.

        Returns what is then asked for, and where the person goes in the end (empty: the default of a login).
        """
        if not compared.unasked or not self.request.COOKIES.get(states.COOKIE):
            return {}, ""
        destination = str(login.state.get("next") or "")
        if not destination and login.state.get("process") == AuthProcess.CONNECT:
            destination = get_adapter().get_connect_redirect_url(self.request, login.account)
        login.state["next"] = self._here(answer)
        scope = sorted({*former_scopes.requested_scope(login.state), *compared.unasked})
        return {
            "uid": login.account.uid,
            "scope": scope,
            "lost": list(compared.unasked),
        }, destination

    def _here(self, answer: AuthorizationResponse) -> str:
        return f"{self.request.path}?{urlencode({'state': answer.state})}"

    def _destination(self, used: UsedState) -> str:
        return used.destination or get_account_adapter(self.request).get_login_redirect_url(
            self.request
        )

    def _ask_for_former(self, provider: Any, used: UsedState) -> HttpResponse:
        wish = used.former
        response: HttpResponse = provider.redirect(
            self.request,
            AuthProcess.CONNECT,
            next_url=self._destination(used),
            data={former_scopes.MARK: {"uid": wish["uid"], "lost": wish["lost"]}},
            scope=wish["scope"],
            auth_params={**provider.get_auth_params(), "prompt": "none"},
        )
        return response

    def _add_former(
        self, provider: Any, state: dict[str, Any], answer: AuthorizationResponse
    ) -> Completed:
        """Store the grant of a sign-in that asked for former scopes, if it is about the same person's connection."""
        grant, identity = self._exchange(provider, state, answer)
        wish, uid = state["data"][former_scopes.MARK], provider.extract_uid(identity)
        requested = former_scopes.requested_scope(state)
        with transaction.atomic(using=tokens.using()):
            connection = SocialAccount.objects.filter(provider=provider.sub_id, uid=uid).first()
            if (
                connection is None
                or uid != wish["uid"]
                or connection.user_id != self.request.user.pk
            ):
                raise errors.UnexpectedResponse(
                    "sipgate answered for another person.", endpoint="callback"
                )
            tokens.store(connection, grant, scope=requested)
        former_scopes.tell(
            self.request,
            scopes.missing(requested if grant.scope is None else grant.scope, needed=wish["lost"]),
        )
        return Completed(HttpResponseRedirect(state["next"]), uid=uid)

    def _without_former(self, state: dict[str, Any], *, cause: str) -> HttpResponse:
        """Go on with the present grant, and tell what it lacks."""
        logger.warning("Scopes that were allowed before could not be asked for again: %s", cause)
        former_scopes.tell(self.request, state["data"][former_scopes.MARK]["lost"])
        return HttpResponseRedirect(state["next"])

    def _failed(
        self,
        provider: Any,
        state: dict[str, Any] | None,
        *,
        error: str = AuthError.UNKNOWN,
        failure: Exception | None = None,
    ) -> HttpResponse:
        response: HttpResponse = render_authentication_error(
            self.request,
            provider,
            error=error,
            exception=failure,
            extra_context={"state": state, "callback_view": self},
        )
        return response


CAUGHT = (
    errors.SipgateError,
    errors.TokenRefused,
    RequestException,
    ProviderException,
    PermissionDenied,
)


class WrongIssuer(errors.Misconfigured):
    """The callback names another authorization server. ``description`` has both values, for the page."""

    def __init__(self, named: str, expected: str) -> None:
        derived = expected == endpoints.issuer_from(conf.auth_url())
        setting = "SIPGATE_AUTH_URL" if derived else "SIPGATE_ISSUER"
        self.description = f"iss={problems.printable(named)} ≠ {expected}"
        text = f"The callback's iss is {problems.printable(named)!r}, not {expected!r}, which follows from {setting}."
        super().__init__(text, setting=setting, endpoint="callback", code="iss")


def _check_issuer(named: str) -> None:
    """Refuse an answer that names another authorization server (RFC 9207, mix-up attack)."""
    expected = conf.issuer()
    if named and expected and named != expected:
        raise WrongIssuer(named, expected)


def _name(account: SocialAccount, grant: oauth.Grant) -> str:
    """Return the name of a sipgate account that is not going to be connected."""
    known = SocialAccount.objects.filter(provider=account.provider, uid=account.uid).select_related(
        "sipgate_account"
    )
    connection = known.first()
    if connection is not None:
        return str(connection.get_provider_account().to_str())
    tokens.release_connections()
    with suppress(errors.SipgateError):
        company = TokenClient(grant.access_token).account().company
        if company:
            return company
    return str(account.get_provider_account().to_str())


def _refuse_other_domain(login: SocialLogin, old: str) -> None:
    """Refuse a known uid that suddenly comes from another sipgate region: it may be somebody else's."""
    new = login.account.extra_data.get("domain")
    if old and new and old != new:
        raise errors.UnexpectedResponse(
            "This sipgate id is known from another sipgate domain; the sign-in was refused.",
            endpoint="callback",
            code="domain",
        )


def _canonical_url(request: HttpRequest) -> str:
    """Return where a sign-in must start, if not here: the state cookie belongs to the host of the redirect URI."""
    target = urlsplit(conf.redirect_uri())
    if not target.netloc or conf.is_own_host(request.get_host()):
        return ""
    return f"{target.scheme}://{target.netloc}{request.get_full_path()}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _seconds(amount: float) -> timedelta:
    return timedelta(seconds=amount)


def _guarded(view: Any) -> Any:
    """Turn what can go wrong before allauth catches anything (no client configured) into the same problem page."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            response: HttpResponse = view(request, *args, **kwargs)
        except SocialApp.DoesNotExist:
            return problems.page(
                request,
                errors.Misconfigured("No sipgate client is configured.", setting=errors.CLIENT_ID),
            )
        except MultipleObjectsReturned:
            return problems.page(
                request,
                errors.Misconfigured(
                    "Two sipgate clients are configured.", setting=errors.CLIENT_ID
                ),
            )
        except errors.SipgateError as error:
            return problems.page(request, error)
        return response

    return transaction.non_atomic_requests(guarded)


def _without_secrets(view: Any) -> Any:
    """Hand the authorization response to ``view``, taken out of the request before anything can fail."""

    @wraps(view)
    def taken(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = view(request, answer=authorization_response.take(request))
        return response

    return taken


oauth2_login = _guarded(SipgateLoginView.adapter_view(SipgateOAuth2Adapter))  # type: ignore[no-untyped-call]  # allauth is untyped
oauth2_callback = _without_secrets(_guarded(SipgateCallbackView.adapter_view(SipgateOAuth2Adapter)))  # type: ignore[no-untyped-call]  # allauth is untyped
