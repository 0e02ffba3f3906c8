"""Keeps the history of each connection: events are appended and never changed."""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.utils import timezone

from sipgate_provider.models import SipgateToken, TokenEvent
from sipgate_provider.tokens import database


def add_event(
    kind: str,
    *,
    connection: SocialAccount | None = None,
    row: SipgateToken | None = None,
    **values: Any,
) -> None:
    """Append to the history. ``actor`` is required among ``values``; secrets have no column to go to."""
    if connection is None and row is not None:
        connection = SocialAccount.objects.using(database.alias()).filter(pk=row.pk).first()
    if connection is not None:
        values.setdefault("uid", connection.uid)
        values.setdefault("user_id", connection.user_id)
        values.setdefault("connection_id", connection.pk)
    values["error_code"] = str(values.get("error_code") or "")[:80]
    values["note"] = str(values.get("note") or "")[:300]
    TokenEvent.objects.using(database.alias()).create(
        kind=kind, at=values.pop("at", None) or timezone.now(), **values
    )
