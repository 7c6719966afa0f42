"""What is said to Postgres past psycopg's cursors: statements that go one way together, their results the other.

A cursor of psycopg takes some 70 µs of the processor for a statement, libpq itself three. So what is told and asked all
the time goes by libpq's pipeline mode. Everything here is about one connection, which belongs to one thread at a time;
psycopg's own calls may be used in between, after `rest`.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Final

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format
from psycopg.pq.abc import PGresult

from overnight.stores.sql.postgres_watch import Watched
from overnight.stores.sql.statements import Row

NUL, SHOWN_NUL = "\0", "\N{REPLACEMENT CHARACTER}"
"""Postgres keeps no NUL in a text. Whoever writes or asks for one gets the sign for what cannot be shown."""
Parameter = bytes | None
Then = Callable[[PGresult], None]
_FULL: Final = 32_768
"""Bytes of parameters after which a message is closed, before libpq sends half of it by itself."""
_LONGEST_NAME: Final = 40


class Wire:
    """Sends and collects. Every text of SQL is prepared when it is first sent, under a name that begins like it."""

    __slots__ = (
        "_bytes", "_connection", "_loaders", "_names", "_open", "_pg", "_prepared", "_readable", "_ready",
        "_waiting", "behind",
    )  # fmt: skip

    def __init__(self, connection: Watched) -> None:
        self._connection = connection
        self._pg = connection.pgconn
        self._readable, self._ready = select.poll(), select.poll()
        self._readable.register(self._pg.socket, select.POLLIN)
        self._ready.register(self._pg.socket, select.POLLIN | select.POLLOUT)
        self._prepared = count()
        self._names: dict[str, bytes] = {}
        self._loaders: dict[str, psycopg.abc.Transformer] = {}
        self._waiting: deque[str | Then | None] = deque()
        """What was sent and has no result yet: a text that is prepared, or a statement and what to do then."""
        self._open = 0
        """Messages that were closed and not answered yet."""
        self._bytes = 0
        """Of parameters, roughly, in the message that was not closed yet."""
        self.behind = 0
        """After an error: how many statements were sent behind the one that failed first."""

    def send(
        self,
        sql: str,
        parameters: Sequence[Parameter] = (),
        bytes_at: Sequence[bool] = (),
        then: Then | None = None,
    ) -> None:
        """Have a statement executed behind those that were sent before; its message is closed by `collect` or `close`.

        Parameters are texts, those at `bytes_at` are bytes. Whoever says what to do `then` gets the result when it is
        collected, and must neither fail nor send anything. Raises psycopg.Error for a lost connection.
        """
        pg = self._pg
        if pg.pipeline_status == _OFF:
            pg.enter_pipeline_mode()
        name = self._names.get(sql)
        if name is None:
            name = self._prepare(sql)
        pg.send_query_prepared(name, parameters, bytes_at or None, _BINARY)
        self._waiting.append(then)
        self._bytes += 64 + sum(map(len, filter(None, parameters)))
        if self._bytes > _FULL:
            self.close()

    def _prepare(self, sql: str) -> bytes:
        start = " ".join(sql.split(None, 4)[:4])[:_LONGEST_NAME]
        name = self._names[sql] = f"{start} {next(self._prepared)}".encode()
        self._pg.send_prepare(name, sql.encode())
        self._waiting.append(sql)
        return name

    def close(self) -> None:
        """Let the server answer, without waiting for it. Until it may, it does not count the session as one that stands
        still: a process that was stopped then would keep all others from writing.
        """
        self._pg.pipeline_sync()
        self._open += 1
        self._bytes = 0

    def collect(self) -> list[PGresult]:
        """The results of all that was sent, in its order, but for those that somebody has got who said what to do then.
        Raises psycopg.Error: the first, when all have come.
        """
        if self._bytes or self._waiting:
            self.close()
        self.behind = 0
        found: list[PGresult] = []
        first: PGresult | None = None
        self._connection.waiting_since = time.monotonic()
        try:
            while self._open:
                result = self._next()
                failed = None if result is None else self._take(result, found)
                if first is None and failed is not None:
                    first, self.behind = failed, sum(not isinstance(each, str) for each in self._waiting)
        except psycopg.OperationalError as lost:
            raise self._error(first) if first is not None else lost from None
        finally:
            self._connection.waiting_since = None
        if first is not None:
            raise self._error(first)
        return found

    def _next(self) -> PGresult | None:
        """The next result, or None behind each; raises psycopg.OperationalError for a lost connection."""
        pg = self._pg
        while pg.is_busy():
            (self._ready if pg.flush() else self._readable).poll()
            pg.consume_input()
        result = pg.get_result()
        if result is None and pg.status == ConnStatus.BAD:
            raise psycopg.OperationalError("the connection is lost")
        return result  # None stands behind the results of every statement

    def _take(self, result: PGresult, found: list[PGresult]) -> PGresult | None:
        """Count a result; it comes back when it is an error."""
        status = result.status
        if status == ExecStatus.PIPELINE_SYNC:
            self._open -= 1
            return None
        sent = self._waiting.popleft() if self._waiting else None
        if isinstance(sent, str):
            if status not in _GOOD:
                self._names.pop(sent, None)
        elif status in _GOOD:
            (sent or found.append)(result)
        if status in _GOOD:
            return None
        if status == ExecStatus.PIPELINE_ABORTED:
            return None
        return result

    def _error(self, result: PGresult) -> psycopg.Error:
        if not result.error_field(DiagnosticField.SQLSTATE):
            return psycopg.OperationalError(result.get_error_message())
        return psycopg.errors.error_from_result(result)

    def rows(self, sql: str, result: PGresult) -> list[Row]:
        """What a result of the statement says."""
        loader = self._loaders.get(sql)
        if loader is None:
            loader = self._loaders[sql] = Transformer(self._connection)
            loader.set_pgresult(result)
        else:
            loader.set_pgresult(result, set_loaders=False)
        rows = loader.load_rows(0, result.ntuples, tuple)
        loader.set_pgresult(None, set_loaders=False)  # it would keep the result until the next one
        return rows

    def rest(self) -> None:
        """Leave the connection to psycopg's own calls. Raises psycopg.Error when something that was sent has failed."""
        try:
            if self._waiting or self._open:
                self.collect()
        finally:
            if self._pg.pipeline_status != _OFF and self._pg.status == ConnStatus.OK:
                self._pg.exit_pipeline_mode()


_OFF: Final = psycopg.pq.PipelineStatus.OFF
_BINARY: Final = Format.BINARY
_GOOD: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


def parameters(values: Iterable[object]) -> list[Parameter]:
    """Values as they are sent; numbers as text, for the statement says their types. Raises TypeError, UnicodeError."""
    return [
        None
        if value is None
        else value.encode()
        if value.__class__ is str and NUL not in value
        else _other(value)
        for value in values
    ]


def _other(value: object) -> bytes:
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, str):
        return value.replace(NUL, SHOWN_NUL).encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return repr(value).encode()
    raise TypeError(f"a {type(value).__name__} cannot be a parameter")
