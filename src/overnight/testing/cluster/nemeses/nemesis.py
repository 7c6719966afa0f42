"""What every nemesis is: something that is done to a cluster, and undone."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from overnight.testing.cluster.stage import Stage


def anywhere(stage: Stage) -> str | None:  # noqa: ARG001 -- one of many
    """For a nemesis that any cluster can meet."""
    return None


@dataclass(frozen=True, kw_only=True)
class Nemesis:
    """`act` draws everything from the stage's chance, and returns once it has undone what it did.

    `missing` says why it cannot be done to this cluster, None: it can.
    """

    name: str
    act: Callable[[Stage], Coroutine[Any, Any, None]]
    missing: Callable[[Stage], str | None] = anywhere
    weight: int = 1


def has_postgres(stage: Stage) -> str | None:
    """For those who hurt Postgres."""
    return None if stage.cluster.postgres is not None else "this cluster has no Postgres"


def has_valkey(stage: Stage) -> str | None:
    """For those who hurt Valkey."""
    if stage.cluster.valkey is None:
        return "this cluster has no Valkey"
    return "Valkey is hurt already" if stage.valkey.locked() else None


def has_workers(stage: Stage) -> str | None:
    """For those who hurt a worker that is a process of its own."""
    return None if stage.cluster.workers else "this cluster has no workers apart"


def has_links(stage: Stage) -> str | None:
    """For those who hurt the network."""
    return (
        None
        if stage.cluster.links is not None
        else "the members of this cluster have no network between them"
    )
