"""Gates: why a queued run need not be looked at by a claim, and what opens it again.

A run that waits for a time, for an earlier run of its session or for a workspace is taken out of the index that
claims read, and put back by that for which it waits. So a claim costs the same however many runs wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, insert, literal_column, null, select, update

from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.domain.values import WaitingFor
from overnight.ports.notifier import QUEUE
from overnight.stores.sql.changes import next_change
from overnight.stores.sql.context import Context
from overnight.stores.sql.rows import dump_waiting
from overnight.stores.sql.schema import run_places, runs
from overnight.stores.sql.statements import Link, Statement, key

TIME: Final = "time"
HELD: Final = "held"
"""Claimed, but not moved on by its holder yet; the end of the hold opens it."""

_OPEN: Final = {"gate": null(), "gate_by": null()}
# Reasons stand in the SQL as literals: a partial index is used only for what is known when it is prepared.
_OPEN_TIME: Final = Statement(
    update(runs).where(runs.c.gate == literal_column("'time'"), runs.c.not_before <= key("now")).values(_OPEN)
)
_OPEN_SESSION: Final = Statement(
    update(runs)
    .where(
        runs.c.pk
        == select(runs.c.pk)
        .where(runs.c.gate == literal_column("'session'"), runs.c.session_pk == key("session"))
        .order_by(runs.c.pk)
        .limit(1)
        .scalar_subquery()
    )
    .values(_OPEN)
)
_OPEN_AFTER: Final = Statement(update(runs).where(runs.c.gate_by == key("pk")).values(_OPEN))
_SHUT: Final = Statement(
    update(runs)
    .where(runs.c.pk == key("pk"))
    .values(
        gate=bindparam("why"),
        gate_by=bindparam("by"),
        waiting_for=bindparam("waiting"),
        change=bindparam("order"),
    )
)
_PLACE: Final = Statement(
    select(run_places.c.node).where(run_places.c.run_pk == key("pk")).order_by(run_places.c.depth)
)
_FORGET_PLACE: Final = Statement(delete(run_places).where(run_places.c.run_pk == key("pk")))
_ADD_PLACE: Final = Statement(insert(run_places))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run works: its directory and all that it lies in, from the inside out; empty while not known."""

    host_id: str
    nodes: tuple[str, ...]
    shared: bool


def first_gate(run: Run) -> str | None:
    """The gate of a run that has just been added or saved: only time can be told from the run alone."""
    return TIME if run.state is State.QUEUED and run.not_before is not None else None


def open_due(context: Context, now_ms: int) -> None:
    """Open the gates whose time has come."""
    context.link.run(_OPEN_TIME, key_now=now_ms)


def open_after(context: Context, pk: int) -> None:
    """Open the gates of runs that wait for the workspace that `pk` held."""
    if context.link.run(_OPEN_AFTER, key_pk=pk):
        context.wake(QUEUE)


def open_session(context: Context, run: Run) -> None:
    """Open the gate of the next run of the session of `run`, which has ended.

    The first is enough: a run waits for its session only while an earlier one lives, and that one's end comes here.
    """
    if context.link.run(_OPEN_SESSION, key_session=run.session_pk):
        context.wake(QUEUE)


def shut(context: Context, run: Run, waiting: WaitingFor, by: int | None) -> None:
    """Close the gate of a run that cannot be claimed now; raises its change only when the reason is a new one."""
    change = run.change if run.waiting_for == waiting else next_change(context)
    context.link.run(
        _SHUT,
        key_pk=run.pk,
        why=waiting.kind,
        by=by,
        waiting=dump_waiting(waiting),
        order=change,
    )


def place_of(link: Link, run: Run) -> Place:
    """Where the run works, as last recorded."""
    nodes = tuple(row[0] for row in link.all(_PLACE, key_pk=run.pk))
    return Place(host_id=run.host_id, nodes=nodes, shared=run.spec.workspace_lock == "shared")


def save_place(link: Link, pk: int, nodes: tuple[str, ...]) -> None:
    """Record where the run works."""
    link.run(_FORGET_PLACE, key_pk=pk)
    link.run_many(_ADD_PLACE, [(pk, depth, node) for depth, node in enumerate(nodes)])
