"""The events of a run as updates of an editor's session: each thing told once, in order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from acp.helpers import plan_entry, text_block, update_plan
from acp.schema import (
    AgentMessageChunk,
    AgentPlanUpdate,
    AgentThoughtChunk,
    PlanEntryStatus,
    ToolCallProgress,
    ToolCallStart,
    UserMessageChunk,
)

from overnight.client.editor.notices import notice_of
from overnight.client.editor.speech import Speech
from overnight.client.editor.tool_calls import ToolCalls

Update = (
    UserMessageChunk
    | AgentMessageChunk
    | AgentThoughtChunk
    | ToolCallStart
    | ToolCallProgress
    | AgentPlanUpdate
)
Data = Mapping[str, Any]
_ENDS: Final = frozenset({"turn.completed", "turn.failed", "turn.abandoned"})
_STATUS: Final[Mapping[str, PlanEntryStatus]] = {
    "in_progress": "in_progress",
    "completed": "completed",
    "done": "completed",
}


class Transcript:
    """Fed with the events of one run in their order, and with the pieces of text between them."""

    def __init__(self, run_id: str, cwd: str) -> None:
        self.tools = ToolCalls(run_id, cwd)
        self._run = run_id
        self._place = "0.0"
        self._speech = Speech()
        self._message = ""
        """The message that the last update belongs to."""
        self._thinks = False
        """Whether that is a thought."""
        self._tellers: dict[str, Callable[[str, Data], list[Update]]] = {
            "message.delta": self._piece,
            "reasoning.delta": self._piece,
            "message.completed": self._whole,
            "reasoning.completed": self._whole,
            "output.recorded": self._printed,
            "tool.started": lambda _, data: self._apart(self.tools.started(data)),
            "command.started": lambda _, data: self._apart(self.tools.started(data)),
            "tool.completed": lambda _, data: self._apart(self.tools.completed(data)),
            "command.completed": lambda _, data: self._apart(self.tools.completed(data)),
            "file.read": lambda kind, data: self._apart(self.tools.file(kind, data)),
            "file.written": lambda kind, data: self._apart(self.tools.file(kind, data)),
            "file.deleted": lambda kind, data: self._apart(self.tools.file(kind, data)),
            "tests.completed": lambda _, data: self._apart(self.tools.tests(data)),
            "approval.resolved": lambda kind, data: self._apart(self.tools.decided(kind, data)),
            "approval.expired": lambda kind, data: self._apart(self.tools.decided(kind, data)),
            "approval.cancelled": lambda kind, data: self._apart(self.tools.decided(kind, data)),
            "plan.updated": lambda _, data: self._apart([_plan(data)]),
        }

    def feed(self, item: Data) -> list[Update]:
        """The updates that an event, or a piece of text, makes."""
        kind = str(item["type"])
        tell = self._tellers.get(kind)
        if tell is not None:
            return tell(kind, item.get("data") or {})
        before: list[Update] = []
        if kind == "turn.started":
            before += self._begin(item)
        elif kind in _ENDS:
            before += self.tools.end()
        words = notice_of(kind, item)
        return before if words is None else [*before, self.note(words)]

    def note(self, text: str) -> Update:
        """Words of Overnight's own, apart from what the agent says."""
        self._message = ""
        content = text_block(f"[Overnight] {text}\n")
        return AgentThoughtChunk(session_update="agent_thought_chunk", content=content)

    def said(self, text: str, message: str) -> Update:
        """Words of a person."""
        self._message = ""
        content = text_block(text)
        return UserMessageChunk(session_update="user_message_chunk", content=content, message_id=message)

    def _begin(self, event: Data) -> list[Update]:
        self._place = f"{event.get('turn')}.{event.get('attempt')}"
        self._speech = Speech()
        return self._apart(self.tools.begin(self._place))

    def _piece(self, kind: str, data: Data) -> list[Update]:
        item = f"{kind.partition('.')[0]}:{data.get('item_id')}"
        return self._chunk(item, self._speech.piece(item, int(data["offset"]), str(data["text"])))

    def _whole(self, kind: str, data: Data) -> list[Update]:
        item = f"{kind.partition('.')[0]}:{data.get('item_id')}"
        return self._chunk(item, self._speech.whole(item, str(data.get("text", ""))))

    def _printed(self, _kind: str, data: Data) -> list[Update]:
        if data.get("stream") != "stdout":
            return []
        whole = not data.get("truncated_bytes")
        return self._chunk("message:stdout", self._speech.printed(str(data.get("text", "")), whole=whole))

    def _chunk(self, item: str, text: str) -> list[Update]:
        if not text:
            return []
        message, thinks = f"{self._run}:{self._place}:{item}", item.startswith("reasoning:")
        # Two messages in a row would run together where the editor does not look at their ids.
        gap = "\n\n" if self._message not in {"", message} and self._thinks == thinks else ""
        self._message, self._thinks = message, thinks
        content = text_block(gap + text)
        if thinks:
            return [
                AgentThoughtChunk(session_update="agent_thought_chunk", content=content, message_id=message)
            ]
        return [AgentMessageChunk(session_update="agent_message_chunk", content=content, message_id=message)]

    def _apart(self, updates: list[Any]) -> list[Update]:
        """Whatever is said after `updates` is a piece of its own in the editor."""
        if updates:
            self._message = ""
        return updates


def _plan(data: Data) -> AgentPlanUpdate:
    entries = data.get("entries") or ()
    return update_plan(
        plan_entry(str(entry.get("text", "")), status=_STATUS.get(str(entry.get("status")), "pending"))
        for entry in entries
    )
