"""Opening connections to one Postgres database the way that keeps its promises."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from overnight.errors import UnsafeDatabase
from overnight.stores.sql.postgres_link import DIALECT, PostgresLink
from overnight.stores.sql.postgres_watch import Watch, Watched
from overnight.stores.sql.postgres_wire import NUL, SHOWN_NUL

logging.getLogger("psycopg").setLevel(logging.ERROR)  # what it warns of is raised to us as well

OLDEST_SERVER: Final = 140_000
"""Postgres 14, the oldest that is still maintained (until November 2026) and that has all we ask for."""
IDLE_MS: Final = 2_000
"""A writing session that stands still for so long within a transaction is ended by the server, so that a stopped or
cut-off process does not keep the others from writing."""
_WAITS_MS: Final = 10_000
"""How long a writer waits for its turn, and at most for one statement of a unit."""
_READS_MS: Final = 20_000
_USUAL: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",
    "application_name": "overnight",
    "client_encoding": "UTF8",
}
"""A server that does not answer is given up after about ten seconds, unless the address says otherwise."""


_SHARED: Final = (
    # The server's side too must learn that a way is lost: what a session holds is held until then.
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3;"
    "SET tcp_user_timeout = 8000;"
    f"SET lock_timeout = {_WAITS_MS}; SET timezone = 'UTC'; SET jit = off; SET client_encoding = 'UTF8';"
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';"
)
_SETTINGS: Final = {
    True: f"{_SHARED} SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;"
    f"SET statement_timeout = {_WAITS_MS}; SET idle_in_transaction_session_timeout = {IDLE_MS}",
    False: f"{_SHARED} SET default_transaction_isolation = 'repeatable read'; SET default_transaction_read_only = on;"
    f"SET statement_timeout = {_READS_MS}; SET idle_in_transaction_session_timeout = {_READS_MS}",
}
"""Of writing and of reading sessions. One that was told to lose what it has committed is told otherwise."""


class Address:
    """The address of a database. Its password never leaves it but for the server."""

    def __init__(self, url: str) -> None:
        self._secrets = _secrets(url)
        try:
            self._given = {
                name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None
            }
        except psycopg.Error:  # its words repeat parts of the address
            self._given = {}
            self._readable = False
        else:
            self._readable = True

    def connect(self, *, writing: bool) -> Watched:
        """A new connection in autocommit mode. Raises psycopg.Error, UnsafeDatabase."""
        if not self._readable:
            raise UnsafeDatabase("the address of the database cannot be understood", mend=_MEND)
        asked = {**_USUAL, **({"target_session_attrs": "read-write"} if writing else {}), **self._given}
        return Watched.connect(make_conninfo(**asked), autocommit=True, prepare_threshold=1)

    def clean(self, text: str) -> str:
        """`text` without anything that may be the password."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())

    def __str__(self) -> str:
        """For people: without user and password."""
        host = self._given.get("host", "localhost")
        port = f":{self._given['port']}" if "port" in self._given else ""
        return self.clean(f"postgresql://{host}{port}/{self._given.get('dbname', '')}")


_MEND: Final = "write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for @ in the password"


def _secrets(url: str) -> tuple[str, ...]:
    """All that may be a password in the address, however wrongly it is written."""
    rest = url.partition("://")[2]
    found = {rest.rpartition("@")[0].partition(":")[2]}
    for part in url.replace("?", "&").replace(" ", "&").split("&"):
        name, _, value = part.partition("=")
        if "password" in name:
            found.add(value.strip("'"))
    pieces = {
        piece for secret in found for piece in (secret, unquote(secret), *secret.replace("@", "/").split("/"))
    }
    return tuple(sorted((piece for piece in pieces if len(piece) > 2), key=len, reverse=True))


class PostgresConnections:
    """Makes connections to one database; each is used by one thread at a time."""

    errors: Final = psycopg.Error

    def __init__(self, url: str) -> None:
        self.address: Final = Address(url)
        self.watch: Final = Watch()
        self._writing = _engine(lambda: self._connect(writing=True))
        self._reading = _engine(lambda: self._connect(writing=False))

    def open(self, *, writing: bool) -> PostgresLink:
        """A connection with its settings. Raises psycopg.Error, and UnsafeDatabase for a server that will not do."""
        link = PostgresLink(self._core(writing=writing))
        try:
            _expect(link)
            link.script(_SETTINGS[writing])
        except BaseException:
            link.close()
            raise
        return link

    @contextmanager
    def core(self) -> Iterator[Connection]:
        """A writing connection for Core, without time limits: for migrations."""
        connection = self._core(writing=True)
        try:
            connection.exec_driver_sql("SET timezone = 'UTC'")
            yield connection
        finally:
            connection.invalidate()
            connection.close()

    def _connect(self, *, writing: bool) -> Watched:
        made = self.address.connect(writing=writing)
        made.answers_within = (_WAITS_MS if writing else _READS_MS) / 1000
        self.watch.add(made)
        return made

    def _core(self, *, writing: bool) -> Connection:
        engine = self._writing if writing else self._reading
        try:
            return engine.connect()
        except DBAPIError as error:
            raise error.orig or error from None


def _engine(connect: Callable[[], Any]) -> Engine:
    made = create_engine(
        "postgresql+psycopg://", creator=connect, poolclass=NullPool, use_native_hstore=False
    )
    made.dialect.ddl_compiler = DIALECT.ddl_compiler
    event.listen(made, "before_cursor_execute", _without_nul, retval=True)
    return made


def _without_nul(*call: Any) -> tuple[str, Any]:
    """What callers look for is changed as what is stored (see `parameters`)."""
    _, _, statement, parameters, _, _ = call
    if isinstance(parameters, Mapping):
        parameters = {
            name: value.replace(NUL, SHOWN_NUL) if isinstance(value, str) else value
            for name, value in parameters.items()
        }
    return statement, parameters


def _expect(link: PostgresLink) -> None:
    """Refuse what would lose or change data without a word."""
    info = link.raw.info
    if info.server_version < OLDEST_SERVER:
        raise UnsafeDatabase(
            f"the server is Postgres {info.parameter_status('server_version')}; 14 or newer is needed",
            mend="upgrade Postgres",
        )
    encoding = info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise UnsafeDatabase(
            f"the database's encoding is {encoding}; UTF8 is needed",
            mend="make another with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
