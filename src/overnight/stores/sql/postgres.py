"""The unit of work on one Postgres database, which many servers and workers share."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg

from overnight.clock import Clock
from overnight.errors import OvernightError
from overnight.ports.notifier import Notifier
from overnight.stores.sql import outcomes, postgres_outcomes, postgres_schema
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.postgres_link import PostgresLink
from overnight.stores.sql.statements import Link
from overnight.stores.sql.store import SqlStore
from overnight.stores.sql.transaction import SqlTransaction

PATIENCE_S: Final = 5.0
"""How long a write or a query waits for a server that is away (a restart, a failover), before it is refused."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0


class PostgresGround:
    """See `Ground`. A server that is away is waited for a little, and then tried again with growing pauses."""

    begin = postgres_schema.BEGIN

    def __init__(self, connections: PostgresConnections, clock: Clock, lease_clock: Clock) -> None:
        self._connections = connections
        self._clock = clock
        self._lease_clock = lease_clock
        self._outcomes = postgres_outcomes.Outcomes(connections.address)
        self._away: dict[int, _Away] = {}
        self.closing: Final = threading.Event()

    def open(self, *, writing: bool) -> tuple[Link, SqlTransaction]:
        """See `Ground`."""
        away = self._away.setdefault(threading.get_ident(), _Away())
        link = away.until_back(lambda: self._connections.open(writing=writing), self.closing)
        return link, SqlTransaction(link, self._clock, self._lease_clock)

    def recover(self, link: Link) -> None:
        """See `Ground`. The server has done it by itself."""

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
    `lease_check_clock` is the boot-time clock by which leases are trusted, where that is not `clock`. `folder` is
    where this machine keeps its own files: its room counts, as the server's is not known here.

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
        folder: Path | None = None,
    ) -> None:
        self._connections = PostgresConnections(url)
        self._ground = PostgresGround(self._connections, clock, lease_check_clock or clock)
        self._folder = folder
        super().__init__(self._ground, notifier)

    async def close(self) -> None:
        """See the port. Whoever waits for a server that is away waits no longer."""
        self._ground.closing.set()
        await super().close()

    def _prepare(self) -> None:
        try:
            postgres_schema.prepare(self._connections)
            self._writer.start()
        except self._connections.errors as error:
            raise self._ground.at_start(error) from None  # the library's words may repeat the address

    def free_bytes(self) -> int:
        """What the file system of `folder` has left; without one there is always room."""
        return sys.maxsize if self._folder is None else outcomes.free_bytes(self._folder)


class _Away:
    """A server that cannot be reached: since when, and when to try again. Belongs to one thread."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._again_at = 0.0
        self._pause = _FIRST_PAUSE_S
        self._error: psycopg.Error | None = None

    def until_back(self, connect: Callable[[], PostgresLink], closing: threading.Event) -> PostgresLink:
        """A connection, at the latest `PATIENCE_S` after the first failure; later on, one try a pause."""
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
