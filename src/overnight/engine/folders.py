"""Where things lie beneath the data directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Folders:
    """Names of folders; `make` creates one, readable by its user alone."""

    data_dir: Path

    def run(self, run_id: str) -> Path:
        """Everything of one run: turns, prompts, shadow repository."""
        return self.data_dir / "runs" / run_id

    def turn(self, run_id: str, number: int, attempt: int) -> Path:
        """One attempt at one turn: prompt.md, stdout, stderr, the keeper's files."""
        return self.run(run_id) / "turns" / f"{number}-{attempt}"

    def home(self, session_id: str, backend: str) -> Path:
        """HOME of an agent program: it belongs to (session, backend)."""
        return self.homes(session_id) / backend

    def homes(self, session_id: str) -> Path:
        """All homes of a session."""
        return self.data_dir / "homes" / session_id

    def of_session(self, session_id: str) -> tuple[Path, ...]:
        """All that belongs to a session besides its runs: its agents' homes, and the folder of its conversation."""
        return self.homes(session_id), self.run(session_id)

    def named(self, folders: Iterable[Path]) -> tuple[str, ...]:
        """Their names on every host."""
        return tuple(str(folder.relative_to(self.data_dir)) for folder in folders)

    @staticmethod
    def make(folder: Path) -> Path:
        """Create `folder` and its parents with mode 0700; idempotent."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


def remove_folders(folders: Iterable[Path]) -> None:
    """Remove them with all that is in them, as far as that is possible; blocks on the disk."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
