"""Opens files beneath a directory by descriptor, so that no link and no `..` in a hostile tree leads out of it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
import stat
import sys
from collections.abc import Iterator
from typing import Final

_OPENAT2: Final = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_UNSUPPORTED: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG})
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def parts(relative: str) -> list[str]:
    """The names in a relative path. Raises ValueError for one that is absolute, empty, or leads upwards."""
    names = [name for name in relative.split("/") if name not in {"", "."}]
    if relative.startswith("/") or "\0" in relative or not names or ".." in names:
        raise ValueError(f"{relative[:200]!r} is no path beneath the workspace")
    return names


@contextlib.contextmanager
def folder(path: str | os.PathLike[str]) -> Iterator[int]:
    """A descriptor of the directory `path`, which is absolute and resolved.

    Raises OSError, also when a link has taken its place or that of a directory around it.
    """
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = open_beneath(top, os.fspath(path).lstrip("/"), os.O_RDONLY | os.O_DIRECTORY)
    finally:
        os.close(top)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_beneath(root: int, relative: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of `relative` beneath `root`; the caller closes it. No link is followed, not even a harmless one.

    Never waits for a fifo. Raises OSError, also for a link on the way; ValueError for a path that leads upwards.
    """
    names = parts(relative)
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    if has_openat2():
        return _openat2(root, "/".join(names), flags)
    return _walk(root, names, flags)


@contextlib.contextmanager
def parent(root: int, names: list[str], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the directory that holds the last of `names`; missing ones are created where `make`."""
    descriptor = os.dup(root)
    try:
        for name in names[:-1]:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=descriptor)
            deeper = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        yield descriptor
    finally:
        os.close(descriptor)


def read_end(root: int, relative: str, limit: int) -> tuple[bytes, int] | None:
    """The last `limit` bytes of a regular file and its whole size; None when there is none that can be read."""
    try:
        descriptor = open_beneath(root, relative)
    except (OSError, ValueError):
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        start = max(0, found.st_size - limit)
        return _read(descriptor, start, min(limit, found.st_size)), found.st_size
    except OSError:
        return None
    finally:
        os.close(descriptor)


def create(root: int, relative: str, data: bytes) -> bool:
    """Create a file with its folders; False when the name is taken or the way there is not clear."""
    try:
        names = parts(relative)
        with parent(root, names, make=True) as holder:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(names[-1], flags, 0o644, dir_fd=holder)
    except (OSError, ValueError):
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return True


def remove(root: int, relative: str) -> bool:
    """Remove a regular file; False when there is none."""
    try:
        names = parts(relative)
        with parent(root, names) as holder:
            if not stat.S_ISREG(os.stat(names[-1], dir_fd=holder, follow_symlinks=False).st_mode):
                return False
            os.unlink(names[-1], dir_fd=holder)
    except (OSError, ValueError):
        return False
    return True


@functools.cache
def has_openat2() -> bool:
    """Whether this system opens beneath a directory by itself; otherwise we walk step by step."""
    if not sys.platform.startswith("linux") or platform.machine() not in {"x86_64", "aarch64"}:
        return False
    try:
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.close(_openat2(root, ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in _UNSUPPORTED
    finally:
        os.close(root)
    return True


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _openat2(root: int, relative: str, flags: int) -> int:
    how = _How(flags=flags, mode=0, resolve=_BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    while True:
        path = os.fsencode(relative)
        descriptor = int(_libc().syscall(_OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how)))
        if descriptor >= 0:
            return descriptor
        # EAGAIN: something was renamed on the way; the kernel asks to look again.
        if (code := ctypes.get_errno()) not in {errno.EAGAIN, errno.EINTR}:
            raise OSError(code, os.strerror(code), relative)


def _walk(root: int, names: list[str], flags: int) -> int:
    with parent(root, names) as holder:
        return os.open(names[-1], flags, dir_fd=holder)


def _read(descriptor: int, start: int, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := os.pread(descriptor, min(size, 1 << 20), start)):
        pieces.append(piece)
        start += len(piece)
        size -= len(piece)
    return b"".join(pieces)
