"""The work that a cluster is given while it is broken: a mixture of runs, drawn from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from overnight.testing.cluster.layout import Layout

Kind = Literal["plain", "turns", "budget", "cancel", "pause"]
SHARES: Final[Mapping[Kind, int]] = {"plain": 60, "turns": 14, "budget": 8, "cancel": 12, "pause": 6}
Place = Literal["scratch", "shared", "git"]
PLACES: Final[tuple[Place, ...]] = ("scratch", "shared", "shared", "git")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run to be, and what its client does with it."""

    number: int
    key: str
    kind: Kind
    spec: Mapping[str, object]
    delay_s: float
    """How long the client waits before it cancels or pauses."""


def draw(chance: random.Random, count: int, layout: Layout, *, pace_s: float = 0.1) -> list[Job]:
    """`count` jobs; the same for the same seed."""
    return [_job(chance, number, layout, pace_s) for number in range(1, count + 1)]


def _job(chance: random.Random, number: int, layout: Layout, pace_s: float) -> Job:
    kind = chance.choices(list(SHARES), weights=list(SHARES.values()))[0]
    place = chance.choice(PLACES)
    lines = chance.randint(3, 24)
    plan: dict[str, object] = {"lines": lines if kind == "plain" else max(3, lines // 3), "pace": pace_s}
    more: dict[str, object] = {"mode": "oneshot"}
    match kind:
        case "plain":
            plan["child"] = chance.random() < 0.1
        case "turns" | "pause":
            more = {"mode": "continuous", "limits": {"turns": chance.randint(2, 3), "attempts": 20}}
        case "budget":
            plan["tokens"] = 50
            more = {"mode": "continuous", "limits": {"turns": 2, "tokens": 10, "attempts": 20}}
        case "cancel":
            plan |= {"lines": 600, "child": True, "stubborn": chance.random() < 0.3}
    more.setdefault("limits", {"attempts": 20})
    spec = {
        "goal": f"witness {json.dumps(plan)}",
        "backend": "witness",
        "workspace": _workspace(place, number, layout),
        "priority": chance.choice((0, 0, 0, 5)),
        **more,
    }
    return Job(
        number=number, key=f"job-{number}-{chance.getrandbits(32):08x}", kind=kind, spec=spec,
        delay_s=chance.uniform(0, 1.5),
    )  # fmt: skip


def _workspace(place: Place, number: int, layout: Layout) -> object:
    match place:
        case "scratch":
            return None
        case "shared":
            folder = layout.shared / f"job-{number}"
            folder.mkdir(exist_ok=True)
            return str(folder)
        case "git":
            return {"git": str(layout.repository), "ref": "main"}
