"""What the sandbox costs a turn: the same short agent with it and without, in turns, under real keepers."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from tests.sandbox.estate import Estate, Script, estate, surroundings
from tests.sandbox.test_lifecycle import below

from bench import stage
from bench.figure import Figure
from overnight.domain.spec import Sandbox
from overnight.testing.signals import eventually
from overnight.workspaces.sandbox import Bubblewrap
from overnight.workspaces.sandbox_network import Network

ROUNDS = 60
AGENT = Script(argv=("/bin/echo", "hello"))


async def figures(*, long: bool) -> AsyncIterator[Figure]:
    del long
    with estate() as place:
        with_list = Bubblewrap(surroundings(place.root), network=Network(allowed=("example.com",)))
        with_list.try_out()
        plain: list[float] = []
        confined: list[float] = []
        for _ in range(ROUNDS):
            plain.append(await _turn(place, "full_access"))
            confined.append(await _turn(place, "workspace_write"))
        gated = [await _turn(place, "workspace_write", with_list) for _ in range(ROUNDS // 2)]
        least = statistics.median(plain)
        yield Figure(
            name="a turn of /bin/echo, confined", value=statistics.median(confined), unit="ms", limit=least,
            limit_name="without a sandbox",
        )  # fmt: skip
        added = [more - less for more, less in zip(confined, plain, strict=True)]
        yield Figure(name="which is added, p50", value=statistics.median(added), unit="ms", aim="≤ 30")
        yield Figure(name="which is added, p90", value=_high(added), unit="ms")
        yield Figure(
            name="which is added with a list of hosts, p50", value=statistics.median(gated) - least, unit="ms"
        )
        yield Figure(name="memory of a sandbox (PSS)", value=await _memory(place), unit="MiB")


async def _turn(place: Estate, level: Sandbox, sandbox: Bubblewrap | None = None) -> float:
    """Milliseconds from the start of a turn to the end of its output."""
    start = place.start_of("run_bench", sandbox=level)
    begun = time.perf_counter()
    told = await place.tell(AGENT, start, sandbox)
    took = (time.perf_counter() - begun) * 1000
    if told.last != "hello":
        raise RuntimeError(f"the agent said {told.lines}, {told.errors}")
    return took


def _high(values: list[float]) -> float:
    return statistics.quantiles(values, n=10)[-1]


async def _memory(place: Estate) -> float:
    """Of the two processes that stand above an agent."""
    start = replace(place.start_of("run_bench"), sandbox="workspace_write")
    turn = await place.begin(Script(argv=("/bin/sleep", "60")), start)
    agent = turn.pid
    assert agent is not None

    def started() -> list[int]:
        found = [agent, *below(agent)]
        return found if len(found) == 3 and Path(f"/proc/{found[2]}/comm").read_text() == "sleep\n" else []

    pids = await eventually(started, within=10)
    total = sum(stage.memory(pid, "Pss") for pid in pids[:2])
    await turn.stop(reason="manual", interrupt=False)
    async for _ in turn.batches():
        pass
    await turn.release()
    return total
