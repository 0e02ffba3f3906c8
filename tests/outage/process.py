"""The process of ``test_outage``: renews one connection, and tells at which point it is, so that the database can be
taken away there. ``DATABASE_URL`` names the database; speaks lines of JSON.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import Any

import django

django.setup()

from allauth.socialaccount.models import SocialAccount  # noqa: E402  # after the set-up
from django.conf import settings  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.utils import timezone  # noqa: E402

from sipgate_provider import errors, tokens  # noqa: E402
from sipgate_provider.remote import oauth  # noqa: E402
from sipgate_provider.tokens import journal, rows  # noqa: E402


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def prepare(answer: dict[str, Any]) -> None:
    """Create the tables and one connection with a stale pair."""
    call_command("migrate", verbosity=0)
    user = get_user_model().objects.create(username="erika")
    connection = SocialAccount.objects.create(user=user, provider="sipgate", uid="1000000w0")
    issued = timezone.now() - timedelta(seconds=400)
    rows.consent(
        connection,
        oauth.Grant.parse(answer, issued_at=issued),
        scope=[],
        now=timezone.now(),
    )
    tell(connection=connection.pk)


def announce_points() -> None:
    real_save, real_sync = rows.save_refreshed, journal.sync

    def save(*args: Any, **kwargs: Any) -> bool:
        if not announced:
            announced.append(True)
            tell(at="store")
            sys.stdin.readline()
        return real_save(*args, **kwargs)

    def sync(entry: Any) -> None:
        real_sync(entry)
        tell(at="synced")

    announced: list[bool] = []
    rows.save_refreshed, journal.sync = save, sync


def use(connection: int) -> None:
    try:
        generation = tokens.token(connection).generation
        tokens.errands.wait_idle(20)  # what is recovered at the start of a process
        tokens.errands.wait_idle(10)  # a process that starts looks into the journal as well
        row = tokens.load(connection)
        tell(generation=generation, state=row.state if row else "", waiting=journal.waiting())
    except errors.SipgateError as error:
        tell(error=type(error).__name__, code=error.code, waiting=journal.waiting())


def main() -> None:
    order = json.loads(sys.stdin.readline())
    settings.SIPGATE_STORE_SECONDS = order.get("patience", 5)
    if "answer" in order:
        prepare(order["answer"])
    if order.get("points"):
        announce_points()
    if "use" in order:
        use(order["use"])


if __name__ == "__main__":
    main()
