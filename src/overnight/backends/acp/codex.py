"""Codex by its native adapter, `@zed-industries/codex-acp`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from overnight.backends.acp.agent import CAPABILITIES, Agent, Credentials, Equipment, native_beside
from overnight.backends.process.settings import ProgramSettings
from overnight.ports.backend import TurnStart

_KEYS = ("CODEX_API_KEY", "OPENAI_API_KEY")
_METHODS = (("CODEX_API_KEY", "codex-api-key"), ("OPENAI_API_KEY", "openai-api-key"))
_TRUSTING = "@agentclientprotocol"


def codex() -> Agent:
    """`codex-acp`, the program behind its launcher: that one dies alone and leaves the program behind."""
    return Agent(
        title="Codex",
        program="codex-acp",
        find=native_beside("@zed-industries/codex-acp-{platform}*/bin/codex-acp"),
        equip=_equip,
        credentials=Credentials(keys=_KEYS, logins=(".codex/auth.json",), probe=_ask, needed=False),
        versions=((0, 16, 0), (0, 17, 0)),
        version_from_package=True,
        capabilities=replace(CAPABILITIES, usage=False, reserved_environment=("CODEX_*", "OPENAI_*")),
        usage="none",
        auth=lambda env: next((method for name, method in _METHODS if name in env), None),
        # Once its stdin is closed it stays for as long as a shell that it keeps for the model.
        patience_s=0.3,
        unfit=_unfit,
    )


def _equip(settings: ProgramSettings, start: TurnStart, asking: bool) -> Equipment:  # noqa: FBT001  # an agent's hook
    own = settings.environment.get("CODEX_HOME")
    home = Path(own) if own else start.home / ".codex"
    # What a workspace says about servers, rules and policies is obeyed only where the folder is trusted.
    options = ["check_for_update_on_startup=false", "analytics.enabled=false", 'otel.exporter="none"']
    options += [f'projects={{{_quoted(str(start.workspace))}={{trust_level="untrusted"}}}}']
    # Ours is the sandbox; and everything that is not known to be harmless is asked, unless nobody wants to be asked.
    options += [
        f'approval_policy="{"untrusted" if asking else "never"}"',
        'sandbox_mode="danger-full-access"',
    ]
    hidden = ", ".join(_quoted(name) for name in _KEYS)
    options += [f"shell_environment_policy.exclude=[{hidden}]"]
    options += [f'model_reasoning_effort="{start.effort}"'] if start.effort else []
    model = start.model or settings.model
    options += [f"model={_quoted(model)}"] if model else []
    return Equipment(
        args=tuple(part for option in options for part in ("-c", option)),
        env={"CODEX_HOME": str(home)},
        files={} if own else {".codex/config.toml": ""},
        lent=() if own else ((".codex/auth.json", ".codex/auth.json"),),
        writable=(home,) if own else (),
    )


def _unfit(program: Path) -> str | None:
    if _TRUSTING not in program.resolve().parts:
        return None
    return "this adapter trusts every workspace, so that a workspace can start programs and allow itself everything"


def _ask(known: Mapping[str, str]) -> tuple[str, Mapping[str, str]] | None:
    key = next((known[name] for name in _KEYS if name in known), None)
    return None if key is None else ("https://api.openai.com/v1/models", {"Authorization": f"Bearer {key}"})


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
