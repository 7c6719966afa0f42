"""What a confined agent may reach over the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from overnight.ports.sandbox import Confined


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """`on` shares the host's network; `off` leaves an agent a loopback of its own."""

    allowed: Literal["on", "off"] | tuple[str, ...] = "on"

    @property
    def flags(self) -> tuple[str, ...]:
        """Arguments of bubblewrap."""
        return () if self.allowed == "on" else ("--unshare-net",)

    @property
    def note(self) -> str:
        """For doctor."""
        return f"network {self.allowed}"

    @property
    def programs(self) -> tuple[Path, ...]:
        """Programs of ours that have to be found inside."""
        return ()

    def inside(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """What is started inside the sandbox so that `argv` runs with this network."""
        return argv

    def outside(self, confined: Confined) -> Confined:
        """What is started outside of the sandbox."""
        return confined
