"""What an administrator sets at the authorization server: clients, lifetimes, who may sign in.

Tests change it over the control API. It is kept in this process; ``reset`` restores it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings

from .people import BY_UID
from .scopes import SCOPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An application that is registered here. All may be called back at the same addresses."""

    id: str
    secret: str = field(repr=False)
    name: str
    scopes: frozenset[str] = frozenset(SCOPES)
    """Those it may ask for."""
    enabled: bool = True


def _clients() -> dict[str, Client]:
    """Return the site's client, and another application of the same people."""
    ours = Client(
        id=settings.SANDBOX_CLIENT_ID, secret=settings.SANDBOX_CLIENT_SECRET, name="Your site"
    )
    other = Client(
        id="1000000-2-other:third-party",
        secret="other-secret",  # noqa: S106  # a sandbox
        name="Another application",
    )
    return {client.id: client for client in (ours, other)}


@dataclass(slots=True, kw_only=True)
class Realm:
    """All lifetimes are in seconds."""

    access_lifetime: int = 300
    refresh_lifetime: int = 30 * 86_400
    session_lifetime: int = 365 * 86_400
    not_before: int = 0
    """Tokens issued before this moment (seconds since 1970) are rejected."""
    consent_required: bool = True
    disabled: frozenset[str] = frozenset()
    """People who may not sign in, and whose tokens are rejected."""
    clients: dict[str, Client] = field(default_factory=_clients)

    def client(self, client_id: str) -> Client | None:
        """Return an enabled client."""
        found = self.clients.get(client_id)
        return found if found is not None and found.enabled else None


current = Realm()


def reset() -> None:
    global current
    current = Realm()


def change(**values: Any) -> None:
    """Change lifetimes and switches by their names; a ``TypeError`` tells of an unknown one."""
    global current
    current = replace(current, **values)


def change_client(**changes: Any) -> None:
    """Change our client's ``secret``, ``scopes`` (a list; None: all) or ``enabled``."""
    if "scopes" in changes:
        changes["scopes"] = frozenset(SCOPES if changes["scopes"] is None else changes["scopes"])
    ours = current.clients[settings.SANDBOX_CLIENT_ID]
    current.clients[ours.id] = replace(ours, **changes)


def set_enabled(uid: str, enabled: bool) -> None:
    """Disable a person (an unpaid bill, say), or let them in again."""
    if uid not in BY_UID:
        raise ValueError(f"Unknown person. Known are: {', '.join(BY_UID)}.")
    current.disabled = current.disabled - {uid} if enabled else current.disabled | {uid}
