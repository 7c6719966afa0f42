"""The unit of work on one SQLite file."""

from __future__ import annotations

from pathlib import Path

from overnight.clock import Clock
from overnight.errors import OvernightError
from overnight.ports.notifier import Notifier
from overnight.stores.sql import migrate, outcomes
from overnight.stores.sql.connections import Connections, Synchronous
from overnight.stores.sql.lock import DataLock
from overnight.stores.sql.statements import Link
from overnight.stores.sql.store import SqlStore
from overnight.stores.sql.transaction import SqlTransaction


class SqliteGround:
    """See `Ground`."""

    def __init__(
        self, connections: Connections, folder: Path, clock: Clock, lease_clock: Clock, spare_bytes: int
    ) -> None:
        self._connections = connections
        self._folder = folder
        self._clock = clock
        self._lease_clock = lease_clock
        self._spare_bytes = spare_bytes

    def open(self, *, writing: bool) -> tuple[Link, SqlTransaction]:
        """See `Ground`."""
        link = self._connections.open(writing=writing)
        if writing and self._spare_bytes:
            self._connections.keep_room(link, self._spare_bytes)
        return link, SqlTransaction(link, self._clock, self._lease_clock)

    def begin(self, link: Link) -> None:
        """See `Ground`."""
        link.script("BEGIN IMMEDIATE")

    def seal(self, link: Link) -> None:
        """See `Ground`. What a failed commit has left is found out without a mark."""

    def fate(self, link: Link) -> bool | None:
        """See `Ground`. A failed fsync may leave in memory what never reached the disk, and count it as written; so
        what the log holds is copied into the database, which writes it once more.
        """
        link.script("PRAGMA wal_checkpoint(TRUNCATE)")
        return None

    def is_storage_failure(self, error: Exception) -> bool:
        """See `Ground`."""
        return outcomes.is_storage_failure(error)

    def is_cut(self, error: Exception) -> bool:  # noqa: ARG002 -- a file does not hang up
        """See `Ground`."""
        return False

    def in_unit(self, error: Exception) -> OvernightError:
        """See `Ground`."""
        return outcomes.in_unit(error, self._folder)

    def at_commit(self, error: Exception) -> OvernightError:
        """See `Ground`."""
        return outcomes.at_commit(error, self._folder)

    def in_query(self, error: Exception) -> OvernightError:
        """See `Ground`."""
        return outcomes.in_query(error)


class SqliteStore(SqlStore):
    """See `ports.unit_of_work.Store`. Everything lies in `path` and SQLite's two files beside it.

    `start` before use, on the loop that will use it; `close` after. `lease_check_clock` is the boot-time clock by
    which leases are trusted, where that is not `clock`. `synchronous="NORMAL"` is many times faster and may lose the
    last moments in a power cut (never in a crash of the program). `spare_bytes` of disk are taken in advance, so that
    a full disk does not stop what must go on; 0 takes nothing in advance.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        notifier: Notifier,
        *,
        lease_check_clock: Clock | None = None,
        synchronous: Synchronous = "FULL",
        spare_bytes: int = 0,
    ) -> None:
        self._path = path
        self._clock = clock
        self._lock = DataLock(path.parent, clock)
        self._connections = Connections(path, synchronous)
        super().__init__(
            SqliteGround(self._connections, path.parent, clock, lease_check_clock or clock, spare_bytes),
            notifier,
        )

    def _prepare(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            try:
                self._connections.make_private()
                migrate.prepare(self._path, self._connections, self._clock)
                self._writer.start()
            except self._connections.errors as error:
                raise outcomes.at_start(error, self._path) from error
        except BaseException:
            self._lock.release()
            raise

    def _let_go(self) -> None:
        self._lock.release()

    def free_bytes(self) -> int:
        """What the file system of the database has left; new work is refused below the operator's reserve."""
        return outcomes.free_bytes(self._path.parent)
