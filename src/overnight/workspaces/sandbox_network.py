"""What a confined agent may reach over the network."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from overnight.ports.sandbox import Confined
from overnight.workspaces import sandbox_gate

_PYTHON: Final = (sys.executable, "-I", "-S", "-E")
_OUTSIDE_PROCESSES: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """`on` shares the host's network, `off` leaves an agent its own loopback, a list opens a proxy to its hosts."""

    allowed: Literal["on", "off"] | tuple[str, ...] = "on"

    @property
    def flags(self) -> tuple[str, ...]:
        """Arguments of bubblewrap."""
        return () if self.allowed == "on" else ("--unshare-net",)

    @property
    def note(self) -> str:
        """For doctor."""
        if isinstance(self.allowed, str):
            return f"network {self.allowed}"
        return f"network to {', '.join(self.allowed)}"

    @property
    def programs(self) -> tuple[Path, ...]:
        """Programs of ours that have to be found inside."""
        return () if isinstance(self.allowed, str) else (Path(sys.executable),)

    def inside(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """What is started inside the sandbox so that `argv` runs with this network."""
        return argv if isinstance(self.allowed, str) else (*_PYTHON, "-c", sandbox_gate.INSIDE, *argv)

    def outside(self, confined: Confined) -> Confined:
        """What is started outside of the sandbox."""
        if isinstance(self.allowed, str):
            return confined
        gate = (*_PYTHON, str(Path(sandbox_gate.__file__)), json.dumps(self.allowed))
        return Confined(
            argv=(*gate, *confined.argv),
            env=_with_proxy(confined.env, sandbox_gate.Rules(list(self.allowed))),
            wrappers=confined.wrappers + _OUTSIDE_PROCESSES,
        )


def _with_proxy(env: Mapping[str, str], rules: sandbox_gate.Rules) -> Mapping[str, str]:
    """Tell programs of the proxy, in the ways that they listen to; the host's own proxies cannot be reached.

    The loopback is the agent's own, unless the operator lists it: then its names mean the host's.
    """
    address = f"http://127.0.0.1:{sandbox_gate.PORT}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    own = ",".join(name for name in ("localhost", "127.0.0.1", "::1") if not rules.names(name))
    return {
        **env,
        **dict.fromkeys(names, address),
        "NO_PROXY": own,
        "no_proxy": own,
        "NODE_USE_ENV_PROXY": "1",
    }
