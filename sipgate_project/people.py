"""Says how a person is addressed. Must not know: pages, tokens."""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.models import SocialAccount

from sipgate_provider import accounts
from sipgate_provider.conf import PROVIDER_ID
from sipgate_provider.provider import is_made_up


def greeting_name(user: Any) -> str:
    """Return what to say after "Hello": the first name, else the user name that the person chose, else nothing."""
    username = str(user.get_username())
    return user.get_short_name() or ("" if is_made_up(username) else username)


def display_name(user: Any, connections: list[SocialAccount] | None = None) -> str:
    """Return the name of a user that pages show; allauth uses it, too (``ACCOUNT_USER_DISPLAY``).

    The full name, else the user name that the person chose, else the name of the oldest connection (one query, unless
    ``connections`` is given). A user name that was made from a sipgate id is shown to nobody.
    """
    full, username = str(getattr(user, "get_full_name", str)()), str(user.get_username())
    if full or not is_made_up(username):
        return full or username
    if connections is None:
        rows = SocialAccount.objects.filter(user=user, provider=PROVIDER_ID).select_related(
            "sipgate_account"
        )
        connections = list(rows.order_by("pk")[:1])
    return accounts.name_of(connections[0]) if connections else ""
