"""What the writer and the readers stand on: the ways of one database."""

from __future__ import annotations

from typing import Protocol

from overnight.errors import OvernightError
from overnight.stores.sql.statements import Link
from overnight.stores.sql.transaction import SqlTransaction


class Ground(Protocol):
    """One database, as far as connections, transactions and failures go. Called from several threads."""

    def open(self, *, writing: bool) -> tuple[Link, SqlTransaction]:
        """A new connection. Raises the library's error, or one of ours."""
        ...

    def begin(self, link: Link) -> None:
        """Begin a writing transaction."""
        ...

    def seal(self, link: Link) -> None:
        """Before its commit: leave what `fate` goes by."""
        ...

    def fate(self, link: Link) -> bool | None:
        """On a new connection after a commit that failed: whether it took place; None when nobody can tell. What it
        may have left is truly there from now on, or truly not.
        """
        ...

    def is_storage_failure(self, error: Exception) -> bool:
        """Whether the database failed, so that it may have ended the whole transaction by itself."""
        ...

    def is_cut(self, error: Exception) -> bool:
        """Whether the connection is gone, so that a new one may do better."""
        ...

    def in_unit(self, error: Exception) -> OvernightError:
        """What such a failure before the commit means: certainly not stored."""
        ...

    def at_commit(self, error: Exception) -> OvernightError:
        """What a failed commit means."""
        ...

    def in_query(self, error: Exception) -> OvernightError:
        """What a failure while reading means."""
        ...
