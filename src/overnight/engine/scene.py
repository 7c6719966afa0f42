"""The scene of one turn: all that observes it while it runs, and what is found when it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from overnight.domain.completion import Pattern, find_completion
from overnight.domain.event import Draft, Recorded, canonical
from overnight.domain.run import Run, Turn
from overnight.domain.values import Completion, FileStats, TestStats, Usage
from overnight.engine.comparison import compare
from overnight.engine.deltas import DeltaFeed
from overnight.engine.preparation import Preparation, Prepared
from overnight.engine.recorder import Recorder
from overnight.engine.settlement import Closing, elapsed_by_wall
from overnight.engine.telemetry.file_ledger import FileLedger
from overnight.engine.telemetry.files import FileWatch
from overnight.engine.telemetry.interpreter import Interpreter, TurnSummary
from overnight.engine.turn_end import TurnEnd
from overnight.engine.verdict import result_of, stop_reason_of
from overnight.engine.workshop import Workshop
from overnight.errors import OvernightError, WorkspaceUnreadable
from overnight.ports.unit_of_work import Transaction

Aide = Callable[[Callable[[Sequence[Draft]], None]], Coroutine[Any, Any, None]]
"""Watches something beside the agent's own output, and hands its events to the function given."""

log = structlog.get_logger(__name__)

