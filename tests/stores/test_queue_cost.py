"""What a claim and the end of a hold cost does not depend on how many runs wait, whatever they wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from overnight.clock import SystemClock
from overnight.domain.queue_limits import QueueLimits, Rate
from overnight.domain.run import Run
from overnight.domain.session import Session
from overnight.domain.states import Input
from overnight.domain.worker import Worker
from overnight.ids import new_host_id, new_worker_id
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import migrate
from overnight.stores.sql.connections import Connections
from overnight.stores.sql.lanes import MOST_NAMED
from overnight.stores.sql.sqlite_link import SqliteLink
from overnight.stores.sql.transaction import SqlTransaction
from overnight.testing.clocks import ManualClock
from overnight.testing.conformance.stage import Stage

FEW, MANY = 30, 1000
LIMITS: Final = QueueLimits(
    backends={"limited": 1}, labels={("team", "a"): 1}, rates={"rated": Rate.parse("1/day")}
)
CHAIN: Final = ("1:10", "1:9", "1:1")
NOBODY: Any = None


@dataclass
class Cost:
    """Instructions of SQLite's machine, in hundreds, and statements."""

    instructions: int = 0
    statements: list[str] = field(default_factory=list)


class Bench:
    """A database that one transaction after another works on, without the threads between."""

    def __init__(self, path: Path) -> None:
        connections = Connections(path, "NORMAL")
        migrate.prepare(path, connections, SystemClock())
        opened = connections.open(writing=True)
        assert isinstance(opened, SqliteLink)
        self.link = opened
        self.clock = ManualClock()
        self.tx = SqlTransaction(self.link, self.clock, self.clock)
        self.stage = Stage(uow=NOBODY, notifier=InprocNotifier(), clock=self.clock)
        self.link.script("BEGIN IMMEDIATE")
        now = self.clock.wall_ms()
        self.worker = self.tx.workers.add(
            Worker(
                pk=0,
                id=new_worker_id(now),
                host_id=self.stage.host,
                host_name="here",
                pid=1,
                version="1",
                slots=8,
                backends=("echo", "limited", "rated"),
                started_at=now,
                seen_at=now,
            )
        )

    def run(self, **asked: Any) -> Run:
        return self.stage.add_run(self.tx, **asked)

    def claim(self, free: int = 1) -> list[Run]:
        offer = self.stage.offer(self.worker, free, limits=LIMITS)
        now = self.clock.wall_ms()
        return [
            self.tx.runs.save(run.moved(Input.CLAIM, now, started_at=now))
            for run in self.tx.leases.claim(offer, now)
        ]

    def finish(self, run: Run) -> None:
        self.tx.runs.save(self.tx.runs.lock(run.pk).moved(Input.COMPLETE, self.clock.wall_ms()))

    @contextmanager
    def counted(self) -> Iterator[Cost]:
        cost = Cost()

        def tick() -> int:
            cost.instructions += 1
            return 0

        self.link.raw.set_progress_handler(tick, 100)
        self.link.raw.set_trace_callback(cost.statements.append)
        yield cost
        self.link.raw.set_progress_handler(None, 0)
        self.link.raw.set_trace_callback(None)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[], Bench]]:
    made: list[Bench] = []

    def new() -> Bench:
        made.append(Bench(tmp_path / f"{len(made)}.db"))
        return made[-1]

    yield new
    for bench in made:
        bench.link.close()


def for_their_session(bench: Bench, many: int) -> None:
    session: Session = bench.stage.add_session(bench.tx)
    for _ in range(many):
        bench.run(session=session, spec={"priority": 9})


def for_a_workspace(bench: Bench, many: int) -> None:
    for _ in range(many):
        bench.run(chain=CHAIN, spec={"priority": 9, "workspace": "/w"})


def for_a_label(bench: Bench, many: int) -> None:
    for _ in range(many):
        bench.run(spec={"priority": 9, "labels": {"team": "a"}})


