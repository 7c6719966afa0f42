"""What a turn has done to the workspace: the shadow's snapshots before and after it, compared."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from overnight.domain.run import Run, Turn
from overnight.domain.values import FileStats
from overnight.ports.workspace import FileChange, Shadow, Workspaces

BASE = "base"
"""The snapshot taken before the first turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What changed. `work`: whether anything besides the logs did."""

    changes: Sequence[FileChange]
    of_turn: FileStats
    of_run: FileStats
    work: bool


def take_base(workspaces: Workspaces, run: Run, workspace: Path) -> None:
    """The first snapshot of a run, unless it is there. Blocks on the disk."""
    shadow = workspaces.shadow(run.id, workspace)
    if shadow.resolve(BASE) is None:
        shadow.snapshot(BASE)


def compare(workspaces: Workspaces, run: Run, turn: Turn, workspace: Path) -> Comparison:
    """Take this turn's snapshot and compare it with the one before and with the first. Blocks on the disk."""
    shadow = workspaces.shadow(run.id, workspace)
    base = shadow.resolve(BASE)
    before = _before(shadow, turn) or base
    after = shadow.snapshot(label(turn.number))
    changes = _between(shadow, before, after)
    whole = changes if before == base else _between(shadow, base, after)
    logs = {posixpath.normpath(run.spec.completion.log), posixpath.normpath(run.spec.prompt.decision_log)}
    work = any(change.path not in logs and not change.path.startswith(".overnight/") for change in changes)
    return Comparison(changes=changes, of_turn=_stats(changes), of_run=_stats(whole), work=work)


def label(number: int) -> str:
    """The name of the snapshot at the end of that turn."""
    return f"turn-{number}"


def _before(shadow: Shadow, turn: Turn) -> str | None:
    """The last snapshot before this attempt that is not the first: an earlier attempt's or an earlier turn's."""
    newest = turn.number if turn.attempt > 1 else turn.number - 1
    for earlier in range(newest, 0, -1):
        if (found := shadow.resolve(label(earlier))) is not None:
            return found
    return None


def _between(shadow: Shadow, before: str | None, after: str) -> Sequence[FileChange]:
    if before is None or before == after:
        return ()
    return shadow.changes(before, after)


def _stats(changes: Iterable[FileChange]) -> FileStats:
    total = FileStats()
    for change in changes:
        total = FileStats(
            changed=total.changed + 1,
            added=total.added + change.added_lines,
            removed=total.removed + change.removed_lines,
        )
    return total
