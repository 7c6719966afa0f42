"""Links between members and databases that are cut, silent, one-way or slow."""

from __future__ import annotations

import asyncio
from typing import get_args

from overnight.testing.cluster.links import Mode
from overnight.testing.cluster.members import Member
from overnight.testing.cluster.namespaces import Direction
from overnight.testing.cluster.nemeses.nemesis import Nemesis, has_links, has_workers
from overnight.testing.cluster.stage import Stage

BAD: tuple[Mode, ...] = tuple(mode for mode in get_args(Mode) if mode != "open")


async def part(stage: Stage) -> None:
    """A member cannot reach one database, for a moment or past its lease."""
    member = stage.chance.choice(stage.cluster.members)
    lease = stage.cluster.layout.lease_s
    seconds = stage.chance.choice((stage.chance.uniform(0.3, lease / 2), lease + stage.chance.uniform(1, 4)))
    await hinder(stage, member, stage.chance.choice(BAD), (stage.chance.choice(member.links),), seconds)


async def isolate_worker(stage: Stage) -> None:
    """A worker reaches nothing any more, without being told, past its lease: its agents must be gone by then."""
    member = stage.chance.choice(stage.cluster.workers)
    seconds = stage.cluster.layout.lease_s + stage.chance.uniform(1, 4)
    await hinder(stage, member, "silent", member.links, seconds)


async def hinder(stage: Stage, member: Member, mode: Mode, links: tuple[str, ...], seconds: float) -> None:
    """These links of a member are bad in that way for so long."""
    assert stage.cluster.links is not None
    needed = any(link.endswith(("-postgres", "-server")) for link in links)
    lost = member if needed and mode != "slow" else None
    async with stage.fault(f"link {mode}", ", ".join(links), f"for {seconds:.1f} s", lost=lost):
        try:
            await stage.cluster.links.become(mode, *links)
            await asyncio.sleep(seconds)
        finally:
            await stage.cluster.links.become("open", *links)
    await member.ready()


async def lose_packets(stage: Stage) -> None:
    """Every packet of a worker vanishes in the kernel, in one direction or both, past its lease."""
    spaces = stage.cluster.namespaces
    name = stage.chance.choice(sorted(spaces.made))
    direction: Direction = stage.chance.choice(("both", "in", "out"))
    seconds = stage.cluster.layout.lease_s + stage.chance.uniform(1, 4)
    member = stage.cluster.member(name)
    async with stage.fault("packets lost", name, f"{direction}, for {seconds:.1f} s", lost=member):
        spaces.drop(name, direction)
        try:
            await asyncio.sleep(seconds)
        finally:
            spaces.heal(name)


def _has_namespaces(stage: Stage) -> str | None:
    spaces = stage.cluster.namespaces
    return spaces.why_not or (None if spaces.made else "no member of this cluster has a network of its own")


def _workers_with_links(stage: Stage) -> str | None:
    return has_workers(stage) or has_links(stage)


NETWORK = (
    Nemesis(name="partition", act=part, missing=has_links, weight=3),
    Nemesis(name="isolate worker", act=isolate_worker, missing=_workers_with_links, weight=2),
    Nemesis(name="lose packets", act=lose_packets, missing=_has_namespaces, weight=2),
)
