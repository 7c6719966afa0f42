"""Runs: submitting, saving, reading, removing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import bindparam, case, delete, func, insert, literal_column, null, select, update

from overnight.domain.placement import at_host
from overnight.domain.run import Run
from overnight.domain.states import State
from overnight.errors import Conflict, NotFound, RunNotFinal
from overnight.ids import RunId
from overnight.ports.notifier import CHANGES, QUEUE
from overnight.ports.tables import Idempotency, RunFilter, RunPage
from overnight.stores.sql import run_pages
from overnight.stores.sql.changes import last_change, next_change
from overnight.stores.sql.context import Context
from overnight.stores.sql.gates import SESSION, first_gate, first_turn, open_gate, session_order
from overnight.stores.sql.holds import let_go_of, move_locks, open_behind
from overnight.stores.sql.lanes import lane_of
from overnight.stores.sql.model_schema import model_calls
from overnight.stores.sql.people_schema import approvals
from overnight.stores.sql.places import WORKSPACE, left_place, left_queue, place_for, place_of, save_place
from overnight.stores.sql.remote_schema import last_batches
from overnight.stores.sql.rows import changing, dump, dump_spec, load, run_of
from overnight.stores.sql.run_pages import RUN_ROW, RUN_TABLES
from overnight.stores.sql.schema import (
    idempotency,
    inputs,
    leases,
    requests,
    run_labels,
    run_places,
    run_specs,
    runs,
    streams,
    turns,
    workspace_locks,
)
from overnight.stores.sql.session_removal import remove_if_unused
from overnight.stores.sql.statements import Statement, has_any, key, text_key
from overnight.stores.sql.streams import add_stream, delete_stream

_ADD: Final = Statement(insert(runs))
_ADD_SPEC: Final = Statement(insert(run_specs))
_ADD_LABEL: Final = Statement(insert(run_labels))
_ADD_KEY: Final = Statement(insert(idempotency))
_NOT_SAVED: Final = frozenset(
    {
        "pk", "id", "owner", "session_pk", "session_id", "parent_id", "retry_of", "mode", "priority", "shared",
        "created_at", "token", "lane", "due", "gate_key", "limited",
    }
)  # fmt: skip
_SAVED: Final = (
    update(runs)
    .where(runs.c.pk == key("pk"))
    .values({name: bindparam(f"new_{name}") for name in runs.c.keys() if name not in _NOT_SAVED})  # noqa: SIM118
    .values(
        gate_key=null(),
        limited=null(),
        token=runs.c.token + bindparam("raised"),
        lane=func.coalesce(bindparam("new_lane", type_=runs.c.lane.type), runs.c.lane),
        # Who comes back to the queue goes to its end; who is in it, or had begun already, keeps his turn.
        due=case(
            (runs.c.state == literal_column("'queued'"), runs.c.due),
            else_=func.coalesce(bindparam("new_due", type_=runs.c.due.type), runs.c.due),
        ),
    )
)
_SAVE_SEEN: Final = Statement(_SAVED)
_SAVE: Final = Statement(
    _SAVED.returning(
        runs.c.token,
        *(
            select(column).where(streams.c.pk == key("pk")).scalar_subquery()
            for column in (streams.c.last_seq, streams.c.last_at)
        ),
    )
)
_LOCK: Final = Statement(
    select(
        *RUN_ROW,
        has_any(select(leases.c.run_pk).where(leases.c.run_pk == runs.c.pk)),
        has_any(select(workspace_locks.c.run_pk).where(workspace_locks.c.run_pk == runs.c.pk)),
    )
    .select_from(RUN_TABLES)
    .where(runs.c.pk == key("pk"))
)
_GET: Final = Statement(
    select(*RUN_ROW)
    .select_from(RUN_TABLES)
    .where(runs.c.id == key("id"), (text_key("owner").is_(None)) | (runs.c.owner == text_key("owner")))
)
_SECRETS: Final = Statement(select(run_specs.c.environment).where(run_specs.c.run_pk == key("pk")))
_SAME: Final = Statement(
    select(idempotency.c.body_hash, idempotency.c.run_pk).where(
        idempotency.c.owner == key("owner"),
        idempotency.c.route == key("route"),
        idempotency.c.key == key("key"),
    )
)
_MOVE: Final = Statement(
    update(runs).where(runs.c.pk == key("pk")).values(workspace=bindparam("path"), change=bindparam("order"))
)
_GATE: Final = Statement(select(runs.c.gate).where(runs.c.pk == key("pk")))
_DELETE: Final = tuple(
    Statement(delete(table).where(table.c.run_pk == key("pk")))
    for table in (
        approvals, idempotency, requests, inputs, turns, run_places, run_labels, run_specs, last_batches,
        model_calls,
    )
)  # fmt: skip
_DELETE_RUN: Final = Statement(delete(runs).where(runs.c.pk == key("pk")))


class SqlRunTable:
    """See `ports.tables.RunTable`."""

    __slots__ = ("_context", "_link")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._link = context.link

    def add(self, run: Run, *, secret_environment: Mapping[str, str], idempotency: Idempotency | None) -> Run:
        """See the port."""
        pk = next_change(self._context)
        place = run.place or at_host(run.host_id)
        run = run.but(pk=pk, change=pk, place=place, last_seq=0, last_event_at=None)
        gate = first_gate(run)
        if gate is None and (waiting := session_order(self._context, run)) is not None:
            gate, run = SESSION, run.but(waiting_for=waiting)
        add_stream(self._context, pk, kind="run", owner=run.owner, run_id=run.id, session_id=run.session_id)
        self._link.add_one(
            _ADD,
            **changing(run),
            pk=pk,
            id=run.id,
            owner=run.owner,
            session_pk=run.session_pk,
            session_id=run.session_id,
            parent_id=run.parent_id,
            retry_of=run.retry_of,
            mode=run.spec.mode,
            priority=run.spec.priority,
            shared=int(run.spec.workspace_lock == "shared"),
            lane=lane_of(self._context, run),
            due=first_turn(self._context, run),
            gate=gate,
            gate_key=None,
            limited=None,
            created_at=run.created_at,
            token=run.token,
            change=run.change,
        )
        self._link.add_one(
            _ADD_SPEC,
            run_pk=pk,
            spec=dump_spec(run.spec),
            goal_folded=run.spec.goal.casefold(),
            environment=dump(dict(secret_environment)),
        )
        if run.spec.labels:
            self._link.add(_ADD_LABEL, *((pk, name, value) for name, value in run.spec.labels.items()))
        if idempotency is not None:
            self._add_key(run, idempotency)
        self._context.wake(QUEUE)
        return run

    def _add_key(self, run: Run, given: Idempotency) -> None:
        if self.same_request(run.owner, given.route, given.key) is not None:
            raise Conflict(f"the Idempotency-Key {given.key!r} has made a run already")
        self._link.add_one(
            _ADD_KEY,
            owner=run.owner,
            route=given.route,
            key=given.key,
            body_hash=given.body_hash,
            run_pk=run.pk,
        )

    def lock(self, pk: int) -> Run:
        """See the port."""
        row = self._link.one(_LOCK, key_pk=pk)
        if row is None:
            raise NotFound(f"no run {pk}")
        *columns, held, locked = row
        run = run_of(tuple(columns))
        self._context.seen.run(run, held=bool(held), locked=bool(locked))
        return run

    def save(self, run: Run) -> Run:
        """See the port."""
        change = next_change(self._context)
        values = {f"new_{name}": value for name, value in changing(run).items()}
        queued = run.state is State.QUEUED
        let_go = let_go_of(self._context, run.pk) if run.final else None
        token, last_seq, last_at = self._save(
            run, **values, new_gate=first_gate(run), new_change=change,
            new_lane=lane_of(self._context, run) if queued else None,
            new_due=change if queued and run.started_at is None else None,
            raised=int(let_go is not None and let_go.held),
        )  # fmt: skip
        if let_go is not None:
            open_behind(self._context, run, let_go)
        if queued:
            self._context.wake(QUEUE)
        return run.but(change=change, token=token, last_seq=last_seq, last_event_at=last_at)

    def _save(self, run: Run, *, raised: int, **values: object) -> tuple[int, int, int | None]:
        """The token after it, and the end of the run's stream."""
        missing = NotFound(f"no run {run.id}")
        seen, stream = self._context.seen.runs.get(run.pk), self._context.seen.streams.get(run.pk)
        if seen is None or stream is None:
            row = self._link.one(_SAVE, key_pk=run.pk, raised=raised, **values)
            if row is None:
                raise missing
            token, last_seq, last_at = row
            return token, last_seq, last_at
        self._link.change_one(_SAVE_SEEN, missing, key_pk=run.pk, raised=raised, **values)
        seen.token += raised
        if run.final:
            seen.held = seen.locked = False
        return seen.token, stream.last_seq, stream.last_at

    def get(self, run_id: RunId, owner: str | None) -> Run:
        """See the port."""
        row = self._link.one(_GET, key_id=run_id, key_owner=owner)
        if row is None:
            raise NotFound(f"no run {run_id}")
        return run_of(row)

    def page(self, filter: RunFilter, *, limit: int, after: tuple[int, int] | None = None) -> RunPage:
        """See the port."""
        return run_pages.page(self._link, filter, limit=limit, after=after)

    def counts(self, filter: RunFilter) -> dict[State, int]:
        """See the port."""
        return run_pages.counts(self._link, filter)

    def changed_after(self, change: int, owner: str | None, limit: int) -> tuple[Run, ...]:
        """See the port."""
        return run_pages.changed_after(self._link, change, owner, limit)

    def last_change(self) -> int:
        """See the port. A later one than any run's, when runs have been deleted since."""
        return last_change(self._context)

    def secret_environment(self, pk: int) -> dict[str, str]:
        """See the port."""
        row = self._link.one(_SECRETS, key_pk=pk)
        if row is None:
            raise NotFound(f"no run {pk}")
        return load(row[0])

    def same_request(self, owner: str, route: str, key: str) -> tuple[Idempotency, Run] | None:
        """See the port."""
        row = self._link.one(_SAME, key_owner=owner, key_route=route, key_key=key)
        if row is None:
            return None
        return Idempotency(route=route, key=key, body_hash=row[0]), self.lock(row[1])

    def set_workspace(self, pk: int, path: str, chain: tuple[str, ...]) -> bool:
        """See the port."""
        run = self.lock(pk)
        place, left = place_for(run, path, chain), place_of(self._link, run)
        if not move_locks(self._context, pk, place):
            return False
        if left.nodes != place.nodes:
            save_place(self._link, pk, place.nodes)
            if self._link.one(_GATE, key_pk=pk) == (WORKSPACE,):
                open_gate(self._context, pk)
            left_place(self._context, left)
            left_queue(self._context, left)
        if run.workspace != path:
            self._link.run(_MOVE, key_pk=pk, path=path, order=next_change(self._context))
        return True

    def delete(self, pk: int) -> str:
        """See the port."""
        run = self.lock(pk)
        if not run.final:
            raise RunNotFinal(f"the run {run.id} is {run.state.value}")
        for statement in _DELETE:
            self._link.run(statement, key_pk=pk)
        self._link.run(_DELETE_RUN, key_pk=pk)
        delete_stream(self._link, pk)
        self._context.seen.forget()
        remove_if_unused(self._context, run.session_pk)
        self._context.wake(CHANGES)
        return run.id
