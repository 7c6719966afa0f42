"""The logs that an agent keeps in its workspace: what has been added since the run began, and since the last look.

What was there at the run's beginning is kept in the run's folder, so that an old "DONE" never completes anything,
also after a restart and when the agent rewrites the file.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from overnight.clock import Clock
from overnight.domain.event import Draft
from overnight.domain.redaction import Redactor
from overnight.domain.spec import RunSpec
from overnight.domain.text import cut_utf8, plain, tail_utf8
from overnight.ports.workspace import Workspaces

MAX_BYTES: Final = 4 << 20
"""The end of a log that is looked at."""
MAX_TAIL: Final = 2048
"""Bytes of added text in an event."""
MAX_QUESTION: Final = 2000
MAX_QUESTIONS: Final = 50
"""Questions that one look reports; more in one go are no questions."""
LOOK_S: Final = 1.0
"""How often the logs are looked at while a turn runs."""
_BULLET: Final = re.compile(r"^(?:[-*+>]|\d{1,3}[.)]|\[[ xX]\])\s+")

Kind = Literal["work", "decision", "questions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """The difference between two states of a log."""

    lines: tuple[str, ...] = ()
    size: int = 0
    """Bytes added."""


def added(before: str, after: str) -> Added:
    """What `after` has that `before` had not, in order.

    A log that only grew gives its new end; a line that was begun before counts as new once it goes on. In one that
    was rewritten every line counts that occurs more often than before.
    """
    if after == before:
        return Added()
    if after.startswith(before):
        begun = before[before.rfind("\n") + 1 :]
        new = _lines(after[len(before) - len(begun) :])
        unchanged = bool(begun) and new[0] == begun
        return Added(lines=tuple(new[1:] if unchanged else new), size=len(_bytes(after[len(before) :])))
    left = Counter(_lines(before))
    lines = []
    for line in _lines(after):
        if left[line] > 0:
            left[line] -= 1
        else:
            lines.append(line)
    return Added(lines=tuple(lines), size=sum(len(_bytes(line)) + 1 for line in lines))


def _lines(text: str) -> list[str]:
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


class LogWatch:
    """Watches the work log, the decision log and the questions of one run. All but `watch` block on the disk.

    `folder` is the run's own. Call `begin` once before the first turn.
    """

    def __init__(
        self,
        *,
        workspaces: Workspaces,
        workspace: Path,
        folder: Path,
        spec: RunSpec,
        redactor: Redactor,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._workspaces = workspaces
        self._workspace = workspace
        self._folder = folder / "logs"
        self._redactor = redactor
        self._looking = threading.Lock()
        self._sizes: dict[Kind, int] = {}
        self._paths: Mapping[Kind, str] = {
            "work": spec.completion.log,
            "decision": spec.prompt.decision_log,
            "questions": spec.prompt.questions,
        }

    def begin(self) -> None:
        """Keep the logs as they are now, unless that has been done. Idempotent."""
        for kind in self._paths:
            # Nothing kept means that there was nothing: most runs begin without any log.
            if not self._file(kind, "base").exists() and (text := self._read(kind)):
                self._keep(kind, "base", text)

    def added_lines(self) -> Sequence[str]:
        """The lines added to the work log since the run began: where the completion pattern is looked for."""
        return added(self._kept("work", "base"), self._read("work")).lines

    def look(self, *, final: bool = False) -> list[Draft]:
        """What is new since the last look, also that of an earlier process. Half lines wait until `final`."""
        with self._looking:
            return [draft for kind in self._paths for draft in self._look(kind, final=final)]

    async def watch(self, add: Callable[[Sequence[Draft]], None]) -> None:
        """Look every second and hand over what is new, until cancelled; never blocks the loop."""
        while True:
            await self._clock.sleep(LOOK_S)
            look = asyncio.ensure_future(asyncio.to_thread(self.look))
            try:
                add(await asyncio.shield(look))
            except asyncio.CancelledError:
                add(await look)  # it has been marked as seen: nobody would report it again
                raise

    def _look(self, kind: Kind, *, final: bool) -> list[Draft]:
        if not final and self._same_size(kind):
            return []
        before, after = self._kept(kind, "seen"), self._read(kind)
        if not final:
            after = after[: after.rfind("\n") + 1] if after != before else after
        if after == before or (not final and before.startswith(after)):
            return []
        self._keep(kind, "seen", after)
        new = added(before, after)
        return self._questions(new) if kind == "questions" else [self._updated(kind, new)]

    def _same_size(self, kind: Kind) -> bool:
        """A cheap look; a log that was rewritten to the same size is noticed at the turn's end."""
        found = self._workspaces.read_text(self._workspace, self._paths[kind], limit=0)
        size = found[1] if found else 0
        same = self._sizes.get(kind) == size
        self._sizes[kind] = size
        return same

    def _updated(self, kind: Kind, new: Added) -> Draft:
        text = self._redactor.text(plain("\n".join(new.lines)))
        data = {
            "kind": kind,
            "path": self._paths[kind],
            "added_bytes": new.size,
            "added_lines": len(new.lines),
            "tail": tail_utf8(text, MAX_TAIL),
        }
        return Draft(type="log.updated", data=data)

    def _questions(self, new: Added) -> list[Draft]:
        asked = [text for line in new.lines if (text := _question(line))][:MAX_QUESTIONS]
        return [
            Draft(type="question.asked", data={"text": cut_utf8(self._redactor.text(text), MAX_QUESTION)})
            for text in asked
        ]

    def _read(self, kind: Kind) -> str:
        found = self._workspaces.read_text(self._workspace, self._paths[kind], limit=MAX_BYTES)
        return found[0] if found else ""

    def _file(self, kind: Kind, which: Literal["base", "seen"]) -> Path:
        return self._folder / f"{kind}.{which}"

    def _kept(self, kind: Kind, which: Literal["base", "seen"]) -> str:
        try:
            return self._file(kind, which).read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            return self._kept(kind, "base") if which == "seen" else ""

    def _keep(self, kind: Kind, which: Literal["base", "seen"], text: str) -> None:
        file = self._file(kind, which)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_bytes(text.encode("utf-8", "replace"))
        os.replace(partial, file)


def _question(line: str) -> str:
    """The question on a line without its bullet; empty for headings, rules and blanks."""
    text = plain(line).strip()
    if text.startswith("#"):
        return ""
    while bullet := _BULLET.match(text):
        text = text[bullet.end() :]
    return text if any(character.isalnum() for character in text) else ""
