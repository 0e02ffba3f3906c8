"""Breaks the sign-in: state, code and issuer; what is asked for, and who comes back."""

from __future__ import annotations

from typing import Any
from unittest import mock

from tests.mutations import Rules, answers, becomes, forgets, gets_through

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


RULES: Rules = {
    REPEATED: {
        "a state is used by each callback that brings it": {"sign_in.once.use": answers(True)},
        "a sign-in begins again for any browser, and without end": {
            "sign_in.once.may_begin_again": forgets("session_hash")
        },
        "a connect that has succeeded begins again": {
            "sign_in.once._has_connected": answers(False)
        },
        "the database tells states and sessions": {"sign_in.once._digest": gets_through},
        "rows of used states stay for ever": {"sign_in.once.forget_old": answers()},
    },
    TROUBLE: {
        "the callback of another authorization server is accepted": {
            "sign_in.oauth._check_issuer": answers()
        },
        "a known id of another region signs in": {
            "sign_in.oauth._uid": lambda _real: lambda account: account.uid
        },
    },
    SIGN_IN: {
        "no verifier protects the code": {
            "provider.SipgateProvider.pkce_enabled_default": becomes(False)
        },
        "the callback runs in the request's transaction": {
            "sign_in.views.oauth2_callback": is_atomic
        },
        "a crafted link asks for more scopes": {
            "provider.SipgateProvider.get_scope_from_request": as_in_the_base_class
        },
        "a new user is saved without tokens": {"sign_in.receivers.store": answers()},
        "a grant that allows less replaces one that allows more": {
            "sign_in.receivers._narrows": answers(False)
        },
    },
    LEAKS: {
        "verifier and pending tokens lie in the session in clear": {
            "tokens.seal_text": gets_through,
            "tokens.open_text": gets_through,
        },
        "code and state stay in the request, which error reports show": {
            "sign_in.views._take": lambda _real: lambda request, *names: map(request.GET.get, names)
        },
    },
    LIMITS: {
        "any number of sign-ins from one address may fail": {
            "sign_in.limits.failed_too_often": answers(False)
        },
        "who only begins a sign-in gets a session of the usual length": {
            "sign_in.limits.shorten": answers()
        },
    },
    "tests/flows/test_unverified_address.py": {
        "a text counts as a verified email": {
            "provider.SipgateProvider._verified_address": lambda _real: (
                lambda _provider, data: str(data.get("email") or "")
            )
        }
    },
    ENDED: {"a sign-in allows what its user has ended": {"tokens.declines": answers(False)}},
    REPAIR: {
        "a repair takes whoever comes back from sipgate": {
            "sign_in.repair.turn_away_others": answers()
        },
        "who came back instead keeps their grant at sipgate": {"tokens.discard": answers()},
        "a repair link needs no signature": {
            "links._signer": lambda _real: lambda: mock.Mock(unsign=lambda text: text[:1])
        },
    },
    SCOPES: {
        "what a page of one user asks for is asked of another": {"links._whose": answers("anybody")}
    },
}
