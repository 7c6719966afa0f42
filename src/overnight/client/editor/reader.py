"""Follows one run for an editor: shows what happens, asks what is asked, and knows how its turns ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, cast

from acp.helpers import update_tool_call

from overnight.client.client import Client
from overnight.client.editor import tools
from overnight.client.editor.asking import Asking
from overnight.client.editor.course import Course, Ending, Trouble
from overnight.client.editor.editor import Editor
from overnight.client.editor.patches import pieces
from overnight.client.editor.transcript import Transcript
from overnight.errors import OvernightError

MOST_DIFFS: Final = 20
"""Changed files of one turn whose differences are fetched and shown."""
_DECIDED: Final = frozenset({"approval.resolved", "approval.expired", "approval.cancelled"})


class RunReader:
    """One run from the event after `after` on, until it has ended; survives restarts of the server."""

    def __init__(
        self, client: Client, editor: Editor, asking: Asking, transcript: Transcript, *, run_id: str, cwd: str,
        lost: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.transcript = transcript
        self._client = client
        self._editor = editor
        self._asking = asking
        self._run = run_id
        self._cwd = cwd
        self._lost = lost
        self._course = Course()
        self._changed = asyncio.Condition()

    @property
    def final(self) -> bool:
        """Whether the run has ended, as far as it was followed."""
        return self._course.final is not None

    async def read(self, after: int) -> None:
        """Until the run has ended. Raises ConnectionError or OSError once the editor is gone."""
        try:
            stream = self._client.follow(self._run, after, deltas=True, lost=self._lost)
            async with aclosing(stream) as items:
                async for item in items:
                    await self._take(cast("Mapping[str, Any]", item))
        except OvernightError as error:
            self._course.final = Ending(trouble=Trouble(code=error.code, message=error.detail))
        finally:
            if self._course.final is None:
                trouble = Trouble(code="not_followed", message=f"{self._run} is not followed any more")
                self._course.final = Ending(trouble=trouble)
            await self._tell()

    async def ended(self, turn: int) -> Ending:
        """How that turn ended, once it has."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._course.ending(turn) is not None)
            return cast("Ending", self._course.ending(turn))

    async def over(self) -> Ending:
        """How the run ended, once it has."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._course.final is not None)
            return cast("Ending", self._course.final)

    async def _take(self, item: Mapping[str, Any]) -> None:
        kind, data = str(item["type"]), item.get("data") or {}
        await self._editor.show(self.transcript.feed(item))
        if kind == "approval.requested":
            self._asking.ask(str(data["approval_id"]), str(data["digest"]), self.transcript)
        elif kind in _DECIDED:
            self._asking.drop(str(data.get("approval_id")))
        elif kind in {"turn.completed", "turn.failed"}:
            await self._show_changes(int(item.get("turn") or 0))
        if "seq" in item:
            self._course.feed(item)
            await self._tell()

    async def _show_changes(self, turn: int) -> None:
        for path, tool_call in list(self.transcript.tools.written().items())[:MOST_DIFFS]:
            relative = path.removeprefix(self._cwd.rstrip("/") + "/")
            try:
                found = await self._client.diff(self._run, scope="turn", turn=turn, path=relative)
            except OvernightError:
                continue
            content = tools.compared(pieces(str(found.get("patch") or "")), self._cwd)
            if content:
                await self._editor.show([update_tool_call(tool_call, content=content)])

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
