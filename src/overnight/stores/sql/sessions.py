"""Sessions, their messages, and the backends' own session states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy import bindparam, case, func, insert, literal_column, select, update

from overnight.domain.session import Phase, Session, SessionMessage, SessionState
from overnight.errors import NotFound
from overnight.ids import RunId, SessionId
from overnight.ports.session_tables import SessionFilter
from overnight.stores.sql import session_pages, session_removal
from overnight.stores.sql.changes import next_number
from overnight.stores.sql.context import Context
from overnight.stores.sql.rows import SESSION_COLUMNS, dump, load, session_of, session_values
from overnight.stores.sql.schema import backend_states, messages, runs, sessions, streams
from overnight.stores.sql.statements import Statement, key, text_key
from overnight.stores.sql.streams import add_stream

_ROW: Final = tuple(sessions.c[name] for name in SESSION_COLUMNS)
_FROZEN: Final = frozenset({"pk", "id", "owner", "created_at"})
_ADD: Final = Statement(insert(sessions))
_GET: Final = Statement(
    select(*_ROW).where(
        sessions.c.id == key("id"), (text_key("owner").is_(None)) | (sessions.c.owner == text_key("owner"))
    )
)
_LOCK: Final = Statement(
    select(*_ROW, streams.c.last_seq, streams.c.last_at)
    .select_from(sessions.join(streams, streams.c.pk == sessions.c.pk))
    .where(sessions.c.pk == key("pk"))
)
_SAVE: Final = Statement(
    update(sessions)
    .where(sessions.c.pk == key("pk"))
    .values(
        {name: bindparam(f"new_{name}") for name in (*SESSION_COLUMNS, "name_folded") if name not in _FROZEN}
    )
)
_TOUCH: Final = Statement(
    update(sessions)
    .where(sessions.c.pk == key("pk"))
    .values(
        updated_at=case(
            (sessions.c.updated_at > bindparam("at"), sessions.c.updated_at), else_=bindparam("at")
        ),
        phase=func.coalesce(bindparam("new_phase"), sessions.c.phase),
        step=func.coalesce(bindparam("new_step"), sessions.c.step),
    )
)
_LIVE: Final = Statement(
    select(func.count()).select_from(runs).where(runs.c.session_pk == key("pk"), runs.c.ended_at.is_(None))
)
_UNTOUCHED: Final = Statement(
    select(sessions.c.pk)
    .where(
        sessions.c.state == key("state"),
        sessions.c.updated_at < key("before"),
        ~select(runs.c.pk)
        .where(runs.c.session_pk == sessions.c.pk, runs.c.ended_at.is_(None))
        .correlate(sessions)
        .exists(),
    )
    .order_by(sessions.c.updated_at, sessions.c.pk)
    .limit(bindparam("most"))
)
_COUNT: Final = select(func.coalesce(func.max(messages.c.n), literal_column("0"))).where(
    messages.c.session_pk == key("pk")
)
_LAST_MESSAGE: Final = Statement(_COUNT)
_ADD_MESSAGE: Final = Statement(
    insert(messages)
    .inline()
    .values(
        n=_COUNT.scalar_subquery() + literal_column("1"),
        **{name: bindparam(name) for name in ("session_pk", "role", "text", "at", "run_id", "turn")},
    )
)
_MESSAGES: Final = Statement(
    select(messages.c.role, messages.c.text, messages.c.at, messages.c.run_id, messages.c.turn)
    .where(messages.c.session_pk == key("pk"), messages.c.n < key("before"))
    .order_by(messages.c.n.desc())
    .limit(bindparam("most"))
)
_NEVER: Final = (1 << 62) - 1
_STATE_OF: Final = (backend_states.c.session_pk == key("pk"), backend_states.c.backend == key("backend"))
_STATE: Final = Statement(select(backend_states.c.state).where(*_STATE_OF))
_SAVE_STATE: Final = Statement(update(backend_states).where(*_STATE_OF).values(state=bindparam("new_state")))
_ADD_STATE: Final = Statement(insert(backend_states))


class SqlSessionTable:
    """See `ports.tables.SessionTable`."""

    __slots__ = ("_context", "_link")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._link = context.link

    def add(self, session: Session) -> Session:
        """See the port."""
        pk = next_number(self._context)
        add_stream(self._context, pk, kind="session", owner=session.owner, run_id=None, session_id=session.id)
        self._link.add_one(_ADD, pk=pk, **session_values(session))
        self._context.new_sessions.add(pk)
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
        *columns, last_seq, last_at = row
        session = session_of(tuple(columns))
        self._context.seen.stream(pk, last_seq, last_at, run_id=None, session_id=session.id)
        return session

    def save(self, session: Session) -> None:
        """See the port. Raises NotFound."""
        values = {f"new_{name}": value for name, value in session_values(session).items()}
        self._link.change_one(_SAVE, NotFound(f"no session {session.id}"), key_pk=session.pk, **values)

    def touch(self, pk: int, at: int, *, phase: Phase | None = None, step: int | None = None) -> None:
        """See the port. Raises NotFound."""
        missing = NotFound(f"no session {pk}")
        self._link.change_one(_TOUCH, missing, key_pk=pk, at=at, new_phase=phase, new_step=step)

    def page(
        self, filter: SessionFilter, *, limit: int, after: tuple[int, int] | None = None
    ) -> tuple[Session, ...]:
        """See the port."""
        return session_pages.page(
            self._link, filter, limit=limit, after=after, now_ms=self._context.clock.wall_ms()
        )

    def live_runs(self, pk: int) -> int:
        """See the port."""
        row = self._link.one(_LIVE, key_pk=pk)
        return row[0] if row else 0

    def untouched(self, state: SessionState, before: int, limit: int) -> tuple[int, ...]:
        """See the port."""
        rows = self._link.all(_UNTOUCHED, key_state=state, key_before=before, most=limit)
        return tuple(pk for (pk,) in rows)

    def delete(self, pk: int) -> tuple[RunId, ...]:
        """See the port. Raises NotFound."""
        return session_removal.remove(self._context, self.lock(pk))

    def add_message(self, pk: int, message: SessionMessage) -> None:
        """See the port."""
        self._link.tell(
            _ADD_MESSAGE,
            key_pk=pk,
            session_pk=pk,
            role=message.role,
            text=message.text,
            at=message.at,
            run_id=message.run_id,
            turn=message.turn,
        )

    def messages(self, pk: int, last: int, before: int | None = None) -> tuple[SessionMessage, ...]:
        """See the port."""
        found = [
            SessionMessage(role=role, text=text, at=at, run_id=run_id, turn=turn)
            for role, text, at, run_id, turn in self._link.all(
                _MESSAGES, key_pk=pk, key_before=_NEVER if before is None else before, most=last
            )
        ]
        return tuple(reversed(found))

    def message_count(self, pk: int) -> int:
        """See the port. Messages are numbered without holes, so the last number says it."""
        row = self._link.one(_LAST_MESSAGE, key_pk=pk)
        return row[0] if row else 0

    def backend_state(self, pk: int, backend: str) -> dict[str, object]:
        """See the port."""
        row = self._link.one(_STATE, key_pk=pk, key_backend=backend)
        return load(row[0]) if row else {}

    def save_backend_state(self, pk: int, backend: str, state: Mapping[str, object]) -> None:
        """See the port."""
        text = dump(dict(state))
        if self._link.run(_SAVE_STATE, key_pk=pk, key_backend=backend, new_state=text) == 0:
            self._link.run(_ADD_STATE, session_pk=pk, backend=backend, state=text)
