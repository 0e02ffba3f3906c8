"""Errors as a person meets them: what happened, what to do, and a reference that is also in the log.

Turns the error tree into words, pages and problem documents (RFC 9457). Only a callback differs: its failures are pages
of ``sign_in.callback_problems``, with status 401.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allauth.socialaccount.providers.base import ProviderException
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from requests import RequestException

from sipgate_provider import conf, errors, metrics, scopes
from sipgate_provider.errors import Kind
from sipgate_provider.remote import log_fields
from sipgate_provider.sign_in import repair

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise

logger = logging.getLogger(__name__)
SHOWN = metrics.Counter("problems_total", "Problems that users were shown.", {"kind": Kind})


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What is said of one kind of problem, and the HTTP status that goes with it.

    ``by_sign_in``: signing in at sipgate is the cure, so the page has a button for it.
    """

    status: int
    title: StrPromise
    text: StrPromise
    cure: StrPromise | str
    by_sign_in: bool = False


TEXTS: dict[Kind, Text] = {
    Kind.NOT_CONNECTED: Text(
        status=403,
        title=_("No sipgate connection yet"),
        text=_("This account is not connected to sipgate."),
        cure=_("Connect it with one click."),
        by_sign_in=True,
    ),
    Kind.NEEDS_SIGN_IN: Text(
        status=403,
        title=_("sipgate needs you to sign in again"),
        text=_("Your connection to sipgate has ended."),
        cure=_("Sign in again to continue with the same connection. Nothing is lost."),
        by_sign_in=True,
    ),
    Kind.NOT_AVAILABLE: Text(
        status=403,
        title=_("Not available for this sipgate account"),
        text=_("The permission was granted, but sipgate does not offer this feature to this account."),
        cure=_("Check in your sipgate account whether the feature is booked."),
    ),
    Kind.MISSING_PERMISSION: Text(
        status=403,
        title=_("A permission is missing"),
        text=_("sipgate did not allow this. It may need the permission: %(scopes)s."),
        cure=_("Sign in again and allow it."),
        by_sign_in=True,
    ),
    Kind.UNAVAILABLE: Text(
        status=503,
        title=_("sipgate cannot be reached"),
        text=_("sipgate is not answering at the moment."),
        cure=_("Nothing is lost. Try again in a few minutes."),
    ),
    Kind.MISCONFIGURED: Text(
        status=503,
        title=_("This site is not set up correctly for sipgate"),
        text=_("This is not your fault, and your connection is kept."),
        cure=_("Tell the operator of this site the reference number. Operators: check %(setting)s."),
    ),
    Kind.REFUSED: Text(
        status=502,
        title=_("sipgate refused this request"),
        text=_("sipgate understood the request but did not carry it out."),
        cure=_("If it happens again, tell us the reference number."),
    ),
    Kind.UNEXPECTED: Text(
        status=502,
        title=_("Unexpected answer from sipgate"),
        text=_("We are sorry: sipgate's answer could not be understood. Nothing was changed."),
        cure=_("Try again later. If it happens again, tell us the reference number."),
    ),
    Kind.NOT_SIGNED_IN: Text(
        status=401,
        title=_("Sign in first"),
        text=_("You need to be signed in to this site."),
        cure="",
    ),
    Kind.EXPIRED: Text(
        status=401,
        title=_("This sign-in has expired"),
        text=_("sipgate no longer accepts this sign-in; it is valid only once, for about a minute."),
        cure=_("Start the sign-in again."),
        by_sign_in=True,
    ),
    Kind.DENIED: Text(
        status=401,
        title=_("The sign-in was cancelled"),
        text=_("You did not allow this site to use your sipgate account. Nothing was changed."),
        cure=_("If that was not what you wanted, sign in again."),
        by_sign_in=True,
    ),
    Kind.STATE: Text(
        status=401,
        title=_("This sign-in does not belong to this browser session"),
        text=_(
            "This sign-in was not started here. Usually an old tab or link was used again, the site was restarted, or "
            "the sign-in began under another host name."
        ),
        cure=_("Start the sign-in again from this site."),
        by_sign_in=True,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What the page says. ``detail`` is sipgate's own text: escape it. ``action_post``: the action is a form."""

    kind: Kind
    title: str
    text: str
    cure: str
    status: int
    reference: str
    detail: str = ""
    action_url: str = ""
    action_label: str = ""
    action_post: bool = False

    @property
    def level(self) -> int:
        """How grave it is for the log: what only we can repair is an error, other trouble a warning."""
        return logging.ERROR if self.kind in {Kind.MISCONFIGURED, Kind.UNEXPECTED} else logging.WARNING

    def document(self) -> dict[str, Any]:
        """Return the body of an ``application/problem+json`` answer."""
        body = {"type": f"urn:sipgate-provider:problem:{self.kind}", "title": self.title, "status": self.status}
        body |= {"detail": f"{self.text} {self.cure}".strip(), "reference": self.reference, "action": self.action_url}
        return {key: value for key, value in body.items() if value}


def of_kind(kind: Kind, *, next_url: str = "", connect: bool = False, error: Exception | None = None) -> Problem:
    """Return the problem of a kind; ``error`` fills in what its text leaves open. Arguments as ``describe``."""
    text = TEXTS[kind]
    facts = {
        "scopes": ", ".join(getattr(error, "scopes", ())) or "–",
        "setting": conf.with_site_names(getattr(error, "setting", "")) or "–",
    }
    process = "connect" if connect else ""
    again = sign_in_url(next_url, process=process, repairs=getattr(error, "connection_id", None))
    return Problem(
        kind=kind,
        status=text.status,
        title=str(text.title),
        text=str(text.text) % facts,
        cure=str(text.cure) % facts,
        detail=getattr(error, "description", ""),
        reference=getattr(error, "reference", "") or errors.new_reference(),
        action_url=again if text.by_sign_in else next_url,
        action_label=gettext("Sign in with sipgate") if text.by_sign_in else gettext("Try again"),
        action_post=text.by_sign_in,
    )


def describe(error: Exception, *, next_url: str = "", connect: bool = False) -> Problem:
    """Return the problem that ``error`` is to a person.

    ``connect``: the person is signed in here, so a sign-in at sipgate has to connect this user, not find or make one.
    If the error is about a connection, the sign-in repairs this one, or says that it could not.
    """
    unknown = Kind.UNAVAILABLE if isinstance(error, RequestException) else Kind.UNEXPECTED
    return of_kind(getattr(error, "kind", unknown), next_url=next_url, connect=connect, error=error)


def cause(failure: Exception | None) -> str:
    """Return what may be logged of a failure: our own errors word by word, of others only the kind."""
    if isinstance(failure, errors.SipgateError | errors.TokenRefused | ProviderException):
        return f"{type(failure).__name__}: {failure}"
    return type(failure).__name__ if failure is not None else "no exception"


def printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:300]


def sign_in_url(next_url: str, *, process: str = "", wish: str = "", repairs: int | None = None) -> str:
    """Return the address that starts a sign-in at sipgate, and comes back to ``next_url``.

    Args:
        process: allauth's: ``"connect"`` links to the user who is signed in here, ``""`` and ``"login"`` sign in.
        wish: further scopes, as ``scopes.signed`` returns them.
        repairs: key of a connection. If somebody else signs in at sipgate, nothing is changed, and a page says so.
    """
    try:
        url = reverse("sipgate_login")
    except NoReverseMatch:
        return ""
    connection = repair.signed(repairs) if repairs is not None else ""
    query = {"process": process, "next": next_url, scopes.FIELD: wish, repair.FIELD: connection}
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
    """Log a problem under its reference, and count it."""
    logger.log(
        problem.level,
        "A page could not use sipgate [%s]: %s, %s",
        problem.reference,
        problem.kind,
        cause(error),
        extra=fields(problem, error),
    )
    SHOWN.count(problem.kind)


def fields(problem: Problem, error: Exception | None) -> dict[str, Any]:
    known = error if isinstance(error, errors.SipgateError) else None
    return log_fields.fields(known, reference=problem.reference, kind=problem.kind)
