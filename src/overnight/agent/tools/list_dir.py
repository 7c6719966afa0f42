"""The tool `list_dir`: what lies in a folder, a few levels deep, a page at a time."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from overnight.agent.tools.reading import cut, opened, place
from overnight.agent.tools.threads import Stop, in_thread
from overnight.agent.tools.tool import ForModel, Preview, ToolContext, ToolOutcome, ToolSpec
from overnight.workspaces import beneath

MOST_ENTRIES: Final = 100_000
"""That are looked at in one call."""
_KINDS: Final = {"folder": "/", "link": "@", "other": "?", "file": ""}

_DESCRIPTION: Final = """\
List a folder and what is below it, breadth first up to a depth, sorted by path, a page at a time. Folders end in /, \
links in @ (they are not followed), what is neither file nor folder in ?."""

_PARAMETERS: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {
        "dir_path": {"type": "string", "minLength": 1, "description": "The folder; '.' is the workspace."},
        "offset": {"type": "integer", "description": "The first entry to show, counted from 1."},
        "limit": {"type": "integer", "description": "How many entries to show; 25 if not given."},
        "depth": {"type": "integer", "description": "How many levels; 2 if not given."},
    },
    "required": ["dir_path"],
    "additionalProperties": False,
}


class ListDir:
    """Implements `Tool`."""

    @property
    def spec(self) -> ToolSpec:
        """See `Tool`."""
        return ToolSpec(
            name="list_dir", description=_DESCRIPTION, parameters=_PARAMETERS,
            parallel_safe=True, is_destructive=False, required_permissions=frozenset({"read"}),
        )  # fmt: skip

    async def preview(self, arguments: Mapping[str, object], context: ToolContext) -> Preview:
        """See `Tool`."""
        path = place(context, str(arguments["dir_path"]))
        return Preview(title=f"List {path}", paths=(path,))

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """See `Tool`."""
        page = _page(arguments)
        return ToolOutcome(text=await in_thread(lambda stop: _listed(context, page, stop)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    path: str
    offset: int
    limit: int
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    path: str
    kind: Literal["folder", "link", "other", "file"]

    @property
    def line(self) -> str:
        name, depth = self.path.rpartition("/")[2], self.path.count("/")
        return f"{'  ' * depth}{cut(_shown(name))}{_KINDS[self.kind]}"


def _page(arguments: Mapping[str, object]) -> _Page:
    def number(name: str, default: int) -> int:
        given = arguments.get(name)
        return given if isinstance(given, int) else default

    page = _Page(
        path=str(arguments["dir_path"]),
        offset=number("offset", 1),
        limit=number("limit", 25),
        depth=number("depth", 2),
    )
    if page.offset < 1:
        raise ForModel("offset must be a 1-indexed entry number")
    if page.limit < 1:
        raise ForModel("limit must be greater than zero")
    if page.depth < 1:
        raise ForModel("depth must be greater than zero")
    return page


def _listed(context: ToolContext, page: _Page, stop: Stop) -> str:
    with opened(context, page.path, f"the folder {page.path[:200]!r}", folder=True) as root:
        entries, whole = _entries(root, page.depth, stop)
    if page.offset > max(1, len(entries)):
        raise ForModel("offset exceeds directory entry count")
    shown = entries[page.offset - 1 :][: page.limit]
    path = page.path if page.path.startswith("/") else str(context.workspace.path / page.path)
    lines = [f"Absolute path: {os.path.normpath(path)}", *(entry.line for entry in shown)]
    if page.offset - 1 + len(shown) < len(entries):
        lines.append(f"More than {len(shown)} entries found")
    if not whole:
        lines.append(f"Only the first {MOST_ENTRIES} entries were looked at")
    return "\n".join(lines)


def _entries(root: int, depth: int, stop: Stop) -> tuple[list[_Entry], bool]:
    """All entries by path, and whether these are all. Folders that cannot be read are shown and left at that."""
    found: list[_Entry] = []
    waiting: deque[tuple[str, int]] = deque([("", 1)])
    while waiting and not stop.asked:
        folder, level = waiting.popleft()
        for entry in _inside(root, folder):
            if len(found) == MOST_ENTRIES:
                return sorted(found, key=lambda entry: entry.path), False
            found.append(entry)
            if entry.kind == "folder" and level < depth:
                waiting.append((entry.path, level + 1))
    return sorted(found, key=lambda entry: entry.path), True


def _inside(root: int, folder: str) -> list[_Entry]:
    found: list[_Entry] = []
    with contextlib.suppress(OSError):
        descriptor = (
            beneath.open_beneath(root, folder, os.O_RDONLY | os.O_DIRECTORY) if folder else os.dup(root)
        )
        try:
            with os.scandir(descriptor) as entries:
                for _, entry in zip(range(MOST_ENTRIES + 1), entries, strict=False):
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    found.append(_Entry(path=path, kind=_kind(entry)))
        finally:
            os.close(descriptor)
    return found


def _kind(entry: os.DirEntry[str]) -> Literal["folder", "link", "other", "file"]:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def _shown(name: str) -> str:
    """Names are bytes to the system: what is no UTF-8 is shown as such."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\n", "\\n")
