"""What can be followed: the events of a stream, and the changes of an owner's runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from overnight.domain.event import FINAL_TYPES, Recorded
from overnight.domain.run import Run
from overnight.errors import StreamTrimmed
from overnight.ports.notifier import CHANGES, Notice, stream_topic
from overnight.ports.unit_of_work import UnitOfWork

Item = TypeVar("Item")
PAGE: Final = 500
PAGE_BYTES: Final = 1024 * 1024
"""One read of a log brings so many items, or about so many bytes: events may be long, and readers many."""


class Source(Protocol[Item]):
    """An ordered log of items with rising positions."""

    @property
    def topic(self) -> str:
        """The notifier's topic that says "look again"."""
        ...

    @property
    def pace_s(self) -> float:
        """Shortest time between two looks at the log; what comes meanwhile is taken together."""
        ...

    async def newest(self) -> int:
        """Position of the newest item now. Raises NotFound for an unknown stream."""
        ...

    async def after(self, position: int) -> Sequence[Item]:
        """The items after `position` in order: all of them, or about as many as PAGE and PAGE_BYTES allow."""
        ...

    def carried(self, notice: Notice, last: int) -> Sequence[Item] | None:
        """The items after `last` that a notice brought along, without a hole; None: look at the log."""
        ...

    def position(self, item: Item) -> int:
        """Where the item stands."""
        ...

    def size(self, item: Item) -> int:
        """About how many bytes it takes."""
        ...

    def is_final(self, item: Item) -> bool:
        """Whether nothing can come after it."""
        ...

    def continues(self, position: int, item: Item) -> bool:
        """Whether nothing is missing between `position` and the item."""
        ...

    def nothing_after(self, position: int, upto: int) -> int:
        """Where a reader stands when the log, which goes to `upto`, has nothing after `position`.

        Raises StreamTrimmed when that cannot be.
        """
        ...


class Followed(Protocol):
    """Whatever has a stream: a run, or a session."""

    @property
    def pk(self) -> int:
        """Number of its stream in the database."""
        ...

    @property
    def id(self) -> str:
        """Its public id."""
        ...


class Events:
    """The events of one stream: dense, so that a hole is seen at once."""

    pace_s = 0.0

    def __init__(self, uow: UnitOfWork, followed: Followed) -> None:
        self._uow = uow
        self._stream_pk = followed.pk
        self.topic = stream_topic(followed.id)

    async def newest(self) -> int:
        """See `Source.newest`."""
        return (await self._uow.read(lambda tx: tx.events.mark(self._stream_pk))).last

    async def after(self, position: int) -> Sequence[Recorded]:
        """See `Source.after`."""
        return await self._uow.read(lambda tx: tx.events.after(self._stream_pk, position, PAGE, PAGE_BYTES))

    def carried(self, notice: Notice, last: int) -> Sequence[Recorded] | None:
        """See `Source.carried`."""
        events = notice.events
        if not events or events[0].seq > last + 1:
            return None if notice.delta is None else ()
        return events[last + 1 - events[0].seq :]

    def position(self, item: Recorded) -> int:
        """See `Source.position`."""
        return item.seq

    def size(self, item: Recorded) -> int:
        """See `Source.size`."""
        return len(item.body)

    def is_final(self, item: Recorded) -> bool:
        """See `Source.is_final`."""
        return item.type in FINAL_TYPES

    def continues(self, position: int, item: Recorded) -> bool:
        """See `Source.continues`."""
        return item.seq == position + 1

    def nothing_after(self, position: int, upto: int) -> int:
        """See `Source.nothing_after`: events up to `upto` must be there."""
        raise StreamTrimmed(
            f"the events after {position} are no longer there", extra={"earliest": upto + 1, "latest": upto}
        )


class Changes:
    """The latest changes of an owner's runs: a run that changed often shows only its last change."""

    topic = CHANGES
    pace_s = 0.02

    def __init__(self, uow: UnitOfWork, owner: str) -> None:
        self._uow = uow
        self._owner = owner

    async def newest(self) -> int:
        """See `Source.newest`."""
        return await self._uow.read(lambda tx: tx.runs.last_change())

    async def after(self, position: int) -> Sequence[Run]:
        """See `Source.after`."""
        return await self._uow.read(lambda tx: tx.runs.changed_after(position, self._owner, PAGE))

    def carried(self, notice: Notice, last: int) -> Sequence[Run] | None:  # noqa: ARG002 - one shape for all sources
        """See `Source.carried`: such notices bring nothing."""
        return None

    def position(self, item: Run) -> int:
        """See `Source.position`."""
        return item.change

    def size(self, item: Run) -> int:
        """See `Source.size`."""
        return 1000 + len(item.spec.goal)

    def is_final(self, item: Run) -> bool:  # noqa: ARG002 - one shape for all sources
        """See `Source.is_final`: there is always another change."""
        return False

    def continues(self, position: int, item: Run) -> bool:  # noqa: ARG002 - one shape for all sources
        """See `Source.continues`: positions between belong to other owners or were overtaken."""
        return True

    def nothing_after(self, position: int, upto: int) -> int:
        """See `Source.nothing_after`."""
        return max(position, upto)
