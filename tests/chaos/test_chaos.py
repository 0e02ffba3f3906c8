"""Two machines, one database, one rotator, and everything that goes wrong: what is lost, and
why.

``SIPGATE_CHAOS_MINUTES`` (10) and ``SIPGATE_SOAK_MINUTES`` (60) tell how long. Each prints a table
(``pytest -s``). Lost beyond the windows that docs/how-it-works.md names: none.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
import pytest

from tests import postgres
from tests.chaos.machines import LEASE, UNEXPLAINED, WINDOW_KILLED, Machine, Record
from tests.rotator import Rotator

pytestmark = [pytest.mark.long, pytest.mark.timeout(3 * 3600)]

CONNECTIONS = 300
LIFETIME = 15
"""Seconds that an access token lives."""
WORKERS, THREADS, PAUSE = 2, 4, 0.05
"""Per machine; threads per worker; seconds between two uses of a thread."""
CHAOS = float(os.environ.get("SIPGATE_CHAOS_MINUTES", "10")) * 60
SOAK = float(os.environ.get("SIPGATE_SOAK_MINUTES", "60")) * 60

MOST_GROWTH = {"memory": 1.15, "files": 1.3, "threads": 1.3, "database": 1.3}
"""Of the last quarter of the soak against its second one."""


def test_chaos(site):
    seed = int(os.environ.get("SIPGATE_CHAOS_SEED", time.time()))
    random.seed(seed)
    print(f"\nSIPGATE_CHAOS_SEED={seed}")
    chaos = Chaos(site)
    longer = LEASE + 2
    phases = [
        (chaos.killed_workers, 0),
        (chaos.restarted_workers, 0),
        (chaos.no_way_to_sipgate, 0),
        (chaos.no_way_to_the_database, 0),
        (chaos.names_that_are_not_resolved, 0),
        (chaos.wrong_clocks, 0),
        (chaos.failover, 0),
        (chaos.full_disks, 0),
        (chaos.killed_machines, longer),
        (chaos.a_database_that_goes_back, 0),
    ]
    seconds = CHAOS / (len(phases) * 1.3)
    for happens, least in phases:
        site.phase(happens.__name__.replace("_", " "), max(seconds, least), happens)
        site.phase("calm", max(seconds * 0.3, 3), chaos.calm)
    lost = site.end()
    why = site.report(lost)
    assert not site.record.crashes
    assert not site.record.doubled()
    assert why[UNEXPLAINED] == 0
    assert {one["reason"] for one in lost} <= {"lost_rotation", "rejected"}


def test_soak(site):
    """Nothing grows, and nothing is lost but what a kill catches between sending and journal."""
    samples = Samples(site)

    def happens(until):
        while now() < until:
            rest(min(SOAK / 60, 20))
            random.choice((site.restart, site.restart, site.kill))()
            samples.take()

    for quarter in ("first", "second", "third", "fourth"):
        site.phase(f"{quarter} quarter", SOAK / 4, happens)
    for worker in samples.workers:
        worker.stop()
    why = site.report(site.end())
    samples.report()
    assert not site.record.crashes
    assert not site.record.doubled()
    assert set(why) <= {WINDOW_KILLED}
    assert {
        name: samples.growth(name)
        for name in MOST_GROWTH
        if samples.growth(name) > MOST_GROWTH[name]
    } == {}
    # Per machine and connection: the newest file, and one that a kill has left.
    assert max(samples.found["journal"]) <= len(site.machines) * 2 * CONNECTIONS


class Chaos:
    """What goes wrong, each for a while: a method takes the moment at which it has to be over."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.one, self.two = site.machines

    def calm(self, until: float) -> None:
        rest(until - now())

    def killed_workers(self, until: float) -> None:
        while now() < until:
            rest(random.uniform(0.5, 1.5))
            self.site.kill()

    def restarted_workers(self, until: float) -> None:
        while now() < until:
            self.site.restart()
            rest(1)

    def no_way_to_sipgate(self, until: float) -> None:
        """For one machine: silence, then cuts."""
        self.one.to_sipgate.stall()
        rest((until - now()) / 2)
        self.one.to_sipgate.cut()
        self.one.to_sipgate.heal()
        while now() < until:
            rest(1)
            self.one.to_sipgate.cut()

    def no_way_to_the_database(self, until: float) -> None:
        """For one machine, each time for less than the lease."""
        while now() < until:
            self.two.to_database.stall()
            rest(random.uniform(1, 5))
            self.two.to_database.cut()
            self.two.to_database.heal()
            rest(2)

    def names_that_are_not_resolved(self, until: float) -> None:
        self.one.tell_all(resolve=False)
        rest(until - now() - 2)
        self.one.tell_all(resolve=True)
        rest(until - now())

    def wrong_clocks(self, until: float) -> None:
        """One machine's clock is seven minutes ahead, then the other's; in the end both are right
        again."""
        for ahead, machine in ((420, self.two), (-90, self.one), (0, self.two), (0, self.one)):
            machine.ahead = ahead
            for _ in range(WORKERS):
                self.site.restart(machine)
            rest((until - now()) / 4)

    def failover(self, until: float) -> None:
        """The database is gone, and comes back with all its commits."""
        while now() < until:
            self.site.server.stop()
            rest(random.uniform(1, 6))
            self.site.server.start()
            rest(4)

    def full_disks(self, until: float) -> None:
        for machine in self.site.machines:
            machine.tell_all(disk=False)
        rest(until - now() - 1)
        for machine in self.site.machines:
            machine.tell_all(disk=True)
        rest(until - now())

    def killed_machines(self, until: float) -> None:
        """All workers of one machine at once, which then stays away for longer than the lease."""
        machine, number = self.two, len(self.two.workers)
        for worker in machine.workers:
            worker.kill(now())
            self.site.kills += 1
        machine.workers = []
        rest(until - now())
        for _ in range(number):
            machine.start(THREADS, PAUSE)

    def a_database_that_goes_back(self, until: float) -> None:
        """The last second of commits is lost, as by a failover to a replica that lags behind."""
        table, kept = "sipgate_provider_sipgatetoken", "kept_for_later"
        self.site.execute(
            f"DROP TABLE IF EXISTS {kept}", f"CREATE TABLE {kept} AS SELECT * FROM {table}"
        )
        rest(1)
        columns = [
            row[0]
            for row in self.site.execute(
                f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
            )
        ]
        values = ", ".join(f'"{name}" = k."{name}"' for name in columns if name != "connection_id")
        changed = self.site.execute(
            f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
            f"UPDATE {table} t SET {values} FROM {kept} k WHERE k.connection_id = t.connection_id "
            "AND (k.number, k.lease_holder) <> (t.number, t.lease_holder) RETURNING t.connection_id",
        )
        self.site.record.went_back |= {row[0] for row in changed}
        for machine in self.site.machines:
            machine.to_database.cut()
        rest(until - now())


