"""Tells a person why a sign-in failed, when the callback ends in an error."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from allauth.socialaccount.providers.base import AuthError, AuthProcess
from django.conf import settings
from django.http import HttpRequest
from django.shortcuts import resolve_url
from django.utils.translation import gettext

from sipgate_provider import conf, errors, problems, scopes
from sipgate_provider.errors import Kind

from . import former_scopes, repair

logger = logging.getLogger(__name__)


def of_callback(
    request: HttpRequest,
    *,
    error: str | None,
    failure: Exception | None,
    state: dict[str, Any] | None,
) -> problems.Problem:
    """Return the problem of a sign-in that came back without success, and log it under its reference.

    Its button starts the same sign-in again, as far as ``state`` (allauth's, None if it is not known) tells which.
    """
    code, text = request.GET.get("error", ""), request.GET.get("error_description", "")
    if failure is not None:
        problem = problems.describe(failure)
    elif error == AuthError.CANCELLED:
        problem = problems.of_kind(Kind.DENIED)
    elif code:
        problem = _of_code(code)
    else:
        problem = problems.of_kind(Kind.STATE)
    # The callback's own address cannot be requested again: a new attempt needs a new sign-in.
    problem = replace(
        problem, action_url=_again(request, state or {}), action_post=True, status=401
    )
    if state is None and request.user.is_authenticated:
        # They are signed in, nobody knows what they wanted, and a sign-in could change who they are.
        back = resolve_url(settings.LOGIN_REDIRECT_URL)
        problem = replace(
            problem, action_url=back, action_post=False, action_label=gettext("Continue")
        )
    reference = problems.reference_of(request, problem.kind, code, problems.cause(failure))
    problem = replace(
        problem, detail=problems.printable(text) or problem.detail, reference=reference
    )
    logger.log(
        problem.level,
        "A sign-in failed [%s]: %s, error=%r description=%r, %s",
        problem.reference,
        problem.kind,
        problems.printable(code)[:80],
        problem.detail,
        problems.cause(failure),
        extra=problems.fields(problem, failure),
    )
    problems.SHOWN.count(problem.kind)
    return problem


def _again(request: HttpRequest, state: dict[str, Any]) -> str:
    requested = former_scopes.requested_scope(state)
    process = state.get("process")
    return problems.sign_in_url(
        state.get("next") or "",
        process=process if process in {AuthProcess.LOGIN, AuthProcess.CONNECT} else "",
        wish=scopes.signed(request, requested) if set(requested) - set(conf.scope()) else "",
        repairs=repair.asked_for(state),
    )


def _of_code(code: str) -> problems.Problem:
    if code in {"server_error", "temporarily_unavailable"}:
        return problems.describe(
            errors.SipgateUnavailable("The authorization server reported trouble of its own.")
        )
    if code == "invalid_scope":
        return problems.describe(
            errors.Misconfigured(
                "sipgate does not know a requested scope.", setting="SIPGATE_SCOPE"
            )
        )
    if code in {
        "unauthorized_client",
        "invalid_request",
        "unsupported_response_type",
        "invalid_client",
    }:
        return problems.describe(
            errors.Misconfigured(
                "sipgate does not accept this client's request.",
                setting=f"{errors.CLIENT_ID}, SIPGATE_REDIRECT_URI",
            )
        )
    if code in {"login_required", "interaction_required", "consent_required"}:
        return problems.describe(errors.NeedsSignIn("sipgate wants the person to take part."))
    return problems.describe(
        errors.UnexpectedResponse("The authorization server answered with an unknown error code.")
    )
