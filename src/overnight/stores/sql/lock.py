"""The lock of a data directory: one server at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

import orjson

from overnight.clock import Clock, rfc3339
from overnight.errors import DataInUse, StartRefused

LOCK_FILE = "server.lock"


class DataLock:
    """Held by the kernel for as long as this process lives, also while it is stopped; a crash lets it go.

    The descriptor is closed on exec, so no agent or keeper carries the lock on.
    """

    def __init__(self, data_dir: Path, clock: Clock, *, file: str = LOCK_FILE) -> None:
        self._path = data_dir / file
        self._clock = clock
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises DataInUse naming the process that has it and since when, or StartRefused."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartRefused(
                f"the data directory cannot be written to: {self._path}: {error.strerror or error}",
                mend="make it writable and give it room, or name another with OVERNIGHT_DATA_DIR",
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            raise self._in_use(holder) from None
        except BaseException:
            os.close(descriptor)
            raise
        with suppress(OSError):  # the words are for people; on a full disk the lock holds without them
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, orjson.dumps({"pid": os.getpid(), "since": self._clock.wall_ms()}), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _in_use(self, holder: bytes) -> DataInUse:
        try:
            known = orjson.loads(holder)
            pid, since = int(known["pid"]), rfc3339(int(known["since"]))
        except (ValueError, KeyError, TypeError):
            return DataInUse(f"another process holds {self._path.parent}")
        return DataInUse(
            f"process {pid} holds {self._path.parent} since {since}{_stopped(pid)}",
            mend=f"end it first (kill {pid}), or name another data directory",
            extra={"pid": pid, "since": since},
        )


def _stopped(pid: int) -> str:
    """A word about a holder that stands still: it looks dead and is not."""
    with suppress(OSError, IndexError):
        if Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] in {"T", "t"}:
            return " (it is stopped; SIGCONT lets it go on)"
    return ""
