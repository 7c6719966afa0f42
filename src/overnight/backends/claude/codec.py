"""Decodes what `claude -p --output-format stream-json --verbose` prints. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from overnight.backends.claude.tools import ToolCalls
from overnight.backends.process.failures import by_status, by_words
from overnight.backends.process.lines import Event, Handler, StandardError, silent_exit, updates_of
from overnight.backends.process.program import Exit, Verdict
from overnight.domain.update import (
    Custom,
    Delta,
    LimitsReported,
    Message,
    Reasoning,
    SessionKnown,
    TurnOutcome,
    Update,
    UsageReported,
    Warned,
)
from overnight.domain.values import Failure, Usage

_SYNTHETIC = "<synthetic>"
_LOST = "No conversation found with session ID"
_LIMITS = frozenset(("rate_limited", "usage_limit"))
_RESET = re.compile(r"limit reached\|(\d{10})\b")
_NOISE = frozenset(
    (
        "thinking_tokens",
        "task_started",
        "task_progress",
        "task_notification",
        "task_updated",
        "status",
        "hook_started",
    )
)
_DELTAS: Mapping[str, tuple[Any, str]] = {
    "text_delta": ("message", "text"),
    "thinking_delta": ("reasoning", "thinking"),
}


class ClaudeCodec:
    """One turn in `workspace`; the state for the next one is `{session_id, cwd}`."""

    def __init__(self, workspace: str) -> None:
        self._workspace = workspace
        self._errors = StandardError()
        self._begun = False
        self._result: Event | None = None
        self._resets_at: int | None = None
        self._tools = ToolCalls()
        self._blocks: Counter[str] = Counter()
        self._streaming = ""
        self._offsets: Counter[str] = Counter()
        self._handlers: Mapping[str, Handler] = {
            "system": self._system,
            "assistant": self._assistant,
            "user": self._user,
            "stream_event": self._stream_event,
            "rate_limit_event": self._limits,
            "result": self._ended,
        }

    def stdout(self, line: bytes, total: int | None = None) -> list[Update]:
        """See `Codec.stdout`."""
        return updates_of(line, total, self._handlers, _unknown)

    def stderr(self, line: bytes, total: int | None = None) -> list[Update]:
        """See `Codec.stderr`."""
        return [self._errors.feed(line, total)]

    def inject(self, text: str) -> bytes | None:  # noqa: ARG002  # the port names it
        """Never: the prompt is all that is read."""
        return None

    def finish(self, exit: Exit) -> Verdict:
        """See `Codec.finish`: `is_error` of the result event decides, whatever `subtype` and exit status say."""
        if self._result is None:
            if _LOST in self._errors.text:
                return _lost()
            return Verdict(outcome=TurnOutcome(failure=silent_exit(exit, self._errors, begun=self._begun)))
        failure = _failure(self._result)
        if failure is None:
            return Verdict(
                outcome=TurnOutcome(stop_reason=str(self._result.get("stop_reason") or "end_turn"))
            )
        if failure.code in _LIMITS:
            failure = replace(failure, retry_at=_reset(failure.message) or self._resets_at)
        return _lost() if _LOST in failure.message else Verdict(outcome=TurnOutcome(failure=failure))

    def _system(self, event: Event) -> list[Update]:
        match event.get("subtype"):
            case "init":
                self._begun = True
                return [SessionKnown(state={"session_id": str(event["session_id"]), "cwd": self._workspace})]
            case "api_retry":
                message = f"the model service answered {event.get('error_status')}: {event.get('error')}; trying again"
                return [Warned(code="backend_retry", message=message, retryable=True)]
            case subtype if subtype in _NOISE:
                return []
            case _:
                return [_unknown(event, str(event.get("subtype")))]

    def _assistant(self, event: Event) -> list[Update]:
        message = event["message"]
        if message.get("model") == _SYNTHETIC:
            # The program's own words about an error; the result event says it again, as an error.
            return []
        updates: list[Update] = []
        for block in message["content"]:
            item_id = f"{message['id']}.{self._blocks[message['id']]}"
            self._blocks[message["id"]] += 1
            updates += self._block(event, block, item_id)
        return updates

    def _block(self, event: Event, block: Event, item_id: str) -> list[Update]:
        match block["type"]:
            case "text" if event.get("parent_tool_use_id"):
                # What a sub-agent tells its parent is not this turn's answer.
                return [Custom(name="claude.subagent", data={"text": str(block["text"])})]
            case "text":
                return [Message(item_id=item_id, text=str(block["text"]))]
            case "thinking":
                return [Reasoning(item_id=item_id, text=str(block["thinking"]))]
            case "tool_use":
                return self._tools.started(str(block["id"]), str(block["name"]), block["input"])
            case "redacted_thinking":
                return []
            case kind:
                return [_unknown(event, str(kind))]

    def _user(self, event: Event) -> list[Update]:
        content = event["message"]["content"]
        if not isinstance(content, list):
            return []
        updates: list[Update] = []
        for block in content:
            if block["type"] == "tool_result":
                updates += self._tools.completed(block, event.get("tool_use_result"))
        return updates

    def _stream_event(self, event: Event) -> list[Update]:
        inner = event["event"]
        if event.get("parent_tool_use_id"):
            return []
        if inner["type"] == "message_start":
            self._streaming = str(inner["message"]["id"])
        if inner["type"] != "content_block_delta" or inner["delta"]["type"] not in _DELTAS:
            return []
        kind, field = _DELTAS[inner["delta"]["type"]]
        item_id, text = f"{self._streaming}.{inner['index']}", str(inner["delta"][field])
        offset = self._offsets[item_id]
        self._offsets[item_id] += len(text)
        return [Delta(kind=kind, item_id=item_id, offset=offset, text=text)] if text else []

    def _limits(self, event: Event) -> list[Update]:
        limits = event.get("rate_limit_info") or event
        if isinstance(limits.get("resetsAt"), int):
            self._resets_at = limits["resetsAt"] * 1000
        return [LimitsReported(data=limits)]

    def _ended(self, event: Event) -> list[Update]:
        self._result = event
        usage = event.get("usage")
        return [UsageReported(usage=_usage(usage, event.get("total_cost_usd")))] if usage else []


def _usage(usage: Event, cost: object) -> Usage:
    cached = int(usage.get("cache_read_input_tokens") or 0)
    written = int(usage.get("cache_creation_input_tokens") or 0)
    return Usage(
        # Reported beside each other; here input includes what came from the cache.
        input=int(usage.get("input_tokens") or 0) + cached + written,
        cached=cached,
        output=int(usage.get("output_tokens") or 0),
        cost_usd=float(cost) if isinstance(cost, int | float) else None,
    )


def _failure(result: Event) -> Failure | None:
    if not result.get("is_error") and result.get("subtype") == "success":
        return None
    errors = result.get("errors")
    listed = "; ".join(map(str, errors)) if isinstance(errors, list) else ""
    message = str(result.get("result") or listed or result.get("subtype") or "the turn failed")
    status = result.get("api_error_status")
    words = by_words(message, otherwise=str(result.get("subtype") or "turn_failed"))
    if isinstance(status, int) and words.code not in {"context_exceeded", "usage_limit"}:
        return by_status(status, message)
    if words.code == "success":
        return Failure(code="turn_failed", message=words.message, retryable=True)
    if re.match(r"error_max_", words.code):
        return Failure(code=words.code, message=words.message, retryable=False)
    return words


def _reset(message: str) -> int | None:
    found = _RESET.search(message)
    return int(found[1]) * 1000 if found else None


def _lost() -> Verdict:
    failure = Failure(
        code="session_lost", message="Claude Code does not know the session any more", retryable=True
    )
    return Verdict(outcome=TurnOutcome(failure=failure), updates=(SessionKnown(state={}),))


def _unknown(event: Event, detail: str = "") -> Custom:
    return Custom(name=f"claude.{event['type']}{'.' if detail else ''}{detail}", data=event)
