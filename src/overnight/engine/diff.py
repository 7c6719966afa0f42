"""What a run did to its workspace: statistics of all files, or the patch of one, between two snapshots or until now."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overnight.domain.event import canonical
from overnight.domain.redaction import Redactor
from overnight.domain.run import Run
from overnight.domain.text import plain
from overnight.domain.values import FileStats
from overnight.engine.comparison import BASE, label
from overnight.engine.hosts import elsewhere
from overnight.engine.policy import RunPolicy
from overnight.errors import NotFound, OnAnotherHost
from overnight.ids import HostId, RunId
from overnight.ports.unit_of_work import Transaction, UnitOfWork
from overnight.ports.workspace import FileChange, Shadow, Workspaces

MAX_PATCH: Final = 1 << 20
"""Bytes of one file's patch."""
MAX_FILES: Final = 10_000
"""Changed files in one answer."""
AT_ONCE: Final = 2
"""Comparisons under way at the same time: they read whole trees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffAnswer:
    """What changed. `document` is the JSON to send, `etag` changes with it."""

    document: Mapping[str, object]
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    run: Run
    redactor: Redactor
    scope: str
    turn: int | None
    elsewhere: OnAnotherHost | None


class Diffs:
    """Computes what runs did to their workspaces; reads the shadow repositories beside the event loop.

    Scopes: `run`: from its beginning until now, or until the last turn's end once it has ended; `turn`: during that
    turn; `uncommitted`: what no snapshot has yet, so the changes since the last turn's end.
    """

    def __init__(
        self, *, uow: UnitOfWork, workspaces: Workspaces, policy: RunPolicy, host_id: HostId
    ) -> None:
        self._uow = uow
        self._workspaces = workspaces
        self._policy = policy
        self._host_id = host_id
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def diff(
        self, run_id: str, owner: str | None, *, scope: str, turn: int | None, path: str | None
    ) -> DiffAnswer:
        """Statistics of all files, or the patch of `path`. Raises NotFound, WorkspaceUnreadable, OnAnotherHost."""
        asked = await self._asked(run_id, owner, scope, turn)
        async with self._turns:
            return await asyncio.to_thread(self._look, asked, path)

    async def files(self, run_id: str, owner: str | None, *, scope: str, turn: int | None) -> DiffAnswer:
        """The changed files alone."""
        return await self.diff(run_id, owner, scope=scope, turn=turn, path=None)

    async def _asked(self, run_id: str, owner: str | None, scope: str, turn: int | None) -> _Asked:
        def unit(tx: Transaction) -> tuple[Run, dict[str, str], OnAnotherHost | None]:
            run = tx.runs.get(RunId(run_id), owner)
            return run, tx.runs.secret_environment(run.pk), elsewhere(tx, run, self._host_id)

        run, environment, away = await self._uow.read(unit)
        redactor = self._policy.redactor(environment.values())
        return _Asked(run=run, redactor=redactor, scope=scope, turn=turn, elsewhere=away)

    def _look(self, asked: _Asked, path: str | None) -> DiffAnswer:
        head: dict[str, object] = {"scope": asked.scope, "turn": asked.turn}
        if asked.run.workspace is None:
            return _answer({**head, **(_statistics(()) if path is None else _patch(path, ""))})
        if asked.elsewhere is not None and (asked.run.turn > 0 or asked.run.worker is not None):
            raise asked.elsewhere
        shadow = self._workspaces.shadow(asked.run.id, Path(asked.run.workspace))
        span = _span(shadow, asked)
        if path is not None:
            text = shadow.patch(*span, path, limit=MAX_PATCH) if span else ""
            return _answer({**head, **_patch(path, asked.redactor.text(plain(text)))})
        changes = shadow.changes(*span) if span else ()
        return _answer(asked.redactor.json({**head, **_statistics(changes)}))


def _span(shadow: Shadow, asked: _Asked) -> tuple[str, str | None] | None:
    """The two ends, the second None for the workspace as it is now; None where nothing has been recorded yet."""
    base = shadow.resolve(BASE)
    if base is None:
        return None
    if asked.scope == "turn":
        return _span_of_turn(shadow, asked.run, asked.turn or 0)
    last = _at_the_end_of(shadow, asked.run.turn)
    if asked.scope == "uncommitted":
        return last or base, None
    return base, (last or base) if asked.run.final else None


def _span_of_turn(shadow: Shadow, run: Run, turn: int) -> tuple[str, str | None]:
    if not 1 <= turn <= run.turn:
        raise NotFound(f"{run.id} has no turn {turn}")
    before = _at_the_end_of(shadow, turn - 1) or shadow.resolve(BASE) or ""
    after = shadow.resolve(label(turn))
    if after is None and (turn < run.turn or run.final):
        return before, before  # it ended without a snapshot: nothing is known of it
    return before, after


def _at_the_end_of(shadow: Shadow, turn: int) -> str | None:
    """The newest snapshot at the end of that turn or an earlier one."""
    found = (shadow.resolve(label(number)) for number in range(turn, 0, -1))
    return next((name for name in found if name is not None), None)


def _statistics(changes: Sequence[FileChange]) -> dict[str, object]:
    files = [_file(change) for change in changes]
    total = FileStats(
        changed=len(files),
        added=sum(change.added_lines for change in changes),
        removed=sum(change.removed_lines for change in changes),
    )
    return {"files": files, "stats": total.to_json(), "truncated": len(files) >= MAX_FILES}


def _file(change: FileChange) -> dict[str, object]:
    return {
        "path": change.path,
        "kind": change.kind,
        "bytes": change.bytes,
        "sha256": change.sha256,
        "added_lines": change.added_lines,
        "removed_lines": change.removed_lines,
    }


def _patch(path: str, patch: str) -> dict[str, object]:
    return {"path": path, "patch": patch}


def _answer(document: Mapping[str, object]) -> DiffAnswer:
    return DiffAnswer(document=document, etag=hashlib.sha256(canonical(document)).hexdigest()[:32])
