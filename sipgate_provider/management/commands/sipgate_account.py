"""``manage.py sipgate_account USER``: does what sipgate's own example does."""

from __future__ import annotations

import json
from typing import Any

from allauth.account.utils import filter_users_by_email, filter_users_by_username
from allauth.socialaccount.models import SocialAccount
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q

from sipgate_provider import conf, errors, tokens
from sipgate_provider.client import SipgateClient


class Command(BaseCommand):
    help = (
        "Show a user's sipgate account, refresh the tokens, and show the account again, as "
        "sipgate's own Python example does. Never shows a token."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "user",
            metavar="USER",
            help="User name, email address, or sipgate id such as 1234567w0.",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        name = options["user"]
        for connection in find(name):
            client = SipgateClient(connection)
            try:
                self._show(client)
                row = tokens.refresh(connection, by="sipgate_account")
                self.stdout.write(f"Refreshed. The new access token ends at {row.expires_at}.")
                self._show(client)
            except errors.SipgateError as error:
                text = f"{name}: {error.message.rstrip('.')}; see manage.py sipgate_doctor."
                raise CommandError(text) from None

    def _show(self, client: SipgateClient) -> None:
        account = client.get("/account")
        self.stdout.write(json.dumps(account, indent=2, ensure_ascii=False))


def find(name: str) -> list[SocialAccount]:
    """Return the connections of the users with that name or address, or the one with that uid."""
    users = [*filter_users_by_username(name), *filter_users_by_email(name)]
    rows = SocialAccount.objects.filter(Q(uid=name) | Q(user__in=users), provider=conf.PROVIDER_ID)
    found = list(rows.order_by("pk"))
    if not found:
        raise CommandError(
            f"No sipgate connection belongs to a user, email address or sipgate id {name}."
        )
    return found
