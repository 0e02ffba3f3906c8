"""What the protocol promises, tried in every order; what fails without each of its parts; what
stays open.

On an unexpected result the shortest trace to the violation is printed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.protocol.explore import Found, explore
from tests.protocol.model import Model, Protocol, Scenario, World, begin, violation

ONE, TWO = (0, 0), (0, 1)
HOLDS = {
    "one machine, kills, lost requests and answers": Scenario(
        machines=ONE, kills=2, lost_answers=1, lost_requests=1
    ),
    "two machines, kills": Scenario(machines=TWO, kills=2),
    "two machines, a lost request, a lost answer": Scenario(
        machines=TWO, lost_answers=1, lost_requests=1
    ),
    "three workers on two machines, a kill": Scenario(
        machines=(0, 0, 1), keys=(0, 0, 0), kills=1, rotations=1
    ),
    "a new sign-in, a kill": Scenario(machines=ONE, consents=1, kills=1),
    "a new sign-in, two machines": Scenario(machines=TWO, consents=1, kills=1, rotations=1),
    "the database goes back, a kill": Scenario(machines=ONE, failovers=1, kills=1),
    "the database goes back, lost answers": Scenario(machines=ONE, failovers=1, lost_answers=1),
    "the database goes back past a sign-in": Scenario(
        machines=ONE, failovers=1, consents=1, rotations=3
    ),
    "one worker has yesterday's keys": Scenario(machines=ONE, keys=(1, 0), kills=2, rotations=3),
    "suspended and let in again": Scenario(machines=ONE, suspensions=1, lost_answers=1, kills=1),
}
SPENT = "a spent token was sent although nothing was unanswered"
DEAD = "tokens that reached us are dead at the server"
UNKNOWN = "a token is spent and nothing says that it may be"
FOREIGN = "the tokens of one consent were stored on top of another consent"
GIVEN_UP = "good tokens were given up"
FAILS_WITHOUT = {
    "lock": ("one machine, kills, lost requests and answers", SPENT),
    "look_after_lease": ("one machine, kills, lost requests and answers", SPENT),
    "time_check": ("two machines, kills", SPENT),
    "unanswered_with_lease": ("two machines, kills", UNKNOWN),
    "unanswered_put_back": ("two machines, kills", UNKNOWN),
    "consent_in_store": ("the database goes back past a sign-in", FOREIGN),
    "reset_at_time_out": ("one machine, kills, lost requests and answers", DEAD),
    "or_later_number": ("the database goes back, a kill", SPENT),
    "wait_for_key": ("one worker has yesterday's keys", SPENT),
    "rejected_is_not_spent": ("suspended and let in again", GIVEN_UP),
}
WINDOWS = {
    "a worker pauses between check and store for longer than the lease": Scenario(
        machines=TWO, long_pauses=True
    ),
    "a machine with tokens is cut off from the database for longer than the lease": Scenario(
        machines=TWO, cut_off=True, kills=1
    ),
    "several machines, and the database goes back": Scenario(machines=TWO, failovers=1),
}
"""What the documents name: what the protocol does not cover, shown to be real."""


def search(protocol: Protocol, scenario: Scenario) -> Found[World]:
    return explore(begin(scenario), Model(protocol, scenario).steps, violation)


@pytest.fixture(scope="module", autouse=True)
def counts() -> Iterator[dict[str, int]]:
    """Report how many states the searches visited (``pytest -s``)."""
    found: dict[str, int] = {}
    yield found
    for name, states in found.items():
        print(f"\n{states:8} states: {name}", end="")


@pytest.mark.parametrize("name", HOLDS)
def test_holds(name, counts):
    found = search(Protocol(), HOLDS[name])
    counts[name] = found.states
    assert not found.violation, str(found)
    assert found.states >= 1_000, "the scenario has become too small to show anything"


@pytest.mark.parametrize("part", Protocol._fields)
def test_every_part_is_needed(part):
    name, expected = FAILS_WITHOUT[part]
    found = search(Protocol()._replace(**{part: False}), HOLDS[name])
    assert found.violation == expected, str(found)


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_that_stay_are_real(name):
    found = search(Protocol(), WINDOWS[name])
    assert found.violation == SPENT, str(found)
