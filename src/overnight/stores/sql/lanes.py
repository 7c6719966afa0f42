"""Lanes: what runs ask of a worker, as rows that claims choose by."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Final

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    bindparam,
    exists,
    func,
    insert,
    literal_column,
    select,
    union_all,
)

from overnight.domain.placement import need_of, satisfied
from overnight.domain.run import Run
from overnight.domain.worker import Lane, Offer
from overnight.stores.sql.context import Context
from overnight.stores.sql.rows import dump, load
from overnight.stores.sql.schema import runs
from overnight.stores.sql.statements import Statement, elements, has_any, key
from overnight.stores.sql.worker_schema import lanes, workers

MOST_COUNTED: Final = 1000
MOST_NAMED: Final = 5
"""Labels of a worker whose combinations are named one by one."""

_FIND: Final = Statement(
    select(lanes.c.pk).where(
        lanes.c.place == key("place"), lanes.c.backend == key("backend"), lanes.c.need == key("need")
    )
)
_ADD: Final = Statement(
    insert(lanes)
    .values(place=bindparam("place"), backend=bindparam("backend"), need=bindparam("need"))
    .returning(lanes.c.pk)
)
_OPEN: Final = (
    runs.c.state == literal_column("'queued'"), runs.c.gate.is_(None), runs.c.limited.is_(None),
)  # fmt: skip
_IS_OPEN: Final = (runs.c.lane == lanes.c.pk, *_OPEN)
_IS_LIMITED: Final = (runs.c.lane == lanes.c.pk, runs.c.limited.is_not(None))
_SOME_OPEN: Final = has_any(
    select(runs.c.pk)
    .where(*_IS_OPEN)
    .order_by(runs.c.priority.desc(), runs.c.due, runs.c.pk)
    .correlate(lanes)
)
_SOME_LIMITED: Final = has_any(
    select(runs.c.pk).where(*_IS_LIMITED).order_by(runs.c.limited).correlate(lanes)
)
_ONE: Final[ColumnElement[int]] = literal_column("1")


def _walk(name: str, *which: ColumnElement[bool]) -> CTE:
    """From one lane with such a run to the next, whatever lanes were left over by others."""
    first = select(runs.c.lane).where(*which).order_by(runs.c.lane).limit(_ONE)
    walk = select(first.scalar_subquery().label("lane")).cte(name, recursive=True)
    behind = first.where(runs.c.lane > walk.c.lane).correlate(walk).scalar_subquery()
    return walk.union_all(select(behind.label("lane")).where(walk.c.lane.is_not(None)))


_WITH_OPEN: Final = _walk("open_lanes", *_OPEN)
_WITH_LIMITED: Final = _walk("limited_lanes", runs.c.limited.is_not(None))
_WITH_WORK: Final = union_all(select(_WITH_OPEN.c.lane), select(_WITH_LIMITED.c.lane)).subquery()
"""Twice those with both."""


def _served(
    source: FromClause,
    *which: ColumnElement[bool],
    place: ColumnElement[str] = lanes.c.place,
    backend: ColumnElement[str] = lanes.c.backend,
) -> Statement:
    return Statement(
        select(lanes.c.pk, lanes.c.place, lanes.c.backend, lanes.c.need, _SOME_LIMITED.label("limited"))
        .select_from(source)
        .where(
            place.in_(select(elements("key_places").c.value)),
            backend.in_(select(elements("key_backends").c.value)),
            *which,
            exists(
                select(_ONE)
                .select_from(workers)
                .where(workers.c.pk == key("worker"), workers.c.state == literal_column("'active'"))
            ),
        )
    )


_SERVED: Final = _served(
    lanes, lanes.c.need.in_(select(elements("key_needs").c.value)), _SOME_OPEN | _SOME_LIMITED
)
_PLACE, _BACKEND = (column.concat(literal_column("''")) for column in (lanes.c.place, lanes.c.backend))
"""Nothing that an index could be asked for: so the few lanes with work are looked up one by one."""
_SERVED_BY_LABELS: Final = _served(
    _WITH_WORK.join(lanes, lanes.c.pk == _WITH_WORK.c.lane), place=_PLACE, backend=_BACKEND
)
_COUNTED: Final = (
    select(runs.c.created_at)
    .where(*_IS_OPEN)
    .order_by(runs.c.priority.desc(), runs.c.due, runs.c.pk)
    .limit(bindparam("most"))
    .correlate(lanes)
)
_ALL: Final = Statement(
    select(
        lanes.c.pk,
        lanes.c.place,
        lanes.c.backend,
        lanes.c.need,
        select(func.count()).select_from(_COUNTED.subquery()).scalar_subquery(),
        _COUNTED.limit(bindparam("first")).scalar_subquery(),
    )
    # Put in order by SQL, it would be looked for in all lanes by their order.
    .select_from(_WITH_OPEN.join(lanes, lanes.c.pk == _WITH_OPEN.c.lane))
)


def lane_of(context: Context, run: Run) -> int:
    """The key of the run's lane, which is made if it is the first one there."""
    need = need_of(run.spec.labels)
    wanted = run.place, run.backend, dump(need) if need else "{}"
    known = context.lanes.get(wanted)
    return _lane(context, *wanted) if known is None else known


def _lane(context: Context, place: str, backend: str, need: str) -> int:
    row = context.link.one(_FIND, key_place=place, key_backend=backend, key_need=need)
    if row is None:
        context.lanes.made()
        row = context.link.one(_ADD, place=place, backend=backend, need=need)
    assert row is not None  # noqa: S101 -- INSERT … RETURNING always has one
    context.lanes.keep((place, backend, need), int(row[0]))
    return int(row[0])


def served(context: Context, offer: Offer) -> list[tuple[Lane, bool]]:
    """The lanes with work that an active worker's offer covers, each with whether runs in it wait for a limit."""
    asked = {
        "key_places": dump(offer.served),
        "key_backends": dump(offer.backends),
        "key_worker": offer.worker_pk,
    }
    needs = _needs(offer.labels)
    if needs is None:
        rows = list(dict.fromkeys(context.link.all(_SERVED_BY_LABELS, **asked)))
    else:
        rows = context.link.all(_SERVED, **asked, key_needs=dump(needs))
    found = [
        (Lane(pk=pk, place=place, backend=backend, need=load(need)), bool(limited))
        for pk, place, backend, need, limited in rows
    ]
    return [(lane, limited) for lane, limited in found if satisfied(lane.need, offer.labels)]


def _needs(labels: Mapping[str, str]) -> list[str] | None:
    """Every need that a worker with these labels meets; None when they are too many to name.

    So lanes that others have made, however many, are not even looked at.
    """
    if len(labels) > MOST_NAMED:
        return None
    pairs = sorted(labels.items())
    return [dump(dict(some)) for n in range(len(pairs) + 1) for some in combinations(pairs, n)]


def with_work(context: Context) -> tuple[Lane, ...]:
    """Every lane in which runs could be claimed, and how many."""
    found = sorted(context.link.all(_ALL, most=MOST_COUNTED, first=1), key=lambda row: row[1:4])
    return tuple(
        Lane(pk=pk, place=place, backend=backend, need=load(need), runs=count, oldest_at=oldest)
        for pk, place, backend, need, count, oldest in found
    )
