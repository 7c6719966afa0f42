"""How a turn's process ended, as far as it is known before the turn is settled."""

from __future__ import annotations

from dataclasses import dataclass

from overnight.domain.values import Failure
from overnight.engine.hold import Wish
from overnight.ports.backend import Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnd:
    """`ended` is None when the keeper is gone, so that nobody can say."""

    ended: Ended | None
    granted: Wish | None = None
    """What we ended it early for."""
    failure: Failure | None = None
    """Set when we ended it ourselves because the run was over a limit."""
