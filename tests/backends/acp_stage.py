"""Drives one turn of an ACP agent under a real keeper: its messages stored in a list, its questions answered."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.keeper.harness import Place

from overnight.backends.acp.others import any_agent
from overnight.backends.acp.program import AcpProgram
from overnight.backends.process.backend import ProcessBackend
from overnight.backends.process.settings import ProgramSettings
from overnight.backends.process.turn import ProcessTurn
from overnight.clock import SystemClock
from overnight.domain.run import Position
from overnight.domain.update import Asked, Message, Update
from overnight.ports.backend import Ended, TurnStart, Verdict
from overnight.testing.agents import ACP_AGENT
from overnight.testing.bare_turn import turn_start
from overnight.workspaces.texts import Texts

HOST = {"PATH": os.environ["PATH"]}

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


def text(record: Record) -> str:
    """Everything that the agent has said."""
    return "".join(message.text for message in record.of(Message))


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


@dataclass(kw_only=True)
class Stage:
    """A stand-in agent under a keeper, with the folders of one session."""

    place: Place
    files: Texts = field(default_factory=Texts)

    @property
    def workspace(self) -> Path:
        return self.place.data_dir / "workspace"

    @property
    def log(self) -> Path:
        return self.place.data_dir / "received.jsonl"

    def backend(self, *moves: list[Any], patience_s: float | None = None, **script: Any) -> ProcessBackend:
        """Plays these moves at its one turn, or the `turns` given."""
        document = {"turns": [list(moves)], "sessions": str(self.place.data_dir / "sessions.json")} | script
        path = self.place.data_dir / "script.json"
        path.write_text(json.dumps(document))
        command = (sys.executable, str(ACP_AGENT), str(path), "--log", str(self.log))
        settings = ProgramSettings(name="acp", command=command, host=HOST)
        agent = any_agent() if patience_s is None else replace(any_agent(), patience_s=patience_s)
        program = AcpProgram(settings, SystemClock(), agent)
        return ProcessBackend(
            program, self.place.spawner, clock=SystemClock(), data_dir=self.place.data_dir, files=self.files
        )

    def begin(self, **changes: Any) -> TurnStart:
        """The start of a fresh turn."""
        start = turn_start(self.place.data_dir, **changes)
        folder = self.place.data_dir / f"turn-{len(self.place.turns)}"
        folder.mkdir()
        self.place.turns.append(folder)
        return replace(start, folder=folder)

    def received(self) -> list[dict[str, Any]]:
        """What the agent has read."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def answers(self) -> list[Any]:
        """What its requests were answered with, oldest first."""
        return [m.get("result", m.get("error")) for m in self.received() if "method" not in m]

    async def run(
        self, *moves: list[Any], decide: Decide = allow, begin: dict[str, Any] | None = None, **script: Any
    ) -> tuple[Record, Ended]:
        """One whole turn; no message reaches the agent that was not stored, and none twice."""
        inputs = Inputs()
        turn = await self.backend(*moves, **script).start(self.begin(**(begin or {})), inputs.store)
        record = await drive(turn, Record(), decide)
        await turn.release()
        stored = [json.loads(data) for _, data in inputs.rows]
        received = self.received()[-len(stored) :]
        assert received == stored[: len(received)], "what the agent read is what was stored"
        return record, turn.ended()
