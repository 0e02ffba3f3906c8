"""Views that need sipgate. Users who cannot use it yet go to the page that fixes it, and back.

::

    @sipgate_required(scopes=["sessions:sms:write"])
    def send(request):
        request.sipgate.post("/sessions/sms", json=...)      # a SipgateClient

==================  =====================================  ========================
this user           a browser gets                         a program gets
==================  =====================================  ========================
is anonymous        the login page (``LOGIN_URL``)         401, problem document
has no connection   the connect page                       403, problem document
has to sign in      the connect page                       403, problem document
lacks a scope       the connect page, which asks for it    403, problem document
meets a sipgate     the problem page                       its problem document
error in the view
==================  =====================================  ========================

Every way leads back to the page, with its query; after a posted form, to the page with the form.
No user is sent in circles: the address of the way back has a mark, with which the problem page says
what is still missing.

*Classes.* ``@method_decorator(sipgate_required, name="dispatch")``; of an asynchronous class,
decorate its handlers (``name="get"``). REST framework has ``sipgate_provider.rest_framework``.

*Transactions.* With ``ATOMIC_REQUESTS``, the decorator checks the connection, and refreshes an
expiring token, before the view's transaction begins. The view itself runs in it as usual, and a
sipgate error rolls it back. Of several connections, the oldest counts, as in
``SipgateClient.for_user``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.base import BaseHandler
from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.urls import get_script_prefix, is_valid_path
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache

from sipgate_provider import background, errors, links, problems, tokens
from sipgate_provider import scopes as scope_rules
from sipgate_provider.client import SipgateClient
from sipgate_provider.connections import connections_of, token_of
from sipgate_provider.models import Freshness, SipgateToken

AnyView = TypeVar("AnyView", bound=Callable[..., Any])

ASKED = "sipgate_asked"
"""Query parameter of the way back: it keeps the user from being sent to the connect page again."""


class SipgateRequest(HttpRequest):
    """The request of a view that needs sipgate, for annotations."""

    sipgate: SipgateClient
    sipgate_token: SipgateToken


@overload
def sipgate_required(view: AnyView) -> AnyView: ...
@overload
def sipgate_required(*, scopes: Iterable[str] = ()) -> Callable[[AnyView], AnyView]: ...
def sipgate_required(view: Any = None, *, scopes: Iterable[str] = ()) -> Any:
    """Admit users with a working sipgate connection; ``request.sipgate`` is their
    ``SipgateClient``.

    For functions, synchronous or not; for classes see above. With ``LoginRequiredMiddleware``, the
    view does not need ``login_not_required``: this decorator asks for the login itself.

    Args:
        scopes: the view needs all of these; a parent covers its children (``sessions:write``
            covers ``sessions:sms:write``).
    """
    needed = scope_rules.words(scopes)

    def decorate(inner: Any) -> Any:
        if isinstance(inner, type):
            cure = '@method_decorator(sipgate_required, name="dispatch")'
            raise TypeError(f"sipgate_required decorates functions; for a class write {cure}.")
        scope_rules.note_needed(needed, by=inner)
        guarded = (
            _guarded_async(inner, needed) if iscoroutinefunction(inner) else _guarded(inner, needed)
        )
        # Make Django leave transactions and login to this decorator.
        guarded._non_atomic_requests = set(connections)
        guarded.login_required = False
        return guarded

    return decorate if view is None else decorate(view)


def _guarded(view: Any, needed: tuple[str, ...]) -> Any:
    @wraps(view)
    def guarded(request: SipgateRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            elsewhere = _admit(request, needed) or _freshen(request, needed)
            if elsewhere is not None:
                return elsewhere
            return BaseHandler().make_view_atomic(view)(request, *args, **kwargs)
        except errors.SipgateError as error:
            return _trouble(request, error)

    return guarded


def _guarded_async(view: Any, needed: tuple[str, ...]) -> Any:
    @wraps(view)
    async def guarded(request: SipgateRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        BaseHandler().make_view_atomic(view)  # raises with ATOMIC_REQUESTS, as usual
        try:
            elsewhere = await sync_to_async(_admit)(request, needed)
            if elsewhere is None:  # in a thread of its own, not Django's only one for sync code
                elsewhere = await background.in_thread(_freshen)(request, needed)
            if elsewhere is not None:
                return elsewhere
            response: HttpResponseBase = await view(request, *args, **kwargs)
            return response
        except errors.SipgateError as error:
            return await sync_to_async(_trouble)(request, error)

    return guarded


def _admit(request: SipgateRequest, needed: tuple[str, ...]) -> HttpResponse | None:
    """Return where this user must go first; None if nowhere. One query."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return _login_first(request)
    lacking = look(request, needed)
    if lacking is not None:
        return _send(request, *lacking)
    if ASKED in request.GET and request.method == "GET":  # it has helped
        return _without_mark(request)
    return None


def _freshen(request: SipgateRequest, needed: tuple[str, ...]) -> HttpResponse | None:
    try:
        freshen(request)
    except errors.NeedsSignIn as ended:
        ended.connection_id = request.sipgate.connection.pk
        return _send(request, ended, needed)
    return None


