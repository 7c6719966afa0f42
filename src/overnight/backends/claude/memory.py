"""The workspace's own CLAUDE.md. With the workspace's settings switched off Claude Code would not read it any more."""

from __future__ import annotations

import os
import stat
from pathlib import Path

NAME = "CLAUDE.md"
_LIMIT = 64 * 1024


def memory_copy(workspace: Path, folder: Path) -> Path | None:
    """A copy of CLAUDE.md in `folder`, at most 64 KiB of it; None when there is no plain file of that name.

    Only the words are taken over: a link is not followed, and nothing that the file names is read. `folder` is one that
    agents do not write, so that no link of theirs can lead the copy elsewhere.
    """
    text = _read(workspace / NAME)
    if not text.strip():
        return None
    copy = folder / NAME
    copy.write_bytes(text)
    return copy


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_LIMIT) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
