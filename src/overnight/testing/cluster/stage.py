"""What a nemesis works with: the cluster, chance, and the record of what it did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from overnight.testing.cluster.members import Cluster, Member
from overnight.testing.cluster.workload import Workload
from overnight.testing.history.entries import Fault
from overnight.testing.history.recorder import Recorder, boot


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One trial under way."""

    cluster: Cluster
    recorder: Recorder
    workload: Workload
    chance: Random
    say: Callable[[str], None]
    began: float = field(default_factory=boot)
    valkey: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever hurts Valkey: nemeses side by side must not undo what another does."""

    async def let_pass(self, seconds: float) -> None:
        """Let real time pass, where the instant of a fault, or a lease, is what is tried."""
        await asyncio.sleep(seconds)

    @asynccontextmanager
    async def fault(
        self, name: str, target: str = "", words: str = "", *, lost: Member | None = None
    ) -> AsyncIterator[None]:
        """Record that the fault begins, and that it has been undone, whatever happens in between.

        `lost`: the member that cannot do anything for its runs meanwhile.
        """
        host = (lost.host_id or "") if lost is not None else ""
        self.say(f"{boot() - self.began:4.0f} s: {name} {target} {words}".rstrip())
        self.recorder.add(Fault(at=boot(), name=name, phase="began", target=target, words=words, host=host))
        try:
            yield
        finally:
            self.recorder.add(
                Fault(at=boot(), name=name, phase="ended", target=target, words=words, host=host)
            )
