"""Processes killed or paused around the send, and people whom Keycloak shuts out for a while.

If a process sends a spent token, Keycloak ends every grant of this client in the person's session,
so one wrong step of two processes shows in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.utils import timezone

from sipgate_provider import errors, tokens
from sipgate_provider.models import Reason, State
from tests.concurrency.crew import Crew, end_leases, meet
from tests.concurrency.points import KILL, LOST, PAUSE
from tests.conftest import make_stale
from tests.facts.keycloak_server import KeycloakServer
from tests.facts.server import ROSA
from tests.keycloak.conftest import Visitor
from tests.processes import Worker, workers

pytestmark = [pytest.mark.keycloak, pytest.mark.timeout(600)]

PAIRS = [
    *(((point, KILL), ("locked", PAUSE)) for point in ("leased", "checked", *LOST, "journaled")),
    *(((point, PAUSE), ("leased", PAUSE)) for point in ("checked", "sent", "answered")),
    *(((point, PAUSE), ("checked", KILL)) for point in ("sent", "answered", "journaled")),
    *(((point, KILL), (point, KILL)) for point in ("leased", "checked", "journaled")),
]


def test_pairs_of_points_around_the_send(crew, visitor):
    visitor.sign_in()
    connection = SocialAccount.objects.get().pk
    lost = 0
    for first, second in PAIRS:
        make_stale()
        number = tokens.load(connection).number
        meet(crew, connection, first, second)
        end_leases()
        crew.go_on()
        try:
            assert tokens.token(connection).number == number + 1, (first, second)
        except errors.NeedsSignIn:
            assert first[0] in LOST, (first, second)
            assert first[1] == KILL, (first, second)
            assert tokens.load(connection).reason == Reason.LOST_ROTATION, (first, second)
            visitor.sign_in(process="connect")
            lost += 1
        assert works(visitor), (first, second)
    assert tokens.journal_waiting() == 0
    # A killed process resets its connection, which may undo what it had only just sent.
    assert len(LOST) - 1 <= lost <= len(LOST)


@pytest.mark.parametrize("how", ["disabled", "not before"])
@pytest.mark.parametrize("killed_at", ["", "leased"])
def test_a_person_who_was_shut_out_needs_no_sign_in(server, worker, visitor, how, killed_at):
    """A kill changes the reason that the row gives, but not what becomes of the tokens."""
    visitor.sign_in()
    connection = SocialAccount.objects.get().pk
    make_stale()
    if killed_at:
        worker.tell(connection=connection, stop_at=[killed_at], how=KILL)
        assert worker.read() is None
        end_leases()
    shut_out(server, how)
    with pytest.raises(errors.NeedsSignIn):
        tokens.refresh(connection)
    row = tokens.load(connection)
    assert row.state == State.NEEDS_SIGN_IN
    assert row.reason == (Reason.LOST_ROTATION if killed_at else Reason.REJECTED)
    let_in(server, how)
    assert tokens.refresh(connection).state == State.ACTIVE
    assert works(visitor)


def test_shut_out_while_a_process_is_about_to_send(server, worker, visitor):
    visitor.sign_in()
    connection = SocialAccount.objects.get().pk
    make_stale()
    worker.tell(connection=connection, wait=20, stop_at=["checked"], how=PAUSE)
    while not worker.is_stopped:
        assert not worker.is_finished
    server.set_enabled(ROSA, False)
    worker.resume()
    [[kind, reason, _]] = worker.read()
    assert (kind, reason) == ("NeedsSignIn", Reason.REJECTED)
    server.set_enabled(ROSA, True)
    assert tokens.refresh(connection).state == State.ACTIVE
    assert works(visitor)


def works(visitor: Visitor) -> bool:
    """Tell whether both of the newest tokens are valid."""
    shown = visitor.sees_its_account()
    make_stale()
    return shown and visitor.sees_its_account()


def shut_out(server: KeycloakServer, how: str) -> None:
    """Make Keycloak reject what it issued, until ``let_in``."""
    if how == "disabled":
        server.set_enabled(ROSA, False)
    else:
        server.set_not_before(int(timezone.now().timestamp()) + 60)


def let_in(server: KeycloakServer, how: str) -> None:
    if how == "disabled":
        server.set_enabled(ROSA, True)
    else:
        server.set_not_before(0)


@pytest.fixture
def told(server: KeycloakServer, settings: Any, tmp_path: Path) -> dict[str, Any]:
    """Settings that the processes need besides those of every test."""
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
    return {"SOCIALACCOUNT_PROVIDERS": settings.SOCIALACCOUNT_PROVIDERS}


@pytest.fixture
def crew(told: dict[str, Any]) -> Iterator[Crew]:
    one = Crew(**told)
    yield one
    one.close()


@pytest.fixture
def worker(told: dict[str, Any]) -> Iterator[Worker]:
    with workers(1, **told) as [one]:
        yield one
