"""The site's pages. Each makes one call into the app; a POST is answered with a redirect.

An address for forms redirects a GET to its page, so that a reload, *Back* or a bookmark is no
error.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from allauth.account.models import EmailAddress
from allauth.core import ratelimit
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.core.serializers.json import DjangoJSONEncoder
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import redirect, render
from django.template import loader
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views import i18n
from django.views.decorators.http import require_safe

from sipgate_provider import errors, links, problems, scopes, tokens
from sipgate_provider.connections import (
    ConnectionView,
    connections_of,
    demonstrate,
    name_of,
    views_of,
)
from sipgate_provider.decorators import sipgate_required
from sipgate_provider.models import TokenEvent
from sipgate_provider.ops import notices

from . import leaving, people
from .forms import DeleteAccountForm

Page = Callable[..., HttpResponse]

logger = logging.getLogger(__name__)

REFRESHED = "refreshed"
"""Session key: what *Refresh now* did, shown once."""
EVENTS_SHOWN = 50
NUMBERS_SHOWN = 500


def posted(*, instead: str) -> Callable[[Page], Page]:
    """Restrict a view to POST; redirect other requests to the page named ``instead``."""

    def decorate(view: Page) -> Page:
        @wraps(view)
        def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method != "POST":
                return HttpResponseRedirect(reverse(instead, args=args, kwargs=kwargs))
            return view(request, *args, **kwargs)

        return answer

    return decorate


# --- the account ----------------------------------------------------------------------------------


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect("account")
    return render(request, "pages/home.html")


@require_safe
@login_required
def account(request: HttpRequest) -> HttpResponse:
    views, refreshed = views_of(request.user), request.session.pop(REFRESHED, None)
    for view in views:
        view.problem = _problem_of(request, view)
        if refreshed and refreshed["connection"] == view.connection.pk:
            view.refreshed = refreshed
    addresses = EmailAddress.objects.filter(user=request.user.pk).order_by("-verified", "-primary")
    context = {
        "views": views,
        "greeting_name": people.greeting_name(request.user),
        "address": addresses.first(),
    }
    return render(request, "pages/account.html", context)


def _problem_of(request: HttpRequest, view: ConnectionView) -> problems.Problem | None:
    """Return what is wrong with a connection. Its button asks for a missing permission."""
    error = view.error
    if error is None or view.is_access_ended:
        return None
    wish, error.connection_id = "", view.connection.pk
    if type(error) is errors.MissingPermission and view.token is not None:
        needed = scopes.narrowest(error.scopes)
        wish = links.signed_scopes(request, scopes.widened(view.token.scopes, needed=needed))
    problem = problems.describe(error, next_url=reverse("account"), connect=True, wish=wish)
    problems.log(problem, error)
    return problem


@posted(instead="account")
@login_required
def account_refresh(request: HttpRequest) -> HttpResponse:
    """Do what sipgate's own example does: fetch the account, refresh, fetch the account again."""
    connection = _own(request, request.POST.get("connection", ""))
    # How often: ACCOUNT_RATE_LIMITS in settings.
    limit = {"action": "sipgate_refresh", "key": str(connection.pk)}
    if too_many := ratelimit.consume_or_429(request, **limit):
        return too_many
    try:
        request.session[REFRESHED] = demonstrate(connection)
    except errors.SipgateError as error:
        error.connection_id = connection.pk
        problems.log(problems.describe(error), error)
    return HttpResponseRedirect(f"{reverse('account')}#connection-{connection.pk}")


def _own(request: HttpRequest, pk: object) -> SocialAccount:
    """Return this user's connection with a primary key. Raises ``Http404`` if there is none."""
    for connection in connections_of(request.user):
        if str(connection.pk) == str(pk):
            return connection
    raise Http404


