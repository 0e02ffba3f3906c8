"""Errors as a person meets them: what happened, what to do, and a reference that is also in the log.

The one place that turns the error tree into words, pages and problem documents (RFC 9457).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from allauth.socialaccount.providers.base import ProviderException
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from requests import RequestException

from sipgate_provider import conf, errors, metrics, scopes
from sipgate_provider.remote import log_fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What the page says. ``detail`` is sipgate's own text: escape it. ``action_post``: the action is a form."""

    kind: str
    title: str
    text: str
    cure: str
    status: int
    reference: str = ""
    detail: str = ""
    action_url: str = ""
    action_label: str = ""
    action_post: bool = False

    def document(self) -> dict[str, Any]:
        """Return the body of an ``application/problem+json`` answer."""
        body = {"type": f"urn:sipgate-provider:problem:{self.kind}", "title": self.title, "status": self.status}
        body |= {"detail": f"{self.text} {self.cure}".strip(), "reference": self.reference, "action": self.action_url}
        return {key: value for key, value in body.items() if value}


def describe(error: Exception, *, next_url: str = "", connect: bool = False) -> Problem:
    """Return the problem that ``error`` is to a person.

    ``connect``: the person is signed in here, so a sign-in at sipgate has to connect this user, not find or make one.
    """
    again = sign_in_url(next_url, process="connect" if connect else "")
    reference = getattr(error, "reference", "") or errors.new_reference()
    problem = _described(error)
    by_sign_in = problem.kind in {"needs_sign_in", "missing_permission", "not_connected", "expired", "state", "denied"}
    return replace(
        problem,
        reference=reference,
        action_url=again if by_sign_in else next_url,
        action_label=_("Sign in with sipgate") if by_sign_in else _("Try again"),
        action_post=by_sign_in,
    )


def _described(error: Exception) -> Problem:
    if isinstance(error, errors.NotConnected):
        return Problem(
            kind="not_connected",
            status=403,
            title=_("No sipgate connection yet"),
            text=_("This account is not connected to sipgate."),
            cure=_("Connect it with one click."),
        )
    if isinstance(error, errors.NeedsSignIn):
        return Problem(
            kind="needs_sign_in",
            status=403,
            title=_("sipgate needs you to sign in again"),
            text=_("The link to sipgate has ended."),
            cure=_("Sign in again: the same connection goes on, nothing is lost."),
        )
    if isinstance(error, errors.NotAvailable):
        return Problem(
            kind="not_available",
            status=403,
            title=_("Not available for this sipgate account"),
            text=_("The permission was granted, but sipgate does not offer this feature to this account."),
            cure=_("Check in your sipgate account whether the feature is booked."),
        )
    if isinstance(error, errors.MissingPermission):
        wanted = ", ".join(error.scopes)
        return Problem(
            kind="missing_permission",
            status=403,
            title=_("A permission is missing"),
            text=_("sipgate did not allow this. It may need the permission: %(scopes)s.") % {"scopes": wanted or "–"},
            cure=_("Sign in again and allow it."),
        )
    if isinstance(error, errors.TokenRefused):
        return Problem(
            kind="expired",
            status=401,
            title=_("This sign-in has expired"),
            text=_("sipgate no longer accepts the answer of this sign-in; it is valid once, for about a minute."),
            cure=_("Start the sign-in again."),
            detail=error.description,
        )
    if isinstance(error, errors.SipgateUnavailable | RequestException):
        return Problem(
            kind="unavailable",
            status=503,
            title=_("sipgate cannot be reached"),
            text=_("sipgate does not answer at the moment."),
            cure=_("Nothing is lost. Try again in a few minutes."),
        )
    if isinstance(error, errors.Misconfigured):
        return Problem(
            kind="misconfigured",
            status=503,
            title=_("This site is not set up correctly for sipgate"),
            text=_("That is not your fault, and your connection is kept."),
            cure=_("Tell the operator of this site the reference number. Operators: see %(setting)s.")
            % {"setting": conf.with_site_names(error.setting) or "–"},
        )
    if isinstance(error, errors.RequestFailed):
        return Problem(
            kind="refused",
            status=502,
            title=_("sipgate refused this request"),
            text=_("sipgate understood the request and did not carry it out."),
            cure=_("Tell us the reference number if it happens again."),
        )
    return Problem(
        kind="unexpected",
        status=502,
        title=_("sipgate answered something unexpected"),
        text=_("We are sorry: this answer of sipgate is not understood. Nothing was changed."),
        cure=_("Try again later, and tell us the reference number if it happens again."),
    )


def cause(failure: Exception | None) -> str:
    """Return what may be logged of a failure: our own errors word by word, of others only the kind."""
    if isinstance(failure, errors.SipgateError | errors.TokenRefused | ProviderException):
        return f"{type(failure).__name__}: {failure}"
    return type(failure).__name__ if failure is not None else "no exception"


def printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:300]


def sign_in_url(next_url: str, *, process: str = "", wish: str = "") -> str:
    """Return the address that starts a sign-in at sipgate, and comes back to ``next_url``.

    Args:
        process: allauth's: ``"connect"`` links to the user who is signed in here, ``""`` and ``"login"`` sign in.
        wish: further scopes, as ``scopes.signed`` returns them.
    """
    try:
        url = reverse("sipgate_login")
    except NoReverseMatch:
        return ""
    query = {"process": process, "next": next_url, scopes.FIELD: wish}
    words = urlencode({name: value for name, value in query.items() if value})
    return f"{url}?{words}" if words else url


def page(
    request: HttpRequest, error: Exception, *, next_url: str = "", template: str = "sipgate_provider/problem.html"
) -> HttpResponse:
    """Return the page of a problem, and log it under its reference."""
    problem = describe(error, next_url=next_url, connect=_is_signed_in(request))
    log(problem, error)
    return render(request, template, {"problem": problem}, status=problem.status)


def json(request: HttpRequest, error: Exception, *, next_url: str = "") -> JsonResponse:
    """Return the problem document of an error, and log it under its reference."""
    problem = describe(error, next_url=next_url, connect=_is_signed_in(request))
    log(problem, error)
    return JsonResponse(problem.document(), status=problem.status, content_type="application/problem+json")


def _is_signed_in(request: HttpRequest) -> bool:
    user = getattr(request, "user", None)
    return user is not None and user.is_authenticated


def log(problem: Problem, error: Exception) -> None:
    """Anticipated trouble is a warning; what needs a person of ours is an error."""
    level = logging.ERROR if problem.kind in {"misconfigured", "unexpected"} else logging.WARNING
    logger.log(
        level,
        "A page could not use sipgate [%s]: %s, %s",
        problem.reference,
        problem.kind,
        cause(error),
        extra=fields(problem, error),
    )
    metrics.PROBLEMS_SHOWN.count(problem.kind)


def fields(problem: Problem, error: Exception | None) -> dict[str, Any]:
    known = error if isinstance(error, errors.SipgateError) else None
    return log_fields.fields(known, reference=problem.reference, kind=problem.kind)
