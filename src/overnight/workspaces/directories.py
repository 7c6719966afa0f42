"""Workspaces that are directories of this host, beneath roots that the operator has configured."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from overnight.domain.action import Place
from overnight.errors import WorkspaceRefused
from overnight.ports.workspace import WorkspaceIdentity
from overnight.workspaces import beneath
from overnight.workspaces.checkout import check_out
from overnight.workspaces.places import place_of
from overnight.workspaces.shadow import GitShadow


class DirectoryWorkspaces:
    """Implements `ports.workspace.Workspaces`. Every call may touch the disk.

    `run_folder` names the folder of a run beneath `data_dir`; `home` is the home of the user who runs the server.
    """

    def __init__(
        self,
        *,
        roots: Sequence[Path],
        data_dir: Path,
        run_folder: Callable[[str], Path],
        home: Path | None = None,
    ) -> None:
        self._roots = tuple(root.resolve() for root in roots)
        self._data_dir = data_dir.resolve()
        self._run_folder = run_folder
        self._home = (home or Path.home()).resolve()
        self._cloning: dict[str, threading.Lock] = {}

    def check(self, path: str) -> WorkspaceIdentity:
        """See `Workspaces.check`: resolved, beneath a root, a directory, writable, nobody's private folder."""
        found = self._resolve(path)
        if not self._allowed(found):
            roots = ", ".join(str(root) for root in self._roots) or "none"
            raise WorkspaceRefused(
                f"{found} is not beneath a configured root",
                mend=f"use a directory beneath one of: {roots}; or add a root to OVERNIGHT_WORKSPACE_ROOTS",
            )
        if not os.access(found, os.R_OK | os.W_OK | os.X_OK):
            raise WorkspaceRefused(
                f"{found} is not writable for the server's user", mend="change its permissions"
            )
        return _identity(found)

    def scratch(self, run_id: str) -> WorkspaceIdentity:
        """See `Workspaces.scratch`."""
        folder = self._run_folder(run_id) / "workspace"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _identity(folder.resolve())

    def checkout(self, run_id: str, url: str, ref: str, *, last: str | None = None) -> WorkspaceIdentity:
        """See `Workspaces.checkout`. Local repositories must lie beneath a root, like any workspace."""
        target = self._run_folder(run_id) / "checkout"
        # Whoever gives up waiting does not end a clone that is under way: the next one waits for it.
        with self._cloning.setdefault(run_id, threading.Lock()):
            if last is not None and last != os.path.realpath(target):
                shutil.rmtree(target, ignore_errors=True)
            check_out(target, url, ref, local=self._local_repository)
        self._cloning.pop(run_id, None)
        return _identity(target.resolve())

    def read_text(self, workspace: Path, relative: str, *, limit: int) -> tuple[str, int] | None:
        """See `Workspaces.read_text`. No link is followed, not even a harmless one."""
        found = _end_of(workspace, relative, limit)
        if found is None:
            return None
        data, size = found
        if len(data) < size:
            data = _from_character(data)
        return data.decode("utf-8", "replace"), size

    def fingerprint(self, workspace: Path, relative: str, *, limit: int) -> tuple[int, str | None] | None:
        """See `Workspaces.fingerprint`."""
        found = _end_of(workspace, relative, limit)
        if found is None:
            return None
        data, size = found
        return size, hashlib.sha256(data).hexdigest() if len(data) == size else None

    def create_text(self, workspace: Path, relative: str, text: str) -> bool:
        """See `Workspaces.create_text`."""
        try:
            with beneath.folder(workspace) as root:
                return beneath.create(root, relative, text.encode("utf-8", "replace"))
        except OSError:
            return False

    def remove_file(self, workspace: Path, relative: str) -> bool:
        """See `Workspaces.remove_file`."""
        try:
            with beneath.folder(workspace) as root:
                return beneath.remove(root, relative)
        except OSError:
            return False

    def places(self, workspace: Path, paths: Sequence[str], *, hashed: bool) -> tuple[Place, ...]:
        """See the port."""
        return tuple(place_of(workspace, path, hashed=hashed) for path in paths)

    def shadow(self, run_id: str, workspace: Path) -> GitShadow:
        """See `Workspaces.shadow`."""
        return GitShadow(repository=self._run_folder(run_id) / "shadow.git", workspace=workspace)

    def _resolve(self, path: str) -> Path:
        if "\0" in path or not path.startswith("/"):
            raise WorkspaceRefused(f"{path[:200]!r} is no absolute path", mend="name the directory from / on")
        try:
            found = Path(path).resolve(strict=True)
            kind = found.stat().st_mode
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "a loop of links"
            raise WorkspaceRefused(
                f"{path[:200]} cannot be used: {reason}", mend="create the directory first"
            ) from None
        if not stat.S_ISDIR(kind):
            raise WorkspaceRefused(f"{found} is not a directory", mend="name a directory")
        return found

    def _allowed(self, path: Path) -> bool:
        if self._data_dir.is_relative_to(path) or path.is_relative_to(self._data_dir):
            return False
        if self._home.is_relative_to(path):
            return False
        return any(path.is_relative_to(root) and self._open_to(path, root) for root in self._roots)

    def _open_to(self, path: Path, root: Path) -> bool:
        """The home's dot-directories hold keys and settings: only a root inside of one opens it."""
        return not self._hidden(path) or self._hidden(root)

    def _hidden(self, path: Path) -> bool:
        return (
            path != self._home
            and path.is_relative_to(self._home)
            and path.relative_to(self._home).parts[0][0] == "."
        )

    def _local_repository(self, path: str) -> Path:
        found = self._resolve(path)
        if not self._allowed(found):
            raise WorkspaceRefused(
                f"{found} is not beneath a configured root", mend="clone by https or ssh, or add a root"
            )
        return found


def _identity(path: Path) -> WorkspaceIdentity:
    chain = []
    for folder in (path, *path.parents):
        found = folder.stat()
        chain.append(f"{found.st_dev}:{found.st_ino}")
    return WorkspaceIdentity(path=path, chain=tuple(chain))


def _end_of(workspace: Path, relative: str, limit: int) -> tuple[bytes, int] | None:
    """The last `limit` bytes of a regular file beneath the workspace, and its size."""
    try:
        with beneath.folder(workspace) as root:
            return beneath.read_end(root, relative, limit)
    except OSError:
        return None


def _from_character(data: bytes) -> bytes:
    """`data` from its first whole character on: the cut may have gone through one."""
    start = 0
    while start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:]
