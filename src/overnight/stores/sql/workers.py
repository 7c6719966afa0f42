"""Workers and cached backend checks."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Final

import orjson
from sqlalchemy import bindparam, delete, exists, func, insert, or_, select, update

from overnight.domain.backend import BackendCheck, Capabilities, Problem
from overnight.domain.worker import (
    QUARANTINE_WITHIN_MS,
    QUARANTINED_BY,
    Action,
    Worker,
    acted,
    back,
    keeps_failing,
)
from overnight.errors import NotFound
from overnight.ids import HostId, WorkerId
from overnight.ports.notifier import QUEUE
from overnight.stores.sql.context import Context
from overnight.stores.sql.remote_schema import seats
from overnight.stores.sql.rows import dump, load
from overnight.stores.sql.schema import leases
from overnight.stores.sql.statements import Row, Statement, key, text_key
from overnight.stores.sql.worker_schema import checks, worker_faults, workers

_SHOWN_GONE_MS: Final = 3_600_000
_COLUMNS: Final = (
    "pk", "id", "host_id", "host_name", "pid", "version", "slots", "backends", "labels", "state",
    "started_at", "seen_at", "places", "reason", "changed_by", "changed_at",
)  # fmt: skip
_ADD: Final = Statement(
    insert(workers)
    .values({name: bindparam(name) for name in _COLUMNS if name != "pk"})
    .returning(workers.c.pk)
)
_BEAT: Final = Statement(update(workers).where(workers.c.pk == key("pk")).values(seen_at=bindparam("at")))
_SET_STATE: Final = Statement(
    update(workers)
    .where(workers.c.id == key("id"))
    .values(state=bindparam("new_state"), seen_at=bindparam("at"))
)
_CHANGE: Final = Statement(
    update(workers)
    .where(workers.c.pk == key("pk"))
    .values(
        state=bindparam("new_state"),
        reason=bindparam("why"),
        changed_by=bindparam("by"),
        changed_at=bindparam("at"),
    )
)
_BUSY: Final = select(func.count()).where(leases.c.worker_pk == workers.c.pk).scalar_subquery()
_ROW: Final = select(*(workers.c[name] for name in _COLUMNS), _BUSY)
_GET: Final = Statement(_ROW.where(workers.c.id == key("id")))
_BY_KEY: Final = Statement(_ROW.where(workers.c.pk == key("pk")))
_ALL: Final = Statement(
    _ROW.where(or_(workers.c.state != "gone", workers.c.seen_at >= key("since"))).order_by(
        workers.c.started_at, workers.c.pk
    )
)
_FAULTS: Final = Statement(
    select(worker_faults.c.at, worker_faults.c.why)
    .where(worker_faults.c.host_id == key("host"))
    .order_by(worker_faults.c.pk)
)
_ADD_FAULT: Final = Statement(
    insert(worker_faults).values(host_id=bindparam("host"), at=bindparam("at"), why=bindparam("why"))
)
_FORGET_OLD: Final = Statement(
    delete(worker_faults).where(worker_faults.c.host_id == key("host"), worker_faults.c.at < key("before"))
)
_FORGET_FAULTS: Final = Statement(
    delete(worker_faults).where(
        worker_faults.c.host_id
        == select(workers.c.host_id).where(workers.c.pk == key("pk")).scalar_subquery()
    )
)
_FORGET: Final = Statement(
    delete(workers)
    .where(
        workers.c.pk.in_(
            select(workers.c.pk)
            .where(
                workers.c.state == "gone",
                workers.c.seen_at < key("before"),
                ~exists().where(leases.c.worker_pk == workers.c.pk),
            )
            .order_by(workers.c.pk)
            .limit(bindparam("most"))
        )
    )
    .returning(workers.c.pk)
)
_FORGET_SEAT: Final = Statement(delete(seats).where(seats.c.worker_pk == key("pk")))
_FORGET_WITH_THEM: Final = (
    Statement(delete(worker_faults).where(worker_faults.c.at < key("before"))),
    Statement(delete(checks).where(checks.c.checked_at < key("before"))),
)
_CHECK_COLUMNS: Final = ("name", "status", "version", "capabilities", "problems", "checked_at", "stamp")
_FORGET_CHECK: Final = Statement(
    delete(checks).where(checks.c.host_id == key("host"), checks.c.name == key("name"))
)
_ADD_CHECK: Final = Statement(insert(checks))
_CHECKS: Final = Statement(
    select(*(checks.c[name] for name in _CHECK_COLUMNS))
    .where((text_key("host").is_(None)) | (checks.c.host_id == key("host")))
    .order_by(checks.c.name, checks.c.host_id)
)


class SqlWorkerTable:
    """See `ports.worker_tables.WorkerTable`."""

    __slots__ = ("_context", "_link")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._link = context.link

    def add(self, worker: Worker, *, quarantine_after: int = 0) -> Worker:
        """See the port."""
        if reason := self._why_failing(worker.host_id, worker.started_at, quarantine_after):
            worker = replace(
                worker, state="quarantined", reason=reason, changed_by=QUARANTINED_BY,
                changed_at=worker.started_at,
            )  # fmt: skip
        values = {name: getattr(worker, name) for name in _COLUMNS}
        values |= {"backends": dump(worker.backends), "labels": dump(dict(worker.labels))}
        values |= {"places": dump(worker.places)}
        row = self._link.one(_ADD, **values)
        assert row is not None  # noqa: S101 -- INSERT … RETURNING always has one
        return replace(worker, pk=row[0])

    def beat(self, pk: int, at: int) -> None:
        """See the port."""
        self._link.run(_BEAT, key_pk=pk, at=at)

    def set_state(self, worker_id: WorkerId, state: str, at: int) -> None:
        """See the port."""
        worker = self.get(worker_id)
        if state == "active":
            state = back(worker.reason, worker.changed_by)
        self._link.run(_SET_STATE, key_id=worker_id, new_state=state, at=at)

    def act(self, worker_id: WorkerId, action: Action, *, by: str, reason: str | None, at: int) -> Worker:
        """See the port."""
        worker = self.get(worker_id)
        state = acted(worker.state, action)
        if action == "release":
            self._link.run(_FORGET_FAULTS, key_pk=worker.pk)
        if state == worker.state:
            return worker
        why = (reason or f"drained by {by}") if state == "draining" else None
        self._change(worker.pk, state, why, by, at)
        return self.get(worker_id)

    def fault(self, pk: int, why: str, at: int, *, quarantine_after: int) -> bool:
        """See the port."""
        row = self._link.one(_BY_KEY, key_pk=pk)
        if row is None:
            return False
        worker = _worker(row)
        self._link.run(_FORGET_OLD, key_host=worker.host_id, key_before=at - QUARANTINE_WITHIN_MS)
        self._link.run(_ADD_FAULT, host=worker.host_id, at=at, why=why)
        reason = self._why_failing(worker.host_id, at, quarantine_after)
        if reason is None or worker.state not in {"active", "draining"}:
            return False
        self._change(pk, "quarantined", reason, QUARANTINED_BY, at)
        return True

    def went_well(self, pk: int) -> None:
        """See the port."""
        self._link.run(_FORGET_FAULTS, key_pk=pk)

    def get(self, worker_id: WorkerId) -> Worker:
        """One of them, gone or not. Raises NotFound."""
        row = self._link.one(_GET, key_id=worker_id)
        if row is None:
            raise NotFound(f"no worker {worker_id}", mend="overnight workers list --all shows them")
        return _worker(row)

    def knows(self, worker_id: WorkerId) -> bool:
        """Whether there is, or was, a worker of that id."""
        return self._link.one(_GET, key_id=worker_id) is not None

    def _change(self, pk: int, state: str, why: str | None, by: str, at: int) -> None:
        self._link.run(_CHANGE, key_pk=pk, new_state=state, why=why, by=by, at=at)
        self._context.wake(QUEUE)

    def _why_failing(self, host_id: HostId, at: int, quarantine_after: int) -> str | None:
        """The reason for a quarantine, where there is one."""
        faults = self._link.all(_FAULTS, key_host=host_id)
        if not keeps_failing([row[0] for row in faults], at, quarantine_after):
            return None
        return f"{len(faults)} failures in a row, the last: {faults[-1][1]}"

    def all(self) -> tuple[Worker, ...]:
        """See the port."""
        since = self._context.clock.wall_ms() - _SHOWN_GONE_MS
        return tuple(map(_worker, self._link.all(_ALL, key_since=since)))

    def forget(self, before: int, limit: int) -> int:
        """See the port."""
        for statement in _FORGET_WITH_THEM:
            self._link.run(statement, key_before=before)
        gone = self._link.all(_FORGET, key_before=before, most=limit)
        for (pk,) in gone:
            self._link.run(_FORGET_SEAT, key_pk=pk)
        return len(gone)

    def save_check(self, host_id: HostId, check: BackendCheck) -> None:
        """See the port."""
        self._link.run(_FORGET_CHECK, key_host=host_id, key_name=check.name)
        self._link.run(
            _ADD_CHECK,
            host_id=host_id,
            name=check.name,
            status=check.status,
            version=check.version,
            capabilities=dump(asdict(check.capabilities)),
            problems=dump([problem.to_json() for problem in check.problems]),
            checked_at=check.checked_at,
            stamp=check.stamp,
        )

    def checks(self, host_id: HostId | None) -> tuple[BackendCheck, ...]:
        """See the port."""
        return tuple(map(_check, self._link.all(_CHECKS, key_host=host_id)))


def _worker(row: Row) -> Worker:
    *columns, busy = row
    values = dict(zip(_COLUMNS, columns, strict=True))
    values |= {"backends": tuple(orjson.loads(values["backends"])), "labels": load(values["labels"])}
    values |= {"places": tuple(orjson.loads(values["places"]))}
    return Worker(**values, busy=busy)


def _check(row: Row) -> BackendCheck:
    values = dict(zip(_CHECK_COLUMNS, row, strict=True))
    found = load(values["capabilities"])
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    values["capabilities"] = Capabilities(**found)
    values["problems"] = tuple(Problem(**problem) for problem in orjson.loads(values["problems"]))
    return BackendCheck(**values)
