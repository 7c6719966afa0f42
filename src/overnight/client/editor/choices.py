"""What a user may set in the editor: how much is asked, which agent works, and how. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from acp.schema import (
    SessionConfigOptionBoolean,
    SessionConfigOptionSelect,
    SessionConfigSelectOption,
    SessionMode,
    SessionModeState,
)

from overnight.errors import InvalidInput

Options = list[SessionConfigOptionSelect | SessionConfigOptionBoolean]
POLICIES: Final[Mapping[str, tuple[str, str]]] = {
    "autonomous": ("Autonomous", "Nothing is asked; the sandbox is what holds the agent."),
    "ask_outside_workspace": ("Ask outside the workspace", "Whatever reaches beyond the workspace is asked."),
    "ask_writes": ("Ask before changes", "Writing and commands are asked, reading is not."),
    "ask_all": ("Ask before everything", "Every tool call is asked."),
}
SANDBOXES: Final[Mapping[str, str]] = {
    "read_only": "Read only",
    "workspace_write": "Write in the workspace",
    "full_access": "No sandbox",
}
EFFORTS: Final[Mapping[str, str]] = {"low": "Low", "medium": "Medium", "high": "High"}
_DEFAULT: Final = "default"
"""Stands for a field that is left to the agent program."""
_FIELDS: Final[Mapping[str, str]] = {
    "mode": "approval_policy",
    "backend": "backend",
    "sandbox": "sandbox",
    "effort": "effort",
    "model": "model",
}
"""Option of the editor → field of a run."""


def modes(config: Mapping[str, Any]) -> SessionModeState:
    """The approval policies as modes. `config`: what the session's next run would be given."""
    offered = [
        SessionMode(id=id, name=name, description=words) for id, (name, words) in _policies(config).items()
    ]
    return SessionModeState(current_mode_id=policy_of(config), available_modes=offered)


def policy_of(config: Mapping[str, Any]) -> str:
    """The policy in force."""
    return str(config.get("approval_policy") or "autonomous")


def options(config: Mapping[str, Any], backends: Iterable[str]) -> Options:
    """The settings with their present values; those with a single choice are left out."""
    names = {name: name for name in sorted({*backends, str(config.get("backend") or "")} - {""})}
    model = str(config.get("model") or _DEFAULT)
    policies = {id: name for id, (name, _) in _policies(config).items()}
    efforts = {_DEFAULT: "Default", **EFFORTS}
    found = [
        _select("mode", "Approvals", policies, policy_of(config), "mode"),
        _select("backend", "Agent", names, str(config.get("backend") or ""), None),
        _select("model", "Model", {_DEFAULT: "Default", model: model}, model, "model"),
        _select("effort", "Effort", efforts, str(config.get("effort") or _DEFAULT), "thought_level"),
        _select("sandbox", "Sandbox", SANDBOXES, str(config.get("sandbox") or "workspace_write"), None),
    ]
    return [option for option in found if option is not None]


def changed(config: Mapping[str, Any], option: str, value: object) -> dict[str, Any]:
    """A session's configuration with one setting of the editor changed. Raises InvalidInput for an unknown one."""
    field = _FIELDS.get(option)
    if field is None or not isinstance(value, str):
        raise InvalidInput(
            f"there is no setting {option!r} of that kind", mend=f"use one of: {', '.join(_FIELDS)}"
        )
    left = {name: old for name, old in config.items() if name != field}
    return left if value == _DEFAULT and field in {"model", "effort"} else {**left, field: value}


def _policies(config: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Those that can be chosen, and the one in force."""
    current = policy_of(config)
    return dict(POLICIES) if current in POLICIES else {**POLICIES, current: (current, "Set elsewhere.")}


def _select(
    id: str, name: str, values: Mapping[str, str], current: str, category: Any
) -> SessionConfigOptionSelect | None:
    if len(values) < 2:
        return None
    return SessionConfigOptionSelect(
        type="select",
        id=id,
        name=name,
        category=category,
        current_value=current,
        options=[SessionConfigSelectOption(value=value, name=words) for value, words in values.items()],
    )
