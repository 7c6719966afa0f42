"""What a person is shown about an action that an agent wants to take. Pure; shows no secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from overnight.domain.action import Action, ActionKind, Resolved
from overnight.domain.approval import Option
from overnight.domain.event import canonical
from overnight.domain.redaction import Redactor
from overnight.domain.rule import MOST_RULE, Effect, Rule, exact_rule
from overnight.domain.spec import ApprovalKind
from overnight.domain.text import cut_utf8, plain
from overnight.domain.update import Asked
from overnight.engine.questions import Question

MAX_TITLE: Final = 300
MAX_TEXT: Final = 8_192
"""Bytes of a command, or of one argument list, that are shown."""
MAX_DIFF: Final = 24_576
"""Bytes of all diffs together."""
UNBOUND: Final = (
    "Without a sandbox the agent can do as it likes whatever is decided here: that is only advice."
)

_KINDS: Final[Mapping[ActionKind, ApprovalKind]] = {
    "execute": "command",
    "edit": "file_edit",
    "delete": "file_edit",
    "move": "file_edit",
}


def tool_question(
    ask: Asked, resolved: Resolved, *, redactor: Redactor, sandbox: str, binding: bool,
    expires_s: Callable[[ApprovalKind], float],
) -> Question:  # fmt: skip
    """The approval that `ask` opens. `binding`: a sandbox makes the decision mean something."""
    kind: ApprovalKind = "question" if ask.answers else _KINDS.get(ask.action.kind, "tool_call")
    context = _context(resolved, sandbox=sandbox, binding=binding)
    if ask.item_id is not None:
        context["item_id"] = ask.item_id
    return Question(
        kind=kind, title=cut_utf8(redactor.text(_title(ask.action)), MAX_TITLE), context=redactor.json(context),
        digest=resolved.digest, options=_answers(ask) if ask.answers else leave(resolved, redactor),
        default_option="reject_once", expires_s=expires_s(kind), action=ask.action, request=ask.key,
    )  # fmt: skip


def context_of(resolved: Resolved, redactor: Redactor, *, sandbox: str, binding: bool) -> dict[str, object]:
    """The context anew, for an action that has changed since it was shown."""
    shown: dict[str, object] = redactor.json(_context(resolved, sandbox=sandbox, binding=binding))
    return shown


def _title(action: Action) -> str:
    return plain(action.title or action.command or action.tool).strip().replace("\n", " ") or action.kind


def _context(resolved: Resolved, *, sandbox: str, binding: bool) -> dict[str, object]:
    action = resolved.action
    found: dict[str, object] = {
        "action": action.kind,
        "tool": action.tool,
        "places": [place.to_json() for place in resolved.places],
        "sandbox": sandbox,
        "binding": binding,
    }
    if not binding:
        found["warning"] = UNBOUND
    if action.command is not None:
        found["command"] = cut_utf8(plain(action.command), MAX_TEXT)
        found["cwd"] = action.cwd
    if action.hosts:
        found["hosts"] = list(action.hosts)
    if action.edits:
        found["diff"] = _diff(action)
    elif action.arguments:
        found["arguments"] = _bounded(action.arguments)
    return found


def _diff(action: Action) -> str:
    from difflib import unified_diff  # noqa: PLC0415 -- an agent that asks nothing needs none

    pieces = []
    for edit in action.edits:
        before, after = (
            (edit.before or "").splitlines(keepends=True),
            (edit.after or "").splitlines(keepends=True),
        )
        old = "/dev/null" if edit.before is None else edit.path
        new = "/dev/null" if edit.after is None else edit.path
        lines = unified_diff(before, after, old, new)
        pieces.append("".join(line if line.endswith("\n") else f"{line}\n" for line in lines))
    whole = plain("".join(pieces))
    cut = cut_utf8(whole, MAX_DIFF)
    return whole if cut == whole else f"{cut}\n[… the rest of the diff is left out …]"


def _bounded(arguments: Mapping[str, object]) -> object:
    size = len(canonical(dict(arguments)))
    return dict(arguments) if size <= MAX_TEXT else {"truncated_bytes": size}


def _answers(ask: Asked) -> list[Option]:
    """The agent's words may not stand in for our own: what has the id of the default would be applied by itself."""
    none = Option(id="reject_once", label="Do not answer", kind="reject_once")
    own = {answer.id: Option(id=answer.id, label=answer.label, kind="answer") for answer in ask.answers}
    return [*(option for option in own.values() if option.id != none.id), none]


def leave(resolved: Resolved, redactor: Redactor) -> list[Option]:
    """Once and, where an exact rule can be named and shown, always."""
    options = [Option(id="allow_once", label="Allow once", kind="allow_once")]
    if rule := _rule(resolved, "allow", redactor):
        options.append(
            Option(
                id="allow_always", label="Always allow this in the session", kind="allow_always", rule=rule
            )
        )
    options.append(Option(id="reject_once", label="Reject", kind="reject_once"))
    if rule := _rule(resolved, "reject", redactor):
        options.append(
            Option(
                id="reject_always", label="Always reject this in the session", kind="reject_always", rule=rule
            )
        )
    return options


def _rule(resolved: Resolved, effect: Effect, redactor: Redactor) -> Rule | None:
    """A rule that would show a secret, or is too long to be read, is not offered."""
    rule = exact_rule(resolved, effect)
    if rule is None:
        return None
    shown = rule.to_json()
    return rule if redactor.json(shown) == shown and len(canonical(shown)) <= MOST_RULE else None
