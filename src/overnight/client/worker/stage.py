"""What one try of a unit of work plays on: the facts as the unit has changed them so far, and what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overnight.domain.approval import Approval
from overnight.domain.backend import BackendCheck
from overnight.domain.request import Request
from overnight.domain.run import Run, Turn
from overnight.domain.session import QueuedMessage, Session
from overnight.ports.remote import Answers, Ask, Facts, Op


class Unbound(Exception):
    """Not an error: the unit is about this run, by its key or its id. Run it again with the facts of that."""

    def __init__(self, run: int | str) -> None:
        super().__init__(f"the unit is about {run}")
        self.run = run


class Missing(Exception):
    """Not an error: the unit asks for something that has not been told. Run it again with the answer."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(f"the unit asks for {ask.what}")
        self.ask = ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is known about a run at one moment."""

    facts: Facts
    answers: Answers = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    place_free: bool = True
    """Whether the workspace that the run goes to next is free: believed, until the server says no."""


class Stage:
    """One try. Without `told` it only finds out which run the unit is about."""

    def __init__(self, told: Told | None, checks: dict[str, BackendCheck]) -> None:
        self._told = told
        self.checks = checks
        self.ops: list[Op] = []
        self.topics: list[str] = []
        self.wake = False
        if told is None:
            return
        facts = told.facts
        self.run: Run = facts.run
        self.session: Session = facts.session
        self.turn: Turn | None = facts.turn
        self.requests: tuple[Request, ...] = facts.requests
        self.approvals: tuple[Approval, ...] = facts.approvals
        self.used: set[str] = set()
        """Decisions that this unit has used."""
        self.queued: tuple[QueuedMessage, ...] = facts.queued
        self.messages: int = facts.messages
        self.place_free = told.place_free
        self.environment = told.environment

    def about(self, run: int | str) -> None:
        """The unit means that run. Raises Unbound when the facts are not there, or are another run's."""
        if self._told is None or run not in {self._told.facts.run.pk, self._told.facts.run.id}:
            raise Unbound(run)

    def asked(self, ask: Ask) -> object:
        """The answer. Raises Missing when it is not there."""
        if self._told is None or ask not in self._told.answers:
            raise Missing(ask)
        return self._told.answers[ask]
