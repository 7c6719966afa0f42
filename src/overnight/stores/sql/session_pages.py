"""Lists of sessions: a caller's own, and those that are shared with him."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Select, or_, select, tuple_

from overnight.domain.session import Session
from overnight.ports.session_tables import SessionFilter
from overnight.stores.sql.people_schema import shares
from overnight.stores.sql.rows import SESSION_COLUMNS, session_of
from overnight.stores.sql.schema import sessions
from overnight.stores.sql.statements import Link

_ROW: Final = tuple(sessions.c[name] for name in SESSION_COLUMNS)


def page(
    link: Link, filter: SessionFilter, *, limit: int, after: tuple[int, int] | None, now_ms: int
) -> tuple[Session, ...]:
    """Newest first. Two lists are merged: one statement for both could go by no index."""
    own = select(*_ROW)
    if filter.owner is not None:
        own = own.where(sessions.c.owner == filter.owner)
    found = [session_of(row) for row in link.select(_part(own, filter, limit, after))]
    if filter.owner is not None:
        shared = select(*_ROW).where(sessions.c.pk.in_(_shared_with(filter.owner, now_ms)))
        found += [session_of(row) for row in link.select(_part(shared, filter, limit, after))]
        found.sort(key=lambda session: (session.created_at, session.pk), reverse=True)
    return tuple(found[:limit])


def _part(
    query: Select[Any], filter: SessionFilter, limit: int, after: tuple[int, int] | None
) -> Select[Any]:
    if filter.states:
        query = query.where(sessions.c.state.in_(filter.states))
    if filter.mode is not None:
        query = query.where(sessions.c.mode == filter.mode)
    if filter.text is not None:
        query = query.where(sessions.c.name_folded.contains(filter.text.casefold(), autoescape=True))
    if after is not None:
        query = query.where(tuple_(sessions.c.created_at, sessions.c.pk) < tuple_(*after))
    return query.order_by(sessions.c.created_at.desc(), sessions.c.pk.desc()).limit(limit)


def _shared_with(user: str, now_ms: int) -> Select[Any]:
    return select(shares.c.session_pk).where(
        shares.c.user == user,
        shares.c.revoked_at.is_(None),
        or_(shares.c.expires_at.is_(None), shares.c.expires_at > now_ms),
    )
