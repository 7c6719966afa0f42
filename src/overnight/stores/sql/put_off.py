"""Rows that a transaction has made, and writes when somebody may ask for them: at the latest at its end.

Most of what is written is new, and nobody looks at it before the commit. So the rows of all units of a transaction are
written together, table by table, which takes a fraction of the time of one statement a row.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from overnight.stores.sql.reach import rank

if TYPE_CHECKING:
    from overnight.stores.sql.statements import Statement  # which has links put rows off

Rows = list[Sequence[object]]
Written = list[tuple["Statement", Rows]]
"""By table, those first that keys of others lead to."""


class PutOff:
    """The rows that wait: those of the unit that is running apart from those of the units before it.

    For as long as a unit may be undone to its savepoint, it is remembered which earlier rows were written behind that.
    """

    __slots__ = ("_behind", "_earlier", "_own", "_unwritten", "tables")

    def __init__(self) -> None:
        self.tables: set[str] = set()
        """Of which rows may wait."""
        self._own: dict[Statement, Rows] = {}
        self._earlier: dict[Statement, Rows] = {}
        self._behind: dict[Statement, Rows] = {}
        self._unwritten: dict[object, MutableSequence[object]] = {}

    @property
    def has_own(self) -> bool:
        """Whether the unit that is running has made any."""
        return bool(self._own)

    def add(self, statement: Statement, rows: Iterable[Sequence[object]]) -> None:
        """Rows in the order of the parameters of the statement, which inserts one."""
        waiting = self._own.get(statement)
        if waiting is None:
            self._own[statement] = [*rows]
            self.tables.add(statement.table)
        else:
            waiting.extend(rows)

    def name(self, name: object, row: MutableSequence[object]) -> None:
        """Have `unwritten` find a row that was put off."""
        self._unwritten[name] = row

    def unwritten(self, name: object) -> MutableSequence[object] | None:
        """A row of the unit that is running, while it waits. One of an earlier unit is not changed any more: the unit
        that did it might be undone.
        """
        return self._unwritten.get(name)

    def take_earlier(self) -> Written:
        """The rows of earlier units, which are now written, before the savepoint of the one that is running."""
        taken, self._earlier = _in_order(self._earlier), {}
        return taken

    def take_all(self, *, behind_savepoint: bool) -> Written:
        """All rows, which are now written."""
        if behind_savepoint:
            _extend(self._behind, self._earlier)
        taken = _in_order(self._earlier, self._own)
        self._earlier, self._own = {}, {}
        self._unwritten.clear()
        self.tables.clear()
        return taken

    def keep(self) -> None:
        """The unit has ended well."""
        self._unwritten.clear()
        if self._own:
            _extend(self._earlier, self._own)
            self._own = {}
        if self._behind:
            self._behind = {}

    def drop(self) -> None:
        """The unit was undone, with all that was written behind its savepoint."""
        self._own = {}
        self._unwritten.clear()
        _extend(self._earlier, self._behind)
        self._behind = {}
        self.tables.update(statement.table for statement in self._earlier)

    def clear(self) -> None:
        """The transaction is over."""
        self._own, self._earlier, self._behind = {}, {}, {}
        self._unwritten.clear()
        self.tables.clear()


def _extend(these: dict[Statement, Rows], more: dict[Statement, Rows]) -> None:
    for statement, rows in more.items():
        these.setdefault(statement, []).extend(rows)


def _in_order(*parts: dict[Statement, Rows]) -> Written:
    found: dict[Statement, Rows] = {}
    for statement, rows in chain.from_iterable(part.items() for part in parts):
        found.setdefault(statement, []).extend(rows)
    return sorted(found.items(), key=lambda one: rank(one[0].table))
