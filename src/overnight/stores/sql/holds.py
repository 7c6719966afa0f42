"""Holds: the leases row of a held run and the workspace locks that live exactly as long."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, update

from overnight.stores.sql.context import Context
from overnight.stores.sql.gates import HELD, Place, open_after
from overnight.stores.sql.rows import dump
from overnight.stores.sql.schema import leases, runs, workspace_locks
from overnight.stores.sql.statements import Link, Row, Statement, elements, key

_NEXT: Final = update(runs).where(runs.c.pk == key("pk")).values(token=runs.c.token + 1)
_RAISE: Final = Statement(_NEXT.returning(runs.c.token))
_GIVE_BACK: Final = Statement(_NEXT.values(gate=func.nullif(runs.c.gate, HELD)).returning(runs.c.token))
_FORGET: Final = Statement(delete(leases).where(leases.c.run_pk == key("pk")))
_HELD: Final = Statement(select(leases.c.run_pk).where(leases.c.run_pk == key("pk")))
_TAKE: Final = Statement(
    update(leases)
    .where(leases.c.run_pk == key("pk"))
    .values(worker_pk=bindparam("worker"), token=bindparam("now"), renewal=leases.c.renewal + 1)
)
_ADD: Final = Statement(insert(leases))
_UNLOCK: Final = Statement(delete(workspace_locks).where(workspace_locks.c.run_pk == key("pk")))
_LOCK: Final = Statement(insert(workspace_locks))


def _locked(*more: ColumnElement[bool]) -> Statement:
    return Statement(
        select(workspace_locks.c.run_pk)
        .where(
            workspace_locks.c.host_id == key("host"),
            workspace_locks.c.run_pk != key("pk"),
            workspace_locks.c.shared + bindparam("key_shared") < 2,
            *more,
        )
        .limit(1)
    )


_LOCKED_INSIDE: Final = _locked(workspace_locks.c.node == key("own"))
"""Somebody works in this directory or in one beneath it: it is in their chain."""
_LOCKED_OUTSIDE: Final = _locked(
    workspace_locks.c.depth == 0,
    workspace_locks.c.node.in_(select(elements("key_chain").c.value)),
)
"""Somebody works in a directory that this one lies in."""


def add_hold(link: Link, pk: int, worker_pk: int, token: int) -> None:
    """Write down that the worker holds the run, which nobody held, under a token that has just been raised."""
    link.run(_ADD, run_pk=pk, worker_pk=worker_pk, token=token, renewal=0)


def take_hold(link: Link, pk: int, worker_pk: int) -> int:
    """Give the run to the worker, whoever held it before; the new token comes back."""
    token = _token(link.one(_RAISE, key_pk=pk))
    if link.run(_TAKE, key_pk=pk, worker=worker_pk, now=token) == 0:
        add_hold(link, pk, worker_pk, token)
    return token


def end_hold(context: Context, pk: int) -> int | None:
    """Remove the lease and its workspace locks and raise the token, so that nobody who knows only the earlier one
    may write any more. None when the run was not held.
    """
    link = context.link
    link.run(_UNLOCK, key_pk=pk)
    if link.run(_FORGET, key_pk=pk) == 0:
        return None
    open_after(context, pk)
    return _token(link.one(_GIVE_BACK, key_pk=pk))


def _token(row: Row | None) -> int:
    assert row is not None  # noqa: S101 -- the caller has just read the run
    return int(row[0])


def is_held(link: Link, pk: int) -> bool:
    """Whether somebody holds the run."""
    return link.one(_HELD, key_pk=pk) is not None


def blocker(link: Link, pk: int, place: Place) -> int | None:
    """Another held run that works in the same directory, in one beneath it, or in one around it."""
    if not place.nodes:
        return None
    common = {"key_host": place.host_id, "key_pk": pk, "key_shared": int(place.shared)}
    row = link.one(_LOCKED_INSIDE, **common, key_own=place.nodes[0]) or link.one(
        _LOCKED_OUTSIDE, **common, key_chain=dump(place.nodes)
    )
    return int(row[0]) if row else None


def lock_place(link: Link, pk: int, place: Place) -> None:
    """Lock the workspace of a held run; the caller has asked `blocker`."""
    rows = [(pk, depth, place.host_id, node, int(place.shared)) for depth, node in enumerate(place.nodes)]
    link.run_many(_LOCK, rows)


def move_locks(context: Context, pk: int, place: Place) -> bool:
    """Let the locks of a run follow it to `place`; False, and nothing done, when another held run is there.

    A run that is not held has no locks: its place is looked at when it is claimed.
    """
    link = context.link
    if not is_held(link, pk):
        return True
    if blocker(link, pk, place) is not None:
        return False
    link.run(_UNLOCK, key_pk=pk)
    lock_place(link, pk, place)
    return True
