"""Decodes what `codex exec --json` prints. Pure.

Codex reports the token totals of its whole thread; the totals at the end of the last turn travel in the resume state,
and their difference is this turn's usage. A turn that fails reports none, so its tokens count with the next one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from overnight.backends.process.failures import by_words
from overnight.backends.process.lines import Event, Handler, StandardError, silent_exit, updates_of
from overnight.backends.process.program import Exit, Verdict
from overnight.domain.update import (
    Custom,
    FileTouched,
    Message,
    PlanReported,
    Reasoning,
    SessionKnown,
    ToolCompleted,
    ToolStarted,
    TurnOutcome,
    Update,
    UsageReported,
    Warned,
)
from overnight.domain.values import Failure, Usage

_KINDS: Mapping[str, Any] = {"add": "created", "update": "modified", "delete": "deleted"}
_TOTALS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
_WRAPPED = re.compile(r"(?:/\S+/)?(?:ba|z|da)?sh -l?c ")
_PLAINLY_WRAPPED = re.compile(_WRAPPED.pattern + r"'([^']*)'")
_LOST = ("no rollout found", "thread/resume failed")


class CodexCodec:
    """One turn. `resume` is the state that the last turn left: `{thread_id, totals}`, or empty."""

    def __init__(self, resume: Mapping[str, object]) -> None:
        self._thread = str(resume.get("thread_id", ""))
        self._totals = _numbers(resume.get("totals"))
        self._errors = StandardError()
        self._begun = False
        self._completed = False
        self._failure: Failure | None = None
        self._handlers: Mapping[str, Handler] = {
            "thread.started": self._thread_started,
            "turn.started": self._turn_started,
            "turn.completed": self._turn_completed,
            "turn.failed": self._turn_failed,
            "error": self._warned,
            "item.started": self._item_started,
            "item.updated": self._item_updated,
            "item.completed": self._item_completed,
        }

    def stdout(self, line: bytes, total: int | None = None) -> list[Update]:
        """See `Codec.stdout`."""
        return updates_of(line, total, self._handlers, _unknown)

    def stderr(self, line: bytes, total: int | None = None) -> list[Update]:
        """See `Codec.stderr`."""
        return [self._errors.feed(line, total)]

    def inject(self, text: str) -> bytes | None:  # noqa: ARG002  # the port names it
        """Never: `codex exec` reads its prompt and no more."""
        return None

    def finish(self, exit: Exit) -> Verdict:
        """See `Codec.finish`: the turn's own last event decides, whatever the exit status."""
        if self._failure is not None:
            return Verdict(outcome=TurnOutcome(failure=self._failure))
        if self._completed:
            return Verdict(outcome=TurnOutcome(stop_reason="end_turn"))
        if any(words in self._errors.text for words in _LOST):
            failure = Failure(
                code="session_lost", message="Codex does not know the thread any more", retryable=True
            )
            return Verdict(outcome=TurnOutcome(failure=failure), updates=(SessionKnown(state={}),))
        return Verdict(outcome=TurnOutcome(failure=silent_exit(exit, self._errors, begun=self._begun)))

    def _thread_started(self, event: Event) -> list[Update]:
        thread = str(event["thread_id"])
        if thread != self._thread:
            self._thread, self._totals = thread, dict.fromkeys(_TOTALS, 0)
        return [SessionKnown(state=self._state())]

    def _turn_started(self, _: Event) -> list[Update]:
        self._begun = True
        return []

    def _turn_completed(self, event: Event) -> list[Update]:
        self._completed = True
        if not isinstance(event.get("usage"), dict):
            return []
        before, self._totals = self._totals, _numbers(event["usage"])
        spent = {name: max(0, self._totals[name] - before[name]) for name in _TOTALS}
        usage = Usage(
            input=spent["input_tokens"],
            cached=spent["cached_input_tokens"],
            output=spent["output_tokens"],
            reasoning=spent["reasoning_output_tokens"],
        )
        return [UsageReported(usage=usage), SessionKnown(state=self._state())]

    def _turn_failed(self, event: Event) -> list[Update]:
        message = str(event["error"]["message"])
        self._failure = by_words(message)
        return []

    def _warned(self, event: Event) -> list[Update]:
        return [Warned(code="backend_warning", message=str(event["message"]), retryable=True)]

    def _item_started(self, event: Event) -> list[Update]:
        item = event["item"]
        match item["type"]:
            case "command_execution":
                given = str(item["command"])
                return [_started(item, "shell", {"command": given}, _shell_line(given))]
            case "file_change":
                return [_started(item, "apply_patch", {"paths": [str(c["path"]) for c in item["changes"]]})]
            case "mcp_tool_call":
                return [_started(item, _mcp_name(item), item.get("arguments"))]
            case "web_search":
                return [_started(item, "web_search", {"query": str(item.get("query", ""))})]
            case "todo_list":
                return [_plan(item)]
            case "agent_message" | "reasoning":
                return []
            case _:
                return [_unknown(event)]

    def _item_updated(self, event: Event) -> list[Update]:
        match event["item"]["type"]:
            case "todo_list":
                return [_plan(event["item"])]
            case "command_execution" | "agent_message" | "reasoning":
                return []
            case _:
                return [_unknown(event)]

    def _item_completed(self, event: Event) -> list[Update]:
        item = event["item"]
        match item["type"]:
            case "agent_message":
                return [Message(item_id=str(item["id"]), text=str(item["text"]))]
            case "reasoning":
                return [Reasoning(item_id=str(item["id"]), text=str(item["text"]))]
            case "command_execution":
                return [_command_completed(item)]
            case "file_change":
                return [*_files(item), _completed(item, "apply_patch")]
            case "mcp_tool_call":
                return [_completed(item, _mcp_name(item))]
            case "web_search":
                return [_completed(item, "web_search")]
            case "todo_list":
                return [_plan(item)]
            case "error":
                return [Warned(code="backend_warning", message=str(item["message"]), retryable=False)]
            case _:
                return [_unknown(event)]

    def _state(self) -> dict[str, object]:
        return {"thread_id": self._thread, "totals": dict(self._totals)}


