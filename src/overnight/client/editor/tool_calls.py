"""The tool calls of one run as an editor is shown them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from acp.helpers import start_tool_call, update_tool_call
from acp.schema import ToolCallLocation, ToolCallProgress, ToolCallStart, ToolCallStatus, ToolKind

from overnight.client.editor import tools

Calls = list[ToolCallStart | ToolCallProgress]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tool:
    id: str
    command: str | None
    paths: frozenset[str]


class ToolCalls:
    """Fed with what tools did, in order. `prefix` makes ids that no other run has; paths are beneath `cwd`."""

    def __init__(self, prefix: str, cwd: str) -> None:
        self._prefix = prefix
        self._cwd = cwd
        self._place = "0.0"
        self._open: dict[str, _Tool] = {}
        self._commands: set[str] = set()
        """Commands of this attempt that have been told: what is recognised in their output is no news."""
        self._written: dict[str, str] = {}
        """Path of each file that this attempt changed → the tool call that shows it."""
        self._asked: dict[str, str] = {}
        """Open approval → the tool call that was made for it alone."""

    def begin(self, place: str) -> Calls:
        """An attempt at a turn begins."""
        left = self.end()
        self._place = place
        self._commands.clear()
        self._written.clear()
        return left

    def end(self) -> Calls:
        """The attempt is over: calls that nobody ended will not end any more."""
        left, self._open = list(self._open.values()), {}
        return [update_tool_call(tool.id, status="failed") for tool in left]

    def written(self) -> Mapping[str, str]:
        """Each file that the present attempt has changed, with the call that shows it."""
        return dict(self._written)

    def running(self, item_id: str | None, command: str | None) -> str | None:
        """The open call of that item; else the one that runs `command` now, if exactly one does."""
        if item_id in self._open:
            return self._open[item_id].id
        found = [tool.id for tool in self._open.values() if command is not None and tool.command == command]
        return found[0] if len(found) == 1 else None

    def asked(self, approval_id: str, tool_call: str) -> None:
        """A call was made for an approval alone, so the decision ends it."""
        self._asked[approval_id] = tool_call

    def started(self, data: Mapping[str, Any]) -> Calls:
        """A tool or a shell command began."""
        command = data.get("command")
        return self._tool_started(data) if command is None else self._command_started(data, str(command))

    def completed(self, data: Mapping[str, Any]) -> Calls:
        """A tool or a shell command ended."""
        item = str(data.get("item_id"))
        before = [] if item in self._open else self.started(data)
        tool = self._open.pop(item)
        output, code = str(data.get("output") or ""), data.get("exit_code")
        status: ToolCallStatus = "completed" if data.get("ok", True) and not code else "failed"
        known = {
            "exit_code": code,
            "duration_ms": data.get("duration_ms"),
            "output": output[-tools.MAX_SHOWN :],
        }
        raw = {name: value for name, value in known.items() if value not in (None, "")}
        content = tools.printed(output) or None
        return [*before, update_tool_call(tool.id, status=status, content=content, raw_output=raw or None)]

    def file(self, kind: str, data: Mapping[str, Any]) -> Calls:
        """A file was read, written or deleted; nothing where a tool call shows it already."""
        path = tools.absolute(str(data.get("path")), self._cwd)
        if path in self._written or any(path in tool.paths for tool in self._open.values()):
            return []
        id = self._id(f"{kind}:{path}")
        if kind == "file.written":
            self._written[path] = id
        what = _FILES[kind]
        verb = "Create" if data.get("kind") == "created" else what[0]
        title = f"{verb} {data.get('path')}{_lines(data)}"
        locations = [ToolCallLocation(path=path)]
        return [start_tool_call(id, title, kind=what[1], status="completed", locations=locations)]

    def tests(self, data: Mapping[str, Any]) -> Calls:
        """Tests were run; nothing where that was seen in the output of a command that is shown."""
        command = data.get("command")
        if command in self._commands:
            return []
        status: ToolCallStatus = "failed" if data.get("failed") or data.get("exit_code") else "completed"
        names = ("passed", "failed", "skipped")
        counts = ", ".join(f"{data[name]} {name}" for name in names if data.get(name))
        self._commands.add(f"tests {len(self._commands)}")
        id = self._id(f"tests:{len(self._commands)}")
        raw = {"command": command} if command else None
        return [
            start_tool_call(
                id, f"Tests: {counts or 'none were run'}", kind="execute", status=status, raw_input=raw
            )
        ]

    def decided(self, kind: str, data: Mapping[str, Any]) -> Calls:
        """An approval was decided, or asks nothing any more."""
        tool_call = self._asked.pop(str(data.get("approval_id")), None)
        if tool_call is None:
            return []
        option = str(data.get("option", ""))
        words = {
            "approval.cancelled": str(data.get("reason", "")),
            "approval.expired": f"nobody decided in time: {option.replace('_', ' ')}",
        }.get(kind, f"{option.replace('_', ' ')}, decided by {data.get('by')}")
        refused = kind == "approval.cancelled" or option.startswith("reject")
        status: ToolCallStatus = "failed" if refused else "completed"
        return [update_tool_call(tool_call, status=status, content=[tools.said(words)])]

    def _command_started(self, data: Mapping[str, Any], command: str) -> Calls:
        id = self._id(str(data.get("item_id")))
        self._commands.add(command)
        self._open[str(data.get("item_id"))] = _Tool(id=id, command=command, paths=frozenset())
        raw = {"command": command}
        return [start_tool_call(id, command, kind="execute", status="in_progress", raw_input=raw)]

    def _tool_started(self, data: Mapping[str, Any]) -> Calls:
        item, name = str(data.get("item_id")), str(data.get("name", ""))
        arguments = data.get("arguments") or {}
        kind, locations = tools.kind_of(name), tools.locations_of(arguments, self._cwd)
        tool = _Tool(
            id=self._id(item),
            command=arguments.get("command"),
            paths=frozenset(place.path for place in locations),
        )
        self._open[item] = tool
        if kind in {"edit", "delete", "move"}:
            self._written |= dict.fromkeys(tool.paths, tool.id)
        return [
            start_tool_call(
                tool.id, tools.title_of(name, arguments), kind=kind, status="in_progress",
                locations=locations or None, raw_input=dict(arguments),
            )
        ]  # fmt: skip

    def _id(self, item: str) -> str:
        return f"{self._prefix}:{self._place}:{item}"


def _lines(data: Mapping[str, Any]) -> str:
    added, removed = data.get("added_lines"), data.get("removed_lines")
    return f" (+{added or 0} -{removed or 0})" if added or removed else ""


_FILES: Final[Mapping[str, tuple[str, ToolKind]]] = {
    "file.read": ("Read", "read"),
    "file.written": ("Write", "edit"),
    "file.deleted": ("Delete", "delete"),
}
