"""Where the paths of an action lead: shown to whoever decides about it, and compared when the decision is released."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from overnight.domain.action import Place, PlaceKind

MOST_HASHED: Final = 8 << 20
"""Bytes of a file that is hashed; of a bigger one the size stands for the content."""
_NOTHING: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


def place_of(workspace: Path, path: str, *, hashed: bool) -> Place:
    """Where `path` leads now. Never waits for a fifo and never raises."""
    try:
        root = os.path.realpath(workspace)
        resolved = os.path.realpath(os.path.join(root, path))
        kind, digest = _look(resolved, hashed=hashed)
    except (OSError, ValueError):  # a NUL, a name too long, a circle of links
        return Place(given=path, resolved=path, inside=False, kind="other")
    inside = resolved == root or resolved.startswith(root.rstrip("/") + "/")
    return Place(given=path, resolved=resolved, inside=inside, kind=kind, sha256=digest)


def _look(resolved: str, *, hashed: bool) -> tuple[PlaceKind, str | None]:
    try:
        descriptor = os.open(
            resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        )
    except OSError as error:
        return ("missing" if error.errno in _NOTHING else "other"), None
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            return "folder", None
        if not stat.S_ISREG(found.st_mode):
            return "other", None
        return "file", _digest(descriptor, found.st_size) if hashed else None
    finally:
        os.close(descriptor)


def _digest(descriptor: int, size: int) -> str:
    if size > MOST_HASHED:
        return f"{size} bytes"
    digest = hashlib.sha256()
    while piece := os.read(descriptor, 1 << 20):
        digest.update(piece)
    return digest.hexdigest()
