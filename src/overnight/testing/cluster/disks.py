"""Small disks that can be filled: a tmpfs for each, where we may mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

KEEP_FREE = 0
BLOCK = 1 << 20


class SmallDisks:
    """Folders with a disk of their own; `sizes` in MiB by the folder's name beneath `root`."""

    def __init__(self, root: Path, sizes: Mapping[str, int]) -> None:
        self._root = root
        self._sizes = dict(sizes)
        self.mounted: dict[str, Path] = {}
        self.why_not: str | None = None

    def mount(self) -> None:
        """Mount all of them, or none and say why in `why_not`."""
        if self._sizes and os.geteuid() != 0:
            self.why_not = "mounting a small disk needs root"
            return
        for name, size in self._sizes.items():
            folder = self._root / name
            folder.mkdir(parents=True, exist_ok=True)
            argv = ["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=0711", "tmpfs", str(folder)]
            done = subprocess.run(argv, capture_output=True, check=False)
            if done.returncode:
                self.why_not = f"this machine mounts no tmpfs: {done.stderr.decode(errors='replace').strip()}"
                return
            self.mounted[name] = folder

    def fill(self, name: str, leave: int = KEEP_FREE) -> None:
        """Leave at most so many bytes free on that disk."""
        with self._ballast(name).open("ab", buffering=0) as file, suppress(OSError):
            for size in (BLOCK, 4096):
                while self.free(name) >= leave + size:
                    file.write(b"\0" * size)

    def empty(self, name: str) -> None:
        """Give the room back."""
        self._ballast(name).unlink(missing_ok=True)

    def free(self, name: str) -> int:
        """Bytes that are left."""
        found = os.statvfs(self.mounted[name])
        return found.f_bavail * found.f_frsize

    def close(self) -> None:
        """Unmount all. Idempotent."""
        for name in list(self.mounted):
            subprocess.run(["umount", "-l", str(self.mounted.pop(name))], check=False)

    def _ballast(self, name: str) -> Path:
        return self.mounted[name] / "ballast"
