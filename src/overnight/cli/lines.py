"""One recorded event as lines for a person. Pure; the caller strips what a terminal would obey."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from overnight.cli.output import count, span


class Line(NamedTuple):
    """Text and the style that it gets where there are colours."""

    text: str
    style: str = ""


def lines(event: Mapping[str, Any]) -> list[Line]:
    """The lines of an event; none for what the live figures show already."""
    kind, data = str(event["type"]), event.get("data") or {}
    make = _MAKERS.get(kind)
    if make is not None:
        return make(event, data)
    if kind in _SILENT:
        return []
    return [Line(f"{kind} {_compact(data)}", "dim")]


def _queued(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(f"queued for {data.get('backend', 'its backend')}", "dim")]


def _turn_started(event: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    attempt = event.get("attempt") or 1
    again = f", attempt {attempt}" if attempt > 1 else ""
    return [Line(f"── turn {event.get('turn')}{again} · {data.get('backend', '')} ──", "bold")]


def _turn_completed(event: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    usage = data.get("usage") or {}
    figures = [span((data.get("duration_ms") or 0) / 1000)]
    if usage.get("total"):
        figures.append(f"{count(usage['total'])} tokens")
    if usage.get("cost_usd") is not None:
        figures.append(f"${usage['cost_usd']:.4f}")
    how = _CUT_SHORT.get(str(data.get("stop_reason")), "done")
    return [Line(f"   turn {event.get('turn')} {how} · {' · '.join(figures)}", "dim")]


def _turn_failed(event: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(f"   turn {event.get('turn')} failed: {data.get('code')}: {data.get('message')}", "red")]


def _turn_abandoned(event: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(f"   turn {event.get('turn')} abandoned: {data.get('reason')}", "yellow")]


def _message(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(text) for text in str(data.get("text", "")).rstrip().split("\n")]


def _reasoning(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(text, "dim italic") for text in str(data.get("text", "")).rstrip().split("\n")]


def _output(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    style = "red dim" if data.get("stream") == "stderr" else "dim"
    found = [Line(f"   │ {text}", style) for text in str(data.get("text", "")).rstrip("\n").split("\n")]
    if data.get("truncated_bytes"):
        found.append(
            Line(f"   │ … {data['truncated_bytes']} more bytes are in the turn's output file", "dim")
        )
    return found


def _command_started(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(f"   $ {data.get('command', '')}", "cyan")]


def _command_completed(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    code = data.get("exit_code")
    took = f" · {span(data['duration_ms'] / 1000)}" if data.get("duration_ms") else ""
    return [Line(f"   → exit {code if code is not None else '?'}{took}", "red" if code else "dim")]


def _tool_started(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(f"   * {data.get('name', 'tool')} {_compact(data.get('arguments') or {})}", "cyan")]


def _file_written(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    added, removed = data.get("added_lines"), data.get("removed_lines")
    figures = f" (+{added or 0} -{removed or 0})" if added is not None or removed is not None else ""
    return [Line(f"   {'+' if data.get('kind') == 'created' else '~'} {data.get('path')}{figures}", "green")]


def _file_deleted(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(f"   - {data.get('path')}", "green")]


def _log_updated(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(f"   ~ {data.get('path')} (+{data.get('added_lines', 0)} lines)", "green")]


def _tests(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    figures = f"{data.get('passed') or 0} passed, {data.get('failed') or 0} failed, {data.get('skipped') or 0} skipped"
    return [Line(f"   tests: {figures}", "red" if data.get("failed") else "green")]


def _question(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(f"   ? {data.get('text', '')}", "magenta")]


def _warning(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(f"   ! {data.get('code')}: {data.get('message')}", "yellow")]


def _waiting(event: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    waiting = data.get("waiting_for") or {}
    why = waiting.get("kind") or data.get("kind") or data.get("reason") or ""
    return [Line(f"{str(event['type']).removeprefix('run.')} {why}".rstrip(), "magenta")]


def _approval_requested(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    anew = ", changed" if data.get("changed") else ""
    title = " ".join(str(data.get("title", "")).split())
    return [
        Line(
            f"   ? {data.get('kind', 'approval')}{anew}: {title} ({data.get('approval_id')})", "bold magenta"
        )
    ]


def _approval_resolved(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    feedback = f": {' '.join(str(data['feedback']).split())}" if data.get("feedback") else ""
    return [Line(f"   → {data.get('option')} by {data.get('by')}{feedback}", "magenta")]


def _approval_expired(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    option = data.get("option") or data.get("default_option")
    return [Line(f"   → nobody decided in time: {option}", "yellow")]


def _asked(event: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    by = f" by {data['by']}" if data.get("by") else ""
    words = data.get("note") or data.get("reason")
    note = f": {words}" if words else ""
    return [Line(f"{str(event['type']).removeprefix('run.')}{by}{note}", "magenta")]


def _resumed(event: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    # That a worker has taken it is told by the turn that begins.
    return [] if data.get("worker") else _asked(event, data)


def _budget(event: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    amount = data.get("detail") or f"{data.get('used')} of {data.get('limit')} {data.get('budget')}"
    return [Line(f"   ! {str(event['type']).replace('.', ' ')}: {amount}", "yellow")]


def _plan(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    entries = data.get("entries")
    steps = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [Line(f"   [{_MARKS.get(str(e.get('status')), ' ')}] {e.get('text', '')}", "cyan") for e in steps]


def _recovered(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    how = "its agent had gone on working" if data.get("adopted") else "the turn is done again"
    return [Line(f"taken over after a restart: {how}", "yellow")]


def _handed_over(_: Mapping[str, Any], __: Mapping[str, Any]) -> list[Line]:
    return [Line("handed over: its agent goes on, and waits for the next server", "yellow")]


def _completed(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    line = f": {data['line']}" if data.get("line") else ""
    return [Line(f"completed (by {data.get('by')}){line}", "bold green")]


def _failed(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(f"failed: {data.get('code')}: {data.get('message')}", "bold red")]


def _cancelled(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    steps = ", ".join(map(str, data.get("steps") or [])) or "nothing was running"
    survivors = data.get("survivors")
    left = "nobody could look for survivors" if survivors is None else f"{survivors} survivors"
    return [Line(f"cancelled ({data.get('reason')}): {steps}; {left}", "bold yellow")]


def _steered(_: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    return [Line(f"steered ({data.get('how')}): {data.get('text', '')}", "magenta")]


def _compact(data: object) -> str:
    text = orjson.dumps(data, default=str).decode()
    return text if len(text) <= 200 else text[:199] + "…"


_CUT_SHORT = {"cancelled": "cut short by the cancel", "interrupted": "interrupted"}
_MARKS = {"completed": "x", "in_progress": ">", "done": "x"}
_MAKERS = {
    "run.queued": _queued,
    "turn.started": _turn_started,
    "turn.completed": _turn_completed,
    "turn.failed": _turn_failed,
    "turn.abandoned": _turn_abandoned,
    "message.completed": _message,
    "reasoning.completed": _reasoning,
    "output.recorded": _output,
    "command.started": _command_started,
    "command.completed": _command_completed,
    "tool.started": _tool_started,
    "file.written": _file_written,
    "file.deleted": _file_deleted,
    "log.updated": _log_updated,
    "tests.completed": _tests,
    "question.asked": _question,
    "error.recorded": _warning,
    "run.waiting": _waiting,
    "run.blocked": _waiting,
    "run.paused": _waiting,
    "approval.requested": _approval_requested,
    "approval.resolved": _approval_resolved,
    "approval.expired": _approval_expired,
    "run.pausing": _asked,
    "run.resumed": _resumed,
    "run.requeued": _asked,
    "run.cancelling": _asked,
    "budget.warned": _budget,
    "budget.spent": _budget,
    "plan.updated": _plan,
    "run.recovered": _recovered,
    "run.handed_over": _handed_over,
    "run.completed": _completed,
    "run.failed": _failed,
    "run.cancelled": _cancelled,
    "run.steered": _steered,
}
_SILENT = frozenset(
    {
        "run.started", "usage.recorded", "tool.completed", "file.read", "tests.started", "control.requested",
        "message.delta", "reasoning.delta", "output.delta",
    }
)  # fmt: skip
