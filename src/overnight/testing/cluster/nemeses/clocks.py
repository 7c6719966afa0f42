"""Wall clocks that jump."""

from __future__ import annotations

import asyncio

from overnight.testing.cluster.clock import library, set_offset
from overnight.testing.cluster.nemeses.nemesis import Nemesis
from overnight.testing.cluster.stage import Stage


def _missing(stage: Stage) -> str | None:
    if library() is None:
        return "libfaketime is not installed (Debian: faketime)"
    return None if stage.cluster.offsets else "no member of this cluster was started with a clock of its own"


async def jump(stage: Stage) -> None:
    """The wall clock of one member is hours off, for a while."""
    name = stage.chance.choice(sorted(stage.cluster.offsets))
    seconds = stage.chance.choice((-7200.0, -30.0, 30.0, 7200.0))
    async with stage.fault("clock jump", name, f"by {seconds:+.0f} s"):
        try:
            set_offset(stage.cluster.offsets[name], seconds)
            await asyncio.sleep(stage.chance.uniform(1, 4))
        finally:
            set_offset(stage.cluster.offsets[name], 0)


CLOCKS = (Nemesis(name="clock jump", act=jump, missing=_missing),)
