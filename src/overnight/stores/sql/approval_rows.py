"""Between rows of the approvals table and domain values."""

from __future__ import annotations

from typing import Any, Final

import orjson

from overnight.domain.action import Action, Edit
from overnight.domain.approval import Approval, Decision, Option
from overnight.domain.rule import rule_of
from overnight.stores.sql.rows import dump, load
from overnight.stores.sql.statements import Row

APPROVAL_COLUMNS: Final = (
    "pk", "id", "owner", "run_pk", "run_id", "session_pk", "session_id", "turn", "attempt", "request", "kind",
    "title", "context", "action", "digest", "options", "state", "decision", "default_option", "expires_at",
    "created_at", "resolved_at", "used_at",
)  # fmt: skip


def approval_values(approval: Approval) -> dict[str, object]:
    """Every column of an approval but its key."""
    plain = (
        "id", "owner", "run_pk", "run_id", "session_pk", "session_id", "turn", "attempt", "request", "kind", "title",
        "default_option", "expires_at", "created_at",
    )  # fmt: skip
    found = {name: getattr(approval, name) for name in plain}
    return {**found, "action": _dump_action(approval.action), **changing_approval(approval)}


def changing_approval(approval: Approval) -> dict[str, object]:
    """The columns that a save writes."""
    chosen = approval.chosen
    return {
        "context": dump(dict(approval.context)),
        "digest": approval.digest,
        "options": dump([option.to_json() for option in approval.options]),
        "state": approval.state,
        "decision": None if approval.decision is None else dump(approval.decision.to_json()),
        "chosen": None if chosen is None else chosen.kind,
        "resolved_at": approval.resolved_at,
        "used_at": approval.used_at,
    }


def approval_of(row: Row) -> Approval:
    """An approval from `APPROVAL_COLUMNS`."""
    found: dict[str, Any] = dict(zip(APPROVAL_COLUMNS, row, strict=True))
    found["context"] = load(found["context"])
    found["action"] = _load_action(found["action"])
    found["options"] = tuple(map(_option, orjson.loads(found["options"])))
    found["decision"] = None if found["decision"] is None else Decision(**load(found["decision"]))
    return Approval(**found)


def _option(document: dict[str, Any]) -> Option:
    rule = document.pop("rule", None)
    return Option(**document, rule=None if rule is None else rule_of(rule))


_ACTION: Final = ("kind", "tool", "title", "arguments", "command", "cwd", "paths", "hosts")


def _dump_action(action: Action | None) -> str | None:
    if action is None:
        return None
    edits = [{"path": edit.path, "before": edit.before, "after": edit.after} for edit in action.edits]
    return dump({**{name: getattr(action, name) for name in _ACTION}, "edits": edits})


def _load_action(text: str | None) -> Action | None:
    if text is None:
        return None
    found = load(text)
    found["edits"] = tuple(Edit(**edit) for edit in found["edits"])
    found["paths"], found["hosts"] = tuple(found["paths"]), tuple(found["hosts"])
    return Action(**found)
