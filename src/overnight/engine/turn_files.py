"""The files that a turn leaves: where its prompt and its output lie, and what nobody may see of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from overnight.domain.redaction import Redactor
from overnight.domain.run import Turn
from overnight.engine.folders import Folders
from overnight.engine.hosts import elsewhere
from overnight.engine.policy import RunPolicy
from overnight.errors import NotFound, OnAnotherHost
from overnight.ids import HostId, RunId
from overnight.ports.unit_of_work import Transaction, UnitOfWork

Name = Literal["prompt.md", "stdout", "stderr"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFile:
    """One file. The agent may have had its hands on it: open it without following links, show it redacted."""

    path: Path
    attempt: int
    redactor: Redactor
    elsewhere: OnAnotherHost | None = None
    """Why it is not there, where another host has it."""


class TurnFiles:
    """Finds the files of turns."""

    def __init__(self, *, uow: UnitOfWork, folders: Folders, policy: RunPolicy, host_id: HostId) -> None:
        self._uow = uow
        self._folders = folders
        self._policy = policy
        self._host_id = host_id

    async def locate(
        self, run_id: RunId, owner: str | None, number: int, attempt: int | None, name: Name
    ) -> TurnFile:
        """Where the file would be; of the last attempt when none is named. Raises NotFound for run and turn."""

        def unit(tx: Transaction) -> tuple[Turn, dict[str, str], OnAnotherHost | None]:
            run = tx.runs.get(run_id, owner)
            turn = _turn(tx, run.pk, number, attempt)
            return turn, tx.runs.secret_environment(run.pk), elsewhere(tx, run, self._host_id)

        turn, environment, away = await self._uow.read(unit)
        return TurnFile(
            path=self._folders.data_dir / turn.folder / name, attempt=turn.attempt,
            redactor=self._policy.redactor(environment.values()), elsewhere=away,
        )  # fmt: skip


def _turn(tx: Transaction, run_pk: int, number: int, attempt: int | None) -> Turn:
    if attempt is None:
        return tx.turns.get(run_pk, number)
    for turn in tx.turns.page(run_pk):
        if (turn.number, turn.attempt) == (number, attempt):
            return turn
    raise NotFound(f"turn {number} has no attempt {attempt}")
