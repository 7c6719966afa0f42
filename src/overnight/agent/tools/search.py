"""Which files of a folder have a line that matches: by ripgrep where it is installed, by ourselves elsewhere.

Both leave out hidden files, binary ones, what links lead to, and what the `.gitignore` files of the workspace name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, Final

import re2

from overnight.agent.tools.globs import Ignored, read_ignored
from overnight.agent.tools.threads import Stop, in_thread
from overnight.agent.tools.tool import ForModel
from overnight.agent.tools.workspace import Workspace
from overnight.workspaces import beneath

MOST_FOUND: Final = 200_000
"""Files that one search brings."""
DEEPEST: Final = 200
_PIECE: Final = 8 << 20
_LONGEST_LINE: Final = 64 << 20
_MOST_IGNORED: Final = 1 << 20
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_FOLDER: Final = _OPEN | os.O_DIRECTORY

_RULES: Final = (
    "--files-with-matches", "--null", "--no-config", "--no-messages", "--color=never",
    "--no-require-git", "--no-ignore-dot", "--no-ignore-global", "--no-ignore-exclude",
)  # fmt: skip


async def by_ripgrep(
    program: str, environment: Mapping[str, str], workspace: Workspace, names: list[str], pattern: str
) -> list[str]:
    """The paths beneath the workspace, in no order. Raises ForModel for what is no pattern. May be cancelled."""
    process = await asyncio.create_subprocess_exec(
        program, *_RULES, "--regexp", pattern, "--", "/".join(names) or ".",
        cwd=workspace.path, env=dict(environment), limit=1 << 20,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not out and process.returncode not in {0, 1}:
        raise ForModel(f"rg failed: {err.decode('utf-8', 'replace').strip()[:2000] or process.returncode}")
    found = (os.fsdecode(path).removeprefix("./") for path in out.split(b"\0") if path)
    return [path for _, path in zip(range(MOST_FOUND), found, strict=False)]


async def by_ourselves(workspace: Workspace, names: list[str], pattern: str) -> list[str]:
    """See `by_ripgrep`; patterns are those of RE2."""
    expression = _compiled(pattern)
    return await in_thread(lambda stop: list(_Walk(workspace.fd, expression, stop).found(names)))


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_nl = True
    options.never_capture = True
    options.max_mem = 64 << 20
    try:
        return re2.compile(f"(?m){pattern}", options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ForModel(f"the pattern is no regular expression: {said}") from None


_Rules = list[tuple[str, Ignored]]
"""Folders with a `.gitignore`, outermost first, and what it says. A folder is "" or ends in a slash."""


class _Walk:
    def __init__(self, root: int, expression: Any, stop: Stop) -> None:
        self._root = root
        self._expression = expression
        self._stop = stop
        self._left = MOST_FOUND

    def found(self, names: list[str]) -> Iterator[str]:
        """What was named is searched even if it is hidden or ignored; what is below it is not."""
        rules: _Rules = []
        for depth in range(len(names)):
            above = "/".join(names[:depth])
            with _opened(self._root, above) as folder:
                rules += _rules(folder, f"{above}/" if above else "")
        path = "/".join(names)
        try:
            with _opened(self._root, path) as folder:
                yield from self._inside(folder, f"{path}/" if path else "", rules, 0)
        except NotADirectoryError:
            if self._matches_at(self._root, path):
                yield path

    def _inside(self, folder: int, prefix: str, rules: _Rules, depth: int) -> Iterator[str]:
        rules = rules + _rules(folder, prefix)
        for name, is_folder in _entries(folder):
            if self._stop.asked or self._left <= 0:
                return
            path = prefix + name
            if name.startswith(".") or _is_ignored(path, rules, folder=is_folder):
                continue
            if is_folder:
                if depth < DEEPEST:
                    with contextlib.suppress(OSError), _below(folder, name) as deeper:
                        yield from self._inside(deeper, f"{path}/", rules, depth + 1)
            elif self._matches_at(folder, name):
                self._left -= 1
                yield path

    def _matches_at(self, folder: int, name: str) -> bool:
        try:
            descriptor = os.open(name, _OPEN, dir_fd=folder)
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(descriptor).st_mode) and self._matches(descriptor)
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def _matches(self, descriptor: int) -> bool:
        """Whole lines are looked at, so that no match goes over the end of one, and none begins behind the last."""
        rest = b""
        while (piece := os.read(descriptor, _PIECE)) and not self._stop.asked:
            if b"\0" in piece[:65_536]:
                return False
            data = rest + piece
            end = data.rfind(b"\n")
            if end < 0 and len(data) < _LONGEST_LINE:
                rest = data
                continue
            head, rest = (data[:end], data[end + 1 :]) if end >= 0 else (data, b"")
            if self._expression.search(head):
                return True
        return bool(rest) and self._expression.search(rest) is not None


def _is_ignored(path: str, rules: _Rules, *, folder: bool) -> bool:
    for prefix, ignored in reversed(rules):
        said = ignored.says(_plain(path[len(prefix) :]), folder=folder)
        if said is not None:
            return said
    return False


def _rules(folder: int, prefix: str) -> _Rules:
    try:
        descriptor = os.open(".gitignore", _OPEN, dir_fd=folder)
    except OSError:
        return []
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return []
        text = file.read(_MOST_IGNORED).decode("utf-8", "replace")
    return [(prefix, read_ignored(text.split("\n")))]


def _entries(folder: int) -> list[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries]
    return sorted((name, is_folder) for name, is_folder, is_link in found if not is_link)


@contextlib.contextmanager
def _below(folder: int, name: str) -> Iterator[int]:
    descriptor = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(root: int, path: str) -> Iterator[int]:
    descriptor = beneath.open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY) if path else os.dup(root)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _plain(path: str) -> str:
    return path.encode("utf-8", "replace").decode()
