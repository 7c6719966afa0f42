"""Whether this machine is short of memory, so that agents that only wait had better go."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SHORT: Final = 0.05
"""The part of the memory below which what is available counts as short."""
_FILE: Final = Path("/proc/meminfo")


def memory_is_short() -> bool:
    """By the kernel's own estimate; False where it gives none."""
    try:
        lines = _FILE.read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    found = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest}
    total, available = found.get("MemTotal", 0), found.get("MemAvailable")
    return available is not None and available < SHORT * total
