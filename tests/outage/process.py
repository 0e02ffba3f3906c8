"""The process of ``test_outage``: refreshes one connection, and tells at which point it is.

The database can be taken away there. ``DATABASE_URL`` names the database; speaks lines of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django

django.setup()

from allauth.socialaccount.models import SocialAccount  # noqa: E402  # after the set-up
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.utils import timezone  # noqa: E402

from sipgate_provider import errors, tokens  # noqa: E402
from sipgate_provider.models import SipgateToken  # noqa: E402
from sipgate_provider.remote import oauth  # noqa: E402
from tests.concurrency.crew import end_leases  # noqa: E402
from tests.named import replace  # noqa: E402


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def prepare(answer: dict[str, Any]) -> None:
    """Create the tables and one connection with stale tokens."""
    call_command("migrate", verbosity=0)
    user = get_user_model().objects.create(username="erika")
    connection = SocialAccount.objects.create(user=user, provider="sipgate", uid="1000000w0")
    issued = timezone.now() - timedelta(seconds=400)
    tokens.store(connection, oauth.Tokens.parse(answer, issued_at=issued))
    tell(connection=connection.pk)


def announce_points() -> None:
    announced: list[bool] = []

    def waits(real: Callable[..., Any]) -> Callable[..., Any]:
        def store(*args: Any, **kwargs: Any) -> Any:
            if not announced:
                announced.append(True)
                tell(at="store")
                sys.stdin.readline()
            return real(*args, **kwargs)

        return store

    def tells(real: Callable[..., Any]) -> Callable[..., Any]:
        def sync(path: Any) -> None:
            real(path)
            tell(at="synced")

        return sync

    replace("tokens.rows.store_refreshed", waits)
    replace("tokens.journal.sync", tells)


def use(connection: int) -> None:
    tokens.recover()  # as a process does that starts
    try:
        number = tokens.token(connection).number
        row = tokens.load(connection)
        tell(number=number, state=row.state if row else "", waiting=tokens.journal_waiting())
    except errors.SipgateError as error:
        tell(error=type(error).__name__, code=error.code)


def main() -> None:
    order = json.loads(sys.stdin.readline())
    if "answer" in order:
        prepare(order["answer"])
    if order.get("points"):
        announce_points()
    if "use" in order:
        if SipgateToken.objects.exclude(lease_holder="").exists():
            end_leases()  # of a process that was killed: nobody waits for it here
        use(order["use"])


if __name__ == "__main__":
    main()
