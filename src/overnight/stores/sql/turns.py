"""Turns and the numbered stdin messages of their agents."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, func, insert, select, update

from overnight.domain.run import Position, Turn
from overnight.errors import Conflict, NotFound
from overnight.stores.sql.context import Context
from overnight.stores.sql.rows import TURN_COLUMNS, turn_of, turn_values
from overnight.stores.sql.schema import inputs, turns
from overnight.stores.sql.statements import Statement, key

_KEYS: Final = ("run_pk", "number", "attempt")
_FROZEN: Final = frozenset({*_KEYS, "folder", "started_at", "resume_before"})
_ROW: Final = tuple(turns.c[name] for name in TURN_COLUMNS)
_THIS: Final = tuple(turns.c[name] == key(name) for name in _KEYS)
_OPEN: Final = Statement(insert(turns))
_SAVE: Final = Statement(
    update(turns)
    .where(*_THIS)
    .values({name: bindparam(f"new_{name}") for name in TURN_COLUMNS if name not in _FROZEN})
)
_LAST: Final = Statement(
    select(*_ROW)
    .where(turns.c.run_pk == key("run_pk"))
    .order_by(turns.c.number.desc(), turns.c.attempt.desc())
    .limit(1)
)
_GET: Final = Statement(
    select(*_ROW)
    .where(turns.c.run_pk == key("run_pk"), turns.c.number == key("number"))
    .order_by(turns.c.attempt.desc())
    .limit(1)
)
_PAGE: Final = Statement(
    select(*_ROW).where(turns.c.run_pk == key("run_pk")).order_by(turns.c.number, turns.c.attempt)
)
_ADVANCE: Final = Statement(
    update(turns)
    .where(*_THIS)
    .values(
        stdout=bindparam("new_stdout"),
        stderr=bindparam("new_stderr"),
        items=turns.c["items"] + bindparam("more"),
    )
)
_INPUTS: Final = tuple(inputs.c[name] == key(name) for name in _KEYS)
_LAST_INPUT: Final = Statement(select(func.coalesce(func.max(inputs.c.n), 0)).where(*_INPUTS))
_ADD_INPUT: Final = Statement(insert(inputs))
_READ_INPUTS: Final = Statement(
    select(inputs.c.n, inputs.c.data).where(*_INPUTS, inputs.c.n > key("after")).order_by(inputs.c.n)
)


class SqlTurnTable:
    """See `ports.tables.TurnTable`."""

    __slots__ = ("_link",)

    def __init__(self, context: Context) -> None:
        self._link = context.link

    def open(self, turn: Turn) -> None:
        """See the port."""
        self._link.tell(_OPEN, **turn_values(turn))

    def save(self, turn: Turn) -> None:
        """See the port."""
        values = {f"new_{name}": value for name, value in turn_values(turn).items()}
        self._link.change_one(
            _SAVE,
            _no_attempt(turn.run_pk, turn.number),
            key_run_pk=turn.run_pk,
            key_number=turn.number,
            key_attempt=turn.attempt,
            **values,
        )

    def last(self, run_pk: int) -> Turn | None:
        """See the port."""
        row = self._link.one(_LAST, key_run_pk=run_pk)
        return turn_of(row) if row else None

    def get(self, run_pk: int, number: int) -> Turn:
        """See the port."""
        row = self._link.one(_GET, key_run_pk=run_pk, key_number=number)
        if row is None:
            raise NotFound(f"the run has no turn {number}")
        return turn_of(row)

    def page(self, run_pk: int) -> tuple[Turn, ...]:
        """See the port."""
        return tuple(map(turn_of, self._link.all(_PAGE, key_run_pk=run_pk)))

    def advance(self, run_pk: int, number: int, attempt: int, position: Position, items: int) -> None:
        """See the port."""
        self._link.change_one(
            _ADVANCE,
            _no_attempt(run_pk, number),
            key_run_pk=run_pk,
            key_number=number,
            key_attempt=attempt,
            new_stdout=position.stdout,
            new_stderr=position.stderr,
            more=items,
        )

    def add_input(self, run_pk: int, number: int, attempt: int, n: int, data: bytes) -> None:
        """See the port."""
        row = self._link.one(_LAST_INPUT, key_run_pk=run_pk, key_number=number, key_attempt=attempt)
        last = row[0] if row else 0
        if n != last + 1:
            raise Conflict(f"stdin message {n} does not follow {last}")
        self._link.tell(_ADD_INPUT, run_pk=run_pk, number=number, attempt=attempt, n=n, data=data)

    def inputs(self, run_pk: int, number: int, attempt: int, after: int) -> tuple[tuple[int, bytes], ...]:
        """See the port."""
        rows = self._link.all(
            _READ_INPUTS, key_run_pk=run_pk, key_number=number, key_attempt=attempt, key_after=after
        )
        return tuple((n, data) for n, data in rows)


def _no_attempt(run_pk: int, number: int) -> NotFound:
    return NotFound(f"run {run_pk} has no such attempt at turn {number}")
