"""Modes: how runs proceed, and the profiles that the operator has made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from overnight.domain.spec import Mode
from overnight.errors import ModeUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeEntry:
    """One mode as it is offered. A profile has another `id` than its `base`, and `defaults` for fields of a run."""

    id: str
    base: Mode
    label: str
    description: str
    supports_resume: bool = True
    """Whether its runs go on with what the session knows."""
    supports_approvals: bool = True
    """Whether its runs can wait for a person."""
    available: bool = True
    defaults: Mapping[str, object] = field(default_factory=dict)
    """For the fields that neither the request nor the session's configuration sets."""

    def to_json(self) -> dict[str, object]:
        """The wire's mode entry."""
        return {
            "id": self.id,
            "label": self.label,
            "description": self.description,
            "supports_resume": self.supports_resume,
            "supports_approvals": self.supports_approvals,
        }


BUILT_IN: Final[tuple[ModeEntry, ...]] = (
    ModeEntry(
        id="oneshot",
        base="oneshot",
        label="One shot",
        description="One turn: the goal is the prompt, and the run is done when the agent stops.",
    ),
    ModeEntry(
        id="continuous",
        base="continuous",
        label="Continuous",
        description="Turn after turn until the goal is reached or a limit ends it.",
    ),
    ModeEntry(
        id="chat",
        base="chat",
        label="Chat",
        description="One turn for each message; the run is done when no message waits.",
    ),
    ModeEntry(
        id="plan",
        base="plan",
        label="Plan",
        description="The goal is split into steps, each carried out as a run of its own.",
        available=False,
    ),
)


class Modes:
    """The registry: the built-in modes, and the profiles that were handed over."""

    def __init__(self, profiles: Iterable[ModeEntry] = ()) -> None:
        self._entries = {entry.id: entry for entry in (*BUILT_IN, *profiles)}

    def offered(self) -> tuple[ModeEntry, ...]:
        """Those that a run can have now, the built-in ones first."""
        return tuple(entry for entry in self._entries.values() if entry.available)

    def get(self, name: str) -> ModeEntry:
        """The mode of that name. Raises ModeUnavailable that lists what is offered."""
        found = self._entries.get(name)
        if found is None or not found.available:
            raise ModeUnavailable(
                f"mode {name[:50]!r} is not offered",
                mend=f"use one of: {', '.join(entry.id for entry in self.offered())}",
            )
        return found
