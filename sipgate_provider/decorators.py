"""Views that need sipgate: users who cannot use it yet are sent to the page that changes that, and come back.

::

    @sipgate_required(scopes=["sessions:sms:write"])
    def send(request):
        request.sipgate.post("/sessions/sms", json=...)      # a SipgateClient

===================  =========================================  ===============================
this person          a browser gets                             JSON and XHR get
===================  =========================================  ===============================
is anonymous         the login page (``LOGIN_URL``)             401, problem document
has no connection    the connect page                           403, problem document
has to sign in       the connect page                           403, problem document
lacks a scope        the connect page, which asks for it, too   403, problem document
meets a sipgate      the problem page                           its problem document
error in the view
===================  =========================================  ===============================

Every way leads back to the page, with its query; from a form that was posted, to the page it was on. Nobody is sent in
circles: after a consent that did not help, the problem page says what is missing.

*Transactions.* With ``ATOMIC_REQUESTS`` the connection is checked, and an expiring token refreshed, before the view's
transaction begins. The view itself runs in it as usual, and a sipgate error rolls it back. Of several connections the
oldest counts, as in ``SipgateClient.for_user``.

Must not know: what the views do.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial, wraps
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import urlsplit

from allauth.socialaccount.models import SocialAccount
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.db import connections, transaction
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import resolve_url
from django.utils import timezone
from django.utils.cache import add_never_cache_headers, patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django.views import View

from sipgate_provider import accounts, errors, problems, tokens
from sipgate_provider import scopes as scope_rules
from sipgate_provider.client import SipgateClient
from sipgate_provider.models import Freshness, SipgateToken

AnyView = TypeVar("AnyView", bound=Callable[..., Any])

if TYPE_CHECKING:
    MixedInto = View
else:
    MixedInto = object

SENT = "sipgate_sent"
"""Session key: where this person was sent already, and with which consent, so that nobody is sent in circles."""
MOST_TIMES = 3
"""How often a user is sent the same way without a consent. People may go back and try again; a loop must end."""


@overload
def sipgate_required(view: AnyView) -> AnyView: ...
@overload
def sipgate_required(*, scopes: Iterable[str] = ()) -> Callable[[AnyView], AnyView]: ...
def sipgate_required(view: Any = None, *, scopes: Iterable[str] = ()) -> Any:
    """Let a view be used only with a living sipgate connection; ``request.sipgate`` is its ``SipgateClient``.

    For functions and class-based views, synchronous or not. With ``LoginRequiredMiddleware`` the view does not need
    ``login_not_required``: this decorator asks for the login itself.

    Args:
        scopes: all of these are needed; a parent covers its children (``sessions:write``, ``sessions:sms:write``).
    """
    needed = _words(scopes)

    def decorate(inner: Any) -> Any:
        scope_rules.note_needed(needed, by=inner)
        if isinstance(inner, type):
            return _decorated_class(inner, needed)
        return _decorated_function(inner, needed)

    return decorate if view is None else decorate(view)


def _marked(view: Any) -> Any:
    """Let Django leave transaction and login to us."""
    view._non_atomic_requests = set(connections)
    view.login_required = False
    return view


class SipgateRequest(HttpRequest):
    """The request of a view that needs sipgate, for annotations."""

    sipgate: SipgateClient
    sipgate_token: SipgateToken


class SipgateRequiredMixin(MixedInto):
    """``sipgate_required`` for class-based views; list it before ``View``."""

    sipgate_scopes: Iterable[str] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(
            cls.sipgate_scopes, str | list | tuple | set | frozenset
        ):  # a property tells only with a request
            scope_rules.note_needed(_words(cls.sipgate_scopes), by=cls)

    def get_sipgate_scopes(self) -> Iterable[str]:
        """Return the scopes that are needed for this request; override it where that differs."""
        return self.sipgate_scopes

    @_marked
    def dispatch(self, request: SipgateRequest, *args: Any, **kwargs: Any) -> Any:
        work = partial(super().dispatch, request, *args, **kwargs)
        guard = _guard_async if self.view_is_async else _guard
        return guard(
            request, _words(self.get_sipgate_scopes()), work, _atomic_aliases(super().dispatch)
        )


def _decorated_function(view: Any, needed: tuple[str, ...]) -> Any:
    aliases = partial(_atomic_aliases, view)
    if iscoroutinefunction(view):

        @wraps(view)
        async def guarded_async(
            request: SipgateRequest, *args: Any, **kwargs: Any
        ) -> HttpResponseBase:
            return await _guard_async(
                request, needed, partial(view, request, *args, **kwargs), aliases()
            )

        return _marked(guarded_async)

    @wraps(view)
    def guarded(request: SipgateRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return _guard(request, needed, partial(view, request, *args, **kwargs), aliases())

    return _marked(guarded)


def _decorated_class(view: Any, needed: tuple[str, ...]) -> Any:
    inner = view.dispatch

    @wraps(inner)
    def dispatch(self: View, request: SipgateRequest, *args: Any, **kwargs: Any) -> Any:
        guard = _guard_async if self.view_is_async else _guard
        return guard(
            request, needed, partial(inner, self, request, *args, **kwargs), _atomic_aliases(inner)
        )

    view.dispatch = _marked(dispatch)
    return view


# --- the way through a view -------------------------------------------------------------------------------------------


def _guard(
    request: SipgateRequest,
    needed: tuple[str, ...],
    work: Callable[[], Any],
    aliases: tuple[str, ...],
) -> HttpResponseBase:
    try:
        elsewhere = _look(request, needed)
        if elsewhere is not None:
            return elsewhere
        try:
            _freshen(request)
        except errors.NeedsSignIn as ended:
            return _send(request, ended, rows=[request.sipgate.connection], wish=needed)
        with _transactions(aliases):
            response: HttpResponseBase = work()
            return response
    except errors.SipgateError as error:
        return _trouble(request, error)


async def _guard_async(
    request: SipgateRequest,
    needed: tuple[str, ...],
    work: Callable[[], Any],
    aliases: tuple[str, ...],
) -> HttpResponseBase:
    if aliases:
        raise RuntimeError(
            "You cannot use ATOMIC_REQUESTS with async views."
        )  # as Django itself says
    try:
        elsewhere = await sync_to_async(_look)(request, needed)
        if elsewhere is not None:
            return elsewhere
        try:
            await tokens.in_thread(_freshen)(request)
        except errors.NeedsSignIn as ended:
            return await sync_to_async(_send)(
                request, ended, rows=[request.sipgate.connection], wish=needed
            )
        response: HttpResponseBase | Awaitable[HttpResponseBase] = work()
        return await response if isawaitable(response) else response
    except errors.SipgateError as error:
        return await sync_to_async(_trouble)(request, error)


def _look(request: SipgateRequest, needed: tuple[str, ...]) -> HttpResponse | None:
    """Return where this person has to go first; None if nowhere. One query."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return _login_first(request)
    rows = accounts.connections_of(user)
    if not rows:
        return _send(
            request,
            errors.NotConnected("This user has no sipgate connection."),
            rows=rows,
            wish=needed,
        )
    token = accounts.token_of(rows[0])
    if token is None or token.has_ended:
        ended = errors.NeedsSignIn(
            "This connection needs a new sign-in.", reason=token.reason if token else ""
        )
        return _send(request, ended, rows=rows, wish=needed)
    lacking = scope_rules.missing(token.scopes, needed=needed)
    if lacking:
        wish = scope_rules.widened(token.scopes, needed=needed)
        error = errors.MissingPermission(
            "This page needs a scope that was not granted.", scopes=lacking
        )
        return _send(request, error, rows=rows, wish=wish)
    if SENT in request.session:
        del request.session[SENT]
    request.sipgate = SipgateClient(rows[0])
    request.sipgate_token = token
    return None


