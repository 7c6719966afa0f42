"""A listener in a folder, for those of this machine who have no network."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from overnight.errors import StartRefused

_BACKLOG: Final = 512


@contextlib.contextmanager
def unix_listener(path: Path | None) -> Iterator[socket.socket | None]:
    """Listen at `path` while the block runs; None listens nowhere.

    What an earlier server left there is replaced in one step, so that whoever connects always finds one of the two; at
    the end our own is removed, and never a later server's. Raises StartRefused when it cannot be made.
    """
    if path is None:
        yield None
        return
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(listener):
        mark = _place(listener, path)
        try:
            yield listener
        finally:
            _remove(path, mark)


def _place(listener: socket.socket, path: Path) -> int:
    """Bind under a passing name, then take the place; the inode by which we know it again."""
    passing = f"{path.name}.{os.getpid()}"
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(path, error) from None
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(passing, dir_fd=folder)
        # The name of a socket has room for about 100 bytes; that of a folder may be longer.
        listener.bind(f"/proc/self/fd/{folder}/{passing}" if _is_long(path) else str(path.with_name(passing)))
        os.chmod(passing, 0o600, dir_fd=folder)
        listener.listen(_BACKLOG)
        mark = os.stat(passing, dir_fd=folder).st_ino
        os.replace(passing, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        raise _refused(path, error) from None
    finally:
        os.close(folder)
    return mark


def _is_long(path: Path) -> bool:
    return len(os.fsencode(path)) > 80


def _remove(path: Path, mark: int) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_ino == mark:
            path.unlink()


def _refused(path: Path, error: OSError) -> StartRefused:
    return StartRefused(
        f"cannot listen at {path}: {error.strerror or error}",
        mend="make room there, or set XDG_RUNTIME_DIR to another private folder of yours",
    )
