"""What an upgrade would have to know if it were interrupted: one small file in the data directory, and a lock."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

from overnight.config.paths import private_dir
from overnight.errors import DataInUse

FILE: Final = "upgrade.json"
LOCK: Final = "upgrade.lock"
Stage = Literal["going_on", "rolling_back"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The server that was there before, and how far the upgrade has come.

    Its environment is not written down: there are secrets in it. Who picks an upgrade up gives their own.
    """

    stage: Stage
    pid: int
    prefix: tuple[str, ...]
    arguments: tuple[str, ...]
    cwd: str
    version: str
    revision: str
    """The schema before."""
    to_version: str
    backup: str = ""
    managed: bool = False
    began: float
    """Seconds of the epoch."""


class Journal:
    """Kept from the moment when the old server is asked to make way until another serves."""

    def __init__(self, data_dir: Path) -> None:
        self._file = private_dir(data_dir) / FILE
        self._descriptor: int | None = None
        self.entry: Entry | None = None

    def take(self) -> None:
        """Let no second upgrade begin beside this one, and read what an interrupted one has left. Raises DataInUse."""
        descriptor = os.open(self._file.with_name(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DataInUse("another upgrade is under way", mend="wait until it has ended") from None
        self._descriptor = descriptor
        self.entry = _read(self._file)

    def reread(self) -> None:
        """What another process of this upgrade has written."""
        self.entry = _read(self._file)

    def release(self) -> None:
        """Let another upgrade begin; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def put(self, entry: Entry) -> None:
        """Write it so that it is there after a power cut."""
        fresh = self._file.with_name(f"{FILE}.new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(asdict(entry), out)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self._file)
        self.entry = entry

    def change(self, **changes: str) -> None:
        """Write another stage, or where the backup lies."""
        if self.entry is not None:
            self.put(replace(self.entry, **changes))  # type: ignore[arg-type]

    def close(self) -> None:
        """It is over, either way: nothing is left to pick up."""
        self._file.unlink(missing_ok=True)
        self.entry = None


def _read(file: Path) -> Entry | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Entry(
            stage=found["stage"],
            pid=int(found["pid"]),
            prefix=tuple(found["prefix"]),
            arguments=tuple(found["arguments"]),
            cwd=str(found["cwd"]),
            version=str(found["version"]),
            revision=str(found["revision"]),
            to_version=str(found["to_version"]),
            backup=str(found["backup"]),
            managed=bool(found["managed"]),
            began=float(found["began"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
