"""The readers: a few threads, each with a connection of its own, each query on a snapshot of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from overnight.ports.unit_of_work import Unit
from overnight.stores.sql import outcomes
from overnight.stores.sql.statements import Link
from overnight.stores.sql.transaction import SqlTransaction

T = TypeVar("T")
COUNT: Final = 3


class Readers:
    """Runs queries beside the writer. Connections are opened when first needed."""

    def __init__(self, open_link: Callable[[], tuple[Link, SqlTransaction]]) -> None:
        self._open = open_link
        self._own = threading.local()
        self._links: list[Link] = []
        self.pool: Final = ThreadPoolExecutor(COUNT, thread_name_prefix="overnight-reader")

    def run(self, query: Unit[T]) -> T:
        """On a thread of the pool: one snapshot for the whole query, which may only read.

        Raises what the query raises, and Unavailable when the disk fails.
        """
        try:
            return self._run(query)
        except Exception as error:
            if outcomes.is_storage_failure(error):
                raise outcomes.in_query(error) from error
            raise

    def _run(self, query: Unit[T]) -> T:
        found: tuple[Link, SqlTransaction] | None = getattr(self._own, "found", None)
        if found is None:
            found = self._own.found = self._open()
            self._links.append(found[0])
        link, transaction = found
        link.script("BEGIN")
        try:
            return query(transaction)
        finally:
            transaction.take_notices()
            link.script("ROLLBACK")

    def close(self) -> None:
        """Wait for the queries that run, then close all connections. Blocks."""
        self.pool.shutdown(wait=True)
        for link in self._links:
            link.close()
        self._links.clear()
