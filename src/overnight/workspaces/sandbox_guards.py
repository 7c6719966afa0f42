"""What a confined agent may not change although its workspace is writable: what makes other programs run things.

Somebody will use git, an editor or another agent in that folder later, outside the sandbox. So what these obey without
being asked stays as it is: git's hooks and configuration, and the project settings of agent programs. Each is a mount
of its own, which can be neither removed nor renamed nor replaced. Only what is there can be kept so; a name that does
not exist cannot be.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from overnight.workspaces import beneath
from overnight.workspaces.sandbox_view import View

SETTINGS: Final = (
    ".aider.conf.yml", ".claude", ".codex", ".cursor", ".envrc", ".gemini", ".husky", ".mcp.json", ".opencode",
    ".qwen", ".vscode/launch.json", ".vscode/settings.json", ".vscode/tasks.json", "opencode.json", "opencode.jsonc",
)  # fmt: skip
"""Files and folders of a workspace that other programs take commands from; read-only where they exist."""

_REDIRECTING: Final = ("commondir", "config.worktree")
"""Files of a repository by which git takes hooks and configuration from elsewhere. Most repositories have neither."""

MAX_MODULES: Final = 64
"""Submodules whose repositories are guarded; a tree of more than that is left to its owner."""
_MAX_TEXT: Final = 65_536
_HOOKS_PATH: Final = re.compile(r"^\s*hooksPath\s*=\s*\"?([^\"\n#;]+)", re.IGNORECASE | re.MULTILINE)


def guard(view: View, workspace: Path) -> None:
    """Add to `view` what is kept from changes in a writable workspace. No link is followed."""
    for name in SETTINGS:
        _keep_setting(view, workspace, name)
    for repository in _repositories(view, workspace):
        _keep_repository(view, repository, workspace)


def take_back(workspace: Path, since: float) -> Iterator[Path]:
    """Remove the files that redirect git and were made after `since`; see `Sandbox.take_back`. Follows no link."""
    for repository in _repositories(View(), workspace):
        for name in _REDIRECTING:
            with contextlib.suppress(OSError), beneath.folder(repository) as descriptor:
                if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_ctime > since:
                    os.unlink(name, dir_fd=descriptor)
                    yield repository / name


def _keep_setting(view: View, workspace: Path, name: str) -> None:
    path = workspace / name
    holder = path.parent
    if holder != workspace:
        if not path.exists() or holder.is_symlink():
            return
        view.keep(holder, "writable")
    view.keep(path, "readable")


def _repositories(view: View, workspace: Path) -> Iterator[Path]:
    """Folders that git takes for the workspace's own repository, and those of its submodules."""
    entry = workspace / ".git"
    if entry.is_symlink():
        return
    if entry.is_dir():
        yield entry
        yield from _modules(view, entry / "modules", MAX_MODULES)
    elif entry.is_file():
        view.keep(entry, "readable")
        if (target := _pointed(entry, workspace)) is not None:
            _keep_way(view, target.parent, workspace)
            yield target
    elif _is_repository(workspace):
        yield workspace


def _modules(view: View, folder: Path, most: int) -> Iterator[Path]:
    """Repositories beneath `.git/modules`, whose names may have slashes; every folder on the way is held fast."""
    layer, found = [folder], 0
    while layer and found < most:
        deeper: list[Path] = []
        for path in layer:
            if path.is_symlink() or not path.is_dir():
                continue
            view.keep(path, "writable")
            if _is_repository(path):
                found += 1
                yield path
                deeper.append(path / "modules")
            else:
                deeper += list(_folders(path, most))
        layer = deeper[:most]


def _folders(path: Path, most: int) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for _, entry in zip(range(most), entries, strict=False):
            if entry.is_dir(follow_symlinks=False):
                yield path / entry.name


def _keep_repository(view: View, repository: Path, workspace: Path) -> None:
    if repository != workspace:
        view.keep(repository, "writable")
    with contextlib.suppress(OSError), beneath.folder(repository) as descriptor:
        # An empty one is what git makes itself; a missing one could be filled.
        os.mkdir("hooks", 0o755, dir_fd=descriptor)
    for name in ("hooks", "config", *_REDIRECTING):
        view.keep(repository / name, "readable")
    for path in _hook_folders(repository, workspace):
        _keep_way(view, path.parent, workspace)
        view.keep(path, "readable")


def _keep_way(view: View, path: Path, workspace: Path) -> None:
    """Hold fast every folder between the workspace and `path`: who could rename one could replace all beneath it."""
    for folder in (path, *path.parents):
        if folder != workspace and folder.is_relative_to(workspace):
            view.keep(folder, "writable")


def _hook_folders(repository: Path, workspace: Path) -> Iterator[Path]:
    """Where the configuration says that hooks lie, when that is in the workspace."""
    for named in _HOOKS_PATH.findall(_text(repository / "config")):
        path = Path(os.path.normpath(workspace / named.strip()))
        if path != workspace and path.is_relative_to(workspace) and path.resolve() == path:
            yield path


def _pointed(entry: Path, workspace: Path) -> Path | None:
    """Where a `.git` file leads, when that is beneath the workspace. Elsewhere it is not writable anyway."""
    word, _, target = _text(entry).partition(":")
    path = Path(os.path.normpath(workspace / target.strip()))
    inside = path != workspace and path.is_relative_to(workspace) and path.resolve() == path
    return path if word == "gitdir" and inside and path.is_dir() else None


def _is_repository(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir()


def _text(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _MAX_TEXT).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
