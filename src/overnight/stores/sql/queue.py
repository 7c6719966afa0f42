"""Messages to sessions that wait for their turn, and the Idempotency-Keys of what is made in sessions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from sqlalchemy import bindparam, insert, literal_column, select, update

from overnight.domain.session import QueuedMessage
from overnight.errors import Conflict, NotFound
from overnight.ids import MessageId
from overnight.ports.tables import Idempotency
from overnight.stores.sql.context import Context
from overnight.stores.sql.people_schema import queue, session_keys
from overnight.stores.sql.statements import Row, Statement, key

_COLUMNS: Final = ("pk", "id", "session_pk", "text", "actor", "created_at", "state", "run_id", "turn")
_ROW: Final = tuple(queue.c[name] for name in _COLUMNS)
_NEW: Final = ("id", "session_pk", "text", "actor", "state", "run_id", "turn", "created_at", "settled_at")
_ADD: Final = Statement(insert(queue).values({name: bindparam(name) for name in _NEW}).returning(queue.c.pk))
_GET: Final = Statement(select(*_ROW).where(queue.c.id == key("id"), queue.c.session_pk == key("session")))
_QUEUED: Final = Statement(
    select(*_ROW)
    .where(queue.c.session_pk == key("session"), queue.c.state == literal_column("'queued'"))
    .order_by(queue.c.pk)
    .limit(bindparam("most"))
)
_SAVE: Final = Statement(
    update(queue)
    .where(queue.c.pk == key("pk"))
    .values({name: bindparam(f"new_{name}") for name in ("state", "run_id", "turn", "settled_at")})
)
_FIND_KEY: Final = Statement(
    select(session_keys.c.body_hash, session_keys.c.made).where(
        session_keys.c.owner == key("owner"),
        session_keys.c.route == key("route"),
        session_keys.c.key == key("key"),
    )
)
_ADD_KEY: Final = Statement(insert(session_keys))


class SqlQueueTable:
    """See `ports.tables.QueueTable`."""

    __slots__ = ("_link",)

    def __init__(self, context: Context) -> None:
        self._link = context.link

    def add(self, message: QueuedMessage) -> QueuedMessage:
        """See the port."""
        settled_at = None if message.state == "queued" else message.created_at
        row = self._link.one(
            _ADD,
            id=message.id,
            session_pk=message.session_pk,
            text=message.text,
            actor=message.by,
            state=message.state,
            run_id=message.run_id,
            turn=message.turn,
            created_at=message.created_at,
            settled_at=settled_at,
        )
        assert row is not None  # noqa: S101 -- INSERT … RETURNING always has one
        return replace(message, pk=row[0])

    def get(self, session_pk: int, message_id: MessageId) -> QueuedMessage:
        """See the port."""
        row = self._link.one(_GET, key_id=message_id, key_session=session_pk)
        if row is None:
            raise NotFound(f"no message {message_id}")
        return _message(row)

    def queued(self, session_pk: int, limit: int) -> tuple[QueuedMessage, ...]:
        """See the port."""
        return tuple(map(_message, self._link.all(_QUEUED, key_session=session_pk, most=limit)))

    def save(self, message: QueuedMessage, at: int) -> None:
        """See the port. Raises NotFound."""
        settled_at = None if message.state == "queued" else at
        saved = self._link.run(
            _SAVE, key_pk=message.pk, new_state=message.state, new_run_id=message.run_id, new_turn=message.turn,
            new_settled_at=settled_at,
        )  # fmt: skip
        if saved != 1:
            raise NotFound(f"no message {message.id}")


class SqlKeyTable:
    """See `ports.tables.KeyTable`."""

    __slots__ = ("_link",)

    def __init__(self, context: Context) -> None:
        self._link = context.link

    def find(self, owner: str, route: str, key: str) -> tuple[Idempotency, str] | None:
        """See the port."""
        row = self._link.one(_FIND_KEY, key_owner=owner, key_route=route, key_key=key)
        return None if row is None else (Idempotency(route=route, key=key, body_hash=row[0]), row[1])

    def add(self, owner: str, given: Idempotency, session_pk: int, made: str) -> None:
        """See the port."""
        if self.find(owner, given.route, given.key) is not None:
            raise Conflict(f"the Idempotency-Key {given.key!r} was used already")
        self._link.run(
            _ADD_KEY, owner=owner, route=given.route, key=given.key, body_hash=given.body_hash,
            session_pk=session_pk, made=made,
        )  # fmt: skip


def _message(row: Row) -> QueuedMessage:
    found: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    found["by"] = found.pop("actor")
    return QueuedMessage(**found)
