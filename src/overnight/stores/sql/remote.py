"""Workers that have no database: their seats, and the last batch of each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson
from sqlalchemy import bindparam, insert, literal_column, select, update

from overnight.domain.worker import Worker
from overnight.errors import Forbidden
from overnight.ids import WorkerId
from overnight.ports.remote import Holder, LastBatch, Seat
from overnight.stores.sql.context import Context
from overnight.stores.sql.database_clock import database_now, told
from overnight.stores.sql.remote_schema import last_batches, seats
from overnight.stores.sql.rows import dump
from overnight.stores.sql.schema import leases
from overnight.stores.sql.statements import Row, Statement, key
from overnight.stores.sql.worker_schema import workers
from overnight.stores.sql.workers import SqlWorkerTable

_SEAT_COLUMNS: Final = (seats.c.token_pk, seats.c.request_id, seats.c.granted, workers.c.id)
_SEAT: Final = Statement(
    select(*_SEAT_COLUMNS)
    .select_from(seats.join(workers, workers.c.pk == seats.c.worker_pk))
    .where(workers.c.id == key("id"))
)
_SEATS: Final = Statement(
    select(*_SEAT_COLUMNS)
    .select_from(seats.join(workers, workers.c.pk == seats.c.worker_pk))
    .where(seats.c.host_id == key("host"), seats.c.token_pk == key("token"))
    .order_by(seats.c.worker_pk)
)
_SIT: Final = Statement(
    insert(seats).values(
        worker_pk=bindparam("worker"), token_pk=bindparam("token"), host_id=bindparam("host"),
        request_id=literal_column("''"), granted=literal_column("'{}'"),
    )
)  # fmt: skip
_GRANT: Final = Statement(
    update(seats)
    .where(seats.c.worker_pk == key("worker"))
    .values(request_id=bindparam("request"), granted=bindparam("runs"))
)
_HOLDER: Final = Statement(
    select(leases.c.worker_pk, leases.c.token, leases.c.expires_at < database_now()).where(
        leases.c.run_pk == key("run")
    )
)
_LAST: Final = Statement(
    select(last_batches.c.token, last_batches.c.n, last_batches.c.digest).where(
        last_batches.c.run_pk == key("run")
    )
)
_APPLIED: Final = Statement(
    update(last_batches)
    .where(last_batches.c.run_pk == key("run"))
    .values(token=bindparam("now"), n=bindparam("number"), digest=bindparam("hash"))
)
_FIRST: Final = Statement(insert(last_batches))


class SqlRemoteTable:
    """See `ports.remote.RemoteTable`."""

    __slots__ = ("_context", "_link", "_workers")

    def __init__(self, context: Context, worker_table: SqlWorkerTable) -> None:
        self._context = context
        self._link = context.link
        self._workers = worker_table

    def seat(self, worker_id: WorkerId) -> Seat | None:
        """See the port."""
        return next(iter(self._seated(self._link.all(_SEAT, key_id=worker_id))), None)

    def _seated(self, rows: list[Row]) -> tuple[Seat, ...]:
        return tuple(
            Seat(
                worker=self._workers.get(worker_id), token_pk=token_pk, request_id=request_id,
                granted={int(pk): token for pk, token in orjson.loads(granted).items()},
            )
            for token_pk, request_id, granted, worker_id in rows
        )  # fmt: skip

    def sit(self, worker: Worker, token_pk: int, *, quarantine_after: int = 0) -> Seat:
        """See the port."""
        seat = self.seat(worker.id)
        if seat is None:
            if self._workers.knows(worker.id):
                raise Forbidden("that id belongs to a worker that reaches the database")
            stored = self._workers.add(worker, quarantine_after=quarantine_after)
            self._link.run(_SIT, worker=stored.pk, token=token_pk, host=stored.host_id)
            return Seat(worker=stored, token_pk=token_pk)
        if seat.token_pk != token_pk or seat.worker.host_id != worker.host_id:
            raise Forbidden("that worker came with another token, or from another host")
        return seat

    def seats(self, host_id: str, token_pk: int) -> tuple[Seat, ...]:
        """See the port."""
        return self._seated(self._link.all(_SEATS, key_host=host_id, key_token=token_pk))

    def grant(self, worker_pk: int, request_id: str, granted: Mapping[int, int]) -> None:
        """See the port."""
        runs = dump({str(pk): token for pk, token in granted.items()})
        self._link.run(_GRANT, key_worker=worker_pk, request=request_id, runs=runs)

    def holder(self, run_pk: int) -> Holder | None:
        """See the port."""
        row = self._link.one(_HOLDER, key_run=run_pk, **told(self._context))
        return None if row is None else Holder(worker_pk=row[0], token=row[1], expired=bool(row[2]))

    def last_batch(self, run_pk: int) -> LastBatch | None:
        """See the port."""
        row = self._link.one(_LAST, key_run=run_pk)
        return None if row is None else LastBatch(token=row[0], n=row[1], digest=row[2])

    def applied(self, run_pk: int, batch: LastBatch) -> None:
        """See the port."""
        values = {"now": batch.token, "number": batch.n, "hash": batch.digest}
        if self._link.run(_APPLIED, key_run=run_pk, **values) == 0:
            self._link.run(_FIRST, run_pk=run_pk, token=batch.token, n=batch.n, digest=batch.digest)
