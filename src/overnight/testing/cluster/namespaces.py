"""Members in network namespaces of their own, where the kernel itself can lose their packets."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Direction = Literal["both", "in", "out"]
HOOKS = {"both": ("input", "output"), "in": ("input",), "out": ("output",)}
_CHAIN = "type filter hook {} priority 0; policy drop;"


class Namespaces:
    """One namespace for each name, linked to ours by a pair of virtual cables; made as root, removed by `close`."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)
        self._mark = f"ovn{os.getpid() % 100000}"
        self._net = os.getpid() % 250
        self.made: dict[str, str] = {}
        """For each member that has one: the address at which it reaches us."""
        self.why_not: str | None = None

    def make(self) -> None:
        """Make all of them, or none and say why in `why_not`."""
        if not self._names:
            return
        missing = [tool for tool in ("ip", "nft", "nsenter") if shutil.which(tool) is None]
        if os.geteuid() != 0 or missing:
            self.why_not = f"missing: {', '.join(missing)}" if missing else "network namespaces need root"
            return
        try:
            for index, name in enumerate(self._names):
                self._make(index, name)
        except subprocess.CalledProcessError as error:
            self.why_not = (
                f"no network namespace can be made here: {error.stderr.decode(errors='replace').strip()}"
            )
            self.close()

    def wrapper(self, name: str) -> tuple[str, ...]:
        """What goes before a program so that it starts in the namespace, and nothing else about it changes."""
        return ("nsenter", f"--net=/run/netns/{self._space(name)}") if name in self.made else ()

    def drop(self, name: str, direction: Direction) -> None:
        """Let every packet vanish, in both directions or in one; connections learn nothing of it."""
        chains = (f"add chain inet faults {hook} {{ {_CHAIN.format(hook)} }}" for hook in HOOKS[direction])
        rules = ["add table inet faults", *chains]
        self._inside(name, "nft", "; ".join(rules))

    def heal(self, name: str) -> None:
        """Let packets through again."""
        self._inside(name, "nft", "delete table inet faults")

    def close(self) -> None:
        """Remove them. Idempotent."""
        for name in list(self.made):
            del self.made[name]
            subprocess.run(["ip", "netns", "del", self._space(name)], capture_output=True, check=False)

    def _make(self, index: int, name: str) -> None:
        space, ours, theirs = self._space(name), f"{self._mark}a{index}", f"{self._mark}b{index}"
        here, there = f"198.18.{self._net}.{index * 4 + 1}", f"198.18.{self._net}.{index * 4 + 2}"
        _run("ip", "netns", "add", space)
        self.made[name] = here
        _run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", space)
        _run("ip", "addr", "add", f"{here}/30", "dev", ours)
        _run("ip", "link", "set", ours, "up")
        self._inside(name, "ip", "addr", "add", f"{there}/30", "dev", theirs)
        self._inside(name, "ip", "link", "set", theirs, "up")
        self._inside(name, "ip", "link", "set", "lo", "up")

    def _space(self, name: str) -> str:
        return f"{self._mark}-{name}"

    def _inside(self, name: str, *argv: str) -> None:
        _run("nsenter", f"--net={Path('/run/netns') / self._space(name)}", *argv)


def _run(*argv: str) -> None:
    subprocess.run(argv, capture_output=True, check=True)
