"""Explains errors to users: what happened, what to do, and a reference that is also in the log.

It turns the error tree into words, pages and problem documents (RFC 9457).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from allauth import app_settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from sipgate_provider import errors, links, metrics
from sipgate_provider.errors import Kind

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise

logger = logging.getLogger(__name__)
SHOWN = metrics.counter("problems_total", "Problems that users were shown.", {"kind": [*Kind]})


class Text(NamedTuple):
    """The words for one kind of problem, and its HTTP status.

    ``by_sign_in``: signing in at sipgate is the cure, so the page has a button for it.
    """

    status: int
    title: StrPromise
    text: StrPromise
    cure: StrPromise | str
    by_sign_in: bool = False


TEXTS: dict[Kind, Text] = {
    Kind.NOT_CONNECTED: Text(
        403,
        _("No sipgate connection yet"),
        _("This account is not connected to sipgate."),
        _("Connect it with one click."),
        by_sign_in=True,
    ),
    Kind.NEEDS_SIGN_IN: Text(
        403,
        _("sipgate needs you to sign in again"),
        _("Your connection to sipgate has ended."),
        _("Sign in again to continue with the same connection. Nothing is lost."),
        by_sign_in=True,
    ),
    Kind.NOT_AVAILABLE: Text(
        403,
        _("Not available for this sipgate account"),
        _("You granted the permission, but sipgate did not allow this request."),
        _(
            "Check in your sipgate account whether the feature is booked. If it is, the request "
            "itself may be wrong: tell us the reference number."
        ),
    ),
    Kind.MISSING_PERMISSION: Text(
        403,
        _("A permission is missing"),
        _("sipgate did not allow this. It may need the permission: %(scopes)s."),
        _("Sign in again and allow it."),
        by_sign_in=True,
    ),
    Kind.UNAVAILABLE: Text(
        503,
        _("sipgate cannot be reached"),
        _("sipgate is not answering at the moment."),
        _("Nothing is lost. Try again in a few minutes."),
    ),
    Kind.MISCONFIGURED: Text(
        503,
        _("This site is not set up correctly for sipgate"),
        _("This is not your fault, and your connection is kept."),
        _("Tell the operator of this site the reference number. Operators: check %(setting)s."),
    ),
    Kind.REJECTED: Text(
        502,
        _("sipgate rejected this request"),
        _("sipgate understood the request but did not carry it out."),
        _("If it happens again, tell us the reference number."),
    ),
    Kind.UNEXPECTED: Text(
        502,
        _("Unexpected answer from sipgate"),
        _("We are sorry: this site does not understand sipgate's answer. Nothing was changed."),
        _("Try again later. If it happens again, tell us the reference number."),
    ),
    Kind.NOT_SIGNED_IN: Text(
        401,
        _("Sign in first"),
        _("You need to be signed in to this site."),
        "",
    ),
    Kind.EXPIRED: Text(
        401,
        _("This sign-in has expired"),
        _("sipgate no longer accepts this sign-in; it is valid only once, for about a minute."),
        _("Start the sign-in again."),
        by_sign_in=True,
    ),
    Kind.DENIED: Text(
        401,
        _("The sign-in was cancelled"),
        _("You did not allow this site to use your sipgate account. Nothing was changed."),
        _("If that was not what you wanted, sign in again."),
        by_sign_in=True,
    ),
    Kind.STATE: Text(
        401,
        _("This sign-in does not belong to this browser session"),
        _(
            "This sign-in did not start here. Perhaps you used an old tab or link, the site was "
            "restarted, or the sign-in started at another address of this site."
        ),
        _("Start the sign-in again from this site."),
        by_sign_in=True,
    ),
    Kind.BUSY: Text(
        503,
        _("Too many sign-ins at once"),
        _("sipgate is answering slowly, so this site is still completing other sign-ins."),
        _("Yours is kept: this page tries again in a few seconds."),
        by_sign_in=True,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What the page says. ``detail`` is sipgate's text: escape it. ``action_post``: the action is
    a form."""

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

    def document(self) -> dict[str, Any]:
        """Return the body of an ``application/problem+json`` answer."""
        body = {
            "type": f"urn:sipgate-provider:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": f"{self.text} {self.cure}".strip(),
            "reference": self.reference,
            "action": self.action_url,
        }
        return {key: value for key, value in body.items() if value}


