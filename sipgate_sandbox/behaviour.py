"""How the authorization server behaves: lifetimes, and what is unknown about sipgate's. The control API changes it.

The values are kept in this process; ``reset`` restores those of its start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from django.conf import settings

LONGEST = 10 * 365 * 86_400
LIFETIMES = ("access_lifetime", "refresh_lifetime", "session_lifetime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """All lifetimes are in seconds. A switch is on by default if a default Keycloak with rotating tokens behaves so."""

    access_lifetime: int
    refresh_lifetime: int
    session_lifetime: int = 365 * 86_400
    not_before: int = 0
    """Tokens issued before this moment (seconds since 1970) are refused."""
    consent_required: bool = True
    spent_token_ends_grants: bool = True
    """A spent refresh token, or a code, that is sent again ends the client's grants in that browser session."""
    refresh_ends_access_token: bool = True
    """A refresh ends the older access token, as sipgate's documentation says. At Keycloak it lives until it expires."""
    revocation: bool = True
    """There is a revocation endpoint (RFC 7009)."""
    discovery: bool = True
    """There is a discovery document."""
    disabled_people: frozenset[str] = field(default_factory=frozenset)


def initial() -> Behaviour:
    return Behaviour(
        access_lifetime=settings.SANDBOX_ACCESS_LIFETIME,
        refresh_lifetime=settings.SANDBOX_REFRESH_LIFETIME,
        spent_token_ends_grants=not settings.SANDBOX_LENIENT_REUSE,
    )


current = initial()


def change(**changes: Any) -> Behaviour:
    """Change the given values and return all. Raises ``ValueError`` with a sentence for an unknown name or value."""
    global current  # the one place that changes it
    known = {one.name: one.type for one in fields(Behaviour) if one.name != "disabled_people"}
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"{name} is unknown. Known are: {', '.join(known)}.")
        if known[name] == "bool" and type(value) is not bool:
            raise ValueError(f"{name} must be true or false.")
        if known[name] == "int" and (type(value) is not int or not value >= 0):
            raise ValueError(f"{name} must be a whole number of seconds.")
        if name in LIFETIMES and not 1 <= value <= LONGEST:
            raise ValueError(f"{name} must be a whole number of seconds from 1 to {LONGEST}.")
    current = replace(current, **changes)
    return current


def set_enabled(person: str, enabled: bool) -> None:
    global current  # as above
    changed = current.disabled_people - {person} if enabled else current.disabled_people | {person}
    current = replace(current, disabled_people=changed)


def reset() -> None:
    global current  # as above
    current = initial()
