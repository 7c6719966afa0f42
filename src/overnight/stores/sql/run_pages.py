"""Lists of runs: filters, pages, counts, and the order of changes."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, func, literal_column, select, tuple_

from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.ports.tables import RunFilter, RunPage
from overnight.stores.sql.rows import RUN_COLUMNS, run_of
from overnight.stores.sql.schema import run_labels, run_specs, runs, sessions, streams
from overnight.stores.sql.statements import Link, Statement, key

RUN_ROW: Final = (
    *(runs.c[name] for name in RUN_COLUMNS),
    run_specs.c.spec,
    streams.c.last_seq,
    streams.c.last_at,
)
"""What `rows.run_of` reads."""
RUN_TABLES: Final = runs.join(run_specs, run_specs.c.run_pk == runs.c.pk).join(
    streams, streams.c.pk == runs.c.pk
)


def _changed(*more: ColumnElement[bool]) -> Statement:
    return Statement(
        select(*RUN_ROW)
        .select_from(RUN_TABLES)
        .where(runs.c.change > key("change"), *more)
        .order_by(runs.c.change)
        .limit(bindparam("most"))
    )


_CHANGED: Final = _changed()
_CHANGED_OF: Final = _changed(runs.c.owner.concat(literal_column("''")) == key("owner"))
"""Nearly all changes after a cursor are few, so the owner is compared row by row: by the owner's own index, all of
his runs would be read and sorted."""


def page(link: Link, filter: RunFilter, *, limit: int, after: tuple[int, int] | None) -> RunPage:
    """Newest first by (created_at, pk); one row more is read to know whether there is a next page."""
    query = _matching(select(*RUN_ROW).select_from(RUN_TABLES), filter)
    if after is not None:
        query = query.where(tuple_(runs.c.created_at, runs.c.pk) < tuple_(*after))
    query = query.order_by(runs.c.created_at.desc(), runs.c.pk.desc()).limit(limit + 1)
    found = tuple(run_of(row) for row in link.select(query))
    shown = found[:limit]
    more = len(found) > limit and bool(shown)
    return RunPage(runs=shown, next=(shown[-1].created_at, shown[-1].pk) if more else None)


def counts(link: Link, filter: RunFilter) -> dict[State, int]:
    """How many, by state."""
    tables = RUN_TABLES if filter.text is not None else runs
    query = _matching(select(runs.c.state, func.count()).select_from(tables), filter)
    return {State(state): count for state, count in link.select(query.group_by(runs.c.state))}


def changed_after(link: Link, change: int, owner: str | None, limit: int) -> tuple[Run, ...]:
    """In order of change."""
    if owner is None:
        rows = link.all(_CHANGED, key_change=change, most=limit)
    else:
        rows = link.all(_CHANGED_OF, key_change=change, key_owner=owner, most=limit)
    return tuple(map(run_of, rows))


def _matching(query: Select[Any], filter: RunFilter) -> Select[Any]:
    """`query` with a condition for every field that is set."""
    equal = {
        runs.c.owner: filter.owner,
        runs.c.mode: filter.mode,
        runs.c.backend: filter.backend,
    }
    query = query.where(*(column == value for column, value in equal.items() if value is not None))
    if filter.session_id is not None:
        session = select(sessions.c.pk).where(sessions.c.id == filter.session_id).scalar_subquery()
        query = query.where(runs.c.session_pk == session)
    if filter.states:
        query = query.where(runs.c.state.in_([state.value for state in filter.states]))
    if filter.since is not None:
        query = query.where(runs.c.created_at >= filter.since)
    if filter.ids:
        query = query.where(runs.c.id.in_(filter.ids))
    if filter.text is not None:
        query = query.where(run_specs.c.goal_folded.contains(filter.text.casefold(), autoescape=True))
    for name, value in filter.labels.items():
        query = query.where(
            select(run_labels.c.run_pk)
            .where(run_labels.c.run_pk == runs.c.pk, run_labels.c.name == name, run_labels.c.value == value)
            .exists()
        )
    return query
