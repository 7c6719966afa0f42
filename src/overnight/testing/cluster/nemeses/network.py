"""Links between members and databases that are cut, silent, one-way or slow."""

from __future__ import annotations

import asyncio
from typing import get_args

from overnight.testing.cluster.links import Mode
from overnight.testing.cluster.members import Member
from overnight.testing.cluster.nemeses.nemesis import Nemesis, has_links, has_workers
from overnight.testing.cluster.stage import Stage

BAD: tuple[Mode, ...] = tuple(mode for mode in get_args(Mode) if mode != "open")


async def part(stage: Stage) -> None:
    """A member cannot reach one database, for a moment or past its lease."""
    member = stage.chance.choice(stage.cluster.members)
    lease = stage.cluster.layout.lease_s
    seconds = stage.chance.choice((stage.chance.uniform(0.3, lease / 2), lease + stage.chance.uniform(1, 4)))
    await _hinder(stage, member, stage.chance.choice(BAD), (stage.chance.choice(member.links),), seconds)


async def isolate_worker(stage: Stage) -> None:
    """A worker reaches nothing any more, without being told, past its lease: its agents must be gone by then."""
    member = stage.chance.choice(stage.cluster.workers)
    seconds = stage.cluster.layout.lease_s + stage.chance.uniform(1, 4)
    await _hinder(stage, member, "silent", member.links, seconds)


async def _hinder(stage: Stage, member: Member, mode: Mode, links: tuple[str, ...], seconds: float) -> None:
    assert stage.cluster.links is not None
    lost = member if any("postgres" in link for link in links) and mode != "slow" else None
    async with stage.fault(f"link {mode}", ", ".join(links), f"for {seconds:.1f} s", lost=lost):
        try:
            await stage.cluster.links.become(mode, *links)
            await asyncio.sleep(seconds)
        finally:
            await stage.cluster.links.become("open", *links)
    await member.ready()


def _workers_with_links(stage: Stage) -> str | None:
    return has_workers(stage) or has_links(stage)


NETWORK = (
    Nemesis(name="partition", act=part, missing=has_links, weight=3),
    Nemesis(name="isolate worker", act=isolate_worker, missing=_workers_with_links, weight=2),
)
