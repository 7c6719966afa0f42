"""What the tables of one transaction share: the connection, the clock, and the notices that wait for the commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from overnight.clock import Clock
from overnight.domain.event import Recorded
from overnight.ports.notifier import Notice
from overnight.stores.sql.seen import Seen
from overnight.stores.sql.statements import Link


class Lanes:
    """The keys of lanes that are there for good: no lane is ever removed."""

    __slots__ = ("_in_doubt", "_known")

    MOST: Final = 1000

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], int] = {}
        self._in_doubt = False

    def get(self, lane: tuple[str, str, str]) -> int | None:
        """The key of a lane (its place, backend and need), if it is known."""
        return self._known.get(lane)

    def made(self) -> None:
        """The transaction makes a lane, which may yet be undone."""
        self._in_doubt = True

    def keep(self, lane: tuple[str, str, str], pk: int) -> None:
        """A key that was found."""
        if not self._in_doubt:
            if len(self._known) >= self.MOST:
                self._known.clear()
            self._known[lane] = pk

    def forget(self) -> None:
        """The transaction is over."""
        self._in_doubt = False


class Context:
    """Handed to every table; its notices belong to the unit that is running.

    What a transaction has made, nobody else can have changed: it need not be read again.
    """

    __slots__ = ("_notices", "clock", "lanes", "last_number", "link", "new_sessions", "seen")

    def __init__(self, link: Link, clock: Clock) -> None:
        self.link = link
        self.clock = clock
        self._notices: list[Notice] = []
        self.last_number: int | None = None
        """The newest number that the transaction has given out; None before its first. See `changes`."""
        self.new_sessions: set[int] = set()
        """Sessions that the transaction has made and that have no run yet."""
        self.lanes = Lanes()
        self.seen = Seen()
        """What the unit that is running has read."""

    def forget(self) -> None:
        """The transaction is over."""
        self.last_number = None
        self.new_sessions.clear()
        self.lanes.forget()

    def wake(self, topic: str) -> None:
        """Say "look again" about `topic` after the commit."""
        self._notices.append(Notice(topic=topic))

    def waker(self, topic: str) -> Callable[[], None]:
        """The same for later on, when the unit that is running has perhaps ended: what it says is still its own."""
        notices = self._notices
        return lambda: notices.append(Notice(topic=topic))

    def recorded(self, topic: str, events: tuple[Recorded, ...]) -> None:
        """Carry new events to the listeners of `topic` after the commit."""
        self._notices.append(Notice(topic=topic, events=events))

    def take_notices(self) -> list[Notice]:
        """What the unit has to say; the next unit starts with none, and has seen nothing."""
        self.seen.forget()
        taken, self._notices = self._notices, []
        return taken
