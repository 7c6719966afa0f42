"""A random walk over hosts, lanes, limits and workspaces, with a plain model beside it that says who may run.

Every step is a function of a transaction, so that it can be played through a store or straight on a connection.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import pytest

from overnight.domain.placement import ANYWHERE, at_host, at_root, beneath, need_of, satisfied
from overnight.domain.queue_limits import QueueLimits
from overnight.domain.run import Run
from overnight.domain.session import Session
from overnight.domain.spec import GitWorkspace
from overnight.domain.states import FINAL, HELD, Input, State, accepts
from overnight.domain.worker import Worker
from overnight.ids import HostId, new_host_id, new_worker_id
from overnight.ports.unit_of_work import Transaction
from overnight.testing.conformance.stage import Stage

ROOT: Final = "/srv"
LIMITS: Final = QueueLimits(backends={"other": 2}, labels={("team", "a"): 2, ("team", "b"): 1})
MOVES: Final = (
    Input.PAUSE, Input.RESUME, Input.TURN_SETTLED, Input.WAIT, Input.CONTINUE, Input.HAND_BACK, Input.COMPLETE,
    Input.FAIL, Input.CANCEL, Input.TREE_GONE, Input.BLOCK, Input.PARK, Input.DECIDE,
)  # fmt: skip
NAMES: Final = ("a", "a/x", "a/y", "b", "")
STEPS: Final = 90


@dataclass(frozen=True, slots=True)
class Where:
    """Where a run works, in words that only the model uses: a realm and a path in it."""

    realm: str
    path: str
    shared: bool

    def meets(self, other: Where) -> bool:
        """Whether the two may not work at the same time."""
        if self.realm != other.realm or (self.shared and other.shared):
            return False
        return beneath(self.path, other.path) or beneath(other.path, self.path)


@dataclass(slots=True)
class QueueWalk:
    """One walk. `begin` first, then as many steps as wanted, then `finish`."""

    stage: Stage
    chance: random.Random
    workers: list[Worker] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    pks: list[int] = field(default_factory=list)
    wheres: dict[int, Where] = field(default_factory=dict)
    hosts: tuple[HostId, HostId] = field(default_factory=lambda: (new_host_id(1), new_host_id(2)))

    def begin(self, tx: Transaction) -> None:
        """Workers on two hosts that share a directory, and two sessions."""
        one, two = self.hosts
        root = (at_root(ROOT),)
        for host, labels, places in ((one, {}, root), (one, {"gpu": "x"}, ()), (two, {"zone": "eu"}, root)):
            now = self.stage.clock.wall_ms()
            worker = Worker(
                pk=0, id=new_worker_id(now), host_id=host, host_name="h", pid=1, version="1", slots=8,
                backends=("echo", "other"), labels=labels, places=places, started_at=now, seen_at=now,
            )  # fmt: skip
            self.workers.append(tx.workers.add(worker))
        self.sessions = [self.stage.add_session(tx) for _ in range(2)]

    def step(self, tx: Transaction) -> None:
        """Add, move, lose, let time pass or claim; then look at what is held."""
        match self.chance.randrange(8):
            case 0 | 1 | 2:
                self.add(tx)
            case 3 | 4:
                self.move(tx)
            case 5:
                self.lose(tx)
            case 6:
                self.stage.clock.jump_wall(self.chance.randrange(300))
            case _:
                self.claim(tx, self.chance.choice(self.workers), self.chance.randrange(1, 5))
        self.check(tx)

    def add(self, tx: Transaction) -> None:
        """A run somewhere, for somebody, sometimes for later."""
        shared, name = self.chance.random() < 0.3, self.chance.choice(NAMES)
        host = self.chance.choice(self.hosts)
        place = self.chance.choice([ANYWHERE, at_host(host), at_host(host), at_root(ROOT)])
        path = f"{ROOT}/{name}".rstrip("/")
        later = self.stage.clock.wall_ms() + self.chance.randrange(500)
        run = self.stage.add_run(
            tx,
            session=self.chance.choice([*self.sessions, None, None]),
            host_id=host,
            place=place,
            spec={
                "priority": self.chance.randrange(3),
                "workspace": GitWorkspace(git="u") if place == ANYWHERE else path,
                "workspace_lock": "shared" if shared else "exclusive",
                "backend": self.chance.choice(["echo", "echo", "other", "unheard"]),
                "labels": self.chance.choice(
                    [{}, {}, {"team": "a"}, {"team": "b"}, {"worker/gpu": "x"}, {"worker/zone": "us"}]
                ),
            },
            not_before=self.chance.choice([None, None, None, later]),
        )
        self.pks.append(run.pk)
        if place != ANYWHERE:
            realm = place if place == at_root(ROOT) else at_host(host)
            self.wheres[run.pk] = Where(realm, path, shared)
            assert tx.runs.set_workspace(run.pk, path, tuple(f"{host}:{one}" for one in _around(path)))

    def move(self, tx: Transaction) -> None:
        """Something happens to a run to which it can happen."""
        runs = self.runs(tx).values()
        moves = [(run, input) for run in runs for input in MOVES if accepts(run.state, input)]
        if moves:
            run, input = self.chance.choice(moves)
            later = self.stage.clock.wall_ms() + 200
            change = {"not_before": self.chance.choice([None, later])} if input is Input.HAND_BACK else {}
            self.moved(tx, run, input, **change)

    def lose(self, tx: Transaction) -> None:
        """A lease runs out, and another worker gives the run back."""
        held = [run for run in self.runs(tx).values() if accepts(run.state, Input.HAND_BACK)]
        if held:
            run = self.chance.choice(held)
            self.moved(tx, tx.leases.take(run.pk, self.workers[0].pk, run.token), Input.HAND_BACK)

    def moved(self, tx: Transaction, run: Run, input: Input, **changes: object) -> None:
        """Move, save, and end the hold where there is none any more."""
        saved = tx.runs.save(run.moved(input, self.stage.clock.wall_ms(), **changes))
        if saved.state in {State.QUEUED, State.PAUSED, State.WAITING}:
            tx.leases.drop(saved.pk)

    def claim(self, tx: Transaction, worker: Worker, free: int) -> list[Run]:
        """Claim, and compare with the model: none that may not be, the most urgent first, and as many as can be."""
        before, now = self.runs(tx), self.stage.clock.wall_ms()
        offer = self.stage.offer(worker, free, limits=LIMITS)
        claimed = list(tx.leases.claim(offer, now))
        held = {pk for pk, run in before.items() if run.state in HELD}
        for run in claimed:
            may = self.those_that_may(before, held, worker)
            assert run.pk in may
            assert run.spec.priority == max(before[pk].spec.priority for pk in may)
            assert (run.token, run.host_id) == (before[run.pk].token + 1, worker.host_id)
            held.add(run.pk)
            tx.runs.save(run.moved(Input.CLAIM, now, worker=worker.id, started_at=run.started_at or now))
        assert len(claimed) == free or not self.those_that_may(before, held, worker), "one was left out"
        return claimed

    def those_that_may(self, runs: dict[int, Run], held: set[int], worker: Worker) -> list[int]:
        """The rules of claiming, said once more and simply."""
        holding = [runs[pk] for pk in held]
        return [pk for pk, run in runs.items() if pk not in held and self.may(run, runs, holding, worker)]

    def may(self, run: Run, runs: dict[int, Run], holding: list[Run], worker: Worker) -> bool:
        """Whether that worker may take that run beside those that are held."""
        if run.state is not State.QUEUED or (run.not_before or 0) > self.stage.clock.wall_ms():
            return False
        offered = run.backend in worker.backends and satisfied(need_of(run.spec.labels), worker.labels)
        if not offered or run.place not in (at_host(worker.host_id), ANYWHERE, *worker.places):
            return False
        before = (one for one in runs.values() if one.session_pk == run.session_pk and one.pk < run.pk)
        if any(one.state not in FINAL for one in before) or over_limit([*holding, run]):
            return False
        where = self.wheres.get(run.pk)
        others = (self.wheres.get(one.pk) for one in holding)
        return where is None or not any(other is not None and where.meets(other) for other in others)

    def runs(self, tx: Transaction) -> dict[int, Run]:
        """All of them as they are now, oldest first."""
        return {pk: tx.runs.lock(pk) for pk in self.pks}

    def check(self, tx: Transaction) -> None:
        """What must hold at every moment."""
        held = [found.run for found in tx.leases.held()]
        assert not over_limit(held)
        wheres = [self.wheres[run.pk] for run in held if run.pk in self.wheres]
        assert not any(one.meets(two) for n, one in enumerate(wheres) for two in wheres[:n])
        sessions = Counter(run.session_pk for run in held)
        assert all(count == 1 for count in sessions.values())

    def finish(self, tx: Transaction) -> None:
        """Nobody is forgotten: once everything that is held ends, every due run that is offered for gets its turn."""
        self.stage.clock.jump_wall(1000)
        for run in self.runs(tx).values():
            if run.state not in FINAL | {State.QUEUED}:
                self.end(tx, run)
        for _ in range(len(self.pks) + 1):
            claimed = [run for worker in self.workers for run in self.claim(tx, worker, 100)]
            if not claimed:
                break
            for run in claimed:
                self.end(tx, tx.runs.lock(run.pk))
        left = [run for run in self.runs(tx).values() if run.state not in FINAL]
        assert not any(self.served(run) for run in left if self.first_of_session(run, left))

    def end(self, tx: Transaction, run: Run) -> None:
        """By the shortest way."""
        now = self.stage.clock.wall_ms()
        if run.state is not State.CANCELLING:
            run = tx.runs.save(run.moved(Input.CANCEL, now))
        if run.state is State.CANCELLING:
            tx.runs.save(run.moved(Input.TREE_GONE, now))

    def served(self, run: Run) -> bool:
        """Whether anybody offers what it asks for."""
        need = need_of(run.spec.labels)
        return any(worker.serves(run.place, run.backend, need) for worker in self.workers)

    def first_of_session(self, run: Run, left: Iterable[Run]) -> bool:
        """Whether it waits for no earlier run of its session."""
        return not any(one.session_pk == run.session_pk and one.pk < run.pk for one in left)


def over_limit(held: list[Run]) -> bool:
    """Whether these are more than the limits allow."""
    backends = Counter(run.backend for run in held)
    labels = Counter(label for run in held for label in run.spec.labels.items())
    return any(backends[name] > most for name, most in LIMITS.backends.items()) or any(
        labels[label] > most for label, most in LIMITS.labels.items()
    )


def _around(path: str) -> list[str]:
    found = [path]
    while found[-1] != "/":
        found.append(found[-1].rpartition("/")[0] or "/")
    return found


@pytest.mark.anyio
class QueueWalkSuite:
    """Never above a limit, never two in one place or session, the urgent first, and nobody left out."""

    @pytest.mark.parametrize("seed", range(5))
    async def test_the_queue_agrees_with_a_plain_model(self, stage: Stage, seed: int) -> None:
        walk = QueueWalk(stage, random.Random(seed))  # noqa: S311 -- repeatable chance
        await stage.uow.write(walk.begin)
        for _ in range(STEPS):
            await stage.uow.write(walk.step)
        await stage.uow.write(walk.finish)
