"""Workers and cached backend checks."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Final

import orjson
from sqlalchemy import bindparam, delete, insert, or_, select, update

from overnight.domain.backend import BackendCheck, Capabilities, Problem
from overnight.domain.worker import Worker
from overnight.errors import NotFound
from overnight.ids import HostId, WorkerId
from overnight.stores.sql.context import Context
from overnight.stores.sql.rows import dump, load
from overnight.stores.sql.schema import checks, workers
from overnight.stores.sql.statements import Row, Statement, key, text_key

_SHOWN_GONE_MS: Final = 3_600_000
_COLUMNS: Final = (
    "pk", "id", "host_id", "host_name", "pid", "version", "slots", "backends", "labels", "state",
    "started_at", "seen_at",
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
_ALL: Final = Statement(
    select(*(workers.c[name] for name in _COLUMNS))
    .where(or_(workers.c.state != "gone", workers.c.seen_at >= key("since")))
    .order_by(workers.c.started_at, workers.c.pk)
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
    """See `ports.tables.WorkerTable`."""

    __slots__ = ("_context", "_link")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._link = context.link

    def add(self, worker: Worker) -> Worker:
        """See the port."""
        values = {name: getattr(worker, name) for name in _COLUMNS}
        values |= {"backends": dump(worker.backends), "labels": dump(dict(worker.labels))}
        row = self._link.one(_ADD, **values)
        assert row is not None  # noqa: S101 -- INSERT … RETURNING always has one
        return replace(worker, pk=row[0])

    def beat(self, pk: int, at: int) -> None:
        """See the port."""
        self._link.run(_BEAT, key_pk=pk, at=at)

    def set_state(self, worker_id: WorkerId, state: str, at: int) -> None:
        """See the port. Raises NotFound."""
        if self._link.run(_SET_STATE, key_id=worker_id, new_state=state, at=at) != 1:
            raise NotFound(f"no worker {worker_id}")

    def all(self) -> tuple[Worker, ...]:
        """See the port."""
        since = self._context.clock.wall_ms() - _SHOWN_GONE_MS
        return tuple(map(_worker, self._link.all(_ALL, key_since=since)))

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
    values = dict(zip(_COLUMNS, row, strict=True))
    values |= {"backends": tuple(orjson.loads(values["backends"])), "labels": load(values["labels"])}
    return Worker(**values)


def _check(row: Row) -> BackendCheck:
    values = dict(zip(_CHECK_COLUMNS, row, strict=True))
    found = load(values["capabilities"])
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    values["capabilities"] = Capabilities(**found)
    values["problems"] = tuple(Problem(**problem) for problem in orjson.loads(values["problems"]))
    return BackendCheck(**values)
