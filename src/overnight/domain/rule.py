"""Rules: standing answers to what an agent wants to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from overnight.domain.action import READING, Resolved
from overnight.domain.spec import ApprovalPolicy

Effect = Literal["allow", "ask", "reject"]
REST: Final = "**"
"""As the last word of `argv`: any further words, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Matches an action when every field that is set matches. Words, paths and hosts are shell-style patterns.

    An `exact` rule takes every character literally. `path` matches when *all* resolved places match; relative ones
    lie in the workspace. A command that a shell could make more of than one plain command matches no `argv`.
    """

    effect: Effect
    tool: str | None = None
    """The kind of the action, or the agent's name for the tool."""
    argv: tuple[str, ...] | None = None
    command: str | None = None
    """The whole shell line."""
    path: str | None = None
    host: str | None = None
    exact: bool = False

    def matches(self, resolved: Resolved, workspace: str) -> bool:
        """Whether it speaks of this action."""
        action = resolved.action
        if self.tool is not None and not (
            self._fits(action.kind, self.tool) or self._fits(action.tool, self.tool)
        ):
            return False
        if self.argv is not None and not self._fits_argv(action.argv):
            return False
        if self.command is not None and not (
            action.command is not None and self._fits(action.command, self.command)
        ):
            return False
        if self.path is not None:
            pattern = self.path if self.path.startswith("/") else f"{workspace.rstrip('/')}/{self.path}"
            places = [place.resolved for place in resolved.places]
            if not places or not all(self._fits(place, pattern) for place in places):
                return False
        if self.host is None:
            return True
        return bool(action.hosts) and all(self._fits(host, self.host) for host in action.hosts)

    def _fits(self, text: str, pattern: str) -> bool:
        return text == pattern if self.exact else fnmatchcase(text, pattern)

    def _fits_argv(self, argv: tuple[str, ...] | None) -> bool:
        wanted = self.argv or ()
        if argv is None:
            return False
        if not self.exact and wanted and wanted[-1] == REST:
            wanted = wanted[:-1]
            argv = argv[: len(wanted)] if len(argv) >= len(wanted) else ()
        return len(argv) == len(wanted) and all(map(self._fits, argv, wanted))

    def to_json(self) -> dict[str, object]:
        """The wire's rule: only what is set."""
        found: dict[str, object] = {"effect": self.effect}
        for name in ("tool", "argv", "command", "path", "host"):
            value = getattr(self, name)
            if value is not None:
                found[name] = list(value) if isinstance(value, tuple) else value
        return {**found, "exact": True} if self.exact else found


def rule_of(document: Mapping[str, Any]) -> Rule:
    """A rule from its JSON. Raises TypeError for unknown fields."""
    found = dict(document)
    if found.get("argv") is not None:
        found["argv"] = tuple(found["argv"])
    return Rule(**found)


def exact_rule(resolved: Resolved, effect: Effect) -> Rule | None:
    """The narrowest rule that covers this action again; None when nothing about it can be named."""
    action = resolved.action
    if action.command is not None:
        return Rule(effect=effect, tool=action.kind, command=action.command, exact=True)
    if len(resolved.places) == 1:
        return Rule(effect=effect, tool=action.kind, path=resolved.places[0].resolved, exact=True)
    if len(action.hosts) == 1:
        return Rule(effect=effect, tool=action.kind, host=action.hosts[0], exact=True)
    if resolved.places or action.hosts:
        return None
    return Rule(effect=effect, tool=action.tool, exact=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is to be done, and why: `policy`, or the rule that said so."""

    effect: Effect
    by: Rule | ApprovalPolicy


def judge(
    resolved: Resolved,
    *,
    policy: ApprovalPolicy,
    rules: Sequence[Rule],
    workspace: str,
    confined: bool,
) -> Judgement:
    """Rules go first, and among those that match a rejection before a question before a permission.

    `confined`: a sandbox holds the agent to the workspace, so that a command cannot write outside.
    """
    matching = [rule for rule in rules if rule.matches(resolved, workspace)]
    for effect in ("reject", "ask", "allow"):
        for rule in matching:
            if rule.effect == effect:
                return Judgement(effect=rule.effect, by=rule)
    return Judgement(effect="ask" if _asks(resolved, policy, confined=confined) else "allow", by=policy)


def _asks(resolved: Resolved, policy: ApprovalPolicy, *, confined: bool) -> bool:
    kind = resolved.action.kind
    outside = any(not place.inside for place in resolved.places)
    match policy:
        case "autonomous" | "plan_review":
            return False
        case "ask_all":
            return True
        case "ask_writes":
            return kind not in READING
        case "ask_outside_workspace":
            if outside or kind == "fetch":
                return True
            # What a command touches cannot be told from its line: only a sandbox keeps it inside.
            return kind in {"execute", "other"} and not confined
