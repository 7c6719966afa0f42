"""What an editor is shown of tool calls: which kind of thing they do, where, and what came of it. Pure."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from acp.helpers import text_block, tool_content, tool_diff_content
from acp.schema import (
    ContentToolCallContent,
    FileEditToolCallContent,
    ToolCallLocation,
    ToolKind,
)

from overnight.client.editor.patches import Piece

MAX_SHOWN: Final = 64 * 1024
"""Characters of a tool's output that are passed on: its end."""
Content = ContentToolCallContent | FileEditToolCallContent

_WORDS: Final[tuple[tuple[ToolKind, frozenset[str]], ...]] = (
    ("delete", frozenset({"delete", "remove", "rm", "unlink"})),
    ("move", frozenset({"move", "rename", "mv"})),
    ("edit", frozenset({"edit", "write", "patch", "replace", "create", "insert", "multiedit"})),
    ("search", frozenset({"grep", "glob", "search", "find", "rg", "websearch"})),
    ("fetch", frozenset({"fetch", "webfetch", "browse", "download", "http", "url"})),
    ("execute", frozenset({"shell", "bash", "exec", "execute", "run", "command", "terminal"})),
    ("think", frozenset({"think", "thought", "todo", "todowrite", "plan", "task"})),
    ("read", frozenset({"read", "view", "cat", "list", "ls", "open", "dir"})),
)
_PATHS: Final = (
    "path", "file_path", "filePath", "absolute_path", "notebook_path", "filename", "file", "dir_path", "directory",
)  # fmt: skip
_LINES: Final = ("line", "offset", "start_line")


def kind_of(name: str) -> ToolKind:
    """The kind that a tool's name speaks of; `other` when it says nothing."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = {*re.findall(r"[a-z]+", spaced.lower()), name.lower()}
    return next((kind for kind, known in _WORDS if words & known), "other")


def title_of(name: str, arguments: Mapping[str, Any]) -> str:
    """A tool's name with what it is about."""
    about = next((str(arguments[key]) for key in (*_PATHS, *_ABOUT) if arguments.get(key)), "")
    line = " ".join(f"{name} {about}".split())
    return line if len(line) <= 200 else line[:199] + "…"


_ABOUT: Final = ("pattern", "query", "url", "command", "description")


def locations_of(arguments: Mapping[str, Any], cwd: str) -> list[ToolCallLocation]:
    """The file that the arguments name, with its line."""
    path = next((arguments[key] for key in _PATHS if isinstance(arguments.get(key), str)), None)
    if not path:
        return []
    line = next((arguments[key] for key in _LINES if isinstance(arguments.get(key), int)), None)
    return [ToolCallLocation(path=absolute(path, cwd), line=line if line is None or line >= 0 else None)]


def absolute(path: str, cwd: str) -> str:
    """`path` as editors want it."""
    return os.path.normpath(os.path.join(cwd, path))


def printed(text: str) -> list[Content]:
    """What a tool printed, as a block of its own that no mark-up of its own can leave."""
    text = text.strip("\n")
    if not text:
        return []
    shown = text if len(text) <= MAX_SHOWN else f"[… the beginning is left out …]\n{text[-MAX_SHOWN:]}"
    ticks = max((len(found) for found in re.findall(r"`{3,}", shown)), default=2) + 1
    return [tool_content(text_block(f"{'`' * ticks}\n{shown}\n{'`' * ticks}"))]


def said(text: str) -> Content:
    """Plain words."""
    return tool_content(text_block(text))


def compared(found: Iterable[Piece], cwd: str) -> list[Content]:
    """Changes of files, for the editor to show side by side."""
    return [tool_diff_content(absolute(one.path, cwd), one.after, one.before) for one in found]
