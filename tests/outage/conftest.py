"""A database that can go away, and processes that use it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.utils import timezone

from sipgate_provider import errors, tokens
from sipgate_provider.remote import oauth
from tests import postgres
from tests.concurrency.crew import end_leases
from tests.processes import workers
from tests.rotator import Rotator

NEWEST = (2, "active", 0)
"""What ``use`` returns of a connection that was refreshed once, with nothing waiting."""


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as one:
        yield one


@pytest.fixture
def stale(server: postgres.Server, rotator: Rotator) -> Iterator[int]:
    """A connection with stale tokens, in a database of its own."""
    yield connect(server.url, rotator)
    server.start()  # if a test has failed while it was stopped
    server.run("DROP SCHEMA public CASCADE")
    server.run("CREATE SCHEMA public")


def connect(url: str, rotator: Rotator) -> int:
    """Create the tables in a database, and a connection with stale tokens; return its id."""
    [answer] = rotator.issue()
    with workers(1, url=url, SIPGATE_JOURNAL_DIR=None) as [worker]:
        return int(worker.ask(_connect, answer=answer))


def use(url: str, journal: Path, connection: int) -> Any:
    """Use a connection in a process with this database and journal; return what it ``found``."""
    with workers(1, url=url, SIPGATE_JOURNAL_DIR=str(journal)) as [worker]:
        return worker.ask(found, connection=connection)


# --- what processes do ----------------------------------------------------------------------------


def _connect(answer: dict[str, Any]) -> int:
    call_command("migrate", verbosity=0)
    user = get_user_model().objects.create(username="erika")
    connection = SocialAccount.objects.create(user=user, provider="sipgate", uid="1000000w0")
    issued = timezone.now() - timedelta(seconds=400)
    tokens.store(connection, oauth.Tokens.parse(answer, issued_at=issued))
    return int(connection.pk)


def found(connection: int) -> Any:
    """Use a connection; return version, state, and how many files wait, or the error's name."""
    tokens.recover()  # as a process does that starts
    end_leases()  # of a process that was killed: nobody waits for it here
    try:
        number = tokens.token(connection).number
    except errors.SipgateError as error:
        return type(error).__name__
    return number, tokens.load(connection).state, tokens.journal_waiting()
