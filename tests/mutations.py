"""What ``make mutate`` breaks, by name, and which tests have to notice.

Each rule says in words what is wrong then. ``SIPGATE_BROKEN`` has the words of one rule: with
``-p tests.mutations`` it is broken from the start of a test process, and in the workers that it
forks. A name that is gone is an error.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

from tests.named import replace

Breaker = Callable[[Any], Any]


def answers(value: Any = None) -> Breaker:
    """Nothing is done or looked at; ``value`` is the result."""
    return lambda _real: lambda *_args, **_kwargs: value


def told(**arguments: Any) -> Breaker:
    """It is done with other arguments."""
    return lambda real: lambda *args, **kwargs: real(*args, **{**kwargs, **arguments})


def becomes(value: Any) -> Breaker:
    """A constant has another value."""
    return lambda _real: value


def gets_through(_real: Any) -> Any:
    """It returns what it is given."""
    return lambda value, **_kwargs: value


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


def lacks(*names: str) -> Breaker:
    """The dictionary that it returns lacks some names."""

    def breaker(real: Any) -> Any:
        def broken(*args: Any, **kwargs: Any) -> Any:
            found = real(*args, **kwargs)
            return {name: value for name, value in found.items() if name not in names}

        return broken

    return breaker


def forgets(*columns: str) -> Breaker:
    """Its queries have no condition on some columns."""
    from django.db.models import QuerySet

    def without(ask: Any) -> Any:
        def broken(rows: Any, *args: Any, **kwargs: Any) -> Any:
            kept = {
                name: value
                for name, value in kwargs.items()
                if name.partition("__")[0] not in columns
            }
            others = [one for one in args if not any(column in str(one) for column in columns)]
            # ``exclude`` without a condition would leave nothing.
            return ask(rows, *others, **kept) if others or kept else rows.all()

        return broken

    def breaker(real: Any) -> Any:
        @functools.wraps(real)
        def broken(*args: Any, **kwargs: Any) -> Any:
            with (
                mock.patch.object(QuerySet, "filter", without(QuerySet.filter)),
                mock.patch.object(QuerySet, "exclude", without(QuerySet.exclude)),
            ):
                return real(*args, **kwargs)

        return broken

    return breaker


@dataclass(frozen=True, slots=True)
class Rule:
    """It ``says`` what is wrong once each name in ``breaks`` is broken; one of ``tests`` fails."""

    says: str
    breaks: dict[str, Breaker]
    tests: str


SEALING = "tests/unit/test_sealing.py"
REFRESH = "tests/flows/test_refresh.py"
JOURNAL = "tests/flows/test_journal.py"
ENDING = "tests/flows/test_ending.py"
SIGN_IN = "tests/flows/test_sign_in.py"
REPEATED = "tests/flows/test_repeated_callback.py"
TROUBLE = "tests/flows/test_problems.py"
LEAKS = "tests/flows/test_leaks.py"
SCOPES = "tests/flows/test_decorators.py"
LIMITS = "tests/flows/test_sign_in_limits.py"
ENDED = "tests/flows/test_pages.py"
REPAIR = "tests/flows/test_repair.py"

RULES = [
    # --- sealing
    Rule(
        "what was sealed for one place opens in another",
        {"tokens.sealing.seal": told(place=""), "tokens.sealing.unseal": told(place="")},
        SEALING,
    ),
    # --- the refresh
    Rule(
        "nobody looks into the journal once the lease is taken",
        {"tokens.journal.newer": answers()},
        JOURNAL,
    ),
    Rule(
        "nobody asks whether enough of the lease is left",
        {"tokens.refresh.LATEST": becomes(1e9)},
        REFRESH,
    ),
    Rule(
        "the lock excludes nobody",
        {"tokens.lock.lock": lambda _real: lambda _connection_id: contextlib.nullcontext()},
        REFRESH,
    ),
    Rule(
        "the lease is taken though the row has changed",
        {"tokens.rows._as_read": lacks("unanswered", "next_attempt_at")},
        REFRESH,
    ),
    Rule(
        "a lease is given back by anybody",
        {"tokens.rows.give_back": forgets("lease_holder")},
        REFRESH,
    ),
    Rule(
        "tokens of another consent are stored, and older ones",
        {"tokens.rows.store_refreshed": forgets("consent", "number")},
        REFRESH,
    ),
    Rule(
        "what was unanswered is forgotten by an answer",
        {"tokens.decide.decide": told(unanswered=False)},
        REFRESH,
    ),
    # --- the ending
    Rule(
        "access that a user ends lives on at sipgate",
        {"tokens.endings.add": answers()},
        ENDING,
    ),
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
        {"sign_in.views._take": lambda _real: lambda request, name: request.GET.get(name, "")},
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
        {"sign_in.receivers.shorten": answers()},
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
        {"sign_in.repair.refuse_others": answers()},
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


def pytest_sessionstart() -> None:
    """Break what ``SIPGATE_BROKEN`` names; called by pytest, and by ``tests.prepared``."""
    says = os.environ.get("SIPGATE_BROKEN")
    for rule in RULES:
        if rule.says == says:
            for name, breaker in rule.breaks.items():
                replace(name, breaker)
