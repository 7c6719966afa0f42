"""Rules: standing answers to what an agent wants to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from posixpath import join, normpath
from typing import Any, Final, Literal

from overnight.domain.action import CHANGING, READING, Action, Place, Resolved
from overnight.domain.shell_line import Reading, readings
from overnight.domain.spec import ApprovalPolicy

Effect = Literal["allow", "ask", "reject"]
REST: Final = "**"
"""As the last word of `argv`: any further words, or none."""
MOST_RULE: Final = 2_000
"""Bytes of a rule as JSON. Whoever grants it must be able to read it, and databases keep it in an index."""
_MAGIC: Final = re.compile(r"[*?[]")
_ABOUT_SOMETHING: Final = CHANGING | {"execute", "fetch"}
"""Kinds of which a rule must say what they are about, not only with which tool they are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Matches an action when every field that is set matches. Words, paths and hosts are shell-style patterns.

    An `exact` rule takes every character literally. Relative paths lie in the workspace.

    A rule that allows must fit all of the action: every place, by where it really leads, and every host. Without
    `tool` it allows nothing that it does not name (a command, places, hosts), an exact one never does. A shell line
    that is more than one plain command matches no `argv`.

    A rule that asks or rejects matches as soon as one part of the action fits: one place, by its name or where it
    leads, or what lies in it; one host; one command that a shell line may run. Case makes no difference to it.
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
        if self.effect != "allow":
            return self._forbids(resolved, workspace)
        if self.argv is not None and not self._fits_argv(action.argv):
            return False
        if self.command is not None and not (
            action.command is not None and self._fits(action.command, self.command)
        ):
            return False
        if self.path is not None:
            pattern = self._pattern(workspace)
            if not resolved.places or not all(
                self._fits(place.resolved, pattern) for place in resolved.places
            ):
                return False
        if self.host is not None and not (action.hosts and all(map(self._fits_host, action.hosts))):
            return False
        return self._names_all(resolved, workspace)

    def may_match(self, resolved: Resolved, workspace: str) -> bool:
        """Whether it could speak of a shell line whose words the shell makes up, or that is too long to be read."""
        if self.effect == "allow" or self.exact or (self.argv is None and self.command is None):
            return False
        rest = replace(self, argv=None, command=None)
        if resolved.action.command is None or not rest.matches(resolved, workspace):
            return False
        wanted = [word for word in self.argv or () if word != REST]
        found = readings(resolved.action.command)
        return any(one.could_say(wanted, self._fits) if wanted else one.is_computed for one in found)

    def _forbids(self, resolved: Resolved, workspace: str) -> bool:
        """Whether any part of the action fits."""
        action = resolved.action
        line = action.command
        if self.argv is not None and not (line and any(map(self._says, readings(line)))):
            return False
        if self.command is not None and not (line and self._fits_line(line, self.command)):
            return False
        if self.path is not None and not any(
            self._hits(place, workspace, action) for place in resolved.places
        ):
            return False
        return self.host is None or any(map(self._fits_host, action.hosts))

    def _names_all(self, resolved: Resolved, workspace: str) -> bool:
        """Whether nothing about the action is left that this rule, which allows it, is silent on."""
        action = resolved.action
        line = self.argv is not None or self.command is not None
        if self.exact:
            elsewhere = any(place.resolved != workspace for place in resolved.places)
            return (
                line == (action.command is not None)
                and (self.path is not None or not elsewhere)
                and (self.host is not None or not action.hosts)
                and not has_environment(action)
            )
        if self.tool is not None or line:
            return True
        named = (action.command is None, self.path or not resolved.places, self.host or not action.hosts)
        return all(named)

    def _hits(self, place: Place, workspace: str, action: Action) -> bool:
        """The place itself, by where it leads and by its name; if not exact, what lies in it or goes with it too."""
        pattern = self._pattern(workspace)
        for path in {place.resolved, normpath(join(workspace, place.given))}:
            if self._fits(path, pattern):
                return True
            if self.exact:
                continue
            if self._fits(f"{path}/", pattern) or self._fits(path, f"{pattern}/*"):
                return True
            stem = re.split(r"[*?[]", pattern)[0]
            if action.kind in {"delete", "move"} and stem.startswith(f"{path.rstrip('/')}/"):
                return True
        return False

    def _pattern(self, workspace: str) -> str:
        path = normpath(self.path or "")
        if path.startswith("/"):
            return path
        root = workspace.rstrip("/")
        literal = root if self.exact else _MAGIC.sub(r"[\g<0>]", root)
        return f"{literal}/{path}"

    def _fits(self, text: str, pattern: str) -> bool:
        if self.effect != "allow":
            text, pattern = text.casefold(), pattern.casefold()
        return text == pattern if self.exact else fnmatchcase(text, pattern)

    def _fits_host(self, host: str) -> bool:
        return self._fits(host.lower().rstrip("."), (self.host or "").lower().rstrip("."))

    def _fits_line(self, line: str, pattern: str) -> bool:
        if self._fits(line, pattern) or self._fits(" ".join(line.split()), pattern):
            return True
        return any(self._fits(said, pattern) for reading in readings(line) for said in reading.lines())

    def _fits_argv(self, argv: tuple[str, ...] | None) -> bool:
        wanted = self.argv or ()
        if argv is None:
            return False
        if not self.exact and wanted and wanted[-1] == REST:
            wanted = wanted[:-1]
            argv = argv[: len(wanted)] if len(argv) >= len(wanted) else ()
        return len(argv) == len(wanted) and all(map(self._fits, argv, wanted))

    def _says(self, reading: Reading) -> bool:
        wanted = self.argv or ()
        more = not self.exact and bool(wanted) and wanted[-1] == REST
        return reading.says(wanted[:-1] if more else wanted, self._fits, more=more)

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
    """The narrowest rule that covers this action again; None when it cannot name all that the action is about."""
    action = resolved.action
    if len(resolved.places) > 1 or len(action.hosts) > 1 or has_environment(action):
        return None
    path = resolved.places[0].resolved if resolved.places else None
    host = action.hosts[0] if action.hosts else None
    if action.command is None and path is None and host is None:
        return None if action.kind in _ABOUT_SOMETHING else Rule(effect=effect, tool=action.tool, exact=True)
    return Rule(effect=effect, tool=action.kind, command=action.command, path=path, host=host, exact=True)


def has_environment(action: Action) -> bool:
    """Whether it sets variables: then the same line may be another command."""
    return any(action.arguments.get(name) for name in ("env", "environment"))


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
    """Rules go first, and among those that match a rejection before a question before a permission. What a rule that
    asks or rejects might speak of, for all that can be read, is asked.

    `confined`: a sandbox holds the agent to the workspace, so that a command cannot write outside.
    """
    matching = [rule for rule in rules if rule.matches(resolved, workspace)]
    for effect in ("reject", "ask", "allow"):
        for rule in matching:
            if rule.effect == effect:
                return Judgement(effect=rule.effect, by=rule)
        if effect == "ask":
            for rule in rules:
                if rule.may_match(resolved, workspace):
                    return Judgement(effect="ask", by=rule)
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
            unknown = kind in {"execute", "other"} or (kind in CHANGING and not resolved.places)
            return unknown and not confined
