"""The tool `read_file`: lines of a file with their numbers, from a place on or as the block around one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from overnight.agent.tools.indentation import Wanted, block
from overnight.agent.tools.reading import cut, opened, place
from overnight.agent.tools.threads import Stop, in_thread
from overnight.agent.tools.tool import ForModel, Preview, ToolContext, ToolOutcome, ToolSpec

MOST_SCANNED: Final = 256 << 20
"""Bytes of a file that are read to come to the lines that were asked for."""
MOST_BLOCK: Final = 16 << 20
"""Bytes of a file whose blocks can be found."""
MOST_TEXT: Final = 256_000
"""Characters of one answer."""
_PIECE: Final = 65_536

_DESCRIPTION: Final = """\
Read lines of a text file, each with its number. Mode "slice" (the default) gives `limit` lines from line `offset` on; \
mode "indentation" gives the block around a line, as its indentation shows it."""

_PARAMETERS: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {
        "file_path": {"type": "string", "minLength": 1, "description": "Of the file."},
        "offset": {"type": "integer", "description": "The first line, counted from 1."},
        "limit": {"type": "integer", "description": "How many lines at most; 2000 if not given."},
        "mode": {"type": "string", "enum": ["slice", "indentation"]},
        "indentation": {
            "type": "object",
            "properties": {
                "anchor_line": {"type": "integer", "description": "The line whose block it is; offset if not given."},
                "max_levels": {
                    "type": "integer", "minimum": 0, "description": "Levels above the line; 0 is all of them.",
                },
                "include_siblings": {"type": "boolean", "description": "Blocks beside it too; false if not given."},
                "include_header": {"type": "boolean", "description": "Comments above it too; true if not given."},
                "max_lines": {"type": "integer", "description": "How many lines at most."},
            },
            "additionalProperties": False,
        },
    },
    "required": ["file_path"],
    "additionalProperties": False,
}  # fmt: skip


class ReadFile:
    """Implements `Tool`."""

    @property
    def spec(self) -> ToolSpec:
        """See `Tool`."""
        return ToolSpec(
            name="read_file", description=_DESCRIPTION, parameters=_PARAMETERS,
            parallel_safe=True, is_destructive=False, required_permissions=frozenset({"read"}),
        )  # fmt: skip

    async def preview(self, arguments: Mapping[str, object], context: ToolContext) -> Preview:
        """See `Tool`."""
        path = place(context, str(arguments["file_path"]))
        return Preview(title=f"Read {path}", paths=(path,))

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """See `Tool`."""
        asked = _asked(arguments)
        return ToolOutcome(text=await in_thread(lambda stop: _read(context, asked, stop)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    path: str
    offset: int
    limit: int
    around: tuple[int, Wanted] | None
    """The anchor line and how much around it, in the mode of indentation."""


def _asked(arguments: Mapping[str, Any]) -> _Asked:
    offset, limit = int(arguments.get("offset", 1)), int(arguments.get("limit", 2000))
    if offset < 1:
        raise ForModel("offset must be a 1-indexed line number")
    if limit < 1:
        raise ForModel("limit must be greater than zero")
    around = None
    if arguments.get("mode") == "indentation":
        around = _around(cast("dict[str, Any]", arguments.get("indentation", {})), offset, limit)
    return _Asked(path=str(arguments["file_path"]), offset=offset, limit=limit, around=around)


def _around(given: dict[str, Any], offset: int, limit: int) -> tuple[int, Wanted]:
    anchor, most = int(given.get("anchor_line", offset)), int(given.get("max_lines", limit))
    if anchor < 1:
        raise ForModel("anchor_line must be a 1-indexed line number")
    if most < 1:
        raise ForModel("max_lines must be greater than zero")
    return anchor, Wanted(
        max_levels=int(given.get("max_levels", 0)),
        include_siblings=given.get("include_siblings") is True,
        include_header=given.get("include_header", True) is True,
        max_lines=min(limit, most),
    )


def _read(context: ToolContext, asked: _Asked, stop: Stop) -> str:
    what = f"the file {asked.path[:200]!r}"
    with opened(context, asked.path, what) as descriptor:
        if b"\0" in os.pread(descriptor, 8192, 0):
            raise ForModel(f"{what} is a binary file")
        lines = _lines(descriptor, stop)
        if asked.around is not None:
            return _shown(_block(list(_bounded(lines, descriptor)), asked.around))
        found = itertools.islice(enumerate(lines, 1), asked.offset - 1, asked.offset - 1 + asked.limit)
        text = _shown(found)
        if not text and (asked.offset > 1 or os.fstat(descriptor).st_size):
            raise ForModel("offset exceeds file length")
        return text or "The file is empty."


def _bounded(lines: Iterator[str], descriptor: int) -> Iterator[str]:
    if os.fstat(descriptor).st_size > MOST_BLOCK:
        raise ForModel(f"blocks are found in files of up to {MOST_BLOCK} bytes; read slices of this one")
    return lines


def _block(lines: list[str], around: tuple[int, Wanted]) -> Iterator[tuple[int, str]]:
    anchor, wanted = around
    if anchor > len(lines):
        raise ForModel("anchor_line exceeds file length")
    return ((number + 1, lines[number]) for number in block(lines, anchor - 1, wanted))


def _shown(lines: Iterable[tuple[int, str]]) -> str:
    shown: list[str] = []
    size = 0
    for number, line in lines:
        shown.append(f"L{number}: {cut(line)}")
        size += len(shown[-1]) + 1
        if size > MOST_TEXT:
            shown.append(f"[cut here, since the answer is long: go on with offset {number + 1}]")
            break
    return "\n".join(shown)


def _lines(descriptor: int, stop: Stop) -> Iterator[str]:
    """Lines without their ends; of a very long one its beginning. Raises ForModel when too much had to be read."""
    left = MOST_SCANNED
    with os.fdopen(os.dup(descriptor), "rb", buffering=1 << 20) as file:
        while (piece := file.readline(_PIECE)) and not stop.asked:
            beginning = piece
            while piece and not piece.endswith(b"\n") and not stop.asked:
                left -= len(piece)
                if left < 0:
                    break
                piece = file.readline(_PIECE)
            left -= len(piece)
            if left < 0:
                raise ForModel(
                    f"only the first {MOST_SCANNED} bytes of a file are read; use the shell for this one"
                )
            yield beginning.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")
