"""Writes the clients into the sandbox's database at start."""

from __future__ import annotations

from django.conf import settings

from .models import Client, digest
from .scopes import SCOPES

OTHER_CLIENT_ID, OTHER_CLIENT_SECRET = "1000000-2-other:third-party", "other-secret"  # a sandbox
"""Another application of the same people, which shows how ending a session affects others."""


def seed() -> None:
    """Store the clients of the settings. Safe to repeat."""
    clients = (
        (settings.SANDBOX_CLIENT_ID, settings.SANDBOX_CLIENT_SECRET, "Your site"),
        (OTHER_CLIENT_ID, OTHER_CLIENT_SECRET, "Another application"),
    )
    for client_id, secret, name in clients:
        Client.objects.update_or_create(
            pk=client_id,
            defaults={
                "name": name,
                "secret_hash": digest(secret),
                "redirect_uris": settings.SANDBOX_REDIRECT_URIS,
                "scopes": list(SCOPES),
                "enabled": True,
            },
        )
