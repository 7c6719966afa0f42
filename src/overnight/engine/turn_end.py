"""How a turn's process ended, as far as it is known before the turn is settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from overnight.domain.event import Draft
from overnight.domain.run import Position
from overnight.domain.values import Failure
from overnight.engine.hold import Wish
from overnight.ports.backend import Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWords:
    """What had not been recorded when the turn's output ended. It goes into the log together with the settlement, so
    that nobody who takes the turn up in between records it a second time. Shows no secret.
    """

    drafts: Sequence[Draft] = ()
    position: Position | None = None
    """Behind all output; None: as it was."""
    items: int = 0
    state: Mapping[str, object] | None = None
    """The backend's own session state, where it is another one."""


NOTHING_MORE: Final = LastWords()


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnd:
    """`ended` is None when the keeper is gone, so that nobody can say."""

    ended: Ended | None
    granted: Wish | None = None
    """What we ended it early for."""
    last: LastWords = NOTHING_MORE
    failure: Failure | None = None
    """Set when we ended it ourselves because the run was over a limit."""
