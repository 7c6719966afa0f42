"""The port for "look again": lossy, fast, never a source of truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from overnight.domain.event import Recorded

QUEUE = "queue"
"""Topic: a run may be due."""
CHANGES = "changes"
"""Topic: a run has changed; for the summaries stream."""
PRESENCE = "presence"
"""Topic: other people follow some sessions; `delta` is the JSON list of their ids."""


STREAM: Final = "stream:"
"""How the topics of streams begin; the id of the run or session follows."""


def stream_topic(id: str) -> str:
    """Topic of the new events and deltas of a run or session, by its public id: the same in every process."""
    return STREAM + id


def requests_topic(run_pk: int) -> str:
    """Topic of a run's new requests."""
    return f"requests:{run_pk}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something happened on `topic`. `events` may be there to save a read, in order and without holes among them."""

    topic: str
    events: tuple[Recorded, ...] = ()
    delta: bytes | None = None
    """A transient delta as JSON; never stored."""


class Subscription(Protocol):
    """Notices of the topics asked for, from the moment of subscribing. Close it when done."""

    async def next(self, timeout: float) -> Sequence[Notice]:
        """All waiting notices, at least one; empty after `timeout` seconds without any, or when some were lost.

        An empty answer always means: look again. Holds a bounded number of notices and drops all of them when full.
        """
        ...

    def close(self) -> None:
        """Stop; idempotent. A waiting `next` returns empty."""
        ...


class Notifier(Protocol):
    """Carries notices between the parts of a program, or between servers."""

    def publish(self, notices: Sequence[Notice]) -> None:
        """Send; never blocks, never raises, may lose. Call from the event loop's thread."""
        ...

    def subscribe(self, *topics: str) -> Subscription:
        """Begin to listen; what is published after this returns is delivered or counted as lost."""
        ...
