"""The unit of work on one Postgres database, which many servers and workers share."""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, cast

import psycopg
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from overnight.clock import Clock
from overnight.errors import OvernightError
from overnight.ports.notifier import Notifier
from overnight.stores.sql import postgres_outcomes, postgres_schema
from overnight.stores.sql.changes import LAST
from overnight.stores.sql.copying import MARKS
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.postgres_link import PostgresLink
from overnight.stores.sql.schema import installation
from overnight.stores.sql.statements import Link, Statement
from overnight.stores.sql.store import SqlStore
from overnight.stores.sql.transaction import SqlTransaction

PATIENCE_S: Final = 8.0
"""How long a write or a query waits for a server that is away (a restart, a failover), before it is refused."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0


MOST_MS: Final = 6_000
"""How long one writing transaction may take once it is its turn. A session that is cut off or stopped in the middle of
a pipeline is neither idle nor in a statement, so no other limit of the server ends it, and nobody else could write.
"""
_BOUNDED_SINCE: Final = 170_000
"""The Postgres that knows `transaction_timeout`; before, only a lost connection ends such a session."""
_BOUNDED: Final = (
    postgres_schema.BEGUN[0],
    f"{postgres_schema.BEGUN[1]}, set_config('transaction_timeout', '{MOST_MS}', true)",
)
"""From the moment at which it is its turn: what stands in one list is done one after the other."""
_KEPT_MS: Final = 24 * 3_600_000
"""Marks older than this belong to no writer that is still there."""
_ADD_MARK: Final = insert(installation).values(key=bindparam("key"), value=bindparam("value"))
_MARK: Final = Statement(
    _ADD_MARK.on_conflict_do_update(index_elements=["key"], set_={"value": _ADD_MARK.excluded.value})
)
_MARKED: Final = "SELECT 1 FROM installation WHERE key = $1 AND value = $2"
_FORGET: Final = f"DELETE FROM installation WHERE key LIKE '{MARKS}%' AND value < $1 RETURNING key"  # noqa: S608 -- our own words


class PostgresGround:
    """See `Ground`. A server that is away is waited for a little, and then tried again with growing pauses."""

    def __init__(self, connections: PostgresConnections, clock: Clock, lease_clock: Clock) -> None:
        self._connections = connections
        self._clock = clock
        self._lease_clock = lease_clock
        self._outcomes = postgres_outcomes.Outcomes(connections.address)
        self._away: dict[int, _Away] = {}
        self._name = f"{MARKS}{secrets.token_hex(8)}"
        self._mark = 0
        self.closing: Final = threading.Event()

    def open(self, *, writing: bool) -> tuple[Link, SqlTransaction]:
        """See `Ground`."""
        away = self._away.setdefault(threading.get_ident(), _Away())
        link = away.until_back(lambda: self._connections.open(writing=writing), self.closing)
        return link, SqlTransaction(link, self._clock, self._lease_clock)

    def begin(self, link: Link) -> None:
        """See `Ground`."""
        our = cast("PostgresLink", link)
        bounded = our.raw.info.server_version >= _BOUNDED_SINCE
        our.begin(_BOUNDED if bounded else postgres_schema.BEGUN, LAST)

    def seal(self, link: Link) -> None:
        """See `Ground`. The mark is the batch's own: nobody else leaves the same, not even after a crash, when the
        server gives the numbers of transactions that it has lost to others. What has changed nothing needs none: it may
        be run again in any case; and without a mark its commit writes nothing to the disk.
        """
        link.make_way(None, writes=False)
        our = cast("PostgresLink", link)
        if not (our.changed or our.unheard):
            return
        self._mark = max(self._mark + 1, self._clock.wall_ms())
        link.tell(_MARK, key=self._name, value=str(self._mark))

    def fate(self, link: Link) -> bool | None:
        """See `Ground`. Asked under the lock of all writers: so the transaction in doubt is over, if only because the
        server ends it when it stands still.
        """
        try:
            link.script(postgres_schema.BEGIN)
            return bool(link.rows(_MARKED, self._name, str(self._mark)))
        finally:
            link.script("ROLLBACK")

    def forget(self) -> None:
        """Take away the marks of writers that are no more. Raises psycopg.Error."""
        link = self._connections.open(writing=True)
        try:
            link.script(postgres_schema.BEGIN)
            link.rows(_FORGET, str(self._clock.wall_ms() - _KEPT_MS))
            link.script("COMMIT")
        finally:
            link.close()

    def is_storage_failure(self, error: Exception) -> bool:
        """See `Ground`."""
        return postgres_outcomes.is_storage_failure(error)

    def is_cut(self, error: Exception) -> bool:
        """See `Ground`."""
        return postgres_outcomes.is_cut(error)

    def in_unit(self, error: Exception) -> OvernightError:
        """See `Ground`."""
        return self._outcomes.in_unit(error)

    def at_commit(self, error: Exception) -> OvernightError:
        """See `Ground`."""
        return self._outcomes.at_commit(error)

    def in_query(self, error: Exception) -> OvernightError:
        """See `Ground`."""
        return self._outcomes.in_query(error)

    def at_start(self, error: Exception) -> OvernightError:
        """A database that cannot be reached or used when the store starts."""
        return self._outcomes.at_start(error)


class PostgresStore(SqlStore):
    """See `ports.unit_of_work.Store`. `url` is a libpq address (`postgresql://…`), whose password is shown nowhere.

    All writing goes under one advisory lock, so that the order of `change` is the order of commits, as on SQLite.
    `lease_check_clock` is the boot-time clock by which leases are trusted, where that is not `clock`.

    A server that is away for a short time (restart, failover) is waited for; then `Unavailable` is raised until it is
    back. Nothing needs to be restarted.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        notifier: Notifier,
        *,
        lease_check_clock: Clock | None = None,
    ) -> None:
        self._connections = PostgresConnections(url)
        self._ground = PostgresGround(self._connections, clock, lease_check_clock or clock)
        super().__init__(self._ground, notifier)

    async def close(self) -> None:
        """See the port. Whoever waits for a server that is away waits no longer."""
        self._ground.closing.set()
        self._connections.watch.leave()
        await super().close()
        self._connections.watch.stop()

    def _prepare(self) -> None:
        try:
            self._prepare_once_it_is_up()
            self._ground.forget()
            self._writer.start()
            self._connections.watch.start()
        except self._connections.errors as error:
            raise self._ground.at_start(error) from None  # the library's words may repeat the address

    def _prepare_once_it_is_up(self) -> None:
        over = time.monotonic() + PATIENCE_S
        while True:
            try:
                postgres_schema.prepare(self._connections)
            except self._connections.errors as error:
                if not postgres_outcomes.is_coming_up(error) or time.monotonic() > over:
                    raise
                time.sleep(_LONGEST_PAUSE_S / 10)
            else:
                return

    def free_bytes(self) -> int:
        """There is always room, as far as is known here: the server says by itself when there is none."""
        return sys.maxsize


class _Away:
    """A server that cannot be reached: since when, and when to try again. Belongs to one thread."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._again_at = 0.0
        self._pause = _FIRST_PAUSE_S
        self._error: psycopg.Error | None = None

    def until_back(self, connect: Callable[[], PostgresLink], closing: threading.Event) -> PostgresLink:
        """A connection, at the latest `PATIENCE_S` after the first failure; later on, one try a pause."""
        if closing.is_set():
            raise psycopg.OperationalError("the store is being closed")
        if self._error is not None and self._is_hopeless() and time.monotonic() < self._again_at:
            raise self._error
        while True:
            if self._since is None:
                self._since = time.monotonic()
            try:
                link = connect()
            except psycopg.OperationalError as error:
                self._again_at = time.monotonic() + self._pause
                self._error = error
                if self._is_hopeless() or closing.wait(self._pause):
                    raise
                self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
            else:
                self._since, self._pause, self._error = None, _FIRST_PAUSE_S, None
                return link

    def _is_hopeless(self) -> bool:
        return self._since is not None and time.monotonic() - self._since >= PATIENCE_S