def _numbers(found: object) -> dict[str, int]:
    source = found if isinstance(found, Mapping) else {}
    return {name: int(source.get(name) or 0) for name in _TOTALS}


def _started(item: Event, name: str, arguments: object, command: str | None = None) -> ToolStarted:
    known = arguments if isinstance(arguments, Mapping) else {}
    return ToolStarted(item_id=str(item["id"]), name=name, arguments=known, command=command)


def _completed(item: Event, name: str) -> ToolCompleted:
    return ToolCompleted(
        item_id=str(item["id"]), name=name, ok=item.get("status", "completed") == "completed"
    )


def _command_completed(item: Event) -> ToolCompleted:
    code = item.get("exit_code")
    return ToolCompleted(
        item_id=str(item["id"]),
        name="shell",
        ok=item.get("status") == "completed",
        output=str(item.get("aggregated_output") or ""),
        command=_shell_line(str(item["command"])),
        exit_code=None if code is None else int(code),
    )


def _shell_line(command: str) -> str:
    """What the model asked for: Codex reports it within the call of the user's shell."""
    if plainly := _PLAINLY_WRAPPED.fullmatch(command):
        return plainly[1]  # nothing in there means anything; taking words apart costs a hundred times as much
    if not _WRAPPED.match(command):
        return command
    try:
        parts = shlex.split(command)
    except ValueError:
        return command
    return parts[2] if len(parts) == 3 else command


def _files(item: Event) -> list[Update]:
    if item.get("status") != "completed":
        return []
    return [FileTouched(path=str(c["path"]), kind=_KINDS[c["kind"]]) for c in item["changes"]]


def _plan(item: Event) -> PlanReported:
    entries = tuple(
        {"text": str(entry["text"]), "status": "completed" if entry.get("completed") else "pending"}
        for entry in item["items"]
    )
    return PlanReported(entries=entries)


def _mcp_name(item: Event) -> str:
    return f"{item['server']}.{item['tool']}"


def _unknown(event: Event) -> Custom:
    return Custom(name=f"codex.{event['type']}", data=event)
