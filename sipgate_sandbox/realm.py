"""What an administrator sets at the authorization server: lifetimes, clients, who may sign in.

Tests change it over the control API. It lives in this process; ``reset`` restores it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings

from .scopes import SCOPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A registered application. All clients share the registered redirect URIs."""

    id: str
    secret: str = field(repr=False)
    name: str
    scopes: frozenset[str] = frozenset(SCOPES)
    """Those it may ask for."""


ANOTHER_CLIENT = Client(
    id="1000000-2-other:third-party",
    secret="other-secret",  # noqa: S106  # a sandbox
    name="Another application",
)
"""The people also use this application, not only the site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Realm:
    """All lifetimes are in seconds."""

    access_lifetime: int = 300
    refresh_lifetime: int = 30 * 86_400
    session_lifetime: int = 365 * 86_400
    not_before: int = 0
    """The server rejects tokens issued before this moment (seconds since 1970)."""
    consent_required: bool = True
    disabled: list[str] = field(default_factory=list)
    """Ids of people who may not sign in. The server rejects their tokens."""
    client_secret: str = field(default=settings.SANDBOX_CLIENT_SECRET, repr=False)
    client_scopes: list[str] = field(default_factory=lambda: list(SCOPES))
    client_enabled: bool = True

    def client(self, client_id: str) -> Client | None:
        """Return an enabled client."""
        if client_id == settings.SANDBOX_CLIENT_ID and self.client_enabled:
            scopes = frozenset(self.client_scopes)
            return Client(id=client_id, secret=self.client_secret, name="Your site", scopes=scopes)
        return ANOTHER_CLIENT if client_id == ANOTHER_CLIENT.id else None


current = Realm()


def change(**values: Any) -> None:
    """Change fields of the realm. An unknown name raises ``TypeError``."""
    global current
    current = replace(current, **values)


def reset() -> None:
    global current
    current = Realm()
