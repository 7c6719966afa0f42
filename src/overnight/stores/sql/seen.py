"""What a unit has read and keeps up to date itself: since writers take turns, it need not read that again.

So a unit that knows its run asks for nothing when it appends to its log and saves it. Whatever moves such a fact past
this note takes the note away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from overnight.domain.request import Request
from overnight.domain.run import Run


@dataclass(slots=True, kw_only=True)
class SeenRun:
    """A row of runs, and what belongs to its hold."""

    token: int
    held: bool
    """Whether there is a lease."""
    locked: bool
    """Whether there are locks of a workspace."""


@dataclass(slots=True, kw_only=True)
class SeenStream:
    """The end of a stream, and whose it is."""

    last_seq: int
    last_at: int | None
    run_id: str | None
    session_id: str


@dataclass(slots=True)
class Seen:
    """Of one unit: another one may have undone what this one saw."""

    runs: dict[int, SeenRun] = field(default_factory=dict)
    streams: dict[int, SeenStream] = field(default_factory=dict)
    requests: dict[int, tuple[Request, ...]] = field(default_factory=dict)
    """What is pending of each run."""

    def run(self, run: Run, *, held: bool, locked: bool) -> None:
        """The run as it is at this moment, with its stream."""
        self.runs[run.pk] = SeenRun(token=run.token, held=held, locked=locked)
        self.stream(run.pk, run.last_seq, run.last_event_at, run_id=run.id, session_id=run.session_id)

    def stream(
        self, pk: int, last_seq: int, last_at: int | None, *, run_id: str | None, session_id: str
    ) -> None:
        """A stream as it is at this moment."""
        self.streams[pk] = SeenStream(
            last_seq=last_seq, last_at=last_at, run_id=run_id, session_id=session_id
        )

    def forget(self) -> None:
        """The unit is over."""
        self.runs.clear()
        self.streams.clear()
        self.requests.clear()
