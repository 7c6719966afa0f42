"""Turns what an agent tells about its session into updates. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from overnight.backends.acp.script import Script
from overnight.backends.acp.shapes import as_object, objects
from overnight.backends.acp.speech import Speech
from overnight.backends.acp.tools import ToolCall
from overnight.backends.acp.usage import Spending
from overnight.domain.update import Custom, PlanReported, Update, UsageReported, Warned

Told = Mapping[str, Any]
_NOISE: Final = frozenset({"available_commands_update", "config_option_update", "user_message_chunk"})
"""What says nothing about the turn: lists of what the agent could do, and our own words come back."""


class Telling:
    """Everything that one turn's `session/update` notifications say."""

    def __init__(self, script: Script) -> None:
        self.speech = Speech()
        self.spending = Spending(script)
        self.broken = False
        """The agent has said that it is in an error, which its answer may not say."""
        self._workspace = script.workspace
        self._wanted_mode = script.mode
        self._calls: dict[str, ToolCall] = {}
        self._handlers: Mapping[str, Callable[[Told], list[Update]]] = {
            "agent_message_chunk": self._message,
            "agent_thought_chunk": self._thought,
            "tool_call": self._tool,
            "tool_call_update": self._tool,
            "plan": self._plan,
            "usage_update": self._usage,
            "session_info_update": self._info,
            "current_mode_update": self._mode,
        }

    def update(self, told: Told) -> list[Update]:
        """What one update means; one of an unknown kind or shape is kept raw."""
        kind = str(told.get("sessionUpdate"))
        if kind in _NOISE:
            return []
        handler = self._handlers.get(kind)
        if handler is None:
            return [*self.speech.end(), _raw(kind, told)]
        try:
            return handler(told)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return [_raw(kind, told)]

    def call(self, told: Told) -> tuple[ToolCall, list[Update]]:
        """The tool call as a request for permission shows it, and that it began.

        What the request itself says of input, texts and places is all that counts; only what it leaves out is taken
        from what was told before, perhaps about another try of the same call.
        """
        known = self._known(str(told.get("toolCallId") or ""))
        shown = known.shown(told)
        words, known.content = known.content, []
        known.merge({name: value for name, value in told.items() if name != "status"})
        known.content = words  # those of the question are no output
        return shown, [*self.speech.end(), *known.begin()]

    def terminal_of(self, id: str) -> str | None:
        """The terminal that shows what a tool call prints."""
        return self._calls[id].terminal if id in self._calls else None

    def end(self) -> list[Update]:
        """The turn is over: what was still being said."""
        return self.speech.end()

    def _message(self, told: Told) -> list[Update]:
        content = as_object(told.get("content"))
        updates: list[Update] = []
        if content.get("type") == "text":
            updates = self.speech.chunk("message", told.get("messageId"), str(content.get("text", "")))
        elif content:
            updates = [*self.speech.end(), _raw("agent_message_chunk", told)]
        usage = self.spending.chunk(as_object(told.get("_meta")))
        return [*updates, *([UsageReported(usage=usage)] if usage else [])]

    def _thought(self, told: Told) -> list[Update]:
        text = str(as_object(told.get("content")).get("text", ""))
        return self.speech.chunk("reasoning", told.get("messageId"), text)

    def _tool(self, told: Told) -> list[Update]:
        call = self._known(str(told["toolCallId"]))
        if call.ended:
            return []
        call.merge(told)
        return [*self.speech.end(), *(call.begin() if call.ripe else ()), *call.end()]

    def _plan(self, told: Told) -> list[Update]:
        entries = tuple(
            {"text": str(entry.get("content", "")), "status": str(entry.get("status", "pending"))}
            for entry in objects(told.get("entries"))
        )
        return [*self.speech.end(), PlanReported(entries=entries)]

    def _usage(self, told: Told) -> list[Update]:
        self.spending.session_cost(told)
        return []

    def _info(self, told: Told) -> list[Update]:
        status = as_object(as_object(as_object(told.get("_meta")).get("codex")).get("threadStatus"))
        if status:
            # An adapter that answers a failed turn like a good one says here what it was.
            self.broken = status.get("type") == "systemError" or (
                self.broken and status.get("type") != "active"
            )
        return []

    def _mode(self, told: Told) -> list[Update]:
        mode = str(told["currentModeId"])
        if self._wanted_mode in {None, mode}:
            return []
        message = f"the agent has gone into the mode {mode}; asked for was {self._wanted_mode}"
        return [Warned(code="mode_changed", message=message, retryable=False)]

    def _known(self, id: str) -> ToolCall:
        if id not in self._calls or not id:
            self._calls[id] = ToolCall(id=id, workspace=self._workspace)
        return self._calls[id]


def _raw(kind: str, told: Told) -> Custom:
    return Custom(name=f"acp.{kind}", data=told)
