"""The readers: a few threads, each with a connection of its own, each query on a snapshot of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from overnight.ports.unit_of_work import Unit
from overnight.stores.sql.ground import Ground
from overnight.stores.sql.statements import Link
from overnight.stores.sql.transaction import SqlTransaction

T = TypeVar("T")
COUNT: Final = 3


class Readers:
    """Runs queries beside the writer. Connections are opened when first needed, and anew when they were cut."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._own = threading.local()
        self._links: list[Link] = []
        self.pool: Final = ThreadPoolExecutor(COUNT, thread_name_prefix="overnight-reader")

    def run(self, query: Unit[T]) -> T:
        """On a thread of the pool: one snapshot for the whole query, which may only read.

        Raises what the query raises, and Unavailable when the database fails.
        """
        try:
            return self._run_again_when_cut(query)
        except Exception as error:
            if self._ground.is_storage_failure(error):
                raise self._ground.in_query(error) from error
            raise

    def _run_again_when_cut(self, query: Unit[T]) -> T:
        is_old = self._found() is not None
        try:
            return self._run(query)
        except Exception as error:
            if not (is_old and self._ground.is_cut(error)):
                raise
        return self._run(query)

    def _run(self, query: Unit[T]) -> T:
        link, transaction = self._found() or self._open()
        try:
            link.open_snapshot()
            try:
                return query(transaction)
            finally:
                transaction.take_notices()
                link.close_snapshot()
        except Exception as error:
            if self._ground.is_storage_failure(error):
                self._drop(link)
            raise

    def _found(self) -> tuple[Link, SqlTransaction] | None:
        found: tuple[Link, SqlTransaction] | None = getattr(self._own, "found", None)
        return found

    def _open(self) -> tuple[Link, SqlTransaction]:
        found = self._own.found = self._ground.open(writing=False)
        self._links.append(found[0])
        return found

    def _drop(self, link: Link) -> None:
        """The next query of this thread opens another."""
        self._own.found = None
        self._links.remove(link)
        with suppress(Exception):  # it is given up
            link.close()

    def close(self) -> None:
        """Wait for the queries that run, then close all connections. Blocks."""
        self.pool.shutdown(wait=True)
        for link in self._links:
            link.close()
        self._links.clear()
