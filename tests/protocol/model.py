"""The protocol of the token keeper: one connection, its row, a strict server, workers on one or two machines.

A refresh token may be used once. Sending it is the irreversible act: the server spends it when the request arrives, and
whoever sends a spent token again kills the whole family. So a worker

1. *connects*: reads the row, opens its pair, opens a connection to the server. Slow, and binds nobody;
2. *claims*: takes the machine's lock (the kernel gives it back when its holder dies, and not before) and writes a lease
   into the row, if consent and generation are as seen and nobody else may be sending;
3. *looks* into its machine's journal: an entry of this consent and of this or a later generation proves it spent;
4. *checks the time* and *sends*, after a note beside the lock;
5. *journals* the new pair, then *stores* it in the row.

Every worker may be killed, or pause for any time, between two steps. ``Protocol`` switches parts of this off, to show
what each is for; ``Scenario`` says what may go wrong, and how often. All values are small tuples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

Value = TypeVar("Value")

IDLE, CONNECTED, CLAIMED, LOOKED, SENT, HOLDING, JOURNALED = (
    "idle",
    "connected",
    "claimed",
    "looked",
    "sent",
    "holding",
    "journaled",
)
"""What a worker does next: connect, claim, look, send, wait for the answer, journal the pair, store it."""
ACTIVE, REFUSED, FINAL = "active", "refused", "final"
UNDER_WAY, ANSWER_LOST = "under way", "answer lost"
RUNNING, OVER, GRACE_OVER = 0, 1, 2
"""A lease runs, is over, is over for so long that even another machine may take it."""
NOBODY = -1
"""The owner of a lease that was killed."""


class Protocol(NamedTuple):
    """The parts of the protocol. All of them are needed: ``test_protocol.py`` shows what fails without each."""

    kernel_lock: bool = True
    """One worker of a machine at a time is between claim and store. Off: leases alone."""
    look_after_claim: bool = True
    """The journal is looked into when nobody else can write an entry any more. Off: when connecting."""
    time_check: bool = True
    """Nothing is sent when the own lease is over."""
    mark_at_takeover: bool = True
    """Taking over a lease that was not returned leaves a mark in the row: its token may have been sent."""
    mark_survives_return: bool = True
    """A lease that is returned unsent leaves an earlier mark."""
    grace_for_mark: bool = True
    """Another machine's mark is respected for a while: its journal may hold the pair."""
    grace_for_lease: bool = True
    """Another machine's lease that is over is respected for a while longer."""
    consent_in_store: bool = True
    """A pair is stored on top of its own consent only."""
    reset_at_time_out: bool = True
    """Giving up (or dying) resets the connection, so that a request that has not arrived never does."""
    note_beside_lock: bool = True
    """The last send is noted in the lock file: it survives a database that goes back."""
    or_later_generation: bool = True
    """A journal entry of a later generation proves the row's token spent, too."""
    wait_for_key: bool = True
    """An entry that does not open proves the same; nothing is sent until its key is there."""
    refused_is_not_spent: bool = True
    """A refused pair is tried again later."""


class Scenario(NamedTuple):
    """Who takes part and what may happen, how often."""

    machines: tuple[int, ...] = (0, 0)
    """The machine of each worker."""
    keys: tuple[int, ...] = (0, 0)
    """The newest key that each worker has: it seals with that one and opens what that one or an earlier one sealed."""
    rotations: int = 2
    """The server refuses to go further; bounds the search."""
    kills: int = 0
    lost_answers: int = 0
    lost_requests: int = 0
    """Requests that do not arrive before the worker gives up."""
    consents: int = 0
    suspensions: int = 0
    failovers: int = 0
    """The database returns to what it was at some moment before."""
    long_pauses: bool = False
    """Window: a worker pauses between check and journal for longer than lease and grace."""
    cut_off: bool = False
    """Window: a machine with a pair in its journal cannot reach the database for longer than the grace."""


class Lease(NamedTuple):
    owner: int
    machine: int
    ran: int = RUNNING


