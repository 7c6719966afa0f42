"""The agents that are known by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Final, Literal

from overnight.backends.acp.agent import Agent
from overnight.backends.acp.builtin import builtin
from overnight.backends.acp.claude import claude
from overnight.backends.acp.codex import codex
from overnight.backends.acp.google import gemini, qwen
from overnight.backends.acp.others import any_agent, copilot, opencode
from overnight.backends.acp.program import AcpProgram
from overnight.backends.process.settings import ProgramSettings
from overnight.clock import Clock

Name = Literal["acp", "agent", "gemini", "qwen", "opencode", "copilot", "codex-acp", "claude-acp"]

_AGENTS: Final[Mapping[str, Callable[[str | None], Agent]]] = {
    "acp": lambda _: any_agent(),
    "gemini": gemini,
    "qwen": qwen,
    "opencode": lambda _: opencode(),
    "copilot": lambda _: copilot(),
    "codex-acp": lambda _: codex(),
    "claude-acp": claude,
}


def acp_program(name: Name, settings: ProgramSettings, clock: Clock) -> AcpProgram:
    """The program of that kind of agent."""
    if name == "agent":
        return AcpProgram(settings, clock, builtin(settings))
    path = settings.environment.get("PATH") or settings.host.get("PATH")
    return AcpProgram(settings, clock, _AGENTS[name](shutil.which("node", path=path)))
