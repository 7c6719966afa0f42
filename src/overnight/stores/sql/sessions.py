"""Sessions, their messages, and the backends' own session states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, select, update

from overnight.domain.session import Session, SessionMessage
from overnight.errors import NotFound
from overnight.ids import SessionId
from overnight.stores.sql.changes import next_number
from overnight.stores.sql.context import Context
from overnight.stores.sql.rows import SESSION_COLUMNS, dump, load, session_of, session_values
from overnight.stores.sql.schema import backend_states, messages, runs, sessions
from overnight.stores.sql.statements import Link, Statement, key
from overnight.stores.sql.streams import add_stream, delete_stream

_ROW: Final = tuple(sessions.c[name] for name in SESSION_COLUMNS)
_FROZEN: Final = frozenset({"pk", "id", "owner", "created_at"})
_ADD: Final = Statement(insert(sessions))
_GET: Final = Statement(
    select(*_ROW).where(
        sessions.c.id == key("id"), (key("owner").is_(None)) | (sessions.c.owner == key("owner"))
    )
)
_LOCK: Final = Statement(select(*_ROW).where(sessions.c.pk == key("pk")).with_for_update())
_SAVE: Final = Statement(
    update(sessions)
    .where(sessions.c.pk == key("pk"))
    .values({name: bindparam(f"new_{name}") for name in SESSION_COLUMNS if name not in _FROZEN})
)
_LAST_MESSAGE: Final = Statement(
    select(func.coalesce(func.max(messages.c.n), 0)).where(messages.c.session_pk == key("pk"))
)
_ADD_MESSAGE: Final = Statement(insert(messages))
_MESSAGES: Final = Statement(
    select(messages.c.role, messages.c.text, messages.c.at, messages.c.run_id, messages.c.turn)
    .where(messages.c.session_pk == key("pk"))
    .order_by(messages.c.n.desc())
    .limit(bindparam("most"))
)
_STATE_OF: Final = (backend_states.c.session_pk == key("pk"), backend_states.c.backend == key("backend"))
_STATE: Final = Statement(select(backend_states.c.state).where(*_STATE_OF))
_SAVE_STATE: Final = Statement(update(backend_states).where(*_STATE_OF).values(state=bindparam("new_state")))
_ADD_STATE: Final = Statement(insert(backend_states))
_USED: Final = Statement(select(runs.c.pk).where(runs.c.session_pk == key("pk")).limit(1))
_DELETE: Final = tuple(
    Statement(delete(table).where(table.c.session_pk == key("pk"))) for table in (messages, backend_states)
)
_DELETE_SESSION: Final = Statement(delete(sessions).where(sessions.c.pk == key("pk")))


class SqlSessionTable:
    """See `ports.tables.SessionTable`."""

    __slots__ = ("_link",)

    def __init__(self, context: Context) -> None:
        self._link = context.link

    def add(self, session: Session) -> Session:
        """See the port."""
        pk = next_number(self._link)
        add_stream(self._link, pk, kind="session", owner=session.owner, run_id=None, session_id=session.id)
        self._link.run(_ADD, pk=pk, **session_values(session))
        return replace(session, pk=pk)

    def get(self, session_id: SessionId, owner: str | None) -> Session:
        """See the port."""
        row = self._link.one(_GET, key_id=session_id, key_owner=owner)
        if row is None:
            raise NotFound(f"no session {session_id}")
        return session_of(row)

    def lock(self, pk: int) -> Session:
        """See the port. Raises NotFound."""
        row = self._link.one(_LOCK, key_pk=pk)
        if row is None:
            raise NotFound(f"no session {pk}")
        return session_of(row)

    def save(self, session: Session) -> None:
        """See the port. Raises NotFound."""
        values = {f"new_{name}": value for name, value in session_values(session).items()}
        if self._link.run(_SAVE, key_pk=session.pk, **values) != 1:
            raise NotFound(f"no session {session.id}")

    def add_message(self, pk: int, message: SessionMessage) -> None:
        """See the port."""
        row = self._link.one(_LAST_MESSAGE, key_pk=pk)
        self._link.run(
            _ADD_MESSAGE,
            session_pk=pk,
            n=(row[0] if row else 0) + 1,
            role=message.role,
            text=message.text,
            at=message.at,
            run_id=message.run_id,
            turn=message.turn,
        )

    def messages(self, pk: int, last: int) -> tuple[SessionMessage, ...]:
        """See the port."""
        found = [
            SessionMessage(role=role, text=text, at=at, run_id=run_id, turn=turn)
            for role, text, at, run_id, turn in self._link.all(_MESSAGES, key_pk=pk, most=last)
        ]
        return tuple(reversed(found))

    def backend_state(self, pk: int, backend: str) -> dict[str, object]:
        """See the port."""
        row = self._link.one(_STATE, key_pk=pk, key_backend=backend)
        return load(row[0]) if row else {}

    def save_backend_state(self, pk: int, backend: str, state: Mapping[str, object]) -> None:
        """See the port."""
        text = dump(dict(state))
        if self._link.run(_SAVE_STATE, key_pk=pk, key_backend=backend, new_state=text) == 0:
            self._link.run(_ADD_STATE, session_pk=pk, backend=backend, state=text)


def delete_if_unused(link: Link, pk: int) -> None:
    """Remove a session that was made for a run once no run of it is left."""
    row = link.one(_LOCK, key_pk=pk)
    if row is None or not session_of(row).made_for_run or link.one(_USED, key_pk=pk) is not None:
        return
    for statement in _DELETE:
        link.run(statement, key_pk=pk)
    link.run(_DELETE_SESSION, key_pk=pk)
    delete_stream(link, pk)