def look(request: Any, needed: Iterable[str]) -> tuple[errors.SipgateError, tuple[str, ...]] | None:
    """Set ``sipgate`` and ``sipgate_token`` on the request of a signed-in user. One query.

    Returns None, or why the user cannot use sipgate, with the scopes to ask for.
    """
    rows, wish = connections_of(request.user), tuple(needed)
    if not rows:
        return errors.NotConnected("This user has no sipgate connection."), wish
    row = token_of(rows[0])
    error: errors.SipgateError | None = None
    if row is None or row.has_ended:
        text, reason = "This connection needs a new sign-in.", row.reason if row else ""
        error = errors.NeedsSignIn(text, reason=reason)
    elif lacking := scope_rules.missing(row.scopes, needed=needed):
        wish = scope_rules.widened(row.scopes, needed=needed)
        text = "This page needs a scope that was not granted."
        error = errors.MissingPermission(text, scopes=lacking)
    if error is not None:
        error.connection_id = rows[0].pk
        return error, wish
    request.sipgate, request.sipgate_token = SipgateClient(rows[0]), row
    return None


def freshen(request: Any) -> None:
    """Refresh an expiring token now: in the view's transaction, SQLite could not store a new one.

    Raises:
        errors.SipgateError: the token could not be refreshed.
    """
    if request.sipgate_token.freshness(timezone.now()) in {Freshness.MANDATORY, Freshness.OVER}:
        tokens.token(request.sipgate.connection)


# --- where to instead: for this user, and for now -------------------------------------------------


@never_cache
def _login_first(request: HttpRequest) -> HttpResponse:
    url = resolve_url(settings.LOGIN_URL)
    if not wants_document(request):
        return redirect_to_login(back_to(request), url)
    # With allauth's HEADLESS_ONLY there is no login page, unless LOGIN_URL names the front end's.
    path = url.removeprefix(get_script_prefix().rstrip("/"))
    leads = not url.startswith("/") or is_valid_path(urlsplit(path).path)
    problem = replace(problems.describe(errors.Kind.NOT_SIGNED_IN), action_url=url if leads else "")
    return problems.document(problem)


@never_cache
def _send(
    request: HttpRequest, error: errors.SipgateError, scopes: tuple[str, ...]
) -> HttpResponse:
    """Send a browser to the connect page, once, which asks for ``scopes``. Else say what is
    missing."""
    back, wish = back_to(request), links.signed_scopes(request, scopes) if scopes else ""
    if wants_document(request):
        return problems.json(request, error, next_url=back, wish=wish)
    if ASKED in request.GET:
        return problems.page(request, error, next_url=back, wish=wish)
    if request.method in {"GET", "HEAD"}:
        back += f"{'&' if '?' in back else '?'}{ASKED}=1"
    address = links.sign_in_url(back, process="connect", wish=wish, repairs=error.connection_id)
    if not address:
        raise ImproperlyConfigured(
            'The root URLconf has no page where a sign-in begins: add path("accounts/", '
            'include("allauth.urls")).'
        )
    return HttpResponseRedirect(address)


@never_cache
def _trouble(request: HttpRequest, error: errors.SipgateError) -> HttpResponse:
    """Return an error of a view as page or document."""
    answer = problems.json if wants_document(request) else problems.page
    wish = wish_of(request, error)
    return answer(request, error, next_url=back_to(request), wish=wish)


@never_cache
def _without_mark(request: HttpRequest) -> HttpResponse:
    query = request.GET.copy()
    del query[ASKED]
    return HttpResponseRedirect(f"{request.path}?{query.urlencode()}".rstrip("?"))


def wish_of(request: HttpRequest, error: errors.SipgateError) -> str:
    """Return what a problem's button asks for: the granted scopes, and those that may help."""
    if type(error) is not errors.MissingPermission or not error.scopes:
        return ""
    row: SipgateToken | None = getattr(request, "sipgate_token", None)
    granted = row.scopes if row else ()
    return links.signed_scopes(request, {*granted, *scope_rules.narrowest(error.scopes)})


def wants_document(request: HttpRequest) -> bool:
    """Tell whether the request is a program's: it says so, sends a bearer token, or does not accept
    ``text/html`` by name."""
    headers = request.headers
    return (
        headers.get("X-Requested-With") == "XMLHttpRequest"
        or headers.get("Sec-Fetch-Mode") == "cors"
        or headers.get("Authorization", "").startswith("Bearer ")
        or "text/html" not in headers.get("Accept", "text/html")
    )


def back_to(request: HttpRequest) -> str:
    """Return where to come back to: this page with its query, or ``/``.

    After a posted form, and for a program, it is the page that sent the request.
    """
    if request.method in {"GET", "HEAD"} and not wants_document(request):
        return request.get_full_path()
    referrer = request.headers.get("Referer", "")
    if not url_has_allowed_host_and_scheme(
        referrer, {request.get_host()}, require_https=request.is_secure()
    ):
        return "/"
    parts = urlsplit(referrer)
    path = parts.path or "/"
    if not url_has_allowed_host_and_scheme(path, None):
        return "/"  # a path that begins with two slashes would name another host
    return f"{path}?{parts.query}" if parts.query else path