def describe(
    what: Exception | Kind, *, next_url: str = "", connect: bool = False, wish: str = ""
) -> Problem:
    """Return the problem that explains an error, or a kind of problem, to a user.

    Args:
        next_url: where the user comes back to.
        connect: the user is signed in here, so a sign-in at sipgate must connect this user, and not
            find or create another one. If the error is about a connection, the sign-in repairs it.
        wish: further scopes that the sign-in asks for, as ``links.signed_scopes`` returns them.
    """
    kind = what if isinstance(what, Kind) else getattr(what, "kind", Kind.UNEXPECTED)
    text = TEXTS[kind]
    facts = {
        "scopes": ", ".join(getattr(what, "scopes", ())) or "–",
        "setting": getattr(what, "setting", "") or "–",
    }
    again = links.sign_in_url(
        next_url,
        process="connect" if connect else "",
        wish=wish,
        repairs=getattr(what, "connection_id", None),
    )
    return Problem(
        kind=kind,
        status=text.status,
        title=str(text.title),
        text=str(text.text) % facts,
        cure=str(text.cure) % facts,
        detail=getattr(what, "description", ""),
        reference=getattr(what, "reference", "") or errors.new_reference(),
        action_url=again if text.by_sign_in else next_url,
        action_label=gettext("Sign in with sipgate") if text.by_sign_in else gettext("Try again"),
        action_post=text.by_sign_in,
    )


def page(
    request: HttpRequest, error: Exception, *, next_url: str = "", wish: str = ""
) -> HttpResponse:
    """Return an error's page, and log the error. Arguments are those of ``describe``."""
    problem = explain(request, error, next_url=next_url, wish=wish)
    template, context = "sipgate_provider/problem.html", {"problem": problem}
    return render(request, template, context, status=problem.status)


def json(
    request: HttpRequest, error: Exception, *, next_url: str = "", wish: str = ""
) -> HttpResponse:
    """Return an error's problem document, and log the error. Arguments are as above."""
    return document(explain(request, error, next_url=next_url, wish=wish))


def document(problem: Problem) -> HttpResponse:
    return JsonResponse(
        problem.document(), status=problem.status, content_type="application/problem+json"
    )


def explain(
    request: HttpRequest, error: Exception, *, next_url: str = "", wish: str = ""
) -> Problem:
    """Return an error's problem for the user of this request, and log it; as ``describe``."""
    user = getattr(request, "user", None)
    connect = user is not None and user.is_authenticated
    if connect and app_settings.HEADLESS_ONLY:
        # No page asks first, so the signature tells our own links from forged ones.
        wish = wish or links.signed_scopes(request, ())
    problem = describe(error, next_url=next_url, connect=connect, wish=wish)
    log(problem, error)
    return problem


def log(problem: Problem, error: Exception | None, *, what: str = "") -> None:
    """Log a problem under its reference, and count it.

    Args:
        what: what happened; by default, a page could not use sipgate.
    """
    known = error if isinstance(error, errors.SipgateError) else None
    # What only the operator can correct is an error.
    is_ours = problem.kind in {Kind.MISCONFIGURED, Kind.UNEXPECTED}
    logger.log(
        logging.ERROR if is_ours else logging.WARNING,
        "%s [%s]: %s, %s",
        what or "A page could not use sipgate",
        problem.reference,
        problem.kind,
        cause(error),
        extra=errors.log_fields(known, reference=problem.reference, kind=problem.kind),
    )
    SHOWN.labels(problem.kind).inc()


def cause(failure: Exception | None) -> str:
    """Return what the log may show: the message of our own errors, and only the type of others."""
    if isinstance(failure, errors.SipgateError | errors.TokenRejected):
        return f"{type(failure).__name__}: {failure}"
    return type(failure).__name__ if failure is not None else "no exception"
