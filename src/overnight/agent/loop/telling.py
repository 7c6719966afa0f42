"""What a turn tells while it goes on, and whom it asks for leave: the two ways from the loop to whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from overnight.agent.tools.tool import PlanStep, Preview, ToolOutcome, ToolSpec
from overnight.ports.model import ModelUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One tool call of the model. `spec` is None for a tool that does not exist."""

    id: str
    name: str
    arguments: dict[str, object]
    spec: ToolSpec | None = None
    preview: Preview | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """What a person, or a policy, has said to a call."""

    allowed: bool
    feedback: str = ""


class Listener(Protocol):
    """Hears everything in the order in which it happens. Each call has one `began` and one `ended`."""

    async def text(self, delta: str) -> None:
        """More of the answer."""
        ...

    async def thought(self, delta: str) -> None:
        """More of the model's thinking."""
        ...

    async def broken_off(self, why: str) -> None:
        """What was said since the last call or answer does not count: the model is asked again, because of `why`."""
        ...

    async def began(self, call: Call) -> None:
        """A call is about to be carried out, or refused."""
        ...

    async def progress(self, call: Call, text: str) -> None:
        """A call has printed something."""
        ...

    async def ended(self, call: Call, outcome: ToolOutcome) -> None:
        """A call has its answer."""
        ...

    async def plan(self, steps: tuple[PlanStep, ...]) -> None:
        """The plan is now this."""
        ...

    async def usage(self, turn: ModelUsage) -> None:
        """What the turn has used so far."""
        ...

    async def ask(self, call: Call) -> Leave:
        """Whether the call may be carried out; waits as long as the answer takes."""
        ...