@require_safe
def account_json(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        here = reverse("account_login")
        return problems.document(problems.describe(errors.Kind.NOT_SIGNED_IN, next_url=here))
    views, here = views_of(request.user), reverse("account")
    if not views:
        nobody = errors.NotConnected("This user has no sipgate connection.")
        return problems.json(request, nobody, next_url=here)
    failed = [view.error for view in views if view.error is not None and view.account is None]
    if len(failed) == len(views):
        return problems.json(request, failed[0], next_url=here)
    return JsonResponse({"connections": [_as_json(request, view) for view in views]})


def _as_json(request: HttpRequest, view: ConnectionView) -> dict[str, Any]:
    token, problem = view.token, _problem_of(request, view)
    return {
        "uid": view.connection.uid,
        "name": view.name,
        "account": dict(view.account.raw) if view.account else None,
        "fetched_at": view.fetched_at,
        "fresh": view.is_fresh,
        "pending": view.is_pending,
        "problem": problem.document() if problem else None,
        "token": token
        and {
            "state": token.state,
            "reason": token.reason,
            "scope": list(token.scopes),
            "access_expires_at": token.expires_at,
            "link_expires_at": token.refresh_expires_at,
            "number": token.number,
        },
    }


# --- one connection -------------------------------------------------------------------------------


@require_safe
@login_required
def connection(request: HttpRequest, pk: int) -> HttpResponse:
    """State, permissions and history of one connection, and the ways to end it."""
    views = views_of(request.user, ask=False)
    view = next((one for one in views if one.connection.pk == pk), None)
    if view is None:
        raise Http404
    user: Any = request.user
    others = SocialAccount.objects.filter(user=user).exclude(pk=pk).exists()
    context = {
        "view": view,
        "events": TokenEvent.objects.filter(connection_id=pk).order_by("-at", "-id")[:EVENTS_SHOWN],
        "is_only_way_in": not others and not user.has_usable_password(),
    }
    return render(request, "pages/connection.html", context)


@posted(instead="connection")
@login_required
def end_access(request: HttpRequest, pk: int) -> HttpResponse:
    connection = _own(request, pk)
    try:
        tokens.end(connection, by="user")
    except errors.SipgateError as error:
        return problems.page(request, error, next_url=reverse("connection", args=[pk]))
    text = _("This site can no longer use %(name)s. You can still sign in with it.")
    messages.success(request, text % {"name": name_of(connection)})
    return redirect("connection", pk)


@require_safe
@sipgate_required(scopes=["numbers:read"])
def numbers(request: HttpRequest) -> HttpResponse:
    """Show the telephone numbers, which need a scope that sign-ins do not ask for."""
    sipgate = request.sipgate  # type: ignore[attr-defined]  # set by sipgate_required
    context = {
        "numbers": list(sipgate.numbers(limit=NUMBERS_SHOWN)),
        "name": name_of(sipgate.connection),
        "most": NUMBERS_SHOWN,
    }
    return render(request, "pages/numbers.html", context)


# --- one's own account ----------------------------------------------------------------------------


@require_safe
@login_required
def account_export(request: HttpRequest) -> HttpResponse:
    """Return everything this site knows about the user, as a file."""
    response = JsonResponse(
        leaving.export(request.user), encoder=DjangoJSONEncoder, json_dumps_params={"indent": 2}
    )
    response.headers["Content-Disposition"] = 'attachment; filename="my-data.json"'
    return response


@login_required
def account_delete(request: HttpRequest) -> HttpResponse:
    form = DeleteAccountForm(request.POST if request.method == "POST" else None, user=request.user)
    if not form.is_valid():
        context = {"form": form, "connections": connections_of(request.user)}
        return render(request, "pages/delete.html", context)
    leaving.delete(request.user)
    logout(request)
    messages.success(request, _("Your account was deleted. This site no longer knows you."))
    return redirect("home")


# --- errors ---------------------------------------------------------------------------------------


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer after an error in this site. The reference is on the page and beside the traceback.

    Like Django's own, the page uses neither the database nor the session, which may have failed.
    """
    failure = sys.exc_info()[0]
    kind = failure.__name__ if failure is not None else "no exception"
    reference = errors.new_reference()
    logger.error("A page failed [%s]: %s %s, %s", reference, request.method, request.path, kind)
    return HttpResponse(loader.render_to_string("500.html", {"reference": reference}), status=500)


def set_language(request: HttpRequest) -> HttpResponse:
    """Choose a language, for pages and emails."""
    answer = i18n.set_language(request)
    chosen = answer.cookies.get(settings.LANGUAGE_COOKIE_NAME)
    if chosen is not None and request.user.is_authenticated:
        notices.remember_language(request.user, chosen.value)
    return answer
