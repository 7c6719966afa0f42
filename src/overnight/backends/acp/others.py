"""opencode, GitHub Copilot CLI, and any agent that the operator configures by its command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from overnight.backends.acp.agent import (
    CAPABILITIES,
    Agent,
    Credentials,
    Equipment,
    as_it_is,
    native_beside,
)
from overnight.backends.process.settings import ProgramSettings
from overnight.ports.backend import TurnStart

_OPENCODE_LOGIN = ".local/share/opencode/auth.json"
_CONTENT = "OPENCODE_CONFIG_CONTENT"
_OPENCODE_QUIET: Mapping[str, str] = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    # Without what the workspace configures: its servers and plugins are programs, its permissions are everything.
    "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
}


def opencode() -> Agent:
    """`opencode acp`."""
    return Agent(
        title="opencode",
        program="opencode",
        find=native_beside("opencode-{platform}/bin/opencode"),
        equip=_opencode,
        credentials=Credentials(
            keys=(
                "ANTHROPIC_API_KEY",
                "OPENAI_API_KEY",
                "GEMINI_API_KEY",
                "OPENROUTER_API_KEY",
                "OPENCODE_API_KEY",
            ),
            logins=(_OPENCODE_LOGIN,),
            needed=False,
        ),
        versions=((1, 18, 33), (1, 19, 0)),
        # What it calls the turn's usage is that of its last step.
        capabilities=replace(CAPABILITIES, usage=False, reserved_environment=("OPENCODE_*", "XDG_*")),
        usage="none",
    )


def copilot() -> Agent:
    """`copilot --acp`."""
    return Agent(
        title="GitHub Copilot CLI",
        program="copilot",
        find=native_beside("@github/copilot-{platform}/copilot"),
        equip=_copilot,
        credentials=Credentials(
            keys=("COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN", "COPILOT_PROVIDER_API_KEY"),
            passed=(
                "COPILOT_PROVIDER_BASE_URL",
                "COPILOT_PROVIDER_TYPE",
                "COPILOT_PROVIDER_WIRE_API",
                "COPILOT_OFFLINE",
            ),
            logins=(".copilot/config.json",),
        ),
        versions=((1, 0, 102), (1, 1, 0)),
        capabilities=replace(CAPABILITIES, reserved_environment=("COPILOT_*", "GH_TOKEN", "GITHUB_TOKEN")),
        error_prefix="Error: ",
    )


def any_agent() -> Agent:
    """Whatever the operator's `command` starts. It is taken to ask on its own, as the protocol would have it."""
    return Agent(title="an ACP agent", program="", find=as_it_is, equip=_any, forms=True)


def _opencode(settings: ProgramSettings, start: TurnStart, asking: bool) -> Equipment:  # noqa: FBT001  # an agent's hook
    given: Any = json.loads(settings.environment.get(_CONTENT, "{}"))
    quiet = {"autoupdate": False, "share": "disabled", "permission": {"*": "ask" if asking else "allow"}}
    model = start.model or settings.model
    content = {**given, **quiet, **({"model": model} if model else {})}
    return Equipment(
        args=("acp", "--cwd", str(start.workspace)),
        env={**_OPENCODE_QUIET, _CONTENT: json.dumps(content)},
        files={".config/opencode/opencode.json": "{}"},
        effort=start.effort,
        lent=((_OPENCODE_LOGIN, _OPENCODE_LOGIN),),
    )


def _copilot(settings: ProgramSettings, start: TurnStart, asking: bool) -> Equipment:  # noqa: FBT001  # an agent's hook
    model = start.model or settings.model
    unpacked = _unpacked(settings)
    return Equipment(
        args=(
            "--acp",
            "--no-auto-update",
            "--disable-builtin-mcps",
            *(() if asking else ("--allow-all-tools",)),
        ),
        env={
            "COPILOT_AUTO_UPDATE": "false",
            "COPILOT_HOME": str(start.home / ".copilot"),
            **({"COPILOT_MODEL": model} if model else {}),
            **({"COPILOT_PKG_CACHE_HOME": str(unpacked)} if unpacked else {}),
        },
        readable=(unpacked,) if unpacked else (),
        effort=start.effort,
        lent=((".copilot/config.json", ".copilot/config.json"),),
    )


def _unpacked(settings: ProgramSettings) -> Path | None:
    """Where the preflight's start has unpacked it: 235 MB that not every session needs a copy of."""
    home = settings.preflight_home
    folder = None if home is None else home / ".cache" / "copilot"
    return folder if folder is not None and (folder / "pkg").is_dir() else None


def _any(settings: ProgramSettings, start: TurnStart, asking: bool) -> Equipment:  # noqa: ARG001, FBT001  # an agent's hook
    return Equipment(args=settings.command[1:], model=start.model or settings.model, effort=start.effort)
