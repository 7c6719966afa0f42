"""What the tables of one transaction share: the connection, the clock, and the notices that wait for the commit."""

from __future__ import annotations

from overnight.clock import Clock
from overnight.domain.event import Recorded
from overnight.ports.notifier import Notice
from overnight.stores.sql.statements import Link


class Context:
    """Handed to every table; its notices belong to the unit that is running."""

    __slots__ = ("_notices", "clock", "link")

    def __init__(self, link: Link, clock: Clock) -> None:
        self.link = link
        self.clock = clock
        self._notices: list[Notice] = []

    def wake(self, topic: str) -> None:
        """Say "look again" about `topic` after the commit."""
        self._notices.append(Notice(topic=topic))

    def recorded(self, topic: str, events: tuple[Recorded, ...]) -> None:
        """Carry new events to the listeners of `topic` after the commit."""
        self._notices.append(Notice(topic=topic, events=events))

    def take_notices(self) -> list[Notice]:
        """What the unit has to say; the next unit starts with none."""
        taken, self._notices = self._notices, []
        return taken