def _freshen(request: SipgateRequest) -> None:
    """Refresh an ending token now: the view may be inside a transaction, in which SQLite could not store a new one."""
    if request.sipgate_token.freshness(timezone.now()) in {
        Freshness.MANDATORY,
        Freshness.OVER,
    }:
        tokens.token(request.sipgate.connection)


@contextmanager
def _transactions(aliases: Iterable[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for alias in aliases:
            stack.enter_context(transaction.atomic(using=alias))
        yield


def _atomic_aliases(view: Any) -> tuple[str, ...]:
    """Return the databases in whose transaction Django would run ``view``."""
    excepted: set[str] = getattr(view, "_non_atomic_requests", set())
    return tuple(
        alias
        for alias, options in connections.settings.items()
        if options["ATOMIC_REQUESTS"] and alias not in excepted
    )


# --- where to instead -------------------------------------------------------------------------------------------------


def _login_first(request: HttpRequest) -> HttpResponse:
    url = resolve_url(settings.LOGIN_URL)
    if wants_document(request):
        problem = replace(problems.of_kind(errors.Kind.NOT_SIGNED_IN), action_url=url)
        answer: HttpResponse = JsonResponse(
            problem.document(), status=problem.status, content_type="application/problem+json"
        )
        return _uncached(answer)
    return _uncached(redirect_to_login(back_to(request), url))


def _send(
    request: HttpRequest,
    error: errors.SipgateError,
    *,
    rows: list[SocialAccount],
    wish: tuple[str, ...],
) -> HttpResponse:
    """Send a browser to the connect page once. Tell programs, and people whom that did not help, what is missing."""
    back = back_to(request)
    error.connection_id = rows[0].pk if rows else None
    if wish:
        scope_rules.want(request, wish)
    if wants_document(request):
        return _uncached(problems.json(request, error, next_url=back))
    if _in_vain(request, error, rows):
        return _uncached(problems.page(request, error, next_url=back))
    address = problems.sign_in_url(back, process="connect", repairs=error.connection_id)
    return _uncached(HttpResponseRedirect(address))


def _in_vain(request: HttpRequest, error: errors.SipgateError, rows: list[SocialAccount]) -> bool:
    """Tell whether this person was sent the same way before and a consent has not helped; remember this time."""
    found = (accounts.token_of(row) for row in rows)
    consent = max(
        (token.consented_at.isoformat() for token in found if token is not None), default=""
    )
    reason = f"{type(error).__name__} {' '.join(getattr(error, 'scopes', ()))}".strip()
    sent = {
        key: way for key, way in request.session.get(SENT, {}).items() if way["until"] > time.time()
    }
    before = sent.get(reason)
    if before and (before["consent"] != consent or before["times"] >= MOST_TIMES):
        return True
    times = before["times"] + 1 if before else 1
    sent[reason] = {
        "consent": consent,
        "times": times,
        "until": time.time() + scope_rules.WANTED_FOR,
    }
    request.session[SENT] = sent
    return False


def _trouble(request: HttpRequest, error: errors.SipgateError) -> HttpResponse:
    """Return the problem of a view as page or document."""
    if type(error) is errors.MissingPermission and error.scopes:
        # The page's button asks for the narrowest of the alternatives, in addition to what was granted.
        token: SipgateToken | None = getattr(request, "sipgate_token", None)
        granted = token.scopes if token else ()
        scope_rules.want(request, {*granted, *scope_rules.narrowest(error.scopes)})
    answer = problems.json if wants_document(request) else problems.page
    return _uncached(answer(request, error, next_url=back_to(request)))


def _uncached(response: HttpResponse) -> HttpResponse:
    patch_vary_headers(response, ("Accept", "X-Requested-With"))
    add_never_cache_headers(response)
    return response


def wants_document(request: HttpRequest) -> bool:
    """Tell whether a program asks: JSON without HTML is accepted, or it is an ``XMLHttpRequest``."""
    if request.headers.get("X-Requested-With") == "XMLHttpRequest":
        return True
    accepted = [f"{kind.main_type}/{kind.sub_type}" for kind in request.accepted_types]
    json = any(kind == "application/json" or kind.endswith("+json") for kind in accepted)
    return json and "text/html" not in accepted


def back_to(request: HttpRequest) -> str:
    """Return where to come back to: this page with its query, or the page that a form was posted from, or ``/``."""
    if request.method in {"GET", "HEAD"}:
        return request.get_full_path()
    referrer = request.headers.get("Referer", "")
    if not url_has_allowed_host_and_scheme(
        referrer, {request.get_host()}, require_https=request.is_secure()
    ):
        return "/"
    parts = urlsplit(referrer)
    path = parts.path or "/"
    if not url_has_allowed_host_and_scheme(path, None):
        return "/"  # on its own, a path that begins with two slashes would name another host
    return f"{path}?{parts.query}" if parts.query else path


def _words(scopes: Iterable[str]) -> tuple[str, ...]:
    return tuple(scopes.split()) if isinstance(scopes, str) else tuple(scopes)