class Samples:
    """What two workers that are neither killed nor restarted use, over time."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.found: dict[str, list[float]] = {
            name: [] for name in ("memory", "files", "threads", "journal", "database")
        }
        self.workers = [machine.start(THREADS, PAUSE) for machine in site.machines]
        for machine, worker in zip(site.machines, self.workers, strict=True):
            machine.workers.remove(worker)
        assert all(worker.is_ready.wait(60) for worker in self.workers)

    def take(self) -> None:
        told = self.site.record.figures
        told.clear()
        for worker in self.workers:
            worker.order(figures=True)
        give_up = now() + 30
        while len(told) < len(self.workers):
            assert now() < give_up, "a worker does not tell its figures"
            rest(0.1)
        figures = list(told.values())
        for name in ("memory", "files", "threads"):
            self.found[name].append(max(one[name] for one in figures))
        self.found["journal"].append(
            sum(1 for one in self.site.machines for _ in one.folder.rglob("*.*"))
        )
        [[number]] = self.site.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        )
        self.found["database"].append(number)

    def growth(self, name: str) -> float:
        """Return how much larger the last quarter is than the second one; the first one is for
        warming up."""
        found, quarter = self.found[name], max(len(self.found[name]) // 4, 1)
        return median(found[-quarter:]) / max(median(found[quarter : 2 * quarter]), 1)

    def report(self) -> None:
        print(f"{'':9} {'first':>12} {'middle':>12} {'last':>12} {'growth':>8}")
        for name, found in self.found.items():
            print(
                f"{name:9} {found[0]:12.0f} {median(found):12.0f} {found[-1]:12.0f} {self.growth(name):8.2f}"
            )


class Site:
    """Both machines with their workers, and what is counted of them."""

    def __init__(self, folder: Path, server: postgres.Server, sipgate: Rotator) -> None:
        self.server, self.sipgate, self.record = server, sipgate, Record()
        self.machines = [
            Machine(name, folder, server, sipgate, self.record) for name in ("one", "two")
        ]
        self.kills = self.restarts = 0
        self.rows: list[tuple[Any, ...]] = []
        sipgate.reset()
        sipgate.set(lifetime=LIFETIME)
        self.machines[0].run("prepare", answers=sipgate.issue(CONNECTIONS))
        for machine in self.machines:
            for _ in range(WORKERS):
                machine.start(THREADS, PAUSE)
        for machine in self.machines:
            assert all(worker.is_ready.wait(60) for worker in machine.workers)

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.url, connect_timeout=5) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        machine = random.choice(self.machines)
        machine.workers.pop(random.randrange(len(machine.workers))).kill(now())
        machine.start(THREADS, PAUSE)
        self.kills += 1

    def restart(self, machine: Machine | None = None) -> None:
        """Restart the oldest worker of a machine, as a deployment does."""
        machine = machine or random.choice(self.machines)
        machine.workers.pop(0).stop()
        machine.start(THREADS, PAUSE)
        self.restarts += 1

    def phase(self, name: str, seconds: float, happens: Callable[[float], None]) -> None:
        before, kills, restarts = self.sipgate.counts(), self.kills, self.restarts
        errors, began = Counter(self.record.errors), now()
        happens(began + seconds)
        after = self.sipgate.counts()
        told = self.record.errors - errors
        self.rows.append(
            (
                name,
                round(now() - began),
                after["rotated"] - before["rotated"],
                after["api"] - before["api"],
                self.kills - kills,
                self.restarts - restarts,
                after["reuse"] - before["reuse"],
                ", ".join(f"{kind} {number}" for kind, number in told.most_common()) or "-",
            )
        )

    def end(self) -> list[dict[str, Any]]:
        """Stop the workers, let each machine recover what it has, then try every connection; return
        what is lost."""
        for machine in self.machines:
            while machine.workers:
                machine.workers.pop().stop()
        for machine in self.machines:
            [recovered] = machine.run("recover")
            assert recovered["waiting"] == 0
        rest(LEASE + 1)
        told = self.machines[0].run("verify")
        assert told.pop()["what"] == "verified"
        return told

    def report(self, lost: list[dict[str, Any]]) -> Counter[str]:
        why = Counter(self.record.why(one["connection"]) for one in lost)
        heads = (
            "phase",
            "s",
            "refreshes",
            "uses",
            "kills",
            "restarts",
            "reuse",
            "errors told to callers",
        )
        widths = [
            max(len(str(row[column])) for row in (heads, *self.rows))
            for column in range(len(heads))
        ]
        print()
        for row in (heads, *self.rows):
            print(
                "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
            )
        counts = self.sipgate.counts()
        print(
            f"{counts['rotated']} refreshes, {self.kills} kills, {self.restarts} restarts, {len(lost)} lost:"
        )
        for reason, number in why.most_common() or [("none", 0)]:
            print(f"  {number:4} {reason}")
        print(f"  reasons told: {dict(Counter(one['reason'] for one in lost))}")
        return why

    def close(self) -> None:
        for machine in self.machines:
            machine.to_database.heal()
            machine.to_sipgate.heal()
            machine.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with postgres.server() as server, Rotator.running() as sipgate:
        one = Site(tmp_path, server, sipgate)
        yield one
        one.close()


def rest(seconds: float) -> None:
    time.sleep(max(seconds, 0))


def now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)
