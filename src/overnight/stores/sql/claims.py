"""Claiming: which due runs a worker gets. All the rules stand here, with the gates that they close."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sqlalchemy import bindparam, literal_column, null, select, update

from overnight.domain.run import Run
from overnight.domain.values import WaitingFor
from overnight.domain.worker import Offer
from overnight.ports.notifier import QUEUE
from overnight.stores.sql import gates, holds
from overnight.stores.sql.changes import next_change
from overnight.stores.sql.context import Context
from overnight.stores.sql.rows import run_of
from overnight.stores.sql.run_pages import RUN_ROW, RUN_TABLES
from overnight.stores.sql.schema import runs
from overnight.stores.sql.statements import Statement, key

_LOOKS: Final = 128
"""How many waiting runs one claim passes by at most, so that it stays within a few milliseconds."""

_DUE: Final = Statement(
    select(*RUN_ROW)
    .select_from(RUN_TABLES)
    .where(
        runs.c.host_id == key("host"),
        runs.c.backend == key("backend"),
        runs.c.state == literal_column("'queued'"),
        runs.c.gate.is_(None),
    )
    .order_by(runs.c.priority.desc(), runs.c.pk)
    .limit(bindparam("most"))
    .with_for_update(of=runs, skip_locked=True)
)
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
_CLAIMED: Final = Statement(
    update(runs)
    .where(runs.c.pk == key("pk"))
    .values(
        token=runs.c.token + 1,
        gate=gates.HELD,
        gate_by=null(),
        waiting_for=null(),
        change=bindparam("order"),
    )
)
_SET_ASIDE: Final = Statement(update(runs).where(runs.c.pk == key("pk")).values(gate=gates.HELD))


def claim(context: Context, offer: Offer, now_ms: int) -> tuple[Run, ...]:
    """See `ports.tables.LeaseTable.claim`.

    A run that must wait is put behind its gate, so the next claim does not meet it again. Whoever passes by more than
    `_LOOKS` of them leaves the rest to the next call and wakes the queue for it.
    """
    gates.open_due(context, now_ms)
    claimed: list[Run] = []
    looks = 0
    while len(claimed) < offer.free:
        due = _due(context, offer, offer.free - len(claimed))
        if not due:
            break
        if looks >= _LOOKS:
            context.wake(QUEUE)
            break
        looks += len(due)
        claimed.extend(run for run in (_try(context, found, offer) for found in due) if run is not None)
    return tuple(claimed)


def _due(context: Context, offer: Offer, most: int) -> list[Run]:
    """The best of every offered backend, best first: each backend has its own stretch of the index."""
    found = [
        run_of(row)
        for backend in dict.fromkeys(offer.backends)
        for row in context.link.all(_DUE, key_host=offer.host_id, key_backend=backend, most=most)
    ]
    found.sort(key=lambda run: (-run.spec.priority, run.pk))
    return found[:most]


def _try(context: Context, run: Run, offer: Offer) -> Run | None:
    """Take the run, or close its gate."""
    if holds.is_held(context.link, run.pk):
        context.link.run(_SET_ASIDE, key_pk=run.pk)
        return None
    waiting = _session_order(context, run)
    if waiting is not None:
        gates.shut(context, run, waiting, None)
        return None
    place = gates.place_of(context.link, run)
    other = holds.blocker(context.link, run.pk, place)
    if other is not None:
        gates.shut(context, run, WaitingFor(kind="workspace"), other)
        return None
    claimed = replace(run, token=run.token + 1, waiting_for=None, change=next_change(context))
    context.link.run(_CLAIMED, key_pk=run.pk, order=claimed.change)
    holds.add_hold(context.link, run.pk, offer.worker_pk, claimed.token)
    holds.lock_place(context.link, run.pk, place)
    return claimed


def _session_order(context: Context, run: Run) -> WaitingFor | None:
    """One run of a session at a time, in the order of submission; child runs go by their parent's plan."""
    if run.parent_id is not None:
        return None
    earlier = context.link.one(_EARLIER, key_session=run.session_pk, key_pk=run.pk)
    return WaitingFor(kind="session", detail=earlier[0]) if earlier else None
