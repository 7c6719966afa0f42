"""A random walk over claims, with a plain model beside it that says who may be carried out and who must be."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from overnight.domain.run import Run
from overnight.domain.session import Session
from overnight.domain.states import FINAL, Input, State, accepts
from overnight.domain.worker import Worker
from overnight.testing.conformance.stage import Stage

CHAINS: tuple[tuple[str, ...], ...] = ((), ("1:5", "1:1"), ("1:6", "1:5", "1:1"), ("1:7", "1:1"), ("1:1",))
MOVES = (
    Input.PAUSE, Input.RESUME, Input.TURN_SETTLED, Input.WAIT, Input.CONTINUE, Input.HAND_BACK, Input.COMPLETE,
    Input.FAIL, Input.CANCEL, Input.TREE_GONE, Input.BLOCK, Input.PARK, Input.DECIDE,
)  # fmt: skip
STEPS = 120


@dataclass(slots=True)
class Walk:
    """One walk: its chance, its runs and where they work."""

    stage: Stage
    worker: Worker
    sessions: list[Session]
    chance: random.Random
    pks: list[int] = field(default_factory=list)
    places: dict[int, tuple[tuple[str, ...], bool]] = field(default_factory=dict)

    async def step(self) -> None:
        """Add, move, let time pass or claim."""
        match self.chance.randrange(6):
            case 0 | 1:
                await self.add()
            case 2 | 3:
                await self.move()
            case 4:
                self.stage.clock.jump_wall(self.chance.randrange(300))
            case _:
                await self.claim(self.chance.randrange(1, 4))

    async def add(self) -> None:
        """A run somewhere, sometimes for later."""
        chain, shared = self.chance.choice(CHAINS), self.chance.random() < 0.3
        later = self.stage.clock.wall_ms() + self.chance.randrange(500)
        run = await self.stage.run(
            session=self.chance.choice([*self.sessions, None]),
            spec={
                "priority": self.chance.randrange(3),
                "workspace_lock": "shared" if shared else "exclusive",
                "backend": self.chance.choice(["echo", "other"]),
            },
            chain=chain,
            not_before=self.chance.choice([None, None, later]),
        )
        self.pks.append(run.pk)
        self.places[run.pk] = chain, shared

    async def runs(self) -> dict[int, Run]:
        """All of them as they are now, oldest first."""
        return await self.stage.uow.write(lambda tx: {pk: tx.runs.lock(pk) for pk in self.pks})

    async def move(self) -> None:
        """Something happens to a run to which it can happen."""
        moves = [
            (run, input)
            for run in (await self.runs()).values()
            for input in MOVES
            if accepts(run.state, input)
        ]
        if moves:
            run, input = self.chance.choice(moves)
            later = self.stage.clock.wall_ms() + 200
            change = {"not_before": self.chance.choice([None, later])} if input is Input.HAND_BACK else {}
            await self.stage.move(run, input, **change)

    async def claim(self, free: int) -> None:
        """Claim, and compare with the model: as many as can be, none that may not be, the most urgent first."""
        before = await self.runs()
        claimed = await self.stage.claim(self.worker, free)
        held = {pk for pk, run in before.items() if run.state in _HELD}
        for run in claimed:
            may = self.those_that_may(before, held)
            assert run.pk in may
            assert run.spec.priority == max(before[pk].spec.priority for pk in may)
            assert run.token > before[run.pk].token
            held.add(run.pk)
        assert len(claimed) == free or not self.those_that_may(before, held), "one that may run was left out"

    def those_that_may(self, runs: dict[int, Run], held: set[int]) -> list[int]:
        """Whoever could be carried out besides those in `held`."""
        return [pk for pk, run in runs.items() if pk not in held and self.may_run(run, runs, held)]

    def may_run(self, run: Run, runs: dict[int, Run], held: set[int]) -> bool:
        """The rules of claiming, said once more and simply."""
        if run.state is not State.QUEUED or (run.not_before or 0) > self.stage.clock.wall_ms():
            return False
        earlier = (
            other
            for other in runs.values()
            if other.session_pk == run.session_pk and other.pk < run.pk and other.state not in FINAL
        )
        return not any(earlier) and not any(self.meet(run.pk, other) for other in held)

    def meet(self, one: int, two: int) -> bool:
        """Whether the two may not work at the same time."""
        (chain, shared), (other, also_shared) = self.places[one], self.places[two]
        if not chain or not other or (shared and also_shared):
            return False
        return chain[0] in other or other[0] in chain


_HELD = frozenset({State.RUNNING, State.PAUSING, State.BLOCKED, State.CANCELLING})


@pytest.mark.anyio
class WalkSuite:
    """Gates must neither let in too much nor forget anybody."""

    @pytest.mark.parametrize("seed", range(8))
    async def test_claims_agree_with_a_plain_model(self, stage: Stage, seed: int) -> None:
        sessions = [await stage.session() for _ in range(2)]
        walk = Walk(stage, await stage.worker(), sessions, random.Random(seed))  # noqa: S311 -- repeatable chance
        for _ in range(STEPS):
            await walk.step()
        stage.clock.jump_wall(1000)
        await walk.claim(1000)
