"""Overnight's own agent: this program itself, started anew, with its models and tools on the server."""

from __future__ import annotations

import site
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import overnight.errors
from overnight.backends.acp.agent import CAPABILITIES, Agent, Equipment, Executable
from overnight.backends.process.settings import ProgramSettings
from overnight.domain.backend import Problem
from overnight.errors import BackendFailure
from overnight.ports.backend import TurnStart

ENDPOINT: Final = "OVERNIGHT_AGENT_ENDPOINT"
TOKEN: Final = "OVERNIGHT_AGENT_TOKEN"
_NO_SERVER: Final = Problem(
    code="server_unreachable",
    message="no server is known that has models for the built-in agent",
    mend="set OVERNIGHT_AGENT_ENDPOINT for this worker to the server's address, such as ws://127.0.0.1:4010",
)


def builtin(settings: ProgramSettings) -> Agent:
    """`overnight agent`."""
    access = settings.access
    return Agent(
        title="Overnight's agent",
        program=sys.executable,
        find=_ourselves,
        equip=_equip,
        versions=((0, 1, 0), (1, 0, 0)),
        capabilities=replace(CAPABILITIES, reserved_environment=("OVERNIGHT_AGENT_*", "PYTHON*")),
        reads=False,
        writes=False,
        patience_s=10.0,
        problems=(lambda: (_NO_SERVER,)) if access is None else access.problems,
    )


def _ourselves(program: Path) -> Executable:
    """Isolated: neither the workspace it starts in nor a variable puts other code in the place of ours."""
    ours = Path(overnight.errors.__file__).parent.parent
    places = {Path(sys.prefix), Path(sys.base_prefix), ours, *map(Path, site.getsitepackages())}
    return Executable(
        argv=(str(program), "-I", "-u", "-m", "overnight"),
        programs=(program, program.resolve()),
        readable=tuple(sorted(places)),
    )


def _equip(settings: ProgramSettings, start: TurnStart, asking: bool) -> Equipment:  # noqa: FBT001  # an agent's hook
    access = settings.access
    if access is None:
        raise BackendFailure(_NO_SERVER.message, code=_NO_SERVER.code, retryable=False, mend=_NO_SERVER.mend)
    model = start.model or settings.model
    chosen = (("--model", model), ("--effort", start.effort))
    env: Mapping[str, str] = {
        ENDPOINT: access.endpoint,
        TOKEN: access.token(start.run_id, start.turn, start.attempt),
    }
    return Equipment(
        args=("agent", *(word for name, value in chosen if value for word in (name, value))),
        env=env,
        mode="ask" if asking else None,
        readable=access.readable,
    )
