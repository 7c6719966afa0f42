"""An action that an agent wants to take: what people are shown, policies judge, and decisions are bound to."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from overnight.domain.event import canonical

ActionKind = Literal["read", "edit", "delete", "move", "search", "execute", "fetch", "think", "other"]
"""What a tool call does, in the words of the Agent Client Protocol; `other` for whatever has none of these."""

CHANGING: Final = frozenset({"edit", "delete", "move"})
"""Kinds that are about what a file holds."""
READING: Final = frozenset({"read", "search", "think"})
"""Kinds that change nothing."""
_SHELL: Final = frozenset(";&|<>`$(){}[]*?!#~\n\r\\\"'")
"""Characters with which a shell line may be more than one plain command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What an action would write: the whole text before and after, None where there is no file."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """As the agent describes it. Paths as reported: absolute, or relative to the workspace."""

    kind: ActionKind
    tool: str
    """The agent's name for the tool."""
    title: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    command: str | None = None
    """The shell line, for `execute`."""
    cwd: str | None = None
    paths: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()

    @property
    def argv(self) -> tuple[str, ...] | None:
        """The command as plain words; None when it is none, or when a shell could make more of it."""
        if self.command is None or _SHELL & set(self.command):
            return None
        return tuple(shlex.split(self.command)) or None

    @property
    def whereabouts(self) -> tuple[str, ...]:
        """Every path that it names, and the one in which its command is run."""
        return tuple(dict.fromkeys((*self.paths, *((self.cwd,) if self.cwd else ()))))


PlaceKind = Literal["file", "folder", "missing", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a path of an action really leads, at one moment."""

    given: str
    resolved: str
    """Absolute, without links."""
    inside: bool
    """Whether that lies beneath the workspace."""
    kind: PlaceKind
    sha256: str | None = None
    """Of what a file holds now, where the action is about its content."""

    def to_json(self) -> dict[str, object]:
        """For the approval's context, and for its digest."""
        found: dict[str, object] = {
            "path": self.given,
            "resolved": self.resolved,
            "inside": self.inside,
            "kind": self.kind,
        }
        return found if self.sha256 is None else {**found, "sha256": self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """An action with the places that its paths lead to now."""

    action: Action
    places: tuple[Place, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of exactly what will happen. Another argument, text or place makes another digest."""
        action = self.action
        edits = [[edit.path, _hash(edit.before), _hash(edit.after)] for edit in action.edits]
        document = {
            "kind": action.kind,
            "tool": action.tool,
            "arguments": action.arguments,
            "command": action.command,
            "cwd": action.cwd,
            "hosts": list(action.hosts),
            "edits": edits,
            "places": [place.to_json() for place in self.places],
        }
        return hashlib.sha256(canonical(document)).hexdigest()


def _hash(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
