"""Explains errors to people: what happened, what to do, and a reference that is also in the log.

Turns the error tree into words, pages and problem documents (RFC 9457). Failures of a callback are pages of
``sign_in.callback_problems``, with status 401.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from allauth.socialaccount.providers.base import ProviderException
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.http import urlencode
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from requests import RequestException

from sipgate_provider import errors, metrics, scopes
from sipgate_provider.errors import Kind
from sipgate_provider.sign_in import repair, states

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise

logger = logging.getLogger(__name__)
INCIDENTS = "sipgate_incidents"
"""Session key: reference, cause and end of what this person has met."""
SAME_FOR, MOST_INCIDENTS = 3600, 10
"""Seconds for which the same trouble is the same incident, and how many are remembered."""
ENDING = (Kind.NEEDS_SIGN_IN, Kind.UNAVAILABLE, Kind.MISCONFIGURED, Kind.UNEXPECTED)
"""Incidents that end when a connection works again; the other kinds are about single requests."""
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
        text=_(
            "The permission was granted, but sipgate did not allow this request of this account."
        ),
        cure=_(
            "Check in your sipgate account whether the feature is booked. If it is, the request itself may be wrong: "
            "tell us the reference number."
        ),
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
        cure=_(
            "Tell the operator of this site the reference number. Operators: check %(setting)s."
        ),
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
        text=_(
            "sipgate no longer accepts this sign-in; it is valid only once, for about a minute."
        ),
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
        """The level for the log: what only the operator can repair is an error, everything else a warning."""
        return (
            logging.ERROR if self.kind in {Kind.MISCONFIGURED, Kind.UNEXPECTED} else logging.WARNING
        )

    def document(self) -> dict[str, Any]:
        """Return the body of an ``application/problem+json`` answer."""
        body = {
            "type": f"urn:sipgate-provider:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
        }
        body |= {
            "detail": f"{self.text} {self.cure}".strip(),
            "reference": self.reference,
            "action": self.action_url,
        }
        return {key: value for key, value in body.items() if value}


def of_kind(
    kind: Kind, *, next_url: str = "", connect: bool = False, error: Exception | None = None
) -> Problem:
    """Return the problem of a kind; ``error`` fills in what its text leaves open. Arguments as ``describe``."""
    text = TEXTS[kind]
    facts = {
        "scopes": ", ".join(getattr(error, "scopes", ())) or "–",
        "setting": getattr(error, "setting", "") or "–",
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
    """Return how ``error`` is explained to a person.

    ``connect``: the person is signed in here, so a sign-in at sipgate has to connect this user, and must not find or
    create another one. If the error is about a connection, the sign-in repairs that connection.
    """
    unknown = Kind.UNAVAILABLE if isinstance(error, RequestException) else Kind.UNEXPECTED
    return of_kind(getattr(error, "kind", unknown), next_url=next_url, connect=connect, error=error)


def cause(failure: Exception | None) -> str:
    """Return what may be logged about a failure: the message of the app's own errors, and only the kind of others."""
    if isinstance(failure, errors.SipgateError | errors.TokenRefused | ProviderException):
        return f"{type(failure).__name__}: {failure}"
    return type(failure).__name__ if failure is not None else "no exception"


def printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:300]


def sign_in_url(
    next_url: str, *, process: str = "", wish: str = "", repairs: int | None = None
) -> str:
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
    request: HttpRequest,
    error: Exception,
    *,
    next_url: str = "",
    template: str = "sipgate_provider/problem.html",
) -> HttpResponse:
    """Return the page of a problem, and log it under its reference."""
    problem = shown(
        request, describe(error, next_url=next_url, connect=_is_signed_in(request)), error
    )
    return render(request, template, {"problem": problem}, status=problem.status)


def json(request: HttpRequest, error: Exception, *, next_url: str = "") -> JsonResponse:
    """Return the problem document of an error, and log it under its reference."""
    problem = shown(
        request, describe(error, next_url=next_url, connect=_is_signed_in(request)), error
    )
    return JsonResponse(
        problem.document(), status=problem.status, content_type="application/problem+json"
    )


def shown(request: HttpRequest, problem: Problem, error: Exception) -> Problem:
    """Log a problem and count it; return it with the reference of its incident.

    Somebody who meets the same kind of problem with the same connection (or, without one, on the same page) within an
    hour, or until it is ``over``, sees the same reference. The log has it once for each cause.
    """
    session = getattr(request, "session", None)
    if session is None or session.is_empty():
        problem = replace(problem, reference=reference_of(request, problem.kind, cause(error)))
        log(problem, error)
        return problem
    connection_id, now = getattr(error, "connection_id", None), time.time()
    key = f"{problem.kind} {connection_id or request.path}"
    incidents = {
        name: known for name, known in session.get(INCIDENTS, {}).items() if known["until"] > now
    }
    known = incidents.pop(key, None)
    if known is not None:
        problem = replace(problem, reference=known["reference"])
    if known is None or known["cause"] != cause(error):
        log(problem, error)
        known = {"reference": problem.reference, "cause": cause(error), "until": now + SAME_FOR}
        session[INCIDENTS] = dict([*incidents.items(), (key, known)][-MOST_INCIDENTS:])
        with suppress(UpdateError):  # signed out meanwhile, in another tab
            session.save()  # Django does not save a session that is answered with a status of 500 or more
    else:
        SHOWN.count(problem.kind)
    return problem


def over(request: HttpRequest, connection_id: int) -> None:
    """Note that a connection works again, so that the next trouble is another incident."""
    incidents = request.session.get(INCIDENTS, {})
    left = {
        key: known
        for key, known in incidents.items()
        if key not in {f"{kind} {connection_id}" for kind in ENDING}
    }
    if left != incidents:
        request.session[INCIDENTS] = left


def reference_of(request: HttpRequest, *incident: str) -> str:
    """Return a reference that stays the same for this browser, this incident and this day.

    Asks neither the database nor the session, which may be what failed.
    """
    address = f"{request.META.get('REMOTE_ADDR', '')} {request.META.get('HTTP_USER_AGENT', '')}"
    browser = (
        request.COOKIES.get(states.COOKIE)
        or request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        or address
    )
    text = "\n".join([f"{timezone.now():%Y-%m-%d}", browser, *incident])
    digest = salted_hmac("sipgate_provider.reference", text, algorithm="sha256").digest()
    return "".join(
        errors.REFERENCE_ALPHABET[byte % len(errors.REFERENCE_ALPHABET)] for byte in digest[:8]
    )


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
    return errors.log_fields(known, reference=problem.reference, kind=problem.kind)
