"""The tool `grep_files`: which files have a line that matches, the latest changed first."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from overnight.agent.tools.environment import cleaned
from overnight.agent.tools.globs import glob
from overnight.agent.tools.reading import place
from overnight.agent.tools.search import by_ourselves, by_ripgrep
from overnight.agent.tools.tool import ForModel, Preview, ToolContext, ToolOutcome, ToolSpec
from overnight.agent.tools.workspace import OutsideWorkspace, Workspace

MOST: Final = 2000
PATIENCE_S: Final = 30.0

_DESCRIPTION: Final = """\
Find the files that have a line which matches a regular expression (no look-around, no back-references), the latest \
changed first. Hidden and binary files and what .gitignore names are left out."""

_PARAMETERS: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {
        "pattern": {"type": "string", "description": "The regular expression."},
        "include": {
            "type": "string",
            "description": "A glob that paths must fit, like '*.py' or 'src/**/*.{ts,tsx}'.",
        },
        "path": {"type": "string", "description": "A folder or file to search; the workspace if not given."},
        "limit": {
            "type": "integer",
            "description": "How many files at most; 100 if not given, never over 2000.",
        },
    },
    "required": ["pattern"],
    "additionalProperties": False,
}


class GrepFiles:
    """Implements `Tool`. `patience_s`: seconds until a search is given up."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s

    @property
    def spec(self) -> ToolSpec:
        """See `Tool`."""
        return ToolSpec(
            name="grep_files", description=_DESCRIPTION, parameters=_PARAMETERS,
            parallel_safe=True, is_destructive=False, required_permissions=frozenset({"read"}),
        )  # fmt: skip

    async def preview(self, arguments: Mapping[str, object], context: ToolContext) -> Preview:
        """See `Tool`."""
        path = place(context, str(arguments.get("path", ".")))
        return Preview(title=f"Search {path} for {str(arguments['pattern'])[:200]}", paths=(path,))

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """See `Tool`."""
        asked = _asked(arguments)
        names = _names(context.workspace, asked.path)
        program = shutil.which("rg", path=context.environment.get("PATH", os.defpath))
        try:
            async with asyncio.timeout(self._patience_s):
                if program is None:
                    found = await by_ourselves(context.workspace, names, asked.pattern)
                else:
                    environment = cleaned(context.environment, context.kept)
                    found = await by_ripgrep(program, environment, context.workspace, names, asked.pattern)
        except TimeoutError:
            what = "the search" if program is None else "rg"
            raise ForModel(
                f"{what} timed out after {self._patience_s:g} seconds", code="tool_timeout"
            ) from None
        except OSError as error:
            raise ForModel(f"the search failed: {error.strerror or error}") from None
        shown = _newest(context.workspace, [path for path in found if asked.takes(path)])[: asked.limit]
        if not shown:
            return ToolOutcome(text="No matches found.", ok=False, code="tool_execution_error")
        return ToolOutcome(text="\n".join(shown), structured={"files": shown})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    pattern: str
    include: str | None
    path: str
    limit: int

    def takes(self, path: str) -> bool:
        """Whether a path fits the glob."""
        plain = path.encode("utf-8", "replace").decode()
        return self.include is None or any(each.fullmatch(plain) for each in glob(self.include))


def _asked(arguments: Mapping[str, object]) -> _Asked:
    pattern, limit = str(arguments["pattern"]), arguments.get("limit", 100)
    if not pattern.strip():
        raise ForModel("pattern must not be empty")
    if not isinstance(limit, int) or limit < 1:
        raise ForModel("limit must be greater than zero")
    if "\0" in pattern:
        raise ForModel("pattern must not hold a NUL character")
    include = str(arguments.get("include", "")).strip() or None
    if include is not None:
        try:
            glob(include)
        except ValueError as error:
            raise ForModel(f"include: {error}") from None
    return _Asked(
        pattern=pattern, include=include, path=str(arguments.get("path", "") or "."), limit=min(limit, MOST)
    )


def _names(workspace: Workspace, path: str) -> list[str]:
    """Where to search, as a path without links. Raises ForModel where there is nothing that can be read."""
    try:
        names = workspace.resolved(path)
        os.stat("/".join(names) or ".", dir_fd=workspace.fd, follow_symlinks=False)
    except OutsideWorkspace as error:
        raise ForModel(f"the path {path[:200]!r}: {error}") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ForModel(f"the path {path[:200]!r} cannot be searched: {reason}") from None
    return names


def _newest(workspace: Workspace, paths: list[str]) -> list[str]:
    """The latest changed first; of those changed together, by path."""
    found: list[tuple[int, str]] = []
    for path in paths:
        try:
            changed = os.stat(path, dir_fd=workspace.fd, follow_symlinks=False).st_mtime_ns
        except OSError:
            continue  # it is gone
        found.append((-changed, path))
    return [path.encode("utf-8", "replace").decode() for _, path in sorted(found)]
