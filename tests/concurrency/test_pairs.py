"""Two processes refresh one connection, killed or paused at each named point: no token is sent twice.

The model of the protocol (``tests/protocol``) tries every order of its steps; this tries the real
code at each pair of its points. While somebody is paused, and after a kill, the lease in the row is
made to look long over: on one machine the lock alone excludes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from sipgate_provider import errors, tokens
from sipgate_provider.models import Reason, State
from tests.concurrency.crew import Crew, end_leases, meet
from tests.concurrency.points import KILL, LOST, PAUSE, POINTS
from tests.conftest import Connect
from tests.rotator import Rotator

pytestmark = [pytest.mark.django_db(transaction=True)]

NAMES = list(POINTS)
HOWS = [(PAUSE, PAUSE), (PAUSE, KILL), (KILL, PAUSE), (KILL, KILL)]


@pytest.mark.parametrize("hows", HOWS, ids="-".join)
def test_some_pairs_of_points(hows, crew, connect, rotator):
    """Each point once as the first one's and once as the second one's, over the four tests."""
    start = HOWS.index(hows)
    pairs = [(name, NAMES[(number * 7 + 3) % len(NAMES)]) for number, name in enumerate(NAMES)]
    try_pairs(pairs[start::4], hows, crew, connect, rotator)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("hows", HOWS, ids="-".join)
def test_all_pairs_of_points(hows, crew, connect, rotator):
    try_pairs(
        [(first, second) for first in NAMES for second in NAMES], hows, crew, connect, rotator
    )


@pytest.fixture
def crew(settings: Any, rotator: Rotator, tmp_path: Path) -> Iterator[Crew]:
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
    one = Crew()
    yield one
    one.close()


def check(connection: int, rotator: Rotator, *, may_be_lost: bool) -> None:
    """Nothing was lost but by a kill in the window that stays; then the row says so."""
    end_leases()
    try:
        token = tokens.token(connection)
    except errors.NeedsSignIn:
        row = tokens.load(connection)
        assert may_be_lost, "tokens were lost"
        assert (row.state, row.reason) == (State.NEEDS_SIGN_IN, Reason.LOST_ROTATION)
        return
    counts = rotator.counts()
    if may_be_lost and counts["reuse"]:
        # The server has read the killed one's request after the second one's. In earnest 45 s are
        # between the two.
        return
    assert (counts["reuse"], counts["rotated"]) == (0, 1), "a token was sent twice"
    assert (token.number, tokens.load(connection).lease_holder) == (2, "")
    answer = requests.get(
        f"{rotator.api_url}/account", headers={"Authorization": f"Bearer {token.value}"}, timeout=10
    )
    assert answer.status_code == 200, "the newest tokens are dead"
    tokens.recover()
    assert (tokens.load(connection).number, tokens.journal_waiting()) == (2, 0)


def try_pairs(
    pairs: list[tuple[str, str]],
    hows: tuple[str, str],
    crew: Crew,
    connect: Connect,
    rotator: Rotator,
) -> None:
    for points in pairs:
        rotator.reset()
        first, second = zip(points, hows, strict=True)
        connection = connect(age=400).pk
        try:
            meet(crew, connection, first, second)
            check(
                connection,
                rotator,
                may_be_lost=any(point in LOST and how == KILL for point, how in (first, second)),
            )
        except AssertionError as error:
            raise AssertionError(
                f"{error}: the first one {first}, the second one {second}"
            ) from error
        crew.go_on()
