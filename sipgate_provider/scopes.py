"""Knows which scopes the code needs, and tells whether the granted ones suffice."""

from __future__ import annotations

from collections.abc import Iterable

from sipgate_provider import errors

_needed: dict[str, set[str]] = {}


def words(scopes: str | Iterable[str]) -> tuple[str, ...]:
    """Return the scopes of a text, which spaces separate, or of a list."""
    return tuple(scopes.split()) if isinstance(scopes, str) else tuple(scopes)


def note_needed(needed: Iterable[str], *, by: object) -> None:
    """Remember that a view needs scopes, so that the doctor can ask sipgate about them."""
    name = f"{getattr(by, '__module__', '')}.{getattr(by, '__qualname__', '')}"
    if name.startswith("django.utils.decorators"):  # method_decorator shows a stand-in
        name = "a class-based view"
    for scope in needed:
        _needed.setdefault(scope, set()).add(name)


def needed_by_code() -> dict[str, list[str]]:
    """Return the scopes that the code loaded so far needs, each with the views that need it."""
    return {scope: sorted(views) for scope, views in sorted(_needed.items())}


def suffices(granted: Iterable[str], *, needed: str) -> bool:
    """Tell whether ``granted`` has ``needed``, ``all`` or a parent (``sessions:write`` for SMS)."""
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
    """Return ``NotAvailable`` instead if the scope was granted, so that it is not the cause."""
    have = tuple(granted)
    is_granted = any(suffices(have, needed=scope) for scope in error.scopes)
    if isinstance(error, errors.NotAvailable) or not is_granted:
        return error
    return errors.NotAvailable(
        f"{error.message} The scope was granted: perhaps the feature is not booked, or the request "
        "is wrong, for example with somebody else's id.",
        scopes=error.scopes,
        endpoint=error.endpoint,
        status=error.status,
        code=error.code,
        detail=error.detail,
    )


def narrowest(alternatives: Iterable[str]) -> tuple[str, ...]:
    """Return the one of ``alternatives`` that allows least, if a client can ask for one."""
    possible = [scope for scope in alternatives if scope != "internal"]
    return (max(possible, key=lambda scope: scope.count(":")),) if possible else ()


def widened(granted: Iterable[str], *, needed: Iterable[str]) -> tuple[str, ...]:
    """Return what to ask for to add ``needed``: each consent replaces the former one."""
    have = tuple(granted)
    return tuple(sorted({*have, *missing(have, needed=needed)}))
