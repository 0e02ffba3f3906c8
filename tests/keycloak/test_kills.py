"""Processes that are killed and paused around the send, people who are shut out and let in again: against Keycloak.

Keycloak ends every grant of this client in the person's session when a spent token is sent again, so one wrong step of
two processes shows in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.utils import timezone

from sipgate_provider import errors, tokens
from sipgate_provider.models import Reason, State
from sipgate_provider.tokens import journal
from tests.concurrency.crew import Crew, meet
from tests.concurrency.points import KILL, LOST, PAUSE
from tests.facts.keycloak_server import KeycloakServer
from tests.facts.server import ROSA
from tests.keycloak.conftest import Visitor
from tests.keycloak.test_journey import make_stale
from tests.processes import Worker, workers

pytestmark = [pytest.mark.keycloak, pytest.mark.timeout(600)]

AROUND_THE_SEND = (
    "claimed",
    "the time was checked",
    "half sent",
    "sent",
    "answered",
    "before the journal is written",
    "journaled",
    "stored",
)
PAIRS = [
    *(((point, KILL), ("locked", PAUSE)) for point in AROUND_THE_SEND),
    *(
        ((point, PAUSE), ("claimed", PAUSE))
        for point in ("the time was checked", "sent", "before the journal is written")
    ),
    *(
        ((point, PAUSE), ("the time was checked", KILL))
        for point in ("sent", "answered", "journaled")
    ),
    *(((point, KILL), (point, KILL)) for point in ("claimed", "half sent", "journaled")),
]


@pytest.fixture
def told(server: KeycloakServer, settings: Any, tmp_path: Path) -> dict[str, Any]:
    """What processes have to be told beside what every test tells them."""
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
    return {"SOCIALACCOUNT_PROVIDERS": settings.SOCIALACCOUNT_PROVIDERS}


@pytest.fixture
def crew(told: dict[str, Any]) -> Iterator[Crew]:
    one = Crew(**told)
    yield one
    one.close()


@pytest.fixture
def worker(told: dict[str, Any]) -> Iterator[Worker]:
    with workers(1, settings=told) as [one]:
        yield one


def lives(visitor: Visitor) -> bool:
    """Tell whether the newest pair is good: the access token for the API, the refresh token for another one."""
    shown = visitor.sees_its_account()
    make_stale()
    return shown and visitor.sees_its_account()


def test_pairs_of_points_around_the_send(crew: Crew, visitor: Visitor) -> None:
    visitor.sign_in()
    connection = SocialAccount.objects.get().pk
    lost = 0
    for first, second in PAIRS:
        make_stale()
        generation = tokens.load(connection).number
        meet(crew, connection, first, second)
        crew.go_on()
        try:
            assert tokens.token(connection).number == generation + 1, (first, second)
        except errors.NeedsSignIn:
            assert any(point in LOST and how == KILL for point, how in (first, second)), (
                first,
                second,
            )
            assert tokens.load(connection).reason == Reason.LOST_ROTATION, (first, second)
            visitor.sign_in(process="connect")
            lost += 1
        assert lives(visitor), (first, second)
    assert journal.waiting() == 0
    # A killed process resets its connection, which may undo what it had only just sent.
    assert len(LOST) - 1 <= lost <= len(LOST)


class Shut:
    """How Keycloak shuts a person out for a while: a refresh token that it refuses meanwhile is good afterwards."""

    def __init__(self, server: KeycloakServer) -> None:
        self._server = server

    def disabled(self, is_out: bool) -> None:
        self._server.set_enabled(ROSA, not is_out)

    def not_before(self, is_out: bool) -> None:
        self._server.set_not_before(int(timezone.now().timestamp()) + 60 if is_out else 0)


@pytest.mark.parametrize("how", ["disabled", "not_before"])
@pytest.mark.parametrize("point", ["", "claimed", "journaled"])
def test_shut_out_and_let_in_again(
    server: KeycloakServer, worker: Worker, visitor: Visitor, how: str, point: str
) -> None:
    """Also when a process was killed a moment before: what the refusal is called depends on it, the pair does not."""
    visitor.sign_in()
    connection = SocialAccount.objects.get().pk
    make_stale()
    shut: Callable[[bool], None] = getattr(Shut(server), how)
    if point:
        worker.tell(connection=connection, stop_at=point, how=KILL)
        assert worker.read() is None
        if point == "journaled":
            assert tokens.token(connection).number == 2
            make_stale()
    shut(True)
    with pytest.raises(errors.NeedsSignIn):
        tokens.refresh(connection)
    row = tokens.load(connection)
    assert row.state == State.NEEDS_SIGN_IN
    assert row.reason == (Reason.LOST_ROTATION if point == "claimed" else Reason.REJECTED)
    assert row.sealed
    shut(False)
    assert tokens.refresh(connection).state == State.ACTIVE
    assert lives(visitor)


def test_shut_out_while_a_process_is_about_to_send(
    server: KeycloakServer, worker: Worker, visitor: Visitor
) -> None:
    visitor.sign_in()
    connection = SocialAccount.objects.get().pk
    make_stale()
    worker.tell(connection=connection, wait=20, stop_at="the time was checked", how=PAUSE)
    while not worker.is_stopped:
        assert not worker.is_finished
    server.set_enabled(ROSA, False)
    worker.resume()
    [[kind, reason, _]] = worker.read()
    assert (kind, reason) == ("NeedsSignIn", Reason.REJECTED)
    server.set_enabled(ROSA, True)
    assert tokens.refresh(connection).state == State.ACTIVE
    assert lives(visitor)
