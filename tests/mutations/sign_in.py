"""Breaks the sign-in: state, code and issuer; what is asked for, and who comes back."""

from __future__ import annotations

from typing import Any
from unittest import mock

from tests.mutations import Rule, answers, becomes, forgets, gets_through

SIGN_IN = "tests/flows/test_sign_in.py"
REPEATED = "tests/flows/test_repeated_callback.py"
TROUBLE = "tests/flows/test_problems.py"
LEAKS = "tests/flows/test_leaks.py"
SCOPES = "tests/flows/test_decorators.py"
LIMITS = "tests/flows/test_sign_in_limits.py"
ENDED = "tests/flows/test_pages.py"
REPAIR = "tests/flows/test_repair.py"


def is_atomic(view: Any) -> Any:
    """A view asks for no transaction less than the site's settings say."""
    vars(view).pop("_non_atomic_requests", None)
    return view


def as_in_the_base_class(real: Any) -> Any:
    """A method is that of allauth, which it overrides."""

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        above = next(base for base in type(self).__mro__[1:] if real.__name__ in vars(base))
        return vars(above)[real.__name__](self, *args, **kwargs)

    return broken


RULES = [
    # --- the sign-in: state, code, issuer
    Rule(
        "a state is used by each callback that brings it",
        {"sign_in.once.use": answers(True)},
        REPEATED,
    ),
    Rule(
        "a sign-in begins again for any browser, and without end",
        {"sign_in.once.may_begin_again": forgets("session_hash")},
        REPEATED,
    ),
    Rule(
        "a connect that has succeeded begins again",
        {"sign_in.once._has_connected": answers(False)},
        REPEATED,
    ),
    Rule(
        "the database tells states and sessions",
        {"sign_in.once._digest": gets_through},
        REPEATED,
    ),
    Rule(
        "rows of used states stay for ever",
        {"sign_in.once.forget_old": answers()},
        REPEATED,
    ),
    Rule(
        "the callback of another authorization server is accepted",
        {"sign_in.oauth._check_issuer": answers()},
        TROUBLE,
    ),
    Rule(
        "no verifier protects the code",
        {"provider.SipgateProvider.pkce_enabled_default": becomes(False)},
        SIGN_IN,
    ),
    Rule(
        "verifier and pending tokens lie in the session in clear",
        {"tokens.seal_text": gets_through, "tokens.open_text": gets_through},
        LEAKS,
    ),
    Rule(
        "code and state stay in the request, which error reports show",
        {"sign_in.views._take": lambda _real: lambda request, *names: map(request.GET.get, names)},
        LEAKS,
    ),
    Rule(
        "the callback runs in the request's transaction",
        {"sign_in.views.oauth2_callback": is_atomic},
        SIGN_IN,
    ),
    Rule(
        "any number of sign-ins from one address may fail",
        {"sign_in.limits.failed_too_often": answers(False)},
        LIMITS,
    ),
    Rule(
        "who only begins a sign-in gets a session of the usual length",
        {"sign_in.limits.shorten": answers()},
        LIMITS,
    ),
    # --- the sign-in: what is asked for, who comes back
    Rule(
        "a crafted link asks for more scopes",
        {"provider.SipgateProvider.get_scope_from_request": as_in_the_base_class},
        SIGN_IN,
    ),
    Rule(
        "a text counts as a verified email",
        {
            "provider.SipgateProvider._verified_address": lambda _real: (
                lambda _provider, data: str(data.get("email") or "")
            )
        },
        "tests/flows/test_unverified_address.py",
    ),
    Rule(
        "a known id of another region signs in",
        {"sign_in.oauth._uid": lambda _real: lambda account: account.uid},
        TROUBLE,
    ),
    Rule(
        "a new user is saved without tokens",
        {"sign_in.receivers.store": answers()},
        SIGN_IN,
    ),
    Rule(
        "a grant that allows less replaces one that allows more",
        {"sign_in.receivers._narrows": answers(False)},
        SIGN_IN,
    ),
    Rule(
        "a sign-in allows what its user has ended",
        {"tokens.declines": answers(False)},
        ENDED,
    ),
    Rule(
        "a repair takes whoever comes back from sipgate",
        {"sign_in.repair.turn_away_others": answers()},
        REPAIR,
    ),
    Rule(
        "who came back instead keeps their grant at sipgate",
        {"tokens.discard": answers()},
        REPAIR,
    ),
    Rule(
        "a repair link needs no signature",
        {"links._signer": lambda _real: lambda: mock.Mock(unsign=lambda text: text[:1])},
        REPAIR,
    ),
    Rule(
        "what a page of one user asks for is asked of another",
        {"links._whose": answers("anybody")},
        SCOPES,
    ),
]
