"""Leases: claiming, adopting, renewing, checking, dropping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Text, and_, bindparam, case, literal_column, select, text, tuple_, union, update

from overnight.clock import Clock
from overnight.domain.lease import DEFAULT_LEASE_S, Lease
from overnight.domain.queue_limits import QueueLimits
from overnight.domain.run import Run
from overnight.domain.states import HELD
from overnight.domain.values import WaitingFor
from overnight.domain.worker import Lane, Offer
from overnight.errors import LeaseLost
from overnight.ids import HostId
from overnight.ports.tables import Held, Standing
from overnight.stores.sql.changes import next_change
from overnight.stores.sql.claims import claim
from overnight.stores.sql.context import Context
from overnight.stores.sql.database_clock import database_now, told
from overnight.stores.sql.holds import end_hold, is_held, take_hold
from overnight.stores.sql.lanes import with_work
from overnight.stores.sql.room import Room
from overnight.stores.sql.rows import dump, dump_waiting, run_of
from overnight.stores.sql.run_pages import RUN_ROW, RUN_TABLES
from overnight.stores.sql.runs import SqlRunTable
from overnight.stores.sql.schema import leases, runs
from overnight.stores.sql.statements import Statement, key, numbers

_GIVEN: Final = numbers("key_tokens")
_LEAST: Final = key("least", leases.c.length.type)
_LENGTH: Final = case((leases.c.length < _LEAST, _LEAST), else_=leases.c.length)
"""A lease grows and never shrinks: its holder may count on what it was."""
_RENEW: Final = Statement(
    update(leases)
    .where(
        leases.c.worker_pk == key("worker"),
        tuple_(leases.c.run_pk, leases.c.token).in_(select(_GIVEN.c.key, _GIVEN.c.value)),
    )
    .values(renewal=leases.c.renewal + 1, length=_LENGTH, expires_at=database_now() + _LENGTH)
    .returning(leases.c.run_pk)
)
_TOUCH: Final = Statement(update(runs).where(runs.c.pk == key("pk")).values(change=key("change")))
_HELD: Final = union(
    select(leases.c.run_pk),
    select(runs.c.pk).where(text("runs.state IN ('running', 'pausing', 'blocked', 'cancelling')")),
)
"""By lease, and by state alone where a lease was given up before the end was confirmed. The words are those of the
partial index."""
_LASTING: Final = and_(
    leases.c.expires_at > database_now(), leases.c.expires_at - leases.c.length <= database_now()
)
"""An end that is farther away than the lease is long was written before the clock went back, and says nothing."""
_ALL_HELD: Final = Statement(
    select(
        *RUN_ROW,
        leases.c.worker_pk,
        leases.c.renewal,
        _LASTING,
    )
    .select_from(RUN_TABLES.outerjoin(leases, leases.c.run_pk == runs.c.pk))
    .where(runs.c.pk.in_(_HELD), key("host", Text()).is_(None) | (runs.c.host_id == key("host", Text())))
    .order_by(runs.c.pk)
)
_STANDING: Final = Statement(
    select(runs.c.pk, runs.c.token, leases.c.worker_pk, leases.c.renewal, _LASTING)
    .select_from(runs.outerjoin(leases, leases.c.run_pk == runs.c.pk))
    .where(runs.c.pk.in_(_HELD))
)
_WAITERS: Final = Statement(
    select(runs.c.pk, runs.c.waiting_for)
    .where(
        runs.c.lane == key("lane"),
        runs.c.state == literal_column("'queued'"),
        runs.c.gate.is_(None),
        runs.c.limited.is_(None),
    )
    .order_by(runs.c.priority.desc(), runs.c.due, runs.c.pk)
    .limit(bindparam("most"))
)
_EXPLAIN: Final = Statement(
    update(runs)
    .where(runs.c.pk == key("pk"))
    .values(waiting_for=bindparam("waiting"), change=bindparam("order"))
)


class SqlLeaseTable:
    """See `ports.tables.LeaseTable`. `clock` is the one by which leases are trusted."""

    __slots__ = ("_clock", "_context", "_link", "_runs")

    def __init__(self, context: Context, run_table: SqlRunTable, clock: Clock) -> None:
        self._context = context
        self._link = context.link
        self._runs = run_table
        self._clock = clock

    def claim(self, offer: Offer, now_ms: int) -> tuple[Run, ...]:
        """See the port."""
        return claim(self._context, offer, now_ms)

    def take(self, pk: int, worker_pk: int, expected_token: int, lease_s: float = DEFAULT_LEASE_S) -> Run:
        """See the port."""
        run = self._runs.lock(pk)
        if run.token != expected_token:
            raise LeaseLost(f"the run {run.id} is at token {run.token}, not {expected_token}")
        if run.state not in HELD and not is_held(self._link, pk):
            raise LeaseLost(f"nobody holds the run {run.id}, which is {run.state.value}")
        take_hold(self._context, pk, worker_pk, round(lease_s * 1000))
        self._link.run(_TOUCH, key_pk=pk, key_change=next_change(self._context))
        return self._runs.lock(pk)

    def renew(self, worker_pk: int, tokens: Mapping[int, int], least_s: float = 0.0) -> frozenset[int]:
        """See the port."""
        given = dump({str(pk): token for pk, token in tokens.items()})
        least = round(least_s * 1000)
        rows = self._link.all(
            _RENEW, key_worker=worker_pk, key_tokens=given, key_least=least, **told(self._context)
        )
        kept = {row[0] for row in rows}
        return frozenset(tokens) - kept

    def check(self, lease: Lease) -> Run:
        """See the port."""
        run = self._runs.lock(lease.run_pk)
        lease.check(self._clock.boot(), run.token)
        return run

    def drop(self, pk: int) -> None:
        """See the port."""
        end_hold(self._context, self._runs.lock(pk))

    def held(self, host_id: HostId | None = None) -> tuple[Held, ...]:
        """See the port."""
        return tuple(
            Held(run=run_of(row[:-3]), worker_pk=row[-3], renewal=row[-2] or 0, expired=not row[-1])
            for row in self._link.all(_ALL_HELD, key_host=host_id, **told(self._context))
        )

    def standing(self) -> tuple[Standing, ...]:
        """See the port."""
        return tuple(
            Standing(run_pk=pk, token=token, worker_pk=worker, renewal=renewal or 0, expired=not lasting)
            for pk, token, worker, renewal, lasting in self._link.all(_STANDING, **told(self._context))
        )

    def lanes(self) -> tuple[Lane, ...]:
        """See the port."""
        return with_work(self._context)

    def explain(self, lane_pk: int, waiting: WaitingFor | None, most: int) -> int:
        """See the port."""
        stale = self.unexplained(lane_pk, waiting, most)
        for pk in stale:
            order = next_change(self._context)
            self._link.run(_EXPLAIN, key_pk=pk, waiting=dump_waiting(waiting), order=order)
        return len(stale)

    def unexplained(self, lane_pk: int, waiting: WaitingFor | None, most: int) -> tuple[int, ...]:
        """See the port."""
        wanted = dump_waiting(waiting)
        found = self._link.all(_WAITERS, key_lane=lane_pk, most=most)
        return tuple(pk for pk, said in found if said != wanted)

    def full(self, limits: QueueLimits) -> Mapping[str, str]:
        """See the port."""
        return Room(self._context, limits, looking=True).full_backends()
