"""What a failure of Postgres, or of the way to it, means to whoever asked."""

from __future__ import annotations

from typing import Final

import psycopg

from overnight.errors import DiskFull, OutcomeUnknown, OvernightError, StartRefused, Unavailable
from overnight.stores.sql.postgres_connections import Address

_FULL: Final = "53100"
_FORBIDDEN: Final = "42501"
_THROWN_OUT: Final = ("25P03", "25P04", "40001", "40P01")
"""Sessions that stood still within a transaction for too long, and transactions that stood in another one's way."""
_OF_THE_SERVER: Final = ("08", "25", "40", "53", "55", "57", "58", "F0", "XX")
"""Classes of errors that say something about the server or the connection, and nothing about the statement."""

REACH: Final = (
    "look whether Postgres runs there, and whether user, password and database in the address are right"
)


def is_storage_failure(error: Exception) -> bool:
    """Whether the server or the way to it failed, rather than what was asked for."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:  # the library's own: a closed connection, a socket that broke
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return error.sqlstate.startswith(_OF_THE_SERVER)


def is_for_the_operator(error: Exception) -> bool:
    """Whether it is to be put right outside: the server, the way to it, or what our user may do there."""
    return is_storage_failure(error) or getattr(error, "sqlstate", None) == _FORBIDDEN


def is_cut(error: Exception) -> bool:
    """Whether the connection is gone: broken, ended by the server, or not to be had.

    Also when the server has ended a transaction for the sake of another one: the next try finds the way free.
    """
    if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P")) or error.sqlstate in _THROWN_OUT


def is_coming_up(error: Exception) -> bool:
    """Whether a server that refuses a connection says that it is about to take them (in English, as it does unless
    told otherwise): after a boot, a restart or a crash.
    """
    return any(
        words in str(error) for words in ("starting up", "shutting down", "not yet accepting", "recovery")
    )


class Outcomes:
    """Failures of one database in words that show no password."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def in_unit(self, error: Exception) -> OvernightError:
        """Before the commit: certainly not stored."""
        if getattr(error, "sqlstate", None) == _FULL:
            return DiskFull(
                f"nothing was stored: {self._words(error)}", mend="free some disk space on the server"
            )
        return Unavailable(f"nothing was stored: {self._words(error)}")

    def in_query(self, error: Exception) -> OvernightError:
        """While reading."""
        return Unavailable(f"the database could not be read: {self._words(error)}")

    def at_commit(self, error: Exception) -> OvernightError:
        """A failed commit. What the server itself has refused is not stored; when it said nothing, nobody knows."""
        state = getattr(error, "sqlstate", None)
        if state == _FULL or (state is not None and not state.startswith(("08", "57", "58", "XX"))):
            return self.in_unit(error)
        return OutcomeUnknown(
            f"the commit failed: {self._words(error)}", mend="read the state again before trying again"
        )

    def at_start(self, error: Exception) -> OvernightError:
        """A database that cannot be reached or used."""
        forbidden = getattr(error, "sqlstate", None) == _FORBIDDEN
        mend = "let our user own the database: ALTER DATABASE … OWNER TO …" if forbidden else REACH
        return StartRefused(f"{self._address} cannot be used: {self._words(error)}", mend=mend)

    def _words(self, error: Exception) -> str:
        return self._address.clean(str(error)) or type(error).__name__
