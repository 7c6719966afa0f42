"""An approval as lines for a person. Pure; whoever prints strips what a terminal would obey.

Everything that an agent has a say in is kept on lines that begin with a mark of ours, so that nothing in it can pass
for a line of Overnight's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from overnight.cli.output import ago, span
from overnight.domain.text import plain

MOST_LINES: Final = 200
"""Lines of one diff or command; `--json` shows all."""


def headline(approval: Mapping[str, Any]) -> str:
    """Id, kind, age, and how it stands, on one line."""
    state = approval["state"]
    if state == "pending":
        how = f"open for {ago(approval['created_at'])}, {_expiry(approval)}"
    elif approval["decision"] is not None:
        decision = approval["decision"]
        how = (
            f"{state} {ago(approval['resolved_at'])} ago: {decision['option']} by {one_line(decision['by'])}"
        )
    else:
        how = str(state)
    return f"{approval['id']} · {approval['kind']} · {how}"


def block(approval: Mapping[str, Any], *, commands: bool = True) -> list[str]:
    """All that is needed for the decision. `commands`: with the command for each option."""
    found = [headline(approval), f"  {one_line(approval['title'])}", f"  of {approval['run_id']}"]
    found += _context(approval["context"] or {})
    for option in approval["options"]:
        found += _option(approval, option, commands=commands)
    return found


def one_line(text: object) -> str:
    """Any text on one line."""
    return " ".join(plain(str(text)).split())


def _expiry(approval: Mapping[str, Any]) -> str:
    left = (datetime.fromisoformat(approval["expires_at"]) - datetime.now(UTC)).total_seconds()
    default = one_line(approval["default_option"])
    return f"{default} in {span(left)}" if left > 0 else f"about to end as {default}"


def _context(context: Mapping[str, Any]) -> Iterator[str]:
    if "budget" in context:
        yield f"  used: {context.get('used')} of {context.get('limit')} {one_line(context['budget'])}"
    if context.get("command") is not None:
        yield f"  runs in {one_line(context['cwd'])}:" if context.get("cwd") else "  runs:"
        yield from _quoted("$", context["command"])
    for place in context.get("places") or []:
        yield _place(place)
    if hosts := context.get("hosts"):
        yield f"  reaches {', '.join(map(one_line, hosts))}"
    if context.get("diff"):
        yield from _quoted("|", context["diff"])
    elif context.get("arguments") not in (None, {}, {"command": context.get("command")}):
        yield f"  {one_line(context.get('tool', 'tool'))} {json.dumps(context['arguments'])}"
    if context.get("binding") is False:
        yield f"  ! {one_line(context.get('warning', 'no sandbox: the decision is advice'))}"
    elif context.get("binding"):
        yield f"  binding: the sandbox ({one_line(context.get('sandbox'))}) holds the agent to it"


def _place(place: Mapping[str, Any]) -> str:
    given, resolved = one_line(place["path"]), one_line(place["resolved"])
    leads = f" → {resolved}" if resolved != given else ""
    side = "inside" if place["inside"] else "OUTSIDE"
    return f"  touches {given}{leads} ({place['kind']}, {side} the workspace)"


def _quoted(mark: str, text: object) -> Iterator[str]:
    lines = plain(str(text)).rstrip("\n").split("\n")
    yield from (f"  {mark} {line}" for line in lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        yield f"  … {len(lines) - MOST_LINES} more lines: overnight approvals --json"


def _option(approval: Mapping[str, Any], option: Mapping[str, Any], *, commands: bool) -> Iterator[str]:
    label = f"  - {one_line(option['id'])}: {one_line(option['label'])}"
    yield f"{label}   {command(approval, option)}" if commands and approval["state"] == "pending" else label
    if option.get("rule"):
        # In pure ASCII: letters that only look alike are told apart.
        yield f"      rule: {json.dumps(option['rule'])}"


def command(approval: Mapping[str, Any], option: Mapping[str, Any]) -> str:
    """How to choose that option from a shell."""
    made = _COMMANDS.get(str(option["kind"]))
    return (
        made.format(id=approval["id"]) if made else f"overnight answer {approval['id']} {_word(option['id'])}"
    )


def _word(text: object) -> str:
    """An option's id as a shell takes it."""
    found = one_line(text)
    return (
        found if found.replace("_", "").replace("-", "").isalnum() and found.isascii() else json.dumps(found)
    )


_COMMANDS: Final[Mapping[str, str]] = {
    "allow_once": "overnight approve {id}",
    "allow_always": "overnight approve {id} --always",
    "reject_once": "overnight deny {id}",
    "reject_always": "overnight deny {id} --always",
    "raise": "overnight approve {id} --limits tokens=…",
}
