"""Watches a workspace while a turn runs, so that changes are told as they happen. The turn's end tells the rest.

On Linux the kernel is asked folder by folder: links are never followed, folders left out are never watched, and there
is a bound on how many are. Elsewhere watchfiles does the watching.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import re2
import structlog

from overnight.clock import Clock
from overnight.domain.event import Draft
from overnight.domain.spec import WatchSpec
from overnight.engine.telemetry import notify
from overnight.engine.telemetry.file_ledger import FileLedger
from overnight.engine.telemetry.notify import Sign, Tree
from overnight.ports.workspace import Workspaces

SETTLE_S: Final = 0.3
"""Changed files are looked at this long after the first sign, so that one piece of writing is one event."""
MAX_HASHED: Final = 4 << 20
"""Bytes; bigger files are told without a hash."""
MAX_LOOKED_AT: Final = 2000
"""Changed files that are looked at in one go; the turn's end has the rest."""
NEVER_ENTERED: Final = frozenset(
    {".git", ".hg", ".svn", ".overnight", "node_modules", "__pycache__", ".venv", ".tox", ".nox", ".idea"}
    | {".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache"}
)
"""Names of folders in which nobody works by hand."""
STAGED: Final = ".overnight-"
"""So begin the names of files that a patch of the built-in agent lays ready beside those that it will replace."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Globs:
    """Include and exclude patterns: `**` is any number of folders, `*` and `?` stay within a name. Linear time."""

    def __init__(self, spec: WatchSpec) -> None:
        self._include = _compiled(spec.include)
        self._exclude = _compiled(spec.exclude)

    def file(self, path: str) -> bool:
        """Whether changes of that file are told."""
        if path.rpartition("/")[2].startswith(STAGED):
            return False
        shown = path.encode("utf-8", "replace")
        return self._include.fullmatch(shown) is not None and self._exclude.fullmatch(shown) is None

    def folder(self, path: str) -> bool:
        """Whether that folder is looked into at all."""
        if path.rpartition("/")[2] in NEVER_ENTERED:
            return False
        return self._exclude.fullmatch(f"{path}/x".encode("utf-8", "replace")) is None


class FileWatch:
    """Tells the changes of one turn through its ledger."""

    def __init__(
        self, *, workspaces: Workspaces, workspace: Path, ledger: FileLedger, spec: WatchSpec, clock: Clock
    ) -> None:
        self._workspaces = workspaces
        self._workspace = workspace
        self._ledger = ledger
        self._globs = Globs(spec)
        self._clock = clock

    async def watch(self, add: Callable[[Sequence[Draft]], None]) -> None:
        """Hand over drafts until cancelled. A system that cannot watch is no error: the turn's end tells all."""
        try:
            async with contextlib.aclosing(self._signs()) as found:
                async for signs in found:
                    add(await self._told(signs))
        except OSError as error:
            log.warning("workspace.not_watched", workspace=str(self._workspace), error=str(error))

    def _signs(self) -> AsyncGenerator[Mapping[str, Sign]]:
        return self._from_kernel() if notify.available() else self._from_watchfiles()

    async def _from_kernel(self) -> AsyncGenerator[Mapping[str, Sign]]:
        tree = Tree(self._workspace, self._globs.folder)
        try:
            await _to_its_end(tree.open)
            while True:
                await tree.news.wait()
                await self._clock.sleep(SETTLE_S)
                tree.news.clear()
                yield await _to_its_end(tree.read)
        finally:
            tree.close()

    async def _from_watchfiles(self) -> AsyncGenerator[Mapping[str, Sign]]:
        from watchfiles import Change, awatch  # noqa: PLC0415  not needed on Linux

        kinds: dict[Change, Sign] = {
            Change.added: "created",
            Change.modified: "modified",
            Change.deleted: "deleted",
        }
        root = self._workspace.resolve()

        def wanted(_change: Change, path: str) -> bool:
            folders = Path(path).relative_to(root).parts[:-1]
            return all(self._globs.folder("/".join(folders[: n + 1])) for n in range(len(folders)))

        watching = awatch(
            root, watch_filter=wanted, debounce=int(SETTLE_S * 1000), ignore_permission_denied=True
        )
        async with contextlib.aclosing(watching):
            try:
                async for changes in watching:
                    yield {os.path.relpath(path, root): kinds[change] for change, path in changes}
            except RuntimeError as error:  # of its own library: no descriptor or no watch left
                raise OSError(str(error)) from None

    async def _told(self, signs: Mapping[str, Sign]) -> list[Draft]:
        wanted = {path: sign for path, sign in signs.items() if self._globs.file(path)}
        looked = await _to_its_end(self._look, list(wanted)[:MAX_LOOKED_AT])
        drafts: list[Draft] = []
        for path, found in looked.items():
            name = os.fsencode(path).decode("utf-8", "replace")
            if found is not None:
                kind = "created" if wanted[path] == "created" else "modified"
                drafts += self._ledger.written(name, kind, *found)
            elif wanted[path] == "deleted" and not os.path.lexists(self._workspace / path):
                drafts += self._ledger.deleted(name)
        return drafts

    def _look(self, paths: Iterable[str]) -> dict[str, tuple[int, str | None] | None]:
        return {path: self._workspaces.fingerprint(self._workspace, path, limit=MAX_HASHED) for path in paths}


async def _to_its_end(function: Callable[..., T], *arguments: object) -> T:
    """Run in a thread; a cancel waits for it, so that nothing is closed under its feet."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _compiled(globs: Iterable[str]) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    pattern = "|".join(_expression(glob) for glob in globs) or "[^\\s\\S]"
    return re2.compile(pattern.encode(), options)


def _expression(glob: str) -> str:
    """A glob as a regular expression; square brackets and braces are ordinary characters."""
    glob = glob.removeprefix("./").strip("/")
    found = []
    for part in re.findall(r"\*\*/|/\*\*$|\*+|\?|[^*?]", glob):
        if part == "**/":
            found.append("(?:.*/)?")
        elif part == "/**":
            found.append("/.*")
        elif part == "**":
            found.append(".*")
        elif part.startswith("*"):
            found.append("[^/]*")
        elif part == "?":
            found.append("[^/]")
        else:
            found.append(re2.escape(part))
    return f"(?:{''.join(found)})"
