"""A connection to Postgres that says and hears notices on the loop, with as little between as there can be.

The library's own cursors take half a millisecond of processor time for one notice, most of it to bind a list and to
wait; this asks libpq itself, in a third of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from overnight.stores.relay.line import LineLost

_FINE: Final = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})


class NoticeLine:
    """A connection that has answered. Whatever goes wrong with it is a `LineLost`; then it must be closed.

    One task at a time asks, or waits for what is heard.
    """

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._socket = self._libpq.socket
        self._stirred = asyncio.Event()
        self._heard: list[bytes] = []
        self._lost: psycopg.Error | None = None
        self._loop.add_reader(self._socket, self._read)

    @classmethod
    async def open(cls, url: str, options: Mapping[str, Any], *, answer_s: float) -> NoticeLine:
        """Connect within `answer_s`. Raises LineLost."""
        try:
            async with asyncio.timeout(answer_s):
                return cls(await AsyncConnection.connect(url, autocommit=True, **options))
        except psycopg.Error as error:
            raise LineLost(_said(error)) from None
        except TimeoutError:
            raise LineLost("the database does not answer") from None

    async def ask(self, statement: LiteralString, *values: bytes, answer_s: float) -> None:
        """Have a statement carried out within `answer_s`; its rows are not looked at. Raises LineLost."""
        try:
            async with asyncio.timeout(answer_s):
                self._libpq.send_query_params(statement.encode(), values)
                await self._flush()
                while (result := await self._result()) is not None:
                    if result.status not in _FINE:
                        raise error_from_result(result)
        except psycopg.Error as error:
            raise LineLost(_said(error)) from None
        except TimeoutError:
            raise LineLost("the database does not answer") from None

    async def heard(self, timeout: float) -> list[bytes]:
        """The payloads that have come since the last time; none after `timeout` seconds. Raises LineLost."""
        if not self._heard:
            try:
                async with asyncio.timeout(timeout):
                    await self._stir()
            except psycopg.Error as error:
                raise LineLost(_said(error)) from None
            except TimeoutError:
                return []
        heard, self._heard = self._heard, []
        return heard

    async def close(self) -> None:
        """Let go of it."""
        self._let_go()
        await self._connection.close()

    async def _flush(self) -> None:
        while self._libpq.flush():
            self._loop.add_writer(self._socket, self._stirred.set)
            try:
                await self._stir()
            finally:
                self._loop.remove_writer(self._socket)

    async def _result(self) -> PGresult | None:
        while self._libpq.is_busy():
            await self._stir()
        return self._libpq.get_result()

    async def _stir(self) -> None:
        """Wait until the socket has brought something, or takes something again. Raises psycopg.Error."""
        if self._lost is None:
            self._stirred.clear()
            await self._stirred.wait()
        if self._lost is not None:
            raise self._lost

    def _read(self) -> None:
        try:
            self._libpq.consume_input()
            while note := self._libpq.notifies():
                self._heard.append(note.extra)
        except psycopg.Error as error:
            self._lost = error
            self._let_go()
        self._stirred.set()

    def _let_go(self) -> None:
        """Before the socket is closed, whose number may be another's the moment after."""
        self._loop.remove_reader(self._socket)


def _said(error: psycopg.Error) -> str:
    """The server's own sentence; it never holds a password."""
    return (error.diag.message_primary or str(error).partition("\n")[0] or type(error).__name__)[:200]
