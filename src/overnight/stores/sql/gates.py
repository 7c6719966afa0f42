"""Gates: why a queued run need not be looked at by a claim, and what opens it again.

A run that waits for a time, for an earlier run of its session or for a workspace is taken out of the index that
claims read, and put back by that for which it waits. So a claim costs the same however many runs wait.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, bindparam, case, literal_column, null, select, update

from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.domain.values import WaitingFor
from overnight.ports.notifier import QUEUE
from overnight.stores.sql.changes import keep_numbers, next_change
from overnight.stores.sql.context import Context
from overnight.stores.sql.rows import dump_waiting
from overnight.stores.sql.schema import counters, runs
from overnight.stores.sql.statements import Row, Statement, has_any, key

TIME: Final = "time"
SESSION: Final = "session"
HELD: Final = "held"
"""Claimed, but not moved on by its holder yet; the end of the hold opens it."""
SPREAD: Final = 1000
"""Changes between the turns of two child runs of a session."""
_MOST: Final = 256
"""Gates opened at once because their time has come, so that no claim takes long."""

_TURN: Final = select(counters.c.value).where(counters.c.name == "change").scalar_subquery()
# Reasons stand in the SQL as literals: a partial index is used only for what is known when it is prepared.
_OPEN_TIME: Final = Statement(
    update(runs)
    .where(
        runs.c.pk.in_(
            select(runs.c.pk)
            .where(runs.c.gate == literal_column("'time'"), runs.c.not_before <= key("now"))
            .order_by(runs.c.not_before)
            .limit(bindparam("most"))
        )
    )
    # One that has begun keeps its turn: it has waited for it already.
    .values(gate=null(), waiting_for=null(), due=case((runs.c.started_at.is_(None), _TURN), else_=runs.c.due))
    .returning(runs.c.pk)
)
_NEXT_OF_SESSION: Final = (
    select(runs.c.pk)
    .where(runs.c.gate == literal_column("'session'"), runs.c.session_pk == key("session"))
    .order_by(runs.c.pk)
    .limit(1)
)
_FIRST: Final[ColumnElement[int]] = literal_column("0")
_WAITING: Final = Statement(
    select(
        has_any(
            select(runs.c.pk)
            .where(
                runs.c.lane >= _FIRST,
                runs.c.state == literal_column("'queued'"),
                runs.c.gate.is_(None),
                runs.c.limited.is_(None),
            )
            .order_by(runs.c.lane, runs.c.priority.desc(), runs.c.due, runs.c.pk)
        ),
        has_any(
            select(runs.c.pk)
            .where(runs.c.lane >= _FIRST, runs.c.limited.is_not(None))
            .order_by(runs.c.lane, runs.c.limited, runs.c.priority.desc(), runs.c.due, runs.c.pk)
        ),
    )
)
"""Whether any run waits for nothing but a worker, or for a limit."""
_EARLIER: Final = Statement(
    select(runs.c.id)
    .where(
        runs.c.session_pk == key("session"),
        runs.c.pk < key("pk"),
        runs.c.ended_at.is_(None),
        runs.c.parent_id.is_(None),
    )
    .limit(1)
)
_LAST_CHILD: Final = Statement(
    select(runs.c.due)
    .where(runs.c.session_pk == key("session"), runs.c.ended_at.is_(None), runs.c.parent_id.is_not(None))
    .order_by(runs.c.pk.desc())
    .limit(1)
)
_OPENED: Final = update(runs).values(
    gate=null(), gate_key=null(), waiting_for=null(), change=bindparam("order")
)
_OPEN: Final = Statement(_OPENED.where(runs.c.pk == key("pk")))
_OPEN_NEXT: Final = Statement(
    _OPENED.where(runs.c.pk == _NEXT_OF_SESSION.scalar_subquery())
    .values(due=bindparam("order"))
    .returning(runs.c.pk)
)
_SHUT: Final = Statement(
    update(runs)
    .where(runs.c.pk == key("pk"))
    .values(
        gate=bindparam("new_gate"),
        gate_key=bindparam("new_key"),
        limited=bindparam("new_limited"),
        waiting_for=bindparam("waiting"),
        change=bindparam("order"),
    )
)


def first_gate(run: Run) -> str | None:
    """The gate of a run that has just been saved: only time can be told from the run alone."""
    return TIME if run.state is State.QUEUED and run.not_before is not None else None


def session_order(context: Context, run: Run) -> WaitingFor | None:
    """One run of a session at a time, in the order of submission; child runs go by their parent's plan."""
    if run.parent_id is not None:
        return None
    if run.session_pk in context.new_sessions:
        context.new_sessions.remove(run.session_pk)
        return None
    earlier = context.link.one(_EARLIER, key_session=run.session_pk, key_pk=run.pk)
    return WaitingFor(kind="session", detail=earlier[0]) if earlier else None


def first_turn(context: Context, run: Run) -> int:
    """Whose turn it is goes by when a run became claimable. Many child runs of one session, which can be carried out
    beside each other, are spread out, so that others who come later need not wait for all of them.
    """
    if run.parent_id is None:
        return run.pk
    last = context.link.one(_LAST_CHILD, key_session=run.session_pk)
    return max(run.pk, last[0] + SPREAD) if last else run.pk


def open_due(context: Context, now_ms: int) -> None:
    """Open the gates whose time has come; many of them little by little."""
    keep_numbers(context)
    wake = context.waker(QUEUE)

    def if_more(rows: list[Row]) -> None:
        if len(rows) == _MOST:
            wake()

    context.link.later(_OPEN_TIME, if_more, key_now=now_ms, most=_MOST)


def open_next(context: Context, run: Run, *, was_held: bool) -> None:
    """The run has ended, or is held no more: open the gate of the next one of its session if it has ended, and wake the
    queue if anybody waits there for whom a limit may have room now.

    The first is enough: a run waits for its session only while an earlier one lives, and that one's end comes here. It
    comes behind all that are due already: a session with many runs has one of them in the queue.
    """
    wake = context.waker(QUEUE)

    def if_any(rows: list[Row]) -> None:
        if any(map(any, rows)):
            wake()

    if run.final:
        order = next_change(context)
        context.link.later(_OPEN_NEXT, if_any, key_session=run.session_pk, order=order)
    if was_held:
        context.link.later(_WAITING, if_any)


def open_gate(context: Context, pk: int) -> None:
    """Have the run looked at again. It keeps its turn: else those that come later would overtake it time and again."""
    context.link.tell(_OPEN, key_pk=pk, order=next_change(context))
    context.wake(QUEUE)


def shut(
    context: Context, run: Run, waiting: WaitingFor, *, gate: str | None, key: str | None = None,
    limited: str | None = None,
) -> None:  # fmt: skip
    """Close the gate of a run that cannot be claimed now; raises its change only when the reason is a new one."""
    change = run.change if run.waiting_for == waiting else next_change(context)
    context.link.run(
        _SHUT,
        key_pk=run.pk,
        new_gate=gate,
        new_key=key,
        new_limited=limited,
        waiting=dump_waiting(waiting),
        order=change,
    )
