"""The work that a cluster is given while it is broken: a mixture of runs, drawn from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from overnight.testing.cluster.layout import Layout

Kind = Literal["plain", "long", "turns", "budget", "cancel", "pause", "ask", "chat"]
SHARES: Final[Mapping[Kind, int]] = {
    "plain": 38, "long": 8, "turns": 12, "budget": 8, "cancel": 12, "pause": 6, "ask": 10, "chat": 6,
}  # fmt: skip
Place = Literal["scratch", "shared", "git"]
PLACES: Final[tuple[Place, ...]] = ("scratch", "shared", "shared", "git")


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """One message of a conversation."""

    key: str
    text: str
    delay_s: float
    """How long after the one before."""
    taken_back: bool
    """Its sender wants it back at once; where that comes too late, it has been said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run to be, or one conversation, and what its client does with it."""

    number: int
    key: str
    kind: Kind
    spec: Mapping[str, object]
    """Of the run; of a conversation the session's configuration."""
    delay_s: float
    """How long the client waits before it cancels, pauses or decides."""
    turns: int | None = None
    """How many turns it takes to be completed, where nobody but its limits ends it."""
    messages: tuple[Words, ...] = ()


def draw(chance: random.Random, count: int, layout: Layout, *, pace_s: float = 0.1) -> list[Job]:
    """`count` jobs; the same for the same seed."""
    return [_job(chance, number, layout, pace_s) for number in range(1, count + 1)]


def _job(chance: random.Random, number: int, layout: Layout, pace_s: float) -> Job:
    kind = chance.choices(list(SHARES), weights=list(SHARES.values()))[0]
    key = f"job-{number}-{chance.getrandbits(32):08x}"
    place = chance.choice(PLACES)
    lines = chance.randint(3, 24)
    plan: dict[str, object] = {
        "lines": lines if kind == "plain" else max(3, lines // 3),
        "pace": pace_s,
        "job": key,
    }
    limits: dict[str, object] = {"attempts": 20}
    spec: dict[str, object] = {
        "backend": "witness",
        "mode": "oneshot",
        "workspace": _workspace(place, number, layout),
        "priority": chance.choice((0, 0, 0, 5)),
        "limits": limits,
    }
    job = Job(number=number, key=key, kind=kind, spec=spec, delay_s=chance.uniform(0, 1.5), turns=1)
    match kind:
        case "plain":
            plan["child"] = chance.random() < 0.1
        case "long":
            plan["lines"] = chance.randint(60, 120)
        case "turns" | "pause":
            spec["mode"], limits["turns"] = "continuous", (turns := chance.randint(2, 3))
            job = replace(job, turns=turns)
        case "budget":
            plan["tokens"] = 50
            spec["mode"], limits["turns"], limits["tokens"] = "continuous", 2, 10
            job = replace(job, turns=2)
        case "cancel":
            plan |= {"lines": 600, "child": True, "stubborn": chance.random() < 0.3}
        case "ask":
            plan["asks"] = chance.randint(1, 2)
            spec |= {"backend": "asker", "approval_policy": "ask_all"}
        case "chat":
            del spec["mode"], spec["priority"]
            return replace(job, turns=None, messages=_messages(chance, key, plan))
    spec["goal"] = f"witness {json.dumps(plan)}"
    return job


def _messages(chance: random.Random, key: str, plan: Mapping[str, object]) -> tuple[Words, ...]:
    found = []
    for number in range(1, chance.randint(3, 5) + 1):
        own = f"{key}-{number}"
        found.append(
            Words(
                key=own, text=f"witness {json.dumps({**plan, 'job': own})}", delay_s=chance.uniform(0, 1.5),
                taken_back=number > 1 and chance.random() < 0.2,
            )
        )  # fmt: skip
    return tuple(found)


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
