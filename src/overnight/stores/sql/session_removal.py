"""Removing a session with everything that hangs on it: runs, messages, approvals, shares, and what they let in."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, delete, select, update

from overnight.domain.session import Session
from overnight.errors import SessionBusy
from overnight.ids import RunId
from overnight.ports.notifier import CHANGES, stream_topic
from overnight.stores.sql.context import Context
from overnight.stores.sql.model_schema import model_calls
from overnight.stores.sql.people_schema import approvals, queue, rules, session_keys, shares, token_shares
from overnight.stores.sql.remote_schema import last_batches
from overnight.stores.sql.rows import SESSION_COLUMNS, session_of
from overnight.stores.sql.schema import (
    backend_states,
    events,
    idempotency,
    inputs,
    messages,
    requests,
    run_labels,
    run_places,
    run_specs,
    runs,
    sessions,
    streams,
    tokens,
    turns,
)
from overnight.stores.sql.statements import Link, Statement, key
from overnight.stores.sql.streams import delete_stream

_OF_SESSION: Final = select(runs.c.pk).where(runs.c.session_pk == key("pk"))
_RUNS: Final = Statement(
    select(runs.c.pk, runs.c.id, runs.c.ended_at).where(runs.c.session_pk == key("pk")).order_by(runs.c.pk)
)
_DELETE_RUNS: Final = (
    *(
        Statement(delete(table).where(table.c.run_pk.in_(_OF_SESSION)))
        for table in (
            approvals,
            idempotency,
            requests,
            inputs,
            turns,
            run_places,
            run_labels,
            run_specs,
            last_batches,
            model_calls,
        )
    ),
    Statement(delete(events).where(events.c.stream_pk.in_(_OF_SESSION))),
)
_DELETE_RUN: Final = Statement(delete(runs).where(runs.c.pk == key("run")))
_DELETE_STREAM: Final = Statement(delete(streams).where(streams.c.pk == key("run")))
_SHARES: Final = select(shares.c.pk).where(shares.c.session_pk == key("pk"))
_BOUND: Final = select(token_shares.c.token_pk).where(token_shares.c.share_pk.in_(_SHARES))
_REVOKE: Final = Statement(
    update(tokens)
    .where(tokens.c.pk.in_(_BOUND), tokens.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("at"))
)
_UNBIND: Final = Statement(delete(token_shares).where(token_shares.c.share_pk.in_(_SHARES)))
_DELETE: Final = tuple(
    Statement(delete(table).where(table.c.session_pk == key("pk")))
    for table in (shares, queue, rules, session_keys, messages, backend_states)
)
_DELETE_SESSION: Final = Statement(delete(sessions).where(sessions.c.pk == key("pk")))
_USED: Final = Statement(select(runs.c.pk).where(runs.c.session_pk == key("pk")).limit(1))
_ROW: Final = Statement(
    select(*(sessions.c[name] for name in SESSION_COLUMNS)).where(sessions.c.pk == key("pk"))
)


def remove(context: Context, session: Session) -> tuple[RunId, ...]:
    """See `ports.tables.SessionTable.delete`."""
    link = context.link
    found = link.all(_RUNS, key_pk=session.pk)
    live = [run_id for _, run_id, ended_at in found if ended_at is None]
    if live:
        raise SessionBusy(
            f"{session.id} has {len(live)} live runs, such as {live[0]}", mend="cancel them first"
        )
    for statement in _DELETE_RUNS:
        link.run(statement, key_pk=session.pk)
    for pk, run_id, _ in found:
        link.run(_DELETE_RUN, key_run=pk)
        link.run(_DELETE_STREAM, key_run=pk)
        context.wake(stream_topic(run_id))
    _remove_session(context, session)
    context.wake(CHANGES)
    return tuple(RunId(run_id) for _, run_id, _ in found)


def remove_if_unused(context: Context, pk: int) -> None:
    """Remove a session that was made for a run once no run of it is left."""
    row = context.link.one(_ROW, key_pk=pk)
    if row is None:
        return
    session = session_of(row)
    if session.made_for_run and context.link.one(_USED, key_pk=pk) is None:
        _remove_session(context, session)


def _remove_session(context: Context, session: Session) -> None:
    link, pk = context.link, session.pk
    _revoke(link, pk, context.clock.wall_ms())
    for statement in _DELETE:
        link.run(statement, key_pk=pk)
    link.run(_DELETE_SESSION, key_pk=pk)
    delete_stream(link, pk)
    context.wake(stream_topic(session.id))


def _revoke(link: Link, pk: int, at: int) -> None:
    """Whoever came in by a link to the session is out."""
    link.run(_REVOKE, key_pk=pk, at=at)
    link.run(_UNBIND, key_pk=pk)
