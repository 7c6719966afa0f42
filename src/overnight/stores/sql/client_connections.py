"""Who is connected to which server; connections to the database itself are another matter (`connections`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson
from sqlalchemy import bindparam, delete, insert, or_, select, update

from overnight.domain.connection import Connection
from overnight.ids import SessionId, WorkerId
from overnight.stores.sql.context import Context
from overnight.stores.sql.people_schema import connections
from overnight.stores.sql.schema import runs
from overnight.stores.sql.statements import Row, Statement, elements, key, text_key

_COLUMNS: Final = (
    "id", "server", "owner", "actor", "kind", "target", "client", "connected_at", "heartbeat_at",
)  # fmt: skip
_ROW: Final = tuple(connections.c[name] for name in _COLUMNS)
_ADD: Final = Statement(insert(connections).values({name: bindparam(name) for name in _COLUMNS}))
_GIVEN: Final = elements("ids")
_REMOVE: Final = Statement(delete(connections).where(connections.c.id.in_(select(_GIVEN.c.value))))
_OF_SERVER: Final = connections.c.server == key("server")
_BEAT: Final = Statement(update(connections).where(_OF_SERVER).values(heartbeat_at=bindparam("at")))
_STALE: Final = Statement(delete(connections).where(connections.c.heartbeat_at < key("before")))
_FORGET: Final = Statement(delete(connections).where(_OF_SERVER))
_ALL: Final = Statement(
    select(*_ROW)
    .where((text_key("owner").is_(None)) | (connections.c.owner == text_key("owner")))
    .order_by(connections.c.connected_at, connections.c.id)
)
_FOLLOWING: Final = Statement(
    select(*_ROW)
    .where(
        or_(
            connections.c.target == key("session"),
            connections.c.target.in_(select(runs.c.id).where(runs.c.session_id == key("session"))),
        )
    )
    .order_by(connections.c.connected_at, connections.c.id)
)


class SqlConnectionTable:
    """See `ports.tables.ConnectionTable`."""

    __slots__ = ("_link",)

    def __init__(self, context: Context) -> None:
        self._link = context.link

    def add(self, connection: Connection) -> None:
        """See the port."""
        self._link.run(_ADD, **{name: getattr(connection, name) for name in _COLUMNS})

    def remove(self, ids: Sequence[str]) -> None:
        """See the port."""
        self._link.run(_REMOVE, ids=orjson.dumps(list(ids)).decode())

    def beat(self, server: WorkerId, at: int) -> int:
        """See the port."""
        return self._link.run(_BEAT, key_server=server, at=at)

    def stale(self, before: int) -> int:
        """See the port."""
        return self._link.run(_STALE, key_before=before)

    def forget(self, server: WorkerId) -> int:
        """See the port."""
        return self._link.run(_FORGET, key_server=server)

    def all(self, owner: str | None) -> tuple[Connection, ...]:
        """See the port."""
        return tuple(map(_connection, self._link.all(_ALL, key_owner=owner)))

    def following(self, session_id: SessionId) -> tuple[Connection, ...]:
        """See the port."""
        return tuple(map(_connection, self._link.all(_FOLLOWING, key_session=session_id)))


def _connection(row: Row) -> Connection:
    return Connection(**dict(zip(_COLUMNS, row, strict=True)))
