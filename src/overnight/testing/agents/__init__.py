"""Agents to test with: a sample agent, a scripted agent, and the real programs from npm.

`sample_agent.py`, `scripted_agent.py`, `witness_agent.py` and `acp_agent.py` are programs of their own (standard
library only), run by path: `SAMPLE_AGENT`, `SCRIPTED_AGENT`, `WITNESS_AGENT` and `ACP_AGENT` say where they are.
"""

from __future__ import annotations

from pathlib import Path

from overnight.testing.agents.install import AgentsUnavailable, agents_folder, install, program, programs

ACP_AGENT = Path(__file__).with_name("acp_agent.py")
SAMPLE_AGENT = Path(__file__).with_name("sample_agent.py")
SCRIPTED_AGENT = Path(__file__).with_name("scripted_agent.py")
WITNESS_AGENT = Path(__file__).with_name("witness_agent.py")

__all__ = [
    "ACP_AGENT",
    "SAMPLE_AGENT",
    "SCRIPTED_AGENT",
    "WITNESS_AGENT",
    "AgentsUnavailable",
    "agents_folder",
    "install",
    "program",
    "programs",
]
