"""Approvals as the permission requests that an editor puts to its user, and the choice on its way back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

from acp.schema import PermissionOption, PermissionOptionKind, ToolCallLocation, ToolCallUpdate, ToolKind

from overnight.client.editor import tools
from overnight.client.editor.patches import pieces

_KINDS: Final[Mapping[str, PermissionOptionKind]] = {
    "allow_once": "allow_once",
    "allow_always": "allow_always",
    "reject_once": "reject_once",
    "reject_always": "reject_always",
    "answer": "allow_once",
    "raise": "allow_once",
    "finish": "reject_once",
    "cancel": "reject_always",
}
RAISED: Final = 2
"""An editor cannot ask for a number: a spent budget is raised to so many times what it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the user chose, as a decision about the approval that was shown."""

    option: str
    digest: str
    changes: Mapping[str, object] | None = None


def options_of(approval: Mapping[str, Any]) -> list[PermissionOption]:
    """The ways to decide; one that lasts shows exactly what it will cover."""
    found = []
    for option in approval["options"]:
        kind = _KINDS.get(str(option["kind"]))
        if kind is not None:
            found.append(
                PermissionOption(option_id=str(option["id"]), name=_name(option, approval), kind=kind)
            )
    return found


def tool_call_of(approval: Mapping[str, Any], tool_call: str, cwd: str) -> ToolCallUpdate:
    """What is asked about, as the tool call of that id."""
    context = approval.get("context") or {}
    return ToolCallUpdate(
        tool_call_id=tool_call,
        title=str(approval["title"]),
        kind=_kind(approval, context),
        status="pending",
        content=_content(context, cwd),
        locations=[ToolCallLocation(path=place["resolved"]) for place in context.get("places") or ()] or None,
        raw_input=_raw(context),
    )


def choice_of(approval: Mapping[str, Any], option_id: str) -> Choice | None:
    """The decision behind a chosen option; None for one that was never offered."""
    option = next((found for found in approval["options"] if found["id"] == option_id), None)
    if option is None:
        return None
    changes = {"limits": _raised(approval)} if option["kind"] == "raise" else None
    return Choice(option=option_id, digest=str(approval["digest"]), changes=changes)


def _name(option: Mapping[str, Any], approval: Mapping[str, Any]) -> str:
    label = str(option["label"])
    if option["kind"] == "raise":
        limits = ", ".join(f"{value:g} {name}" for name, value in _raised(approval).items())
        return f"{label}: {limits}"
    rule = option.get("rule")
    return f"{label}: {_rule(rule)}" if rule else label


def _rule(rule: Mapping[str, Any]) -> str:
    shown = {
        name: value for name, value in rule.items() if name not in _SILENT and value not in (None, [], "")
    }
    return ", ".join(f"{name} {_plain(value)}" for name, value in shown.items())


_SILENT: Final = frozenset({"effect", "exact"})


def _plain(value: object) -> str:
    return " ".join(str(part) for part in value) if isinstance(value, list) else str(value)


def _raised(approval: Mapping[str, Any]) -> dict[str, float]:
    context = approval.get("context") or {}
    most = max(float(context.get("limit") or 0), float(context.get("used") or 0)) * RAISED
    budget = str(context.get("budget", "tokens"))
    return {budget: int(most) if budget == "tokens" else most}


def _kind(approval: Mapping[str, Any], context: Mapping[str, Any]) -> ToolKind:
    action = context.get("action")
    if action in get_args(ToolKind):
        return cast("ToolKind", action)
    return "think" if approval["kind"] in {"question", "budget", "plan"} else "other"


def _content(context: Mapping[str, Any], cwd: str) -> list[tools.Content] | None:
    content: list[tools.Content] = []
    diff = str(context.get("diff") or "")
    content += tools.compared(pieces(diff), cwd) or tools.printed(diff)
    if context.get("command"):
        content += tools.printed(str(context["command"]))
    if context.get("warning"):
        content.append(tools.said(str(context["warning"])))
    return content or None


def _raw(context: Mapping[str, Any]) -> dict[str, Any] | None:
    raw = dict(context.get("arguments") or {})
    raw |= {name: context[name] for name in ("command", "cwd", "hosts") if context.get(name)}
    return raw or None
