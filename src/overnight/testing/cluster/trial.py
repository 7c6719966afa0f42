"""One trial: a cluster, work, nemeses, and at the end the verdict."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from overnight.testing.cluster.jobs import draw
from overnight.testing.cluster.layout import TOKEN, Layout
from overnight.testing.cluster.members import Cluster
from overnight.testing.cluster.stage import Stage
from overnight.testing.cluster.workload import Workload
from overnight.testing.history import History, Recorder, Verdict, boot, check
from overnight.testing.history.clients import RecordedClient
from overnight.testing.history.entries import Closed, Opened
from overnight.testing.history.model import FINAL
from overnight.testing.history.readers import Overview, Reader
from overnight.testing.signals import eventually

T = TypeVar("T")
Plot = Callable[[Stage], Awaitable[None]]
"""What is done to the cluster while it works."""

LONGEST_S = 900.0
"""How long a trial may take to begin with all of its work after its plot has ended."""

LATE_S = 300.0
"""How long all that is asked in the end may take, and then all late readers together."""
SHOWN_S = 30.0
"""How long the readers of summaries may take after that."""
REST_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is tried. The seed draws the work and whatever the plot leaves to chance."""

    layout: Layout
    seed: int
    runs: int
    plot: Plot
    over_s: float = 0
    """The runs are submitted evenly over this time."""
    at_once: int = 24
    bound_s: float = 60
    """How long after the last fault everything may take to end."""
    pace_s: float = 0.1


async def carry_out(trial: Trial, say: Callable[[str], None] = lambda _: None) -> Verdict:
    """Start everything, break it, wait for the end, and judge."""
    chance = random.Random(trial.seed)  # noqa: S311 -- to be drawn again from its seed
    async with Cluster(trial.layout) as cluster:
        say(f"{len(cluster.servers)} servers and {len(cluster.workers)} workers are up")
        with Recorder(trial.layout.history) as recorder:
            client = RecordedClient(recorder, cluster.urls, TOKEN)
            workload = Workload(recorder, client, chance, at_once=trial.at_once)
            recorder.add(
                Opened(at=boot(), seed=trial.seed, bound_s=trial.bound_s, servers=tuple(cluster.urls))
            )
            stage = Stage(
                cluster=cluster,
                recorder=recorder,
                workload=workload,
                chance=random.Random(trial.seed + 1),  # noqa: S311 -- the same
                say=say,
            )
            overviews = [
                Overview(recorder, workload.http, cluster.urls, name=f"overview-{n}", first=n)
                for n in range(2)
            ]
            watching = [asyncio.create_task(overview.read()) for overview in overviews]
            try:
                settled = await _work(trial, stage, chance)
                await _look_at_the_end(trial, stage)
                await _all_shown(workload, overviews)
                recorder.add(Closed(at=boot(), settled=settled))
            finally:
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)
                await workload.close()
                await client.close()
    return check(History.load(trial.layout.history, trial.layout.agents))


async def _work(trial: Trial, stage: Stage, chance: random.Random) -> float | None:
    """Work and plot side by side; then the work must come to its end within the bound. When it did, if it did."""
    jobs = draw(chance, trial.runs, trial.layout, pace_s=trial.pace_s)
    work = asyncio.create_task(stage.workload.carry_all(jobs, trial.over_s))
    progress = asyncio.create_task(_tell(stage, trial.runs))
    try:
        await trial.plot(stage)
        try:
            async with asyncio.timeout(LONGEST_S):  # a slow machine takes its time to begin with everything
                await stage.workload.all_begun.wait()
            async with asyncio.timeout(trial.bound_s):
                await work
                await stage.workload.settle_the_rest()
        except TimeoutError:
            return None  # the checker names what has not come to its end
        return boot()
    finally:
        work.cancel()
        progress.cancel()
        await asyncio.gather(work, progress, return_exceptions=True)


async def _tell(stage: Stage, runs: int) -> None:
    while True:
        await asyncio.sleep(5)
        counts = stage.workload.counts
        stage.say(
            f"{boot() - stage.began:4.0f} s: {counts['accepted']} of {runs} accepted, {counts['ended']} ended, "
            f"{counts['refused']} refused, {counts['unknown']} unknown"
        )


async def _look_at_the_end(trial: Trial, stage: Stage) -> None:
    """What every server says in the end, what late readers get from any number, and which processes live."""
    workload, client = stage.workload, stage.workload.client
    runs = list(workload.runs.values())
    workload.look_for_leftovers(*runs)
    with suppress(TimeoutError):  # the checker names what a server did not tell
        async with asyncio.timeout(LATE_S):
            for some in _portions(runs):
                await asyncio.gather(
                    *(workload.until_certain(partial(client.snapshot, run_id)) for run_id in some)
                )
                await asyncio.gather(
                    *(until_told(partial(client.log, run_id, url)) for run_id in some for url in client.urls)
                )
            for url in client.urls:
                await until_told(partial(client.list_all, url))
                for session_id in workload.sessions:
                    await until_told(partial(workload.talker.history, session_id, url))
    with suppress(TimeoutError):  # the checker names who was never told the end
        async with asyncio.timeout(LATE_S):
            for readers in _portions(list(_late(trial, stage))):
                await asyncio.gather(*(reader.read() for reader in readers))


async def until_told(ask: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it was told."""
    await eventually(ask, within=2 * LATE_S, every=REST_S)  # whoever waits for it bounds it


async def _all_shown(workload: Workload, overviews: Sequence[Overview]) -> None:
    """Whoever watches all runs learns that they have ended."""
    wanted = set(workload.runs.values())

    def shown() -> bool:
        return all(overview.states.get(run_id) in FINAL for run_id in wanted for overview in overviews)

    with suppress(AssertionError):  # the checker names which are missing
        await eventually(shown, within=SHOWN_S, every=REST_S)


def _portions(items: Sequence[T], size: int = 20) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _late(trial: Trial, stage: Stage) -> Iterator[Reader]:
    """A reader of every run that has ended, from a number drawn by chance, and of every session from its beginning."""
    stage.recorder.flush()
    history, workload = History.load(trial.layout.history), stage.workload
    late = partial(Reader, stage.recorder, workload.http, workload.client.urls, name="late")
    for log in history.logs.values():
        if log.final is not None:
            after = stage.chance.randint(0, len(log.bodies))
            yield late(log.run_id, after=after, first=after)
    for session_id in workload.sessions:
        yield late(session_id, until=history.heard.get(session_id, 0))
