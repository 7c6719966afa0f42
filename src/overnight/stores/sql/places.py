"""Where runs work: the directories of each run, the locks of those that are held, and the queue for each directory.

A run at the gate `workspace` waits at a directory under one of two keys: *in* its own directory, until nobody works
there or beneath; or *out* at a directory around its own, until whoever works in that one is gone. Whenever a run
leaves a directory, or leaves the queue for it, the best of every lane that waits there is let through, one at a time:
so the end of a hold costs the same however many wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, bindparam, delete, exists, insert, literal_column, select

from overnight.domain.placement import beneath, root_of, shared_chain
from overnight.domain.run import Run
from overnight.stores.sql.context import Context
from overnight.stores.sql.gates import open_gate
from overnight.stores.sql.rows import dump
from overnight.stores.sql.schema import run_places, runs, workspace_locks
from overnight.stores.sql.statements import Link, Statement, elements, key

WORKSPACE: Final = "workspace"
_IN: Final = "in"
_OUT: Final = "out"

_NODES: Final = Statement(
    select(run_places.c.node).where(run_places.c.run_pk == key("pk")).order_by(run_places.c.depth)
)
_FORGET: Final = Statement(delete(run_places).where(run_places.c.run_pk == key("pk")))
_ADD: Final = Statement(insert(run_places))
_LOCK: Final = Statement(insert(workspace_locks))
_UNLOCK: Final = Statement(
    delete(workspace_locks)
    .where(workspace_locks.c.run_pk == key("pk"))
    .returning(workspace_locks.c.host_id, workspace_locks.c.node, workspace_locks.c.depth)
)
_KEYS: Final = elements("key_keys")
_WAITED_FOR: Final = Statement(
    select(_KEYS.c.value).where(
        exists(
            select(literal_column("1"))
            .select_from(runs)
            .where(runs.c.gate == literal_column("'workspace'"), runs.c.gate_key == _KEYS.c.value)
        )
    )
)
_FIRST_OF_NEXT_LANE: Final = Statement(
    select(runs.c.pk, runs.c.lane)
    .where(
        runs.c.gate == literal_column("'workspace'"),
        runs.c.gate_key == key("key"),
        runs.c.lane > key("lane"),
    )
    .order_by(runs.c.lane, runs.c.priority.desc(), runs.c.due, runs.c.pk)
    .limit(1)
)


def _locked(*more: ColumnElement[bool]) -> Statement:
    return Statement(
        select(workspace_locks.c.node)
        .where(
            workspace_locks.c.host_id == key("realm"),
            workspace_locks.c.run_pk != key("pk"),
            workspace_locks.c.shared + bindparam("key_shared") < 2,
            *more,
        )
        .order_by(workspace_locks.c.node)
        .limit(1)
    )


_LOCKED_INSIDE: Final = _locked(workspace_locks.c.node == key("own"))
"""Somebody works in this directory or in one beneath it: it is in their chain."""
_LOCKED_OUTSIDE: Final = _locked(
    workspace_locks.c.depth == 0,
    workspace_locks.c.node.in_(select(elements("key_chain").c.value)),
)
"""Somebody works in a directory that this one lies in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run works: its directory and all that it lies in, from the inside out; empty while not known."""

    realm: str
    """Whose names the nodes are: a host's, or a shared root's."""
    nodes: tuple[str, ...]
    shared: bool

    @property
    def worked_in(self) -> list[str]:
        """Under which keys others may wait for this run to be gone from here: in a directory around, or beneath."""
        return [
            *(f"{_IN}|{self.realm}|{node}" for node in self.nodes),
            f"{_OUT}|{self.realm}|{self.nodes[0]}",
        ]

    @property
    def queued_for(self) -> list[str]:
        """Under which keys this run may have been let through, before others that wait there."""
        own, *around = self.nodes
        return [f"{_IN}|{self.realm}|{own}", *(f"{_OUT}|{self.realm}|{node}" for node in around)]


def place_for(run: Run, path: str | None, chain: tuple[str, ...]) -> Place:
    """The place of a run that works in `path`. Beneath a shared root names count, which mean the same on every host."""
    root, shared = root_of(run.place), run.spec.workspace_lock == "shared"
    if root is None:
        return Place(realm=run.host_id, nodes=chain, shared=shared)
    if path is not None and chain and beneath(root, path):
        chain = shared_chain(root, path)
    return Place(realm=run.place, nodes=chain, shared=shared)


def place_of(link: Link, run: Run) -> Place:
    """Where the run works, as last recorded."""
    return place_for(run, None, tuple(row[0] for row in link.all(_NODES, key_pk=run.pk)))


def save_place(link: Link, pk: int, nodes: tuple[str, ...]) -> None:
    """Record where the run works."""
    link.run(_FORGET, key_pk=pk)
    link.run_many(_ADD, [(pk, depth, node) for depth, node in enumerate(nodes)])


def blocker(link: Link, pk: int, place: Place) -> str | None:
    """The key at which to wait for another held run: it works in the same directory, beneath it, or around it."""
    if not place.nodes:
        return None
    common = {"key_realm": place.realm, "key_pk": pk, "key_shared": int(place.shared)}
    if link.one(_LOCKED_INSIDE, **common, key_own=place.nodes[0]):
        return f"{_IN}|{place.realm}|{place.nodes[0]}"
    row = link.one(_LOCKED_OUTSIDE, **common, key_chain=dump(place.nodes))
    return f"{_OUT}|{place.realm}|{row[0]}" if row else None


def lock_place(link: Link, pk: int, place: Place) -> None:
    """Lock the workspace of a held run; the caller has asked `blocker`."""
    rows = [(pk, depth, place.realm, node, int(place.shared)) for depth, node in enumerate(place.nodes)]
    link.run_many(_LOCK, rows)


def unlock(link: Link, pk: int) -> Place | None:
    """Remove the locks of a run; where they were, None if it had none."""
    rows = sorted(link.all(_UNLOCK, key_pk=pk), key=lambda row: row[2])
    if not rows:
        return None
    return Place(realm=rows[0][0], nodes=tuple(row[1] for row in rows), shared=False)


def left_place(context: Context, place: Place) -> None:
    """A run works in `place` no more: open the gates of those that may be next."""
    if place.nodes:
        _let_through(context, place.worked_in)


def left_queue(context: Context, place: Place, *, waits_at: str | None = None) -> bool:
    """A run that was let through for `place` was claimed, or waits for something else, or at `waits_at`: open the gates
    of those that may be next; whether there were any.
    """
    return bool(place.nodes) and _let_through(
        context, [name for name in place.queued_for if name != waits_at]
    )


def _let_through(context: Context, names: list[str]) -> bool:
    """Where somebody works exclusively nobody can go, and that one's end will come here too."""
    link = context.link
    waited = [row[0] for row in link.all(_WAITED_FOR, key_keys=dump(names))]
    free = [name for name in waited if not _taken(link, name)]
    next_ones = [pk for name in free for pk in _first_of_each_lane(link, name)]
    for pk in next_ones:
        open_gate(context, pk)
    return bool(next_ones)


def _taken(link: Link, name: str) -> bool:
    """Whether somebody works there for whom everybody at that key has to wait."""
    side, realm, node = name.split("|", 2)
    common = {"key_realm": realm, "key_pk": 0, "key_shared": 1}
    if side == _IN:
        return link.one(_LOCKED_INSIDE, **common, key_own=node) is not None
    return link.one(_LOCKED_OUTSIDE, **common, key_chain=dump([node])) is not None


def _first_of_each_lane(link: Link, name: str) -> Iterable[int]:
    lane = -1
    while row := link.one(_FIRST_OF_NEXT_LANE, key_key=name, key_lane=lane):
        pk, lane = row
        yield pk
