"""The protocol of a refresh: one connection, its row, a rotating server, workers on one or two
machines.

A refresh token may be used once. Sending it is the act that cannot be undone: the server spends it
when the request arrives, and whoever sends a spent token again kills the whole family. So a worker

1. *connects*: reads the row, opens its tokens, opens a connection to the server. Slow, and binds
   nobody;
2. takes the *lease*: the lock of its machine (which only excludes: it ends with its holder, and
   frees no lease), then the lease in the row, if version and *unanswered* are as it read them and
   no other lease runs. The same UPDATE sets *unanswered*;
3. *looks* into its machine's journal: an entry of this consent with a later number proves the token
   spent;
4. *checks the time* and *sends*;
5. *journals* the new tokens, then *stores* them in the row.

Every worker may be killed, or pause for any time, between two steps. ``Protocol`` switches parts of
this off, to show what each is for; ``Scenario`` says what may go wrong, and how often. All values
are small tuples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

Value = TypeVar("Value")

IDLE, CONNECTED, LEASED, LOOKED, SENT, HOLDING, JOURNALED = (
    "idle",
    "connected",
    "leased",
    "looked",
    "sent",
    "holding",
    "journaled",
)
"""What a worker does next: connect, take the lease, look, send, wait for the answer, journal,
store."""
ACTIVE, REJECTED, FINAL = "active", "rejected", "final"
UNDER_WAY, ANSWER_LOST = "under way", "answer lost"
NOBODY = -1
"""The holder of a lease that was killed."""


class Protocol(NamedTuple):
    """The parts of the protocol. All of them are needed: ``test_protocol.py`` shows what fails
    without each."""

    lock: bool = True
    """One worker of a machine at a time is between lease and store. Off: leases alone."""
    look_after_lease: bool = True
    """The journal is looked into when nobody else can write an entry any more. Off: when
    connecting."""
    time_check: bool = True
    """Nothing is sent when the own lease is over."""
    unanswered_with_lease: bool = True
    """*Unanswered* is set together with the lease. Off: when an answer fails to come."""
    unanswered_put_back: bool = True
    """If nothing was sent, *unanswered* is put back to what it was. Off: it is cleared."""
    consent_in_store: bool = True
    """Tokens are stored on top of their own consent only."""
    reset_at_time_out: bool = True
    """Giving up (or dying) resets the connection, so that a request that has not arrived never
    does."""
    or_later_number: bool = True
    """A journal entry of any later number proves the row's token spent. Off: of the next one
    only."""
    wait_for_key: bool = True
    """An entry that does not open proves the same; nothing is sent until its key is there."""
    rejected_is_not_spent: bool = True
    """Rejected tokens are tried again later."""


class Scenario(NamedTuple):
    """Who takes part and what may happen, how often."""

    machines: tuple[int, ...] = (0, 0)
    """The machine of each worker."""
    keys: tuple[int, ...] = (0, 0)
    """The newest key that each worker has: it seals with that one and opens what that one or an
    earlier one sealed."""
    rotations: int = 2
    """The server goes no further; bounds the search."""
    kills: int = 0
    lost_answers: int = 0
    lost_requests: int = 0
    """Requests that do not arrive before the worker gives up."""
    consents: int = 0
    suspensions: int = 0
    failovers: int = 0
    """The database returns to what it was at some moment before."""
    long_pauses: bool = False
    """Window between machines: a worker pauses between check and store for longer than the
    lease."""
    cut_off: bool = False
    """Window between machines: one with tokens in its journal does not reach the database for
    longer than the lease."""


class Lease(NamedTuple):
    holder: int
    is_over: bool = False


class Row(NamedTuple):
    consent: int = 0
    number: int = 0
    key: int = 0
    status: str = ACTIVE
    lease: Lease | None = None
    unanswered: bool = False


class Version(NamedTuple):
    """Names tokens: these of a consent, which have the refresh token that is sent next."""

    consent: int
    number: int


class Worker(NamedTuple):
    doing: str = IDLE
    version: Version | None = None
    before: bool = False
    """*Unanswered* as it was when the lease was taken."""
    lease_over: bool = False
    request: str = ""


class Entry(NamedTuple):
    """A file in a journal, named by the version of the tokens it holds. Earlier ones of its consent
    are spent."""

    version: Version
    key: int


class Family(NamedTuple):
    """What the server knows of one consent: the number whose refresh token is good."""

    good: int
    alive: bool = True


class World(NamedTuple):
    row: Row
    workers: tuple[Worker, ...]
    families: tuple[Family, ...]
    journals: tuple[frozenset[Entry], ...]
    """Of each machine: the newest entry of a consent stays until the next one."""
    left: Scenario
    """What may still happen."""
    suspended: bool = False
    replica: Row | None = None
    went_back: bool = False
    """The database has lost commits; *unanswered* may be among them."""
    late: frozenset[Version] = frozenset()
    """Requests that were given up and may still arrive."""
    unheard: frozenset[Version] = frozenset()
    """What was sent, and whose answer reached nobody: the truth, which no worker sees."""
    wrong: str = ""


def begin(scenario: Scenario) -> World:
    return World(
        row=Row(),
        workers=tuple(Worker() for _ in scenario.machines),
        families=(Family(0),),
        journals=(frozenset(),) * (max(scenario.machines) + 1),
        left=scenario,
    )


class Model:
    """All steps that a world can take, under a protocol."""

    def __init__(self, protocol: Protocol, scenario: Scenario) -> None:
        self.protocol = protocol
        self.machines = scenario.machines
        self.keys = scenario.keys
        self._does = {
            IDLE: self._connect,
            CONNECTED: self._take,
            LEASED: self._look,
            LOOKED: self._send,
            SENT: self._hear,
            HOLDING: self._journal,
            JOURNALED: self._store,
        }

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        for number, worker in enumerate(world.workers):
            for label, after in self._worker_steps(world, number, worker):
                yield f"worker {number} {label}", after
        yield from self._time(world)
        yield from self._recoveries(world)
        yield from self._server_and_user(world)
        yield from self._failover(world)

    # --- what a worker does -----------------------------------------------------------------------

    def _worker_steps(
        self, world: World, number: int, worker: Worker
    ) -> Iterator[tuple[str, World]]:
        yield from self._does[worker.doing](world, number, worker)
        if worker.doing in {LEASED, LOOKED}:
            yield "gives the lease back, nothing sent", self._give_back(world, number)
        if worker.doing != IDLE and world.left.kills:
            yield f"is killed ({worker.doing})", self._kill(world, number)

    def _connect(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        row = world.row
        if row.status == FINAL or row.key > self.keys[number]:
            return
        version = Version(row.consent, row.number)
        if not self.protocol.look_after_lease and self._newer(world, number, version) is not None:
            return
        yield "connects", _worker(world, number, Worker(doing=CONNECTED, version=version))

    def _take(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        row = world.row
        if self.protocol.lock and self._is_locked(world, self.machines[number]):
            return
        is_as_read = Version(row.consent, row.number) == worker.version and row.status != FINAL
        is_free = row.lease is None or row.lease.is_over
        if not (is_as_read and is_free):
            yield "does not get the lease", _worker(world, number, Worker())
            return
        unanswered = row.unanswered or self.protocol.unanswered_with_lease
        after = world._replace(row=row._replace(lease=Lease(number), unanswered=unanswered))
        following = LEASED if self.protocol.look_after_lease else LOOKED
        yield (
            "takes the lease",
            _worker(after, number, Worker(following, worker.version, before=row.unanswered)),
        )

    def _is_locked(self, world: World, machine: int) -> bool:
        within = {LEASED, LOOKED, SENT, HOLDING, JOURNALED}
        pairs = zip(world.workers, self.machines, strict=True)
        return any(worker.doing in within and place == machine for worker, place in pairs)

    def _look(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        assert worker.version is not None
        entry = self._newer(world, number, worker.version)
        if entry is None:
            yield (
                "finds nothing in the journal",
                _worker(world, number, worker._replace(doing=LOOKED)),
            )
        elif entry.key <= self.keys[number]:
            recovered = self._stored(world, entry.version, entry.key)
            yield "recovers tokens from the journal", self._give_back(recovered, number)
        # else: its key is missing; the lease is given back, which is a step of its own.

    def _newer(self, world: World, number: int, version: Version) -> Entry | None:
        """The entry that proves a token spent. Compared with the version that was read when
        connecting."""
        for entry in world.journals[self.machines[number]]:
            later = entry.version.number - version.number
            proves = later > 0 if self.protocol.or_later_number else later == 1
            opens = entry.key <= self.keys[number] or self.protocol.wait_for_key
            if entry.version.consent == version.consent and opens and proves:
                return entry
        return None

    def _send(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        if worker.lease_over and self.protocol.time_check:
            return  # given back, which is a step of its own
        yield "sends", _worker(world, number, worker._replace(doing=SENT, request=UNDER_WAY))

    def _hear(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        version = worker.version
        assert version is not None
        if worker.request == ANSWER_LOST:
            yield "gives up; the answer was lost", self._no_answer(world, number)
            return
        if world.left.lost_requests:
            left = world.left._replace(lost_requests=world.left.lost_requests - 1)
            after = self._no_answer(world._replace(left=left), number)
            yield "gives up; the request is still under way", after
        if version.number >= world.left.rotations:
            return
        after, is_rotated = self._received(world, version)
        if is_rotated:
            holding = worker._replace(doing=HOLDING, request="")
            yield "hears new tokens", _worker(after, number, holding)
        else:
            yield "is rejected", self._rejected(after, number)
        if world.left.lost_answers:
            left = after.left._replace(lost_answers=after.left.lost_answers - 1)
            lost = worker._replace(request=ANSWER_LOST)
            after = _worker(after._replace(left=left), number, lost)
            yield "is not heard: the answer is lost", after

    def _received(self, world: World, version: Version) -> tuple[World, bool]:
        """The server gets a token: it rotates a good one, and kills the family of a spent one."""
        family = world.families[version.consent]
        if world.suspended or not family.alive:
            return world, False
        if version.number == family.good:
            families = _put(world.families, version.consent, family._replace(good=family.good + 1))
            return world._replace(families=families), True
        killed = world._replace(
            families=_put(world.families, version.consent, family._replace(alive=False))
        )
        if version not in world.unheard:
            killed = killed._replace(wrong="a spent token was sent although nothing was unanswered")
        return killed, False

    def _no_answer(self, world: World, number: int) -> World:
        """*Unanswered* stays, the lease is given back, the connection reset. The next one asks a
        second time."""
        worker, row = world.workers[number], world.row
        assert worker.version is not None
        if worker.request == UNDER_WAY and not self.protocol.reset_at_time_out:
            world = world._replace(late=world.late | {worker.version})
        if row.lease is not None and row.lease.holder == number:
            world = world._replace(row=row._replace(lease=None, unanswered=True))
        return _worker(world._replace(unheard=world.unheard | {worker.version}), number, Worker())

    def _rejected(self, world: World, number: int) -> World:
        """An answer, so that *unanswered* is what it was before."""
        worker, row = world.workers[number], world.row
        status = REJECTED if self.protocol.rejected_is_not_spent else FINAL
        if row.lease is not None and row.lease.holder == number:
            world = world._replace(
                row=row._replace(lease=None, status=status, unanswered=worker.before)
            )
        return _worker(world, number, Worker())

    def _journal(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        assert worker.version is not None
        machine, new = self.machines[number], _next(worker.version)
        others = {
            entry for entry in world.journals[machine] if entry.version.consent != new.consent
        }
        entries = frozenset({Entry(new, self.keys[number]), *others})
        after = world._replace(journals=_put(world.journals, machine, entries))
        yield (
            "writes the tokens into the journal",
            _worker(after, number, worker._replace(doing=JOURNALED)),
        )

    def _store(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        assert worker.version is not None
        stored = self._stored(world, _next(worker.version), self.keys[number])
        yield "stores the tokens", _worker(stored, number, Worker())

    def _stored(self, world: World, new: Version, key: int) -> World:
        """Store tokens unless the row is as new or of another consent, whoever has the lease by
        now."""
        row = world.row
        is_foreign = row.consent != new.consent
        if row.number >= new.number or (self.protocol.consent_in_store and is_foreign):
            return world
        if is_foreign:
            world = world._replace(
                wrong="the tokens of one consent were stored on top of another consent"
            )
        return world._replace(row=Row(new.consent, new.number, key))

    def _give_back(self, world: World, number: int) -> World:
        row, worker = world.row, world.workers[number]
        if row.lease is not None and row.lease.holder == number:
            unanswered = worker.before and self.protocol.unanswered_put_back
            world = world._replace(row=row._replace(lease=None, unanswered=unanswered))
        return _worker(world, number, Worker())

    def _kill(self, world: World, number: int) -> World:
        """The kernel frees the lock; the lease stays; what was in hand is gone. A new process takes
        the place."""
        worker = world.workers[number]
        assert worker.version is not None
        if worker.doing in {SENT, HOLDING}:
            world = world._replace(unheard=world.unheard | {worker.version})
        if worker.request == UNDER_WAY and not self.protocol.reset_at_time_out:
            world = world._replace(late=world.late | {worker.version})
        world = world._replace(
            row=_without_holder(world.row, number),
            replica=None if world.replica is None else _without_holder(world.replica, number),
            left=world.left._replace(kills=world.left.kills - 1),
        )
        return _worker(world, number, Worker())

    # --- what happens around them -----------------------------------------------------------------

    def _time(self, world: World) -> Iterator[tuple[str, World]]:
        """A lease ends at any time, on one machine; between two, not while its holder is under way
        or its tokens wait."""
        lease = world.row.lease
        if lease is None or lease.is_over or not self._may_end(world, lease):
            return
        after = world._replace(row=world.row._replace(lease=lease._replace(is_over=True)))
        if lease.holder != NOBODY:
            holder = world.workers[lease.holder]
            after = _worker(after, lease.holder, holder._replace(lease_over=True))
        yield "the lease ends", after

    def _may_end(self, world: World, lease: Lease) -> bool:
        if len({*self.machines}) == 1:
            return True
        under_way = lease.holder != NOBODY and world.workers[lease.holder].doing in {
            SENT,
            HOLDING,
            JOURNALED,
        }
        waits = any(
            entry.version.consent == world.row.consent and entry.version.number > world.row.number
            for entries in world.journals
            for entry in entries
        )
        return (world.left.long_pauses or not under_way) and (world.left.cut_off or not waits)

    def _recoveries(self, world: World) -> Iterator[tuple[str, World]]:
        """Workers that start, and keepalive, recover what waits in their machine's journal, at any
        time."""
        for machine, entries in enumerate(world.journals):
            keys = [
                key for key, place in zip(self.keys, self.machines, strict=True) if place == machine
            ]
            for entry in entries:
                after = self._stored(world, entry.version, entry.key)
                if entry.key <= max(keys) and after is not world:
                    yield f"machine {machine} recovers its journal", after

    def _server_and_user(self, world: World) -> Iterator[tuple[str, World]]:
        for version in world.late:
            after, _rotated = self._received(world._replace(late=world.late - {version}), version)
            yield "a request that was given up arrives", after
        if world.left.consents:
            consent, row = len(world.families), world.row
            yield (
                "the user signs in again",
                world._replace(
                    row=Row(consent, row.number + 1),
                    families=(*world.families, Family(row.number + 1)),
                    left=world.left._replace(consents=world.left.consents - 1),
                ),
            )
        if world.suspended:
            yield "the user is let in again", world._replace(suspended=False)
        elif world.left.suspensions:
            left = world.left._replace(suspensions=world.left.suspensions - 1)
            yield "the user is suspended", world._replace(suspended=True, left=left)

    def _failover(self, world: World) -> Iterator[tuple[str, World]]:
        if world.left.failovers and world.replica is None:
            left = world.left._replace(failovers=world.left.failovers - 1)
            yield "the replica stops following", world._replace(replica=world.row, left=left)
        elif world.replica is not None and world.replica != world.row:
            back = world._replace(row=world.replica, replica=None, went_back=True)
            yield "the database goes back", back


def violation(world: World) -> str:
    """Say what must never be and is; empty if all is well."""
    if world.wrong:
        return world.wrong
    for consent, family in enumerate(world.families):
        if not family.alive and Version(consent, family.good) in _held(world):
            return "tokens that reached us are dead at the server"
    row = world.row
    family = world.families[row.consent]
    # After a database has lost commits, what it knew of unanswered tokens may be among them.
    if family.good > row.number and not world.went_back and not _is_told(world):
        return "a token is spent and nothing says that it may be"
    is_good = family.alive and not world.suspended and family.good == row.number
    if row.status == FINAL and is_good:
        return "good tokens were given up"
    return ""


def _held(world: World) -> set[Version]:
    """The tokens that are with us: in the row, in a journal, in the hands of a worker that
    lives."""
    held = {Version(world.row.consent, world.row.number)}
    held |= {entry.version for entries in world.journals for entry in entries}
    held |= {
        _next(worker.version)
        for worker in world.workers
        if worker.version and worker.doing in {HOLDING, JOURNALED}
    }
    return held


def _is_told(world: World) -> bool:
    """Something says that the row's token may be spent."""
    row = world.row
    entries = (entry.version for entries in world.journals for entry in entries)
    is_in_journal = any(
        version.consent == row.consent and version.number > row.number for version in entries
    )
    return row.unanswered or is_in_journal


def _next(version: Version) -> Version:
    return Version(version.consent, version.number + 1)


def _without_holder(row: Row, number: int) -> Row:
    if row.lease is None or row.lease.holder != number:
        return row
    return row._replace(lease=row.lease._replace(holder=NOBODY))


def _worker(world: World, number: int, worker: Worker) -> World:
    return world._replace(workers=_put(world.workers, number, worker))


def _put(values: tuple[Value, ...], place: int, value: Value) -> tuple[Value, ...]:
    return (*values[:place], value, *values[place + 1 :])
