"""Tells users why a sign-in failed, when the callback ends in an error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from allauth.socialaccount.providers.base import AuthError, AuthProcess
from django.conf import settings
from django.http import HttpRequest
from django.shortcuts import resolve_url
from django.utils.translation import gettext

from sipgate_provider import conf, errors, links, problems
from sipgate_provider.errors import Kind
from sipgate_provider.remote.session import printable

from .asked import Asked

FAILED = "sipgate_sign_in_failed"
"""Attribute of the request."""
OUR_CLIENT = f"{errors.CLIENT_ID}, SIPGATE_REDIRECT_URI"


def of_callback(
    request: HttpRequest,
    *,
    error: str | None,
    failure: Exception | None,
    state: dict[str, Any] | None,
) -> problems.Problem:
    """Return the problem of a failed callback, and log it.

    Its button begins the same sign-in again, as far as allauth's ``state`` describes it (None if it
    is unknown).
    """
    code = printable(request.GET.get("error", ""), 80)
    text = printable(request.GET.get("error_description", ""), 300)
    if failure is None and code and error != AuthError.CANCELLED:
        failure = _of_code(code)
    kind = Kind.DENIED if error == AuthError.CANCELLED else Kind.STATE
    problem = problems.describe(failure or kind)
    # The callback's own address cannot be requested again: a new attempt needs a new sign-in.
    changes: dict[str, Any] = {"action_url": again(request, state or {}), "action_post": True}
    if state is None and request.user.is_authenticated:
        # It is unknown what this user wanted, and a sign-in could switch to another user.
        back = resolve_url(settings.LOGIN_REDIRECT_URL)
        changes = {"action_url": back, "action_label": gettext("Continue"), "action_post": False}
    problem = replace(problem, status=401, detail=text or problem.detail, **changes)
    what = f"A sign-in failed (error={code!r} description={text!r})" if code else "A sign-in failed"
    problems.log(problem, failure, what=what)
    setattr(request, FAILED, True)
    return problem


def has_failed(request: HttpRequest) -> bool:
    """Tell whether this callback ended in a problem."""
    return hasattr(request, FAILED)


def again(request: HttpRequest, state: dict[str, Any]) -> str:
    """Return the address that begins the sign-in of ``state`` again."""
    asked, process = Asked.of(state), state.get("process")
    further = set(asked.scope) - set(conf.scope())
    return links.sign_in_url(
        state.get("next") or "",
        process=process if process in {AuthProcess.LOGIN, AuthProcess.CONNECT} else "",
        wish=links.signed_scopes(request, asked.scope) if further else "",
        repairs=asked.repairs,
    )


def _of_code(code: str) -> errors.SipgateError:
    """Return the error that an ``error`` code of the authorization endpoint means (RFC 6749
    §4.1.2.1)."""
    match code:
        case "server_error" | "temporarily_unavailable":
            text = "The authorization server is out of order."
            return errors.SipgateUnavailable(text, code=code)
        case "invalid_scope":
            text = "sipgate does not know a requested scope."
            return errors.Misconfigured(text, setting="SIPGATE_SCOPE", code=code)
        case (
            "unauthorized_client"
            | "invalid_request"
            | "unsupported_response_type"
            | "invalid_client"
        ):
            text = "sipgate does not accept this client's request."
            return errors.Misconfigured(text, setting=OUR_CLIENT, code=code)
        case "login_required" | "interaction_required" | "consent_required":
            return errors.NeedsSignIn("sipgate wants the user to sign in or consent.", code=code)
    text = "The authorization server answered with an unknown error code."
    return errors.UnexpectedResponse(text)
