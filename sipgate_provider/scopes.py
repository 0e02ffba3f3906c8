"""Tells which scopes a page needs beyond the configured ones, and whether the granted ones suffice."""

from __future__ import annotations

import time
from collections.abc import Iterable

from django.core import signing
from django.http import HttpRequest

from sipgate_provider import errors

SESSION_KEY = "sipgate_wanted_scopes"
FIELD = "sipgate_scopes"
"""Query parameter of the sign-in's address that carries a signed wish."""
SIGNED_FOR = 86_400
"""Seconds for which a button works on a page that stays open."""
WANTED_FOR = 600
"""Seconds for which a page's wish is remembered: as long as allauth remembers a state."""


_needed: dict[str, set[str]] = {}


def note_needed(needed: Iterable[str], *, by: object) -> None:
    """Remember that a view of this site asks for scopes, so that the doctor can find out whether sipgate has them."""
    name = f"{getattr(by, '__module__', '')}.{getattr(by, '__qualname__', '')}"
    for scope in needed:
        _needed.setdefault(scope, set()).add(name)


def needed_by_code() -> dict[str, list[str]]:
    """Return the scopes that ``@sipgate_required`` and its mixin name in the code loaded so far, and by which views."""
    return {scope: sorted(views) for scope, views in sorted(_needed.items())}


def suffices(granted: Iterable[str], *, needed: str) -> bool:
    """Tell whether ``needed``, its parent (``sessions:write`` for ``sessions:sms:write``) or ``all`` was granted."""
    have = set(granted)
    if "all" in have or needed in have:
        return True
    *path, action = needed.split(":")
    parents = (":".join([*path[:length], action]) for length in range(1, len(path)))
    return any(parent in have for parent in parents)


def missing(granted: Iterable[str], *, needed: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``needed`` that ``granted`` does not cover, sorted."""
    have = tuple(granted)
    return tuple(sorted(scope for scope in needed if not suffices(have, needed=scope)))


def explained(error: errors.MissingPermission, granted: Iterable[str]) -> errors.MissingPermission:
    """Tell a scope that was not granted from a feature that is not there: return ``NotAvailable`` for the latter."""
    have = tuple(granted)
    is_granted = any(suffices(have, needed=scope) for scope in error.scopes)
    if isinstance(error, errors.NotAvailable) or not is_granted:
        return error
    return errors.NotAvailable(
        f"{error.message} The scope was granted: perhaps the feature is not booked, or the request is wrong, such as "
        "an id of somebody else.",
        scopes=error.scopes,
        endpoint=error.endpoint,
        status=error.status,
        code=error.code,
        detail=error.detail,
    )


def want(request: HttpRequest, wanted: Iterable[str]) -> None:
    """Let the next sign-in of this session ask for ``wanted`` as well. Only the site's own code can say so."""
    request.session[SESSION_KEY] = {
        "scopes": sorted(set(wanted)),
        "until": time.time() + WANTED_FOR,
    }


def signed(request: HttpRequest, wanted: Iterable[str]) -> str:
    """Return a parameter for the sign-in's address that asks for more scopes. It is signed and valid for this user
    only, because a crafted link could otherwise ask a person for everything.
    """
    return signing.dumps([_whose(request), *sorted(set(wanted))], salt=FIELD)


def pending(request: HttpRequest) -> tuple[str, ...]:
    """Return what the pressed button asks for, else what ``want`` noted, if that is not too old."""
    by_button = _opened(request)
    if by_button:
        return by_button
    wish = request.session.get(SESSION_KEY)
    if not isinstance(wish, dict) or wish.get("until", 0) < time.time():
        return ()
    return tuple(str(scope) for scope in wish.get("scopes", ()))


def narrowest(alternatives: Iterable[str]) -> tuple[str, ...]:
    """Return the one of ``alternatives`` that allows least, as any one suffices; ``()`` if none can be asked for."""
    possible = [scope for scope in alternatives if scope != "internal"]
    return (max(possible, key=lambda scope: scope.count(":")),) if possible else ()


def widened(granted: Iterable[str], *, needed: Iterable[str]) -> tuple[str, ...]:
    """Return what to ask for so that ``needed`` is added to what was granted: a new consent replaces the former one."""
    have = tuple(granted)
    return tuple(sorted({*have, *missing(have, needed=needed)}))


def _opened(request: HttpRequest) -> tuple[str, ...]:
    value = request.POST.get(FIELD) or request.GET.get(FIELD)
    if not value:
        return ()
    try:
        whose, *wanted = signing.loads(value, salt=FIELD, max_age=SIGNED_FOR)
    except (signing.BadSignature, ValueError, TypeError):
        return ()
    return tuple(str(scope) for scope in wanted) if whose == _whose(request) else ()


def _whose(request: HttpRequest) -> str:
    user = getattr(request, "user", None)
    return str(user.pk) if user is not None and user.pk is not None else ""
