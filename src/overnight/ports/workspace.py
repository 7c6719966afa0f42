"""The port to workspaces: which directories may be used, their identity, and our own git view of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from overnight.domain.action import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceIdentity:
    """`chain` is the "device:inode" of the workspace, then of each directory around it up to the root."""

    path: Path
    chain: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One changed file, path relative to the workspace."""

    path: str
    kind: Literal["created", "modified", "deleted"]
    bytes: int = 0
    sha256: str | None = None
    added_lines: int = 0
    removed_lines: int = 0


class Workspaces(Protocol):
    """Resolves and guards workspaces. All calls may touch the disk: run them in a thread."""

    def check(self, path: str) -> WorkspaceIdentity:
        """A directory beneath a configured root, by resolved path. Raises WorkspaceRefused with the mend."""
        ...

    def scratch(self, run_id: str) -> WorkspaceIdentity:
        """A fresh folder of the run's own; idempotent."""
        ...

    def checkout(self, run_id: str, url: str, ref: str, *, last: str | None = None) -> WorkspaceIdentity:
        """A git workspace cloned for the run; idempotent. Raises WorkspaceRefused.

        `last`: where the run has worked last. Somewhere else than here means that another host has had it meanwhile:
        then a clone of earlier days is made anew.
        """
        ...

    def read_text(self, workspace: Path, relative: str, *, limit: int) -> tuple[str, int] | None:
        """The last `limit` bytes of a regular file beneath the workspace as text, and its whole size.

        None when there is none; links out of the workspace, fifos and devices count as none.
        """
        ...

    def fingerprint(self, workspace: Path, relative: str, *, limit: int) -> tuple[int, str | None] | None:
        """Size and SHA-256 of a regular file beneath the workspace; no hash above `limit` bytes. None as above."""
        ...

    def create_text(self, workspace: Path, relative: str, text: str) -> bool:
        """Create a file beneath the workspace, folders included; False when something of that name is there.

        False also when it cannot be made without following a link or leaving the workspace.
        """
        ...

    def remove_file(self, workspace: Path, relative: str) -> bool:
        """Remove a regular file beneath the workspace, never through a link; False when there is none."""
        ...

    def places(self, workspace: Path, paths: Sequence[str], *, hashed: bool) -> tuple[Place, ...]:
        """Where paths (absolute, or relative to the workspace) lead now, links followed; with hashes where `hashed`.

        What is told of them may be another thing the next moment: it is shown and compared, never opened.
        """
        ...

    def shadow(self, run_id: str, workspace: Path) -> Shadow:
        """Our own git view of the workspace for this run."""
        ...


class Shadow(Protocol):
    """A repository of ours in the run's folder. The workspace's own git configuration is never obeyed."""

    def snapshot(self, label: str) -> str:
        """Record the workspace as it is now and return the snapshot's name. `label`: `base`, or `turn-N`."""
        ...

    def resolve(self, label: str) -> str | None:
        """The name of the snapshot with that label."""
        ...

    def changes(self, before: str, after: str | None) -> Sequence[FileChange]:
        """Between two snapshots; None: the workspace as it is now. Capped at 10 000 files."""
        ...

    def patch(self, before: str, after: str | None, path: str, *, limit: int) -> str:
        """Unified diff of one file, at most `limit` bytes, then cut with a last line that says so."""
        ...
