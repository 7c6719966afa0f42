"""A wall clock of its own for one process, by libfaketime; the boot clock and the monotonic clock stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PLACES: Final = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
)


def library() -> Path | None:
    """libfaketime, where it is installed (the Debian package `faketime`)."""
    return next((path for path in map(Path, PLACES) if path.exists()), None)


def faked(offset: Path) -> dict[str, str]:
    """What a process needs in its environment so that `offset` moves its wall clock. {} without the library."""
    found = library()
    if found is None:
        return {}
    offset.write_text("+0\n", encoding="ascii")
    return {
        "LD_PRELOAD": str(found),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",  # reading the file at every look at the clock would cost more than the work
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def set_offset(offset: Path, seconds: float) -> None:
    """Let the clock of whoever was started with that file jump to so many seconds from the real time."""
    part = offset.with_suffix(".part")
    part.write_text(f"{seconds:+.0f}\n", encoding="ascii")
    part.rename(offset)
