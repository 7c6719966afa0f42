"""Tool calls as the protocol shows them: what is about to be done, in enough detail to decide about it. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from overnight.agent.loop.telling import Call
from overnight.agent.tools.tool import FileChanged, ToolOutcome

_KINDS: Final[Mapping[str, str]] = {
    "apply_patch": "edit",
    "list_dir": "read",
    "read_file": "read",
    "grep_files": "search",
    "shell": "execute",
    "view_image": "read",
    "update_plan": "think",
}
MOST: Final = 200_000
"""Characters of an answer that are shown; the model reads all of it."""


def begun(call: Call, root: Path) -> dict[str, object]:
    """The first update about a call."""
    return {"sessionUpdate": "tool_call", **shown(call, root), "status": "in_progress"}


def shown(call: Call, root: Path) -> dict[str, object]:
    """A call before it is carried out; a request for permission shows the same."""
    preview = call.preview
    return {
        "toolCallId": call.id,
        "title": preview.title if preview else call.name,
        "kind": _kind(call),
        "status": "pending",
        "rawInput": _input(call),
        "content": [_diff(change, root) for change in preview.changes] if preview else [],
        "locations": [{"path": str(root / path)} for path in preview.paths] if preview else [],
        "_meta": {"toolName": call.name},
    }


def progress(call: Call, text: str) -> dict[str, object]:
    """A call has printed something: only what is new, as terminals of editors take it."""
    meta = {"terminal_output_delta": {"terminal_id": call.id, "data": text}}
    return {"sessionUpdate": "tool_call_update", "toolCallId": call.id, "_meta": meta}


def ended(call: Call, outcome: ToolOutcome, root: Path) -> dict[str, object]:
    """The last update about a call."""
    preview = call.preview
    changes = [event for event in outcome.events if isinstance(event, FileChanged)]
    content = [_diff(change, root) for change in changes] or [
        {"type": "content", "content": {"type": "text", "text": outcome.text[:MOST]}}
    ]
    pictures = [
        {
            "type": "content",
            "content": {
                "type": "image",
                "data": base64.b64encode(image.data).decode("ascii"),
                "mimeType": image.media_type,
            },
        }
        for image in outcome.images
    ]
    return {
        "sessionUpdate": "tool_call_update",
        "toolCallId": call.id,
        "status": "completed" if outcome.ok else "failed",
        "title": preview.title if preview else call.name,
        "content": [*content, *pictures],
        "rawOutput": {**outcome.structured, "output": outcome.text[:MOST]},
    }


def _kind(call: Call) -> str:
    if call.name == "apply_patch" and call.preview is not None and call.preview.changes:
        kinds = {change.kind for change in call.preview.changes}
        return "delete" if kinds == {"deleted"} else "edit"
    return _KINDS.get(call.name, "other")


def _input(call: Call) -> dict[str, object]:
    """As given; a command's folder is shown as others call it."""
    command = call.preview.command if call.preview is not None else None
    given = {name: value for name, value in call.arguments.items() if name not in {"command", "workdir"}}
    if command is None:
        return dict(call.arguments)
    folder = call.arguments.get("workdir")
    return {"command": command, **({"cwd": folder} if folder else {}), **given}


def _diff(change: FileChanged, root: Path) -> dict[str, object]:
    return {
        "type": "diff",
        "path": str(root / change.path),
        "oldText": change.old_text,
        "newText": change.new_text or "",
    }