class Mark(NamedTuple):
    """May have been sent: by which machine; its grace is over."""

    machine: int
    grace_over: bool = False


class Row(NamedTuple):
    consent: int = 0
    generation: int = 0
    key: int = 0
    status: str = ACTIVE
    lease: Lease | None = None
    mark: Mark | None = None


class Token(NamedTuple):
    """A refresh token: the pair of this generation has it."""

    consent: int
    generation: int


class Worker(NamedTuple):
    doing: str = IDLE
    token: Token | None = None
    suspect: bool = False
    """The token may have been sent before: a mark, or a note."""
    lease_over: bool = False
    request: str = ""


class Entry(NamedTuple):
    """A file in a journal: named by the token that was sent, holding the pair that came back."""

    token: Token
    key: int


class Family(NamedTuple):
    """What the server knows of one consent: the generation whose refresh token is good."""

    good: int
    alive: bool = True


class World(NamedTuple):
    row: Row
    workers: tuple[Worker, ...]
    families: tuple[Family, ...]
    journals: tuple[frozenset[Entry], ...]
    """Of each machine: the newest entry of a consent stays until the next one."""
    notes: tuple[Token | None, ...]
    left: Scenario
    """What may still happen."""
    suspended: bool = False
    replica: Row | None = None
    late: frozenset[Token] = frozenset()
    """Requests that were given up and may still arrive."""
    unanswered: frozenset[Token] = frozenset()
    """Tokens that were sent and whose answer reached nobody."""
    wrong: str = ""


