"""What an upgrade says while it goes on, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """How it ended."""

    UPGRADED = "upgraded"
    NOTHING_TO_DO = "nothing_to_do"
    PLANNED = "planned"
    """A dry run: nothing was changed."""
    REFUSED = "refused"
    """It went wrong before anything was touched: the old server has noticed nothing."""
    ROLLED_BACK = "rolled_back"
    """It went wrong, and the old version serves again."""
    DOWN = "down"
    """It went wrong, and so did the way back: nothing serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What became of one step. `end` is the last one; its state is an Outcome."""

    step: str
    state: str
    """`begun`, `done` or `failed`."""
    message: str = ""

    def to_json(self) -> dict[str, str]:
        """A line of `overnight upgrade --json`."""
        return {"step": self.step, "state": self.state, "message": self.message}


Tell = Callable[[Told], None]
