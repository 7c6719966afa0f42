"""Drives one turn of an ACP agent under a real keeper: its messages stored in a list, its questions answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from overnight.backends.process.turn import ProcessTurn
from overnight.domain.run import Position
from overnight.domain.update import Asked, Update
from overnight.ports.backend import Verdict

Decide = Callable[[Asked], Verdict | None]
ALLOW, REJECT = Verdict(allow=True), Verdict(allow=False)


@dataclass
class Inputs:
    """The stored messages of one turn, numbered as the engine's table demands it."""

    rows: list[tuple[int, bytes]] = field(default_factory=list)

    async def store(self, number: int, data: bytes) -> None:
        assert number == len(self.rows) + 1, f"message {number} does not follow {len(self.rows)}"
        self.rows.append((number, data))


@dataclass
class Record:
    """What a turn has told."""

    updates: list[Update] = field(default_factory=list)
    position: Position = field(default_factory=Position)

    def of(self, kind: type[Any]) -> list[Any]:
        return [update for update in self.updates if isinstance(update, kind)]


def allow(_: Asked) -> Verdict | None:
    return ALLOW


async def drive(turn: ProcessTurn, record: Record, decide: Decide = allow) -> Record:
    """Read the turn to its end; what is asked is answered at once, unless `decide` gives None."""
    async for batch in turn.batches():
        record.updates += batch.updates
        record.position = batch.position
        for update in batch.updates:
            if isinstance(update, Asked) and (verdict := decide(update)) is not None:
                await turn.answer(update.key, verdict)
    return record