FILE_TYPES: Final = ("file.written", "file.deleted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the log tells about a turn that is taken up in its middle."""

    summary: TurnSummary = field(default_factory=TurnSummary)
    agents_usage: Usage | None = None
    """What the agent itself has counted, where the backend has not."""
    files: tuple[Mapping[str, Any], ...] = ()
    """Data of the file events recorded so far."""
    unrecorded_s: float = 0.0
    """How long nobody had recorded the turn when it was taken up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the workspace shows once the agent is gone."""

    drafts: Sequence[Draft] = ()
    files: FileStats | None = None
    files_of_run: FileStats | None = None
    changed: bool = False
    met: Completion | None = None


class Scene:
    """Observes one turn."""

    def __init__(
        self,
        shop: Workshop,
        recorder: Recorder,
        run: Run,
        turn: Turn,
        prepared: Prepared,
        memory: Memory | None = None,
    ) -> None:
        self._shop = shop
        self._recorder = recorder
        self._run = run
        self._turn = turn
        self._prepared = prepared
        self._memory = memory or Memory()
        self._since = shop.clock.boot()
        self._before_ms = elapsed_by_wall(run, turn, shop.clock.wall_ms())
        self._ledger = FileLedger(str(prepared.workspace), watched=prepared.watched)
        for data in self._memory.files:
            _tell_again(self._ledger, data)
        self._preparation = Preparation(shop, recorder)
        self._logs = self._preparation.logs(run, prepared.workspace)
        self.interpreter = Interpreter(
            wall_ms=shop.clock.wall_ms,
            redactor=recorder.redactor,
            files=self._ledger,
            before=self._memory.summary,
            unrecorded_s=self._memory.unrecorded_s,
            watched=self._watched_logs(),
        )
        self.deltas = DeltaFeed(notifier=shop.notifier, run=run, turn=turn.number, redactor=recorder.redactor)

    @property
    def workspace(self) -> Path:
        """Where the agent works."""
        return self._prepared.workspace

    def _watched_logs(self) -> frozenset[str]:
        spec = self._run.spec
        if not self._prepared.watched or not spec.keeps_logs:
            return frozenset()
        return frozenset({spec.completion.log, spec.prompt.decision_log})

    def aides(self) -> Sequence[Aide]:
        """Those who watch beside while the turn runs."""
        if not self._prepared.watched:
            return ()
        files = FileWatch(
            workspaces=self._shop.workspaces,
            workspace=self._prepared.workspace,
            ledger=self._ledger,
            spec=self._run.spec.watch,
            clock=self._shop.clock,
        )
        return (files.watch, self._logs.watch) if self._run.spec.keeps_logs else (files.watch,)

    async def close(self, end: TurnEnd) -> Closing:
        """Everything that is known once the agent is gone and its output has been read."""
        summary = self.interpreter.summary()
        found = await self._look(summary.message)
        planned = self._may_have_planned(summary) and await self._shop.uow.read(
            lambda tx: self._plan_changed(tx, end.last.drafts)
        )
        result = result_of(end, found.met)
        if result.failure is not None:
            result = replace(result, failure=self._recorder.hidden_failure(result.failure))
        if result.met is not None and result.met.by == "stop_file":
            await asyncio.to_thread(self._preparation.take_stop_file, self._run, self._prepared.workspace)
        return Closing(
            result=result, stop_reason=stop_reason_of(end, result),
            stopped=end.ended.stopped if end.ended else None,
            why_abandoned="its keeper is gone",
            last=end.last, drafts=self._recorder.redacted(found.drafts),
            usage=summary.usage or self._memory.agents_usage, tests=summary.tests, files=found.files,
            files_of_run=found.files_of_run, changed=found.changed or planned,
            last_message=self._recorder.hidden(summary.message) or None,
            elapsed_ms=self._before_ms + round((self._shop.clock.boot() - self._since) * 1000),
        )  # fmt: skip

    async def _look(self, message: str) -> _Found:
        if not self._prepared.watched:
            return _Found(met=self._met_in((), message))
        try:
            return await asyncio.to_thread(self._look_at_workspace, message)
        except (OvernightError, OSError) as error:
            # What cannot be compared may have been work: the turn does not count as idle.
            log.warning("workspace.unreadable", workspace=str(self._prepared.workspace), error=str(error))
            data = {"code": WorkspaceUnreadable.code, "message": str(error), "retryable": True}
            drafts = [Draft(type="error.recorded", data=data)]
            return _Found(drafts=drafts, changed=True, met=self._met_in((), message))

    def _look_at_workspace(self, message: str) -> _Found:
        """Blocks on the disk."""
        workspaces, workspace = self._shop.workspaces, self._prepared.workspace
        compared = compare(workspaces, self._run, self._turn, workspace)
        if self._preparation.stop_seen(self._run, workspace):
            met: Completion | None = Completion(by="stop_file")
        else:
            met = self._met_in(self._logs.added_lines(), message)
        return _Found(
            drafts=[*self._logs.look(final=True), *self._ledger.settle(compared.changes)], files=compared.of_turn,
            files_of_run=compared.of_run, changed=compared.work, met=met,
        )  # fmt: skip

    def _met_in(self, added: Iterable[str], message: str) -> Completion | None:
        spec = self._run.spec.completion
        if spec.pattern is None or not self._run.spec.keeps_logs:
            return None
        met = find_completion(Pattern(spec.pattern), added=added, scan_lines=spec.scan_lines, message=message)
        return replace(met, line=self._recorder.hidden(met.line)) if met and met.line else met

    def _may_have_planned(self, summary: TurnSummary) -> bool:
        """Without a plan there is nothing to read. An earlier attempt at this turn may have told one."""
        return summary.plans > 0 or self._turn.attempt > 1

    def _plan_changed(self, tx: Transaction, unrecorded: Sequence[Draft]) -> bool:
        """Whether the agent's plan is another one than before this turn."""
        told = [draft.data for draft in unrecorded if draft.type == "plan.updated"]
        now = (
            _as_stored(told[-1]) if told else _last(tx, self._run.pk, "plan.updated", turn=self._turn.number)
        )
        if now is None:
            return False
        found = tx.events.select(
            self._run.pk, after=None, before=self._turn.first_seq or None, descending=True,
            types=("plan.updated",), turn=None, limit=1,
        )  # fmt: skip
        return not found or _data(found[0]) != now


def remembered(tx: Transaction, turn: Turn) -> Memory:
    """What the log tells about the turn so far; for an adoption."""
    usage = _last(tx, turn.run_pk, "usage.recorded", turn=turn.number, attempt=turn.attempt)
    tests = _last(tx, turn.run_pk, "tests.completed", turn=turn.number, attempt=turn.attempt)
    plan = _last(tx, turn.run_pk, "plan.updated", turn=turn.number, attempt=turn.attempt)
    message = _last(tx, turn.run_pk, "message.completed", turn=turn.number, attempt=turn.attempt)
    counted = _usage(usage) if usage else None
    by_agent = usage is not None and usage.get("source") == "agent"
    summary = TurnSummary(
        usage=None if by_agent else counted,
        tests=TestStats(**{name: tests[name] for name in ("passed", "failed", "skipped")}) if tests else None,
        items=turn.items,
        plans=int(plan is not None),
        message=str(message["text"]) if message else "",
    )
    files = tx.events.select(
        turn.run_pk, after=None, before=None, descending=False, types=FILE_TYPES, turn=turn.number, limit=1000
    )
    return Memory(
        summary=summary, agents_usage=counted if by_agent else None,
        files=tuple(_data(event) for event in files if _attempt(event) == turn.attempt),
    )  # fmt: skip


def _last(
    tx: Transaction, run_pk: int, type: str, *, turn: int, attempt: int | None = None
) -> dict[str, Any] | None:
    found = tx.events.select(
        run_pk, after=None, before=None, descending=True, types=(type,), turn=turn, limit=1
    )
    if not found or attempt not in {None, _attempt(found[0])}:
        return None
    return _data(found[0])


def _data(event: Recorded) -> dict[str, Any]:
    return dict(orjson.loads(event.body)["data"])


def _as_stored(data: Mapping[str, object]) -> dict[str, Any]:
    return dict(orjson.loads(canonical(dict(data))))


def _attempt(event: Recorded) -> int | None:
    attempt = orjson.loads(event.body)["attempt"]
    return int(attempt) if attempt is not None else None


def _usage(data: Mapping[str, Any]) -> Usage:
    return Usage(**{name: data[name] for name in ("input", "cached", "output", "reasoning", "cost_usd")})


def _tell_again(ledger: FileLedger, data: Mapping[str, Any]) -> None:
    if "kind" in data:
        ledger.written(str(data["path"]), str(data["kind"]), data.get("bytes") or 0, data.get("sha256"))
    else:
        ledger.deleted(str(data["path"]))
