"""Holds: the leases row of a held run and the workspace locks that live exactly as long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, select, update

from overnight.domain.run import Run
from overnight.stores.sql.batches import run_each
from overnight.stores.sql.context import Context
from overnight.stores.sql.database_clock import database_now, told
from overnight.stores.sql.gates import HELD, open_next
from overnight.stores.sql.places import Place, blocker, left_place, left_queue, lock_place, place_of, unlock
from overnight.stores.sql.schema import leases, runs
from overnight.stores.sql.statements import Link, Row, Statement, key

_NEXT: Final = update(runs).where(runs.c.pk == key("pk")).values(token=runs.c.token + 1)
_RAISE: Final = Statement(_NEXT.returning(runs.c.token))
_GIVE_BACK: Final = Statement(_NEXT.values(gate=func.nullif(runs.c.gate, HELD)).returning(runs.c.token))
_FORGET: Final = Statement(delete(leases).where(leases.c.run_pk == key("pk")))
_HELD: Final = Statement(select(leases.c.run_pk).where(leases.c.run_pk == key("pk")))
_TAKE: Final = Statement(
    update(leases)
    .where(leases.c.run_pk == key("pk"))
    .values(
        worker_pk=bindparam("worker"),
        token=bindparam("now"),
        renewal=leases.c.renewal + 1,
        length=bindparam("ms"),
        expires_at=database_now() + bindparam("ms"),
    )
)
_ADD: Final = Statement(
    insert(leases).values(
        run_pk=bindparam("pk"),
        worker_pk=bindparam("worker"),
        token=bindparam("now"),
        renewal=bindparam("renewals"),
        length=bindparam("ms"),
        expires_at=database_now() + bindparam("ms"),
    )
)


Values = Mapping[str, object]


def hold(context: Context, pk: int, worker_pk: int, token: int, lease_ms: int) -> Values:
    """That the worker holds the run, which nobody held, under a token that has just been raised."""
    return {"pk": pk, "worker": worker_pk, "now": token, "renewals": 0, "ms": lease_ms, **told(context)}


def add_holds(link: Link, values: Sequence[Values]) -> None:
    """Write them down."""
    run_each(link, _ADD, values)


def take_hold(context: Context, pk: int, worker_pk: int, lease_ms: int) -> int:
    """Give the run to the worker, whoever held it before; the new token comes back."""
    context.seen.runs.pop(pk, None)
    token = _token(context.link.one(_RAISE, key_pk=pk))
    given = {"worker": worker_pk, "now": token, "ms": lease_ms, **told(context)}
    if context.link.run(_TAKE, key_pk=pk, **given) == 0:
        add_holds(context.link, [hold(context, pk, worker_pk, token, lease_ms)])
    return token


def end_hold(context: Context, run: Run) -> int | None:
    """Remove the lease and its workspace locks and raise the token, so that nobody who knows only the earlier one
    may write any more. None when the run was not held: then it may have stood in the queue for its workspace.
    """
    let_go = let_go_of(context, run.pk)
    context.seen.runs.pop(run.pk, None)
    token = _token(context.link.one(_GIVE_BACK, key_pk=run.pk)) if let_go.held else None
    open_behind(context, run, let_go)
    return token


@dataclass(frozen=True, slots=True, kw_only=True)
class LetGo:
    """A hold that has ended, as far as lease and locks go."""

    held: bool
    left: Place | None
    """Where its locks were."""


def let_go_of(context: Context, pk: int) -> LetGo:
    """Remove lease and locks of a run. The caller raises the token if it was held, and then calls `open_behind`."""
    link, seen = context.link, context.seen.runs.get(pk)
    left = unlock(link, pk) if seen is None or seen.locked else None
    if seen is None:
        return LetGo(held=link.run(_FORGET, key_pk=pk) > 0, left=left)
    if seen.held:
        link.tell(_FORGET, key_pk=pk)
    return LetGo(held=seen.held, left=left)


def open_behind(context: Context, run: Run, let_go: LetGo) -> None:
    """Have those looked at again who may have waited for the run to be gone."""
    if not let_go.held:
        left_queue(context, place_of(context.link, run))
    elif let_go.left is not None:
        left_place(context, let_go.left)
    if let_go.held or run.final:
        open_next(context, run, was_held=let_go.held)


def _token(row: Row | None) -> int:
    assert row is not None  # noqa: S101 -- the caller has just read the run
    return int(row[0])


def is_held(link: Link, pk: int) -> bool:
    """Whether somebody holds the run."""
    return link.one(_HELD, key_pk=pk) is not None


def move_locks(context: Context, pk: int, place: Place) -> bool:
    """Let the locks of a run follow it to `place`; False, and nothing done, when another held run is there.

    A run that is not held has no locks: its place is looked at when it is claimed.
    """
    link = context.link
    if not is_held(link, pk):
        return True
    if blocker(link, pk, place) is not None:
        return False
    context.seen.runs.pop(pk, None)
    unlock(link, pk)
    lock_place(link, pk, place)
    return True
