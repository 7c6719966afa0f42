"""Claude Code by its adapter, `@agentclientprotocol/claude-agent-acp`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from overnight.backends.acp.agent import CAPABILITIES, NODE, Agent, Credentials, Equipment, node_script
from overnight.backends.process.settings import ProgramSettings
from overnight.ports.backend import TurnStart

_QUIET: Mapping[str, str] = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
}
_LOGIN = ".claude/.credentials.json"


def claude(node: str | None) -> Agent:
    """`claude-agent-acp`, which brings its own Claude Code."""
    return Agent(
        title="Claude Code",
        program="claude-agent-acp",
        find=node_script(node),
        equip=_equip,
        credentials=Credentials(
            keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
            passed=("ANTHROPIC_BASE_URL",),
            logins=(_LOGIN,),
            probe=_ask,
        ),
        forms=True,
        versions=((0, 100, 0), (0, 101, 0)),
        capabilities=replace(CAPABILITIES, reserved_environment=("CLAUDE_*", "ANTHROPIC_*", *NODE)),
    )


def _equip(settings: ProgramSettings, start: TurnStart, asking: bool) -> Equipment:  # noqa: FBT001  # an agent's hook
    own = settings.environment.get("CLAUDE_CONFIG_DIR")
    home = Path(own) if own else start.home / ".claude"
    env = {**_QUIET, "CLAUDE_CONFIG_DIR": str(home)}
    if os.geteuid() == 0:
        # As root it does not work without asking unless it is told that somebody has thought about it.
        env["IS_SANDBOX"] = "1"
    model = start.model or settings.model
    if model:
        env["ANTHROPIC_MODEL"] = model
    # Only the settings of our own home: what a workspace brings along would run hooks and servers, allow itself
    # everything, and could send the key elsewhere.
    options: dict[str, object] = {
        "settingSources": ["user"],
        "strictMcpConfig": True,
        "promptSuggestions": False,
    }
    if start.effort:
        options["effort"] = start.effort
    return Equipment(
        args=(),
        env=env,
        files={} if own else {".claude/settings.json": "{}"},
        mode="default" if asking else "bypassPermissions",
        session={"_meta": {"claudeCode": {"options": options}}},
        lent=() if own else ((_LOGIN, _LOGIN),),
        writable=(home,) if own else (),
    )


def _ask(known: Mapping[str, str]) -> tuple[str, Mapping[str, str]] | None:
    url = f"{known.get('ANTHROPIC_BASE_URL', 'https://api.anthropic.com').rstrip('/')}/v1/models"
    version = {"anthropic-version": "2023-06-01"}
    if "ANTHROPIC_API_KEY" in known:
        return url, {"x-api-key": known["ANTHROPIC_API_KEY"], **version}
    if "ANTHROPIC_AUTH_TOKEN" in known:
        return url, {"Authorization": f"Bearer {known['ANTHROPIC_AUTH_TOKEN']}", **version}
    return None
