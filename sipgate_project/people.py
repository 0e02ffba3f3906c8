"""Chooses how the site addresses a user: by a name, never by a number."""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.models import SocialAccount

from sipgate_provider.conf import PROVIDER_ID
from sipgate_provider.provider import is_made_up


def greeting_name(user: Any) -> str:
    """Return what to say after "Hello": the first name or the chosen user name, else nothing."""
    username = str(user.get_username())
    return user.get_short_name() or ("" if is_made_up(username) else username)


def display_name(user: Any) -> str:
    """Return the name of a user for pages, and for allauth (``ACCOUNT_USER_DISPLAY``).

    The full name, else the chosen user name, else the name of the oldest connection (one query),
    else the email address, else nothing. The site never shows a sipgate id, nor a user name made
    from one.
    """
    full, username = user.get_full_name(), str(user.get_username())
    if full or not is_made_up(username):
        return full or username
    rows = SocialAccount.objects.filter(user=user, provider=PROVIDER_ID)
    oldest = rows.select_related("sipgate_account").order_by("pk").first()
    known = oldest.get_provider_account() if oldest else None
    if known and known.to_str() != known.readable_id:
        return str(known.to_str())
    return str(user.email)
