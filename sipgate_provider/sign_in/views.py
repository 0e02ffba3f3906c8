"""The two views of a sign-in, on top of allauth's own, which fixes their names.

allauth's callback finds the state, exchanges the code, asks who signed in, and completes the
sign-in. This module adds what allauth leaves open: it uses a state once, limits callbacks, turns no
answer of sipgate into a server error, and stores everything or nothing.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from allauth import app_settings
from allauth.account.adapter import get_adapter as get_account_adapter
from allauth.account.app_settings import TEMPLATE_EXTENSION
from allauth.core.ratelimit import respond_429
from allauth.socialaccount.helpers import render_authentication_error
from allauth.socialaccount.providers.base import AuthError, AuthProcess
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from sipgate_provider import conf, errors, links, problems
from sipgate_provider.errors import Kind
from sipgate_provider.remote.secret import Secret

from . import limits, once, repair, trouble
from .asked import Asked
from .oauth import SipgateOAuth2Adapter

State = dict[str, Any]

TAKEN = "taken"
"""Replaces in the query what was taken out of it."""
AGAIN = "again-"
"""Prefix of the state of a sign-in that was begun again."""
TRY_AGAIN_AFTER = 3
"""Seconds after which the browser of a user who was told to wait tries again."""


class SipgateLoginView(OAuth2LoginView):
    adapter: SipgateOAuth2Adapter

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        elsewhere = _canonical_url(request)
        if elsewhere:
            return HttpResponseRedirect(elsewhere)
        if links.REPAIR in request.GET and links.to_repair(request) is None:
            return repair.gone(request)
        if links.ANOTHER in request.GET:
            return repair.another_account(request)
        is_ours = request.user.is_authenticated and links.wanted_scopes(request) is not None
        if app_settings.HEADLESS_ONLY and is_ours:
            # A problem document's action, signed for this user: no page could ask first.
            begun: HttpResponse = self.adapter.get_provider().redirect_from_request(request)
            return begun
        return super().dispatch(request, *args, **kwargs)


class SipgateCallbackView(OAuth2CallbackView):
    adapter: SipgateOAuth2Adapter

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        self.query = Secret(request.META.get("QUERY_STRING", ""))
        is_ambiguous = any(len(values) > 1 for _name, values in request.GET.lists())
        self.adapter.code, self.state_id = _take(request, "code", "state")
        self.provider = self.adapter.get_provider()
        if is_ambiguous:  # RFC 6749 §3.1
            return self._failed()
        try:
            with ExitStack() as self.adapter.to_the_end:
                response: HttpResponse = super().dispatch(request, *args, **kwargs)
                return response
        except (errors.SipgateError, errors.TokenRejected) as failure:
            if self.adapter.did_fetch_access_token:
                limits.note_failure(request)
            return self._failed(failure)
        except IntegrityError:
            # Another tab has created this user a moment ago; the next attempt finds it.
            state = self.adapter.state or {}
            if Asked.of(state).again:
                raise
            return self._begin_again(state)

    def _get_state(
        self, request: HttpRequest, provider: Any
    ) -> tuple[State | None, HttpResponse | None]:
        """Use allauth's state and return it, or return the answer to a callback without one."""
        begun = once.begun(request, self.state_id)
        if begun is None:
            return None, self._without_state()
        if "code" in request.GET and "error" not in request.GET:
            if limits.failed_too_often(request):
                return None, respond_429(request)
            if not limits.places.acquire(blocking=False):
                return None, self._busy(begun)
            self.adapter.to_the_end.callback(limits.places.release)
            # Before it leaves the session: a request that misses it there must find the row.
            if not once.use(request, self.state_id, begun):
                return None, self._without_state()
        try:
            self.adapter.state = provider.unstash_redirect_state(request, self.state_id)
        except PermissionDenied:  # it has expired
            return None, self._failed()
        except UpdateError:  # a sign-in in another tab has just replaced the session
            request.session = request.session.__class__()
            return None, self._without_state()
        return self.adapter.state, None

    def _without_state(self) -> HttpResponse:
        """Answer a callback whose state this browser's session does not hold, or no longer."""
        request, used = self.request, once.used(self.state_id)
        if used is not None and once.may_begin_again(request, used):
            return self._begin_again(used.asked)
        is_ours = used is not None or self.state_id.startswith(AGAIN)
        if is_ours and request.user.is_authenticated:
            # The first callback signed this user in, and its cookie arrived after all.
            home = get_account_adapter(request).get_login_redirect_url(request)
            return HttpResponseRedirect((used.asked.get("next") if used else "") or home)
        strict = str(settings.SESSION_COOKIE_SAMESITE).lower() == "strict"
        if strict and self.state_id and "_redir" not in request.GET:
            # Coming from another site, the browser omits the cookie; from a page of this site, not.
            address = f"{request.path}?{self.query}&_redir="
            here = {"provider": self.provider, "redirect_to": address}
            return render(request, f"socialaccount/login_redirect.{TEMPLATE_EXTENSION}", here)
        return self._failed()

    def _begin_again(self, asked: State) -> HttpResponse:
        """Begin the same sign-in again. sipgate knows the browser, and answers without a page."""
        request = self.request
        if not request.user.is_authenticated:
            # The first callback may replace this session at any moment, with the new state in it.
            data = dict(request.session.items())
            request.session = request.session.__class__()
            request.session.update(data)
        before = Asked.of(asked)
        try:
            again: HttpResponse = self.provider.redirect(
                request,
                asked.get("process", AuthProcess.LOGIN),
                next_url=asked.get("next"),
                data=replace(before, again=True).in_data(asked.get("data")),
                scope=list(before.scope) or None,
                state_id=AGAIN + secrets.token_urlsafe(16),
                **({"headless": True} if asked.get("headless") else {}),
            )
        except UpdateError:
            request.session = request.session.__class__()
            return self._failed()
        return again

    def _busy(self, begun: State) -> HttpResponse:
        """Say at once that too many callbacks are waiting for sipgate. The same address works
        later."""
        url = trouble.again(self.request, begun)
        problem = replace(problems.describe(Kind.BUSY), action_url=url)
        problems.log(problem, None, what="A sign-in was told to wait")
        page, context = "sipgate_provider/problem.html", {"problem": problem}
        response = render(self.request, page, context, status=problem.status)
        response.headers["Retry-After"] = response.headers["Refresh"] = str(TRY_AGAIN_AFTER)
        return response

    def _failed(self, failure: Exception | None = None) -> HttpResponse:
        error = self.request.GET.get("error")
        cancelled = failure is None and error == self.adapter.login_cancelled_error
        response: HttpResponse = render_authentication_error(
            self.request,
            self.provider,
            error=AuthError.CANCELLED if cancelled else AuthError.UNKNOWN,
            exception=failure,
            extra_context={"state": self.adapter.state, "callback_view": self},
        )
        return response


