"""What is at hand while one hold of one run is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from overnight.domain.run import Run, Turn
from overnight.engine.hold import Hold
from overnight.engine.opening import turn_start
from overnight.engine.preparation import Preparation, Prepared
from overnight.engine.recorder import Recorder
from overnight.engine.scene import Scene
from overnight.engine.settlement import Closing, Rules
from overnight.engine.workshop import Workshop
from overnight.ports.backend import BackendTurn, StoreInput, TurnStart
from overnight.ports.unit_of_work import Transaction

T = TypeVar("T")


class Released(Exception):
    """Not an error but the way out of the pipeline: the run was let go in order.

    `due_at`: wall milliseconds at which it may be taken again.
    """

    def __init__(self, due_at: int | None = None) -> None:
        super().__init__("the run was let go")
        self.due_at = due_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    """A turn under way, and all that observes it."""

    run: Run
    turn: Turn
    backend_turn: BackendTurn
    prepared: Prepared
    scene: Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """The parts that belong to one hold."""

    shop: Workshop
    hold: Hold
    run: Run
    """The run as it was when its parts were put together."""
    environment: Mapping[str, str]
    recorder: Recorder
    preparation: Preparation
    rules: Rules

    @classmethod
    async def gather(cls, shop: Workshop, hold: Hold) -> Kit:
        """Read what the run was given and keep it out of whatever is recorded."""

        def query(tx: Transaction) -> tuple[Run, dict[str, str]]:
            return tx.runs.get(hold.run_id, None), tx.runs.secret_environment(hold.run_pk)

        run, given = await shop.uow.read(query)
        environment = {**given, **shop.secrets_of(run)}
        redactor = shop.policy.redactor(environment.values())
        recorder = Recorder(uow=shop.uow, clock=shop.clock, hold=hold, redactor=redactor, meter=shop.meter)
        return cls(
            shop=shop, hold=hold, run=run, environment=environment, recorder=recorder,
            preparation=Preparation(shop, recorder), rules=Rules(policy=shop.policy, timing=shop.timing),
        )  # fmt: skip

    def start_of(
        self, run: Run, turn: Turn, prepared: Prepared, prompt: str, inputs_sent: int = 0
    ) -> TurnStart:
        """What a backend is given, for a start and an adoption alike."""
        return turn_start(
            run, turn, prepared, token=self.hold.lease.token, folders=self.shop.folders,
            timing=self.shop.timing, prompt=prompt, environment=self.environment, inputs_sent=inputs_sent,
            held_until=lambda: self.hold.lease.trusted_until,
        )  # fmt: skip

    def input_store(self, turn: Turn) -> StoreInput:
        """Stores what is sent to the agent before it is sent."""
        return partial(self._store_input, turn)

    async def _store_input(self, turn: Turn, n: int, data: bytes) -> None:
        await self.recorder.write(
            lambda tx, run, _now_ms: tx.turns.add_input(run.pk, turn.number, turn.attempt, n, data)
        )

    def count(self, turn: Turn, closing: Closing) -> None:
        """The turn has been settled."""
        seconds = (closing.elapsed_ms or 0) / 1000
        self.shop.meter.turn_settled(turn.backend, closing.outcome.value, seconds, closing.usage)

    def held(self, value: T | None) -> T:
        """`value`, or the way out when the transaction that gave it has let the run go."""
        if value is None:
            raise self.let_go()
        return value

    def let_go(self, due_at: int | None = None) -> Released:
        """The run has just been let go: to be raised once everything is cleared away."""
        self.hold.over = True
        return Released(due_at)
