"""Exports a user's data, and deletes a user's account."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.usersessions.models import UserSession
from django.db import transaction

from sipgate_provider.ops import personal_data


def export(user: Any) -> dict[str, Any]:
    """Return all that this site knows about ``user``, for ``DjangoJSONEncoder``.

    It contains no password, session key or token.
    """
    return {
        "account": {
            "username": user.get_username(),
            "first_name": user.first_name,
            "last_name": user.last_name,
            "email": user.email,
            "joined_at": user.date_joined,
            "last_sign_in_at": user.last_login,
            "has_password": user.has_usable_password(),
        },
        "email_addresses": list(
            EmailAddress.objects.filter(user=user).values("email", "verified", "primary")
        ),
        "sessions": list(
            UserSession.objects.filter(user=user).values(
                "created_at", "last_seen_at", "ip", "user_agent"
            )
        ),
        **personal_data.export(user),
    }


def delete(user: Any) -> None:
    """Delete the account with everything that belongs to it, all or nothing.

    Its sessions end at once. Its grants at sipgate go to the outbox, as at every disconnect, and
    end after the commit. The app's history keeps what happened, but not to which user.
    """
    with transaction.atomic():
        for session in UserSession.objects.filter(user=user):
            session.end()
        user.delete()
