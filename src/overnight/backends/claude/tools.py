"""Pairs the tool calls of one turn with their results. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from overnight.domain.update import FileTouched, PlanReported, ToolCompleted, ToolStarted, Update

_EXIT = re.compile(r"Exit code (\d+)")
_WRITERS: Mapping[str, str] = {
    "Write": "file_path", "Edit": "file_path", "MultiEdit": "file_path", "NotebookEdit": "notebook_path",
}  # fmt: skip
_CREATED = "create"


class ToolCalls:
    """Calls that are under way, by id."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, Mapping[str, Any]]] = {}

    def started(self, id: str, name: str, given: Mapping[str, Any]) -> list[Update]:
        """A call began."""
        self._open[id] = (name, given)
        updates: list[Update] = [
            ToolStarted(item_id=id, name=name, arguments=given, command=_command(name, given))
        ]
        if name == "TodoWrite" and isinstance(given.get("todos"), list):
            entries = tuple(
                {"text": str(entry.get("content", "")), "status": str(entry.get("status", "pending"))}
                for entry in given["todos"]
            )
            updates.append(PlanReported(entries=entries))
        return updates

    def completed(self, block: Mapping[str, Any], details: object) -> list[Update]:
        """A result came; one for a call that was never seen is told all the same."""
        id = str(block["tool_use_id"])
        name, given = self._open.pop(id, ("unknown", {}))
        ok, output = not block.get("is_error"), _text(block.get("content"))
        command = _command(name, given)
        done = ToolCompleted(
            item_id=id,
            name=name,
            ok=ok,
            output=output,
            command=command,
            exit_code=_exit_code(output, ok=ok) if command is not None else None,
        )
        return [*_files(name, given, details), done] if ok else [done]


def _command(name: str, given: Mapping[str, Any]) -> str | None:
    return str(given["command"]) if name == "Bash" and "command" in given else None


def _exit_code(output: str, *, ok: bool) -> int | None:
    if ok:
        return 0
    found = _EXIT.match(output)
    return int(found[1]) if found else None


def _files(name: str, given: Mapping[str, Any], details: object) -> list[Update]:
    if name == "Read" and "file_path" in given:
        return [FileTouched(path=str(given["file_path"]), kind="read")]
    key = _WRITERS.get(name)
    if key is None or key not in given:
        return []
    created = isinstance(details, Mapping) and details.get("type") == _CREATED
    return [FileTouched(path=str(given[key]), kind="created" if created else "modified")]


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(
        str(part.get("text", f"[{part.get('type')}]")) for part in content if isinstance(part, Mapping)
    )
