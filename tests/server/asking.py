"""Runs whose agent asks something, for tests of what people see and decide."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.server.stage import Stage

from overnight.domain.action import CHANGING, Action, Resolved
from overnight.domain.approval import Approval
from overnight.domain.limits import Spending
from overnight.domain.redaction import Redactor
from overnight.domain.run import Run
from overnight.domain.states import Input, State
from overnight.domain.update import Answer, Asked
from overnight.engine import moves, questions
from overnight.engine.questions import Question
from overnight.engine.tool_question import tool_question
from overnight.ports.unit_of_work import Transaction


async def asks(
    stage: Stage, run: Run, *, answers: Sequence[Answer] = (), expires_s: float = 3600, binding: bool = True,
    key: str = "7", **action: Any,
) -> Approval:  # fmt: skip
    """Let the agent of `run` ask for an action (default: to run a command), and wait in place."""
    values: dict[str, Any] = {
        "kind": "execute",
        "tool": "shell",
        "title": "Run rm",
        "command": "rm -rf build",
    }
    asked = Asked(key=key, action=Action(**values | action), answers=tuple(answers))
    found = Resolved(action=asked.action, places=_places(stage, run, asked.action))
    question = tool_question(
        asked, found, redactor=Redactor([]), sandbox="workspace_write" if binding else "none", binding=binding,
        expires_s=lambda _: expires_s,
    )  # fmt: skip
    return await stage.store.write(lambda tx: _open(tx, run.pk, question, stage.clock.wall_ms()))


def _places(stage: Stage, run: Run, action: Action) -> Any:
    if run.workspace is None:
        return ()
    workspaces = stage.approvals._workspaces
    return workspaces.places(Path(run.workspace), action.paths, hashed=action.kind in CHANGING)


async def budget_is_spent(stage: Stage, run: Run) -> Approval:
    """The run waits for somebody to raise its budget."""
    spending = Spending(budget="tokens", used=1200, limit=1000)
    question = questions.budget_question(spending, 3600)

    def unit(tx: Transaction) -> Approval:
        now = stage.clock.wall_ms()
        claimed = tx.runs.save(tx.runs.lock(run.pk).moved(Input.CLAIM, now))
        approval = questions.ask(tx, claimed, question, now)
        moves.waiting(tx, tx.runs.lock(run.pk), questions.waiting_for(approval), approval.expires_at, now)
        return approval

    return await stage.store.write(unit)


def _open(tx: Transaction, pk: int, question: Question, now: int) -> Approval:
    run = tx.runs.lock(pk)
    if run.state is State.QUEUED:
        run = tx.runs.save(run.moved(Input.CLAIM, now, started_at=now))
    approval = questions.ask(tx, run, question, now)
    questions.block(tx, tx.runs.lock(pk), approval, now)
    return approval
