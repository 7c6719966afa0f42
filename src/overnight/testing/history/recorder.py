"""The recorder: appends what is seen to a file, at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from overnight.testing.history.entries import Entry, from_document, to_document

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot() -> float:
    """Seconds of the boot clock, by which all entries are stamped."""
    return time.clock_gettime(_BOOT)


def digest(body: bytes | str) -> str:
    """What stands for an event's bytes in a history."""
    return blake2b(body.encode() if isinstance(body, str) else body, digest_size=12).hexdigest()


class Recorder:
    """One history in the making: a JSONL file. Belongs to one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, entry: Entry) -> None:
        """Append one entry."""
        self._file.write(orjson.dumps(to_document(entry)) + b"\n")

    def flush(self) -> None:
        """Hand everything to the operating system, so that others can read it."""
        self._file.flush()

    def close(self) -> None:
        """The history is complete. Idempotent."""
        self._file.close()


def read_entries(path: Path) -> Iterator[Entry]:
    """Every entry of a history, in order; a last line that was cut off is no entry."""
    whole = path.read_bytes().rpartition(b"\n")[0]
    for line in whole.splitlines():
        yield from_document(orjson.loads(line))