def begin(scenario: Scenario) -> World:
    machines = max(scenario.machines) + 1
    return World(
        row=Row(),
        workers=tuple(Worker() for _ in scenario.machines),
        families=(Family(0),),
        journals=(frozenset(),) * machines,
        notes=(None,) * machines,
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
            CONNECTED: self._claim,
            CLAIMED: self._look,
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
        yield from self._server_and_person(world)
        yield from self._failover(world)

    # --- what a worker does -------------------------------------------------------------------------------------------

    def _worker_steps(
        self, world: World, number: int, worker: Worker
    ) -> Iterator[tuple[str, World]]:
        yield from self._does[worker.doing](world, number, worker)
        if worker.doing in {CLAIMED, LOOKED}:
            yield "gives the lease back, nothing sent", self._give_back(world, number)
        if worker.doing != IDLE and world.left.kills:
            yield f"is killed ({worker.doing})", self._kill(world, number)

    def _connect(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        row = world.row
        if row.status == FINAL or row.key > self.keys[number]:
            return
        if (
            not self.protocol.look_after_claim
            and self._proof(world, number, Token(row.consent, row.generation)) is not None
        ):
            return
        yield (
            "connects",
            _worker(
                world, number, Worker(doing=CONNECTED, token=Token(row.consent, row.generation))
            ),
        )

    def _claim(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        row, machine = world.row, self.machines[number]
        if self.protocol.kernel_lock and self._is_locked(world, machine):
            return
        as_seen = Token(row.consent, row.generation) == worker.token and row.status != FINAL
        if not as_seen or not self._may_claim(row, machine):
            yield "does not get the lease", _worker(world, number, Worker())
            return
        mark = row.mark
        if row.lease is not None and self.protocol.mark_at_takeover:
            mark = Mark(row.lease.machine)
        after = world._replace(row=row._replace(lease=Lease(number, machine), mark=mark))
        following = CLAIMED if self.protocol.look_after_claim else LOOKED
        yield (
            "claims",
            _worker(after, number, Worker(following, worker.token, suspect=mark is not None)),
        )

    def _is_locked(self, world: World, machine: int) -> bool:
        within = {CLAIMED, LOOKED, SENT, HOLDING, JOURNALED}
        pairs = zip(world.workers, self.machines, strict=True)
        return any(worker.doing in within and place == machine for worker, place in pairs)

    def _may_claim(self, row: Row, machine: int) -> bool:
        lease, mark = row.lease, row.mark
        if (
            self.protocol.grace_for_mark
            and mark
            and mark.machine != machine
            and not mark.grace_over
        ):
            return False
        if lease is None:
            return True
        if lease.machine == machine:
            return (
                self.protocol.kernel_lock or lease.ran >= OVER
            )  # whoever holds the lock knows that it died
        return lease.ran >= (GRACE_OVER if self.protocol.grace_for_lease else OVER)

    def _look(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        assert worker.token is not None
        entry = self._proof(world, number, worker.token)
        if entry is None:
            yield (
                "finds nothing in the journal",
                _worker(world, number, worker._replace(doing=LOOKED)),
            )
        elif entry.key <= self.keys[number]:
            recovered = self._stored(world, entry.token, entry.key)
            yield "recovers a pair from the journal", self._give_back(recovered, number)
        # else: its key is missing; the lease is given back, which is a step of its own.

    def _proof(self, world: World, number: int, token: Token) -> Entry | None:
        """The entry that proves a token spent. Compared with the claim's, since the row may have been recovered."""
        for entry in world.journals[self.machines[number]]:
            later = self.protocol.or_later_generation and entry.token.generation > token.generation
            opens = entry.key <= self.keys[number] or self.protocol.wait_for_key
            if entry.token.consent == token.consent and opens and (later or entry.token == token):
                return entry
        return None

    def _send(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        assert worker.token is not None
        if worker.lease_over and self.protocol.time_check:
            return  # given back, which is a step of its own
        machine = self.machines[number]
        suspect = worker.suspect or _says_sent(world.notes[machine], worker.token)
        after = _worker(
            world, number, worker._replace(doing=SENT, request=UNDER_WAY, suspect=suspect)
        )
        yield "sends", self._noted(after, machine, worker.token)

    def _noted(self, world: World, machine: int, note: Token | None) -> World:
        if not self.protocol.note_beside_lock:
            return world
        return world._replace(notes=_put(world.notes, machine, note))

    def _hear(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        token = worker.token
        assert token is not None
        if worker.request == UNDER_WAY:
            if world.left.lost_requests:
                left = world.left._replace(lost_requests=world.left.lost_requests - 1)
                yield (
                    "gives up; the request is still under way",
                    self._unanswered(world._replace(left=left), number),
                )
            if token.generation >= world.left.rotations:
                return
            after, rotated = self._received(world, token)
            if rotated:
                yield (
                    "hears a new pair",
                    _worker(after, number, worker._replace(doing=HOLDING, request="")),
                )
            else:
                yield "is refused", self._refused(after, number, worker)
            if world.left.lost_answers:
                after = after._replace(
                    left=after.left._replace(lost_answers=after.left.lost_answers - 1)
                )
                yield (
                    "is not heard: the answer is lost",
                    _worker(after, number, worker._replace(request=ANSWER_LOST)),
                )
        else:
            yield "gives up; the answer was lost", self._unanswered(world, number)

    def _received(self, world: World, token: Token) -> tuple[World, bool]:
        """The server gets a token: it rotates a good one, and kills the family of a spent one."""
        family = world.families[token.consent]
        if world.suspended or not family.alive:
            return world, False
        if token.generation == family.good:
            families = _put(world.families, token.consent, family._replace(good=family.good + 1))
            return world._replace(families=families), True
        killed = world._replace(
            families=_put(world.families, token.consent, family._replace(alive=False))
        )
        if token not in world.unanswered:
            killed = killed._replace(wrong="a spent token was sent although nothing was unanswered")
        return killed, False

    def _unanswered(self, world: World, number: int) -> World:
        """No answer: the row is marked, the lease returned, the connection reset. The next one asks a second time."""
        worker, row = world.workers[number], world.row
        assert worker.token is not None
        if worker.request == UNDER_WAY and not self.protocol.reset_at_time_out:
            world = world._replace(late=world.late | {worker.token})
        if row.lease is not None and row.lease.owner == number:
            world = world._replace(row=row._replace(lease=None, mark=Mark(self.machines[number])))
        return _worker(
            world._replace(unanswered=world.unanswered | {worker.token}), number, Worker()
        )

    def _refused(self, world: World, number: int, worker: Worker) -> World:
        status = REFUSED if self.protocol.refused_is_not_spent else FINAL
        row = world.row
        if row.lease is not None and row.lease.owner == number:
            world = world._replace(row=row._replace(lease=None, status=status))
        if not worker.suspect:
            world = self._noted(world, self.machines[number], None)
        return _worker(world, number, Worker())

    def _journal(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        assert worker.token is not None
        machine, token = self.machines[number], worker.token
        others = {
            entry for entry in world.journals[machine] if entry.token.consent != token.consent
        }
        entries = frozenset({Entry(token, self.keys[number]), *others})
        after = world._replace(journals=_put(world.journals, machine, entries))
        yield (
            "writes the pair into the journal",
            _worker(after, number, worker._replace(doing=JOURNALED)),
        )

    def _store(self, world: World, number: int, worker: Worker) -> Iterator[tuple[str, World]]:
        assert worker.token is not None
        yield (
            "stores the pair",
            _worker(self._stored(world, worker.token, self.keys[number]), number, Worker()),
        )

    def _stored(self, world: World, sent: Token, key: int) -> World:
        """Store the pair that a token was exchanged for, unless the row is newer; whoever has the lease now."""
        row = world.row
        if row.generation > sent.generation or (
            self.protocol.consent_in_store and row.consent != sent.consent
        ):
            return world
        if row.consent != sent.consent:
            world = world._replace(
                wrong="the pair of one consent was stored on top of another consent"
            )
        return world._replace(row=Row(sent.consent, sent.generation + 1, key))

    def _give_back(self, world: World, number: int) -> World:
        row = world.row
        if row.lease is not None and row.lease.owner == number:
            mark = row.mark if self.protocol.mark_survives_return else None
            world = world._replace(row=row._replace(lease=None, mark=mark))
        return _worker(world, number, Worker())

    def _kill(self, world: World, number: int) -> World:
        """The kernel gives the lock back; the lease stays; what was in hand is gone. A new process takes the place."""
        worker = world.workers[number]
        assert worker.token is not None
        if worker.doing in {SENT, HOLDING}:
            world = world._replace(unanswered=world.unanswered | {worker.token})
        if worker.request == UNDER_WAY and not self.protocol.reset_at_time_out:
            world = world._replace(late=world.late | {worker.token})
        world = world._replace(
            row=_without_owner(world.row, number),
            replica=None if world.replica is None else _without_owner(world.replica, number),
            left=world.left._replace(kills=world.left.kills - 1),
        )
        return _worker(world, number, Worker())

    # --- what happens around them -------------------------------------------------------------------------------------

    def _time(self, world: World) -> Iterator[tuple[str, World]]:
        """Leases and graces end at any time, unless a worker that lives and is not paused for long forbids it."""
        row = world.row
        if row.lease is not None and row.lease.ran == RUNNING:
            after = world._replace(row=row._replace(lease=row.lease._replace(ran=OVER)))
            if row.lease.owner != NOBODY:
                holder = world.workers[row.lease.owner]
                after = _worker(after, row.lease.owner, holder._replace(lease_over=True))
            yield "the lease runs out", after
        if (
            row.lease is not None
            and row.lease.ran == OVER
            and self._grace_may_end(world, row.lease)
        ):
            over = row.lease._replace(ran=GRACE_OVER)
            yield "the lease's grace is over", world._replace(row=row._replace(lease=over))
        if (
            row.mark is not None
            and not row.mark.grace_over
            and self._may_outlast(world, row.mark.machine)
        ):
            yield (
                "the mark's grace is over",
                world._replace(row=row._replace(mark=row.mark._replace(grace_over=True))),
            )

    def _may_outlast(self, world: World, machine: int) -> bool:
        """A machine that reaches the database has recovered its journal long before the grace is over."""
        row, tokens = world.row, [entry.token for entry in world.journals[machine]]
        waits = any(
            token.consent == row.consent and token.generation >= row.generation for token in tokens
        )
        return world.left.cut_off or not waits

    def _grace_may_end(self, world: World, lease: Lease) -> bool:
        busy = lease.owner != NOBODY and world.workers[lease.owner].doing in {SENT, HOLDING}
        return self._may_outlast(world, lease.machine) and (world.left.long_pauses or not busy)

    def _recoveries(self, world: World) -> Iterator[tuple[str, World]]:
        """Workers that start, and keepalive, recover what waits in their machine's journal, at any time."""
        for machine, entries in enumerate(world.journals):
            keys = [
                key for key, place in zip(self.keys, self.machines, strict=True) if place == machine
            ]
            for entry in entries:
                after = self._stored(world, entry.token, entry.key)
                if entry.key <= max(keys) and after is not world:
                    yield f"machine {machine} recovers its journal", after

    def _server_and_person(self, world: World) -> Iterator[tuple[str, World]]:
        for token in world.late:
            after, _rotated = self._received(world._replace(late=world.late - {token}), token)
            yield "a request that was given up arrives", after
        if world.left.consents:
            consent, row = len(world.families), world.row
            yield (
                "the person signs in again",
                world._replace(
                    row=Row(consent, row.generation + 1),
                    families=(*world.families, Family(row.generation + 1)),
                    left=world.left._replace(consents=world.left.consents - 1),
                ),
            )
        if world.suspended:
            yield "the person is let in again", world._replace(suspended=False)
        elif world.left.suspensions:
            left = world.left._replace(suspensions=world.left.suspensions - 1)
            yield "the person is suspended", world._replace(suspended=True, left=left)

    def _failover(self, world: World) -> Iterator[tuple[str, World]]:
        if world.left.failovers and world.replica is None:
            left = world.left._replace(failovers=world.left.failovers - 1)
            yield "the replica stops following", world._replace(replica=world.row, left=left)
        elif world.replica is not None and world.replica != world.row:
            yield "the database goes back", world._replace(row=world.replica, replica=None)


def violation(world: World) -> str:
    """Say what must never be and is; empty if all is well."""
    if world.wrong:
        return world.wrong
    for consent, family in enumerate(world.families):
        if not family.alive and Token(consent, family.good) in _held(world):
            return "a pair that reached us is dead at the server"
    row = world.row
    family = world.families[row.consent]
    if family.good > row.generation and not _is_suspected(world):
        return "a token is spent and nothing says that it may be"
    if (
        row.status == FINAL
        and family.alive
        and not world.suspended
        and family.good == row.generation
    ):
        return "a good pair was given up"
    return ""


def _held(world: World) -> set[Token]:
    """The pairs that are with us: in the row, in a journal, in the hands of a worker that lives."""
    held = {Token(world.row.consent, world.row.generation)}
    held |= {_next(entry.token) for entries in world.journals for entry in entries}
    held |= {
        _next(worker.token)
        for worker in world.workers
        if worker.token and worker.doing in {HOLDING, JOURNALED}
    }
    return held


def _is_suspected(world: World) -> bool:
    row = world.row
    said = row.lease is not None or row.mark is not None
    evidence = (*world.notes, *(entry.token for entries in world.journals for entry in entries))
    return said or any(_says_sent(token, Token(row.consent, row.generation)) for token in evidence)


def _says_sent(noted: Token | None, token: Token) -> bool:
    """A note of this token, or of any later generation: generations only grow, unless the database went back."""
    return noted is not None and (noted == token or noted.generation > token.generation)


def _next(token: Token) -> Token:
    return Token(token.consent, token.generation + 1)


def _without_owner(row: Row, number: int) -> Row:
    if row.lease is None or row.lease.owner != number:
        return row
    return row._replace(lease=row.lease._replace(owner=NOBODY))


def _worker(world: World, number: int, worker: Worker) -> World:
    return world._replace(workers=_put(world.workers, number, worker))


def _put(values: tuple[Value, ...], place: int, value: Value) -> tuple[Value, ...]:
    return (*values[:place], value, *values[place + 1 :])