def _canonical_url(request: HttpRequest) -> str:
    """Return where a sign-in must begin, if not here: at the host of the redirect URI, whose cookie
    the callback needs."""
    target = urlsplit(conf.redirect_uri())
    if not target.netloc or conf.is_own_host(request.get_host()):
        return ""
    return f"{target.scheme}://{target.netloc}{request.get_full_path()}"


def _take(request: HttpRequest, *names: str) -> list[Secret]:
    """Return parameters, and remove them from the request, which error reports may show."""
    taken = [Secret(request.GET.get(name, "")) for name in names]
    if not any(taken):
        return taken
    query, kept = request.META.get("QUERY_STRING", ""), request.GET.copy()
    for name in {*names} & {*kept}:
        kept[name] = TAKEN
    request.GET = kept  # type: ignore[assignment]  # a mutable QueryDict is one
    for key, text in request.META.items():
        # Servers and proxies repeat the address under names such as RAW_URI, HTTP_X_ORIGINAL_URI.
        if isinstance(text, str) and query in text:
            request.META[key] = text.replace(query, kept.urlencode())
    scope: dict[str, Any] | None = getattr(request, "scope", None)
    if scope is not None:
        scope["query_string"] = kept.urlencode().encode()
    _keep_from_sentry(kept.urlencode())
    return taken


def _keep_from_sentry(kept: str) -> None:
    """Let Sentry, which reads the query before Django runs, report only what is ``kept`` of it."""
    sentry = sys.modules.get("sentry_sdk")
    if sentry is None or not hasattr(sentry, "get_isolation_scope"):
        return

    def strip(event: dict[str, Any], _hint: object) -> dict[str, Any]:
        reported = event.get("request")
        if isinstance(reported, dict) and "query_string" in reported:
            reported["query_string"] = kept
        return event

    sentry.get_isolation_scope().add_event_processor(strip)


def _view(view_class: Any) -> Callable[..., HttpResponse]:
    """Return allauth's view function, which waits for sipgate outside of any transaction."""
    inner = view_class.adapter_view(SipgateOAuth2Adapter)

    @wraps(inner)
    def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            response: HttpResponse = inner(request, *args, **kwargs)
            return response
        except errors.SipgateError as error:  # no client is configured
            return problems.page(request, error)

    return transaction.non_atomic_requests(never_cache(view))


# allauth would take HEAD for the confirmed form, and Django asks for no CSRF token with it.
oauth2_login = require_http_methods(["GET", "POST"])(_view(SipgateLoginView))
oauth2_callback = require_GET(_view(SipgateCallbackView))
