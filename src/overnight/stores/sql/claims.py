"""Claiming: which due runs a worker gets. All the rules stand here, with the gates that they close.

A claim looks at the lanes that its offer covers, takes the best runs of each, and passes over those that must wait:
these go behind their gate, so that the next claim does not meet them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, bindparam, literal_column, null, select, update

from overnight.domain.placement import place_once_begun, root_of
from overnight.domain.run import Run
from overnight.domain.values import WaitingFor
from overnight.domain.worker import Lane, Offer
from overnight.ports.notifier import QUEUE
from overnight.stores.sql import gates, holds, lanes, places
from overnight.stores.sql.batches import run_each
from overnight.stores.sql.changes import next_changes
from overnight.stores.sql.context import Context
from overnight.stores.sql.room import Room
from overnight.stores.sql.rows import run_of
from overnight.stores.sql.run_pages import RUN_ROW, RUN_TABLES
from overnight.stores.sql.schema import leases, run_places, runs
from overnight.stores.sql.statements import Row, Statement, has_any, key

_LOOKS: Final = 128
"""How many waiting runs one claim passes by at most, so that it stays within a few milliseconds."""

_OTHER: Final = runs.alias("other")
_FACTS: Final = (
    runs.c.due,
    # One run of a session at a time, in the order of submission; child runs go by their parent's plan.
    select(_OTHER.c.id)
    .where(
        _OTHER.c.session_pk == runs.c.session_pk,
        _OTHER.c.pk < runs.c.pk,
        _OTHER.c.ended_at.is_(None),
        _OTHER.c.parent_id.is_(None),
        runs.c.parent_id.is_(None),
    )
    .limit(bindparam("one"))
    .scalar_subquery(),
    has_any(select(leases.c.run_pk).where(leases.c.run_pk == runs.c.pk)),
    has_any(select(run_places.c.run_pk).where(run_places.c.run_pk == runs.c.pk)),
)
"""Behind the run: its turn, an earlier run of its session that lives, whether somebody holds it, and whether it works
in a place that is known."""
_FACTS_MANY: Final = len(_FACTS)


def _best(*which: ColumnElement[bool]) -> Statement:
    return Statement(
        select(*RUN_ROW, *_FACTS)
        .select_from(RUN_TABLES)
        .where(runs.c.lane == key("lane"), *which)
        .order_by(runs.c.priority.desc(), runs.c.due, runs.c.pk)
        .limit(bindparam("most"))
        .with_for_update(of=runs, skip_locked=True)
    )


_DUE: Final = _best(
    runs.c.state == literal_column("'queued'"), runs.c.gate.is_(None), runs.c.limited.is_(None)
)
_DUE_LIMITED: Final = _best(runs.c.limited.is_not(None), runs.c.limited == key("limit"))
_NEXT_LIMIT: Final = Statement(
    select(runs.c.limited)
    .where(runs.c.lane == key("lane"), runs.c.limited.is_not(None), runs.c.limited > key("limit"))
    .order_by(runs.c.limited)
    .limit(1)
)
_CLAIMED: Final = Statement(
    update(runs)
    .where(runs.c.pk == key("pk"))
    .values(
        token=runs.c.token + 1,
        gate=gates.HELD,
        gate_key=null(),
        limited=null(),
        waiting_for=null(),
        host_id=bindparam("host"),
        place=bindparam("at"),
        change=bindparam("order"),
    )
)
_SET_ASIDE: Final = Statement(
    update(runs).where(runs.c.pk == key("pk")).values(gate=gates.HELD, limited=null())
)


_Order = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A run that might be claimed, and what was seen of it."""

    run: Run
    order: _Order
    earlier: str | None
    held: bool
    placed: bool
    horizon: _Order | None = None
    """The last of its kind that was looked for, where there may be more behind."""


def claim(context: Context, offer: Offer, now_ms: int) -> tuple[Run, ...]:
    """See `ports.tables.LeaseTable.claim`.

    Whoever passes by more than `_LOOKS` runs that must wait leaves the rest to the next call and wakes the queue for
    it.
    """
    gates.open_due(context, now_ms)
    return _Claim(context, offer).run()


