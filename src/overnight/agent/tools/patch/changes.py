"""Shows what a plan makes of files: texts before and after, and the difference. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Final

from overnight.agent.tools.patch.plan import Change, Plan
from overnight.agent.tools.tool import ChangeKind, FileChanged

_CONTEXT: Final = 1
MOST_COMPARED: Final = 1500
"""Lines on a side that are compared with each other; more are shown as one block, since comparing them takes long."""


def changes_of(plan: Plan) -> tuple[FileChanged, ...]:
    """Each file that will not be as it was. A moved file is one change, at its new path."""
    moved = {change.moved_from: change for change in plan.changes if change.moved_from is not None}
    sources = {change.path: change for change in plan.changes}
    found = []
    for change in plan.changes:
        if change.path in moved and change.after is None:
            continue
        if change.before is None and change.after is None:
            continue
        found.append(_change(change, sources))
    return tuple(found)


def _change(change: Change, sources: dict[str, Change]) -> FileChanged:
    source = sources.get(change.moved_from or "")
    before = source.before if source is not None else change.before
    old = None if before is None or before.data is None else _text(before.data)
    new = None if change.after is None else _text(change.after)
    kind: ChangeKind = (
        "deleted" if change.after is None else "created" if change.before is None else "modified"
    )
    return FileChanged(
        path=change.path,
        kind=kind,
        old_text=old,
        new_text=new,
        moved_from=change.moved_from,
        diff=unified(old or "", new or "", change.moved_from or change.path, change.path),
    )


def unified(old: str, new: str, old_path: str, new_path: str) -> str:
    """The unified difference with one line of context; empty when there is none."""
    before, after = _lines(old), _lines(new)
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    blocks = _blocks(before[head : len(before) - tail], after[head : len(after) - tail])
    hunks = list(_hunks(before, after, [(a + head, b + head, c + head, d + head) for a, b, c, d in blocks]))
    if not hunks:
        return ""
    return "\n".join([f"--- a/{old_path}", f"+++ b/{new_path}", *hunks]) + "\n"


def _hunks(before: list[str], after: list[str], blocks: list[tuple[int, int, int, int]]) -> Iterator[str]:
    group: list[tuple[int, int, int, int]] = []
    for block in blocks:
        if group and block[0] - group[-1][1] > 2 * _CONTEXT:
            yield from _hunk(before, after, group)
            group = []
        group.append(block)
    if group:
        yield from _hunk(before, after, group)


def _hunk(before: list[str], after: list[str], group: list[tuple[int, int, int, int]]) -> Iterator[str]:
    lead = min(_CONTEXT, group[0][0])
    start, new_start = group[0][0] - lead, group[0][2] - lead
    stop = min(len(before), group[-1][1] + _CONTEXT)
    new_stop = min(len(after), group[-1][3] + _CONTEXT)
    yield f"@@ -{_range(start, stop)} +{_range(new_start, new_stop)} @@"
    at = start
    for old_from, old_to, new_from, new_to in group:
        yield from (f" {line}" for line in before[at:old_from])
        yield from (f"-{line}" for line in before[old_from:old_to])
        yield from (f"+{line}" for line in after[new_from:new_to])
        at = old_to
    yield from (f" {line}" for line in before[at:stop])


def _range(start: int, stop: int) -> str:
    return f"{start if start == stop else start + 1},{stop - start}"


def _blocks(before: list[str], after: list[str]) -> list[tuple[int, int, int, int]]:
    if not before and not after:
        return []
    if len(before) > MOST_COMPARED or len(after) > MOST_COMPARED:
        return [(0, len(before), 0, len(after))]
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=True)
    return [(a, b, c, d) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]


def _common(before: list[str], after: list[str]) -> int:
    found = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        found += 1
    return found


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