def for_a_backend(bench: Bench, many: int) -> None:
    for _ in range(many):
        bench.run(spec={"priority": 9, "backend": "limited"})


def for_a_rate(bench: Bench, many: int) -> None:
    for _ in range(many):
        bench.run(spec={"priority": 9, "backend": "rated"})


def for_their_time(bench: Bench, many: int) -> None:
    for _ in range(many):
        bench.run(not_before=bench.clock.wall_ms() + 1_000_000)


def for_another_host(bench: Bench, many: int) -> None:
    for _ in range(many):
        bench.run(host_id=new_host_id(7))


def for_labels_of_their_own(bench: Bench, many: int) -> None:
    for n in range(many):
        bench.run(spec={"priority": 9, "labels": {"worker/name": str(n)}})


def for_nobody_any_more(bench: Bench, many: int) -> None:
    """Lanes stay when their runs are gone. Whoever labels each run for a worker of its own makes one with every run."""
    for n in range(many):
        run = bench.run(spec={"labels": {"worker/name": str(n)}})
        bench.tx.runs.save(run.moved(Input.CANCEL, bench.clock.wall_ms()))


def for_a_free_worker(bench: Bench, many: int) -> None:
    for _ in range(many):
        bench.run()


WAYS = (
    for_their_session, for_a_workspace, for_a_label, for_a_backend, for_a_rate, for_labels_of_their_own,
    for_their_time, for_another_host, for_nobody_any_more,
    for_a_free_worker,
)  # fmt: skip


def costs(bench: Bench, wait: Callable[[Bench, int], None], many: int) -> tuple[Cost, Cost]:
    """Of a claim that finds one run among `many` that wait, and of the end of a hold for which they wait."""
    wait(bench, many)
    holder = None
    for _ in range(2 + many // 100):  # until those that must wait have their gates shut
        found = bench.claim(1) if holder is None or wait is not for_a_free_worker else []
        holder = holder or (found[0] if found else None)
    bench.run(spec={"priority": 1000})
    with bench.counted() as claiming:
        (last,) = bench.claim(1)
    with bench.counted() as ending:
        bench.finish(holder or last)
    return claiming, ending


@pytest.mark.parametrize("wait", WAYS, ids=lambda wait: wait.__name__)
def test_claiming_and_ending_cost_the_same_however_many_wait(
    make: Callable[[], Bench], wait: Callable[[Bench, int], None]
) -> None:
    few, many = costs(make(), wait, FEW), costs(make(), wait, MANY)
    for small, large in zip(few, many, strict=True):
        assert large.instructions <= 1.5 * small.instructions + 5
        assert len(large.statements) == len(small.statements)


def test_lanes_that_nobody_waits_in_any_more_cost_nothing(make: Callable[[], Bench]) -> None:
    """Neither whoever looks at all of them, nor a worker with more labels than can be named in all combinations."""

    def looked(many: int) -> list[int]:
        bench = make()
        for_nobody_any_more(bench, many)
        bench.worker = bench.tx.workers.add(
            replace(
                bench.worker, id=new_worker_id(1), labels={f"label{n}": "x" for n in range(MOST_NAMED + 1)}
            )
        )
        bench.run()
        with bench.counted() as looking:
            (lane,) = bench.tx.leases.lanes()
        assert (dict(lane.need), lane.runs) == ({}, 1)
        with bench.counted() as claiming:
            assert len(bench.claim(1)) == 1
        return [looking.instructions, claiming.instructions]

    for small, large in zip(looked(FEW), looked(MANY), strict=True):
        assert large <= 1.5 * small + 5


def test_many_runs_are_claimed_with_few_statements(make: Callable[[], Bench]) -> None:
    """Those of the claim itself: the caller's move of each run comes on top."""
    bench = make()
    for_a_free_worker(bench, 200)
    offer = bench.stage.offer(bench.worker, 64)
    with bench.counted() as cost:
        assert len(bench.tx.leases.claim(offer, bench.clock.wall_ms())) == 64
    assert len(cost.statements) <= 5 + 3 * 64
