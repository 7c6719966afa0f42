"""The port to the account of what runs have asked of language models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from overnight.ids import RunId
from overnight.ports.model import ModelUsage

Ending = Literal["done", "error", "aborted", "lost"]
"""How an answer ended; `lost`: whoever asked was gone before it was complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """One answer of a model, on the account of one run."""

    stream: str
    """What the caller called it; no two of one connection have the same name."""
    model: str
    """The name by which it was asked for, in full."""
    ending: Ending
    reason: str = ""
    """Why the model ended its answer, or the code of the error."""
    usage: ModelUsage = field(default_factory=ModelUsage)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """A call as it is on the account."""

    pk: int
    """Rises from one to the next."""
    call: ModelCall
    at: int
    """When it had ended, wall milliseconds."""


class ModelCallTable(Protocol):
    """The account, inside a transaction."""

    def add(self, run_pk: int, call: ModelCall, at: int) -> None:
        """One more call. Whether the run is there is not looked at."""
        ...

    def page(self, run_pk: int, *, after: int, limit: int) -> tuple[RecordedCall, ...]:
        """The calls behind `after`, oldest first."""
        ...

    def total(self, run_pk: int) -> tuple[int, ModelUsage]:
        """How many calls, and all they have used. The cost is of those whose price is known; None if none is."""
        ...


class ModelLedger(Protocol):
    """Account of model calls. Safe to use for many runs at once."""

    async def allow(self, run_id: RunId) -> None:
        """Return when the run may ask a model. Raises BudgetSpent when its tokens or its money are used up."""
        ...

    async def record(self, run_id: RunId, call: ModelCall) -> None:
        """The call is durable, and counts in the next `allow`. Raises Unavailable or DiskFull when it cannot be."""
        ...


class NoLedger:
    """Lets everything pass and writes nothing, for whoever has no database."""

    async def allow(self, run_id: RunId) -> None:
        """Always."""

    async def record(self, run_id: RunId, call: ModelCall) -> None:
        """Nothing."""