class _Claim:
    """One call."""

    def __init__(self, context: Context, offer: Offer) -> None:
        self._context = context
        self._link = context.link
        self._offer = offer
        self._lease_ms = round(offer.lease_s * 1000)
        self._claimed: list[Run] = []
        self._taken: list[Run] = []
        """Claimed, and not written down yet; so are their holds."""
        self._placed: set[int] = set()
        """Those that lock a workspace."""
        self._holds: list[holds.Values] = []
        self._waits = False
        """Whether the run that was met last must wait."""
        self._passed = False
        """Whether any must."""
        self._opened = False
        """Whether others came forward through that."""

    def run(self) -> tuple[Run, ...]:
        looks = 0
        room: Room | None = None
        while (wanted := self._offer.free - len(self._claimed)) > 0:
            offered = lanes.served(self._context, self._offer)
            if not offered:
                break
            room = room or Room(self._context, self._offer.limits)
            found = self._find(offered, room, wanted)
            if found and looks >= _LOOKS:
                self._context.wake(QUEUE)
                break
            looks += self._go_through(found, room)
            if not found or (len(found) < wanted and not (self._passed or self._opened)):
                break
        if room is not None:
            room.settle()
        return tuple(self._claimed)

    def _go_through(self, found: list[_Found], room: Room) -> int:
        """Take whom may be taken, best first, for as long as nobody better can be out of sight; how many were met."""
        self._passed = self._opened = False
        met, horizon = 0, None
        for one in found:
            if horizon is not None and one.order > horizon:
                break
            met += 1
            self._waits = False
            self._try(one, room)
            self._passed |= self._waits
            if self._opened:
                break
            if self._waits and one.horizon is not None:
                horizon = min(horizon or one.horizon, one.horizon)
        self._write()
        return met

    def _find(self, offered: list[tuple[Lane, bool]], room: Room, wanted: int) -> list[_Found]:
        """The best of every lane, best first. Those that wait for a limit with room count like the others."""
        found: list[_Found] = []
        for lane, limited in offered:
            most = min(wanted, room.for_backend(lane.backend))
            if most > 0:
                found += _seen(self._link.all(_DUE, key_lane=lane.pk, most=most, one=1), most)
                if limited:
                    found += self._limited(lane, room, most)
        found.sort(key=lambda one: one.order)
        return found[:wanted]

    def _limited(self, lane: Lane, room: Room, most: int) -> list[_Found]:
        found: list[_Found] = []
        name = ""
        while row := self._link.one(_NEXT_LIMIT, key_lane=lane.pk, key_limit=name):
            name = row[0]
            if (few := min(most, room.for_label(name))) > 0:
                rows = self._link.all(_DUE_LIMITED, key_lane=lane.pk, key_limit=name, most=few, one=1)
                found += _seen(rows, few)
        return found

    def _try(self, found: _Found, room: Room) -> None:
        """Take the run, or close its gate."""
        run = found.run
        if room.for_backend(run.backend) == 0:
            return  # its lane is not looked at again before there is room
        if found.held:
            self._link.run(_SET_ASIDE, key_pk=run.pk)
            self._waits = True
            return
        place = self._place(found)
        if not self._wait(found, place, room):
            self._take(run, place)
            room.take(run)

    def _place(self, found: _Found) -> places.Place:
        """Where it works. What an earlier host knew of it says nothing here, unless the hosts share the directory."""
        run = found.run
        if not found.placed or (run.host_id != self._offer.host_id and root_of(run.place) is None):
            if found.placed:
                places.save_place(self._link, run.pk, ())
            return places.place_for(run, None, ())
        return places.place_of(self._link, run)

    def _wait(self, found: _Found, place: places.Place, room: Room) -> bool:
        """Whether the run must wait; then its gate is closed and those behind it in the same place come forward."""
        run = found.run
        if found.earlier is not None:
            waiting = WaitingFor(kind="session", detail=found.earlier)
            gates.shut(self._context, run, waiting, gate=gates.SESSION)
            return self._pass(place)
        name = places.blocker(self._link, run.pk, place)
        if name is not None:
            waiting = WaitingFor(kind="workspace", detail="another run works there")
            gates.shut(self._context, run, waiting, gate=places.WORKSPACE, key=name)
            return self._pass(place, but=name)
        full = room.full_label(run)
        if full is not None:
            detail = f"limit: label {full} ({room.most_of_label(full)} at once)"
            gates.shut(self._context, run, WaitingFor(kind="backend", detail=detail), gate=None, limited=full)
            return self._pass(place)
        return False

    def _pass(self, place: places.Place, *, but: str | None = None) -> bool:
        self._opened = places.left_queue(self._context, place, waits_at=but)
        self._waits = True
        return True

    def _take(self, run: Run, place: places.Place) -> None:
        offer, token = self._offer, run.token + 1
        hold = holds.hold(self._context, run.pk, offer.worker_pk, token, self._lease_ms)
        if place.nodes:
            holds.add_holds(self._link, [hold])
            places.lock_place(self._link, run.pk, place)
            self._placed.add(run.pk)
            self._opened = places.left_queue(self._context, place)
        else:
            self._holds.append(hold)  # nobody asks for it before all are written
        self._taken.append(run)

    def _write(self) -> None:
        """So that the next look does not meet them."""
        if not self._taken:
            return
        host_id = self._offer.host_id
        taken = [
            run.but(
                token=run.token + 1, waiting_for=None, host_id=host_id, change=order,
                place=place_once_begun(run.spec, run.place, host_id),
            )
            for run, order in zip(self._taken, next_changes(self._context, len(self._taken)), strict=True)
        ]  # fmt: skip
        holds.add_holds(self._link, self._holds)
        values = [
            {"key_pk": run.pk, "host": run.host_id, "at": run.place, "order": run.change} for run in taken
        ]
        run_each(self._link, _CLAIMED, values)
        for run in taken:
            self._context.seen.run(run, held=True, locked=run.pk in self._placed)
        self._claimed += taken
        self._taken, self._holds = [], []


def _seen(rows: list[Row], most: int) -> list[_Found]:
    """What was found of one kind, best first, where at most so many were asked for."""
    found = [(*row[-_FACTS_MANY:], run_of(row[:-_FACTS_MANY])) for row in rows]
    horizon = _order(found[-1][-1], found[-1][0]) if len(found) == most else None
    return [
        _Found(
            run=run,
            order=_order(run, due),
            earlier=earlier,
            held=bool(held),
            placed=bool(placed),
            horizon=horizon,
        )
        for due, earlier, held, placed, run in found
    ]


def _order(run: Run, due: int) -> _Order:
    return -run.spec.priority, due, run.pk
