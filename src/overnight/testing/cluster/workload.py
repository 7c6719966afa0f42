"""Carries jobs as people would: submits them, follows them, cancels, pauses and decides, over every failure."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import httpx2

from overnight.testing.cluster.jobs import Job
from overnight.testing.cluster.layout import TOKEN
from overnight.testing.cluster.programs import processes_by_run
from overnight.testing.cluster.talks import converse
from overnight.testing.history.clients import Answer, RecordedClient, place_of
from overnight.testing.history.entries import Leftover
from overnight.testing.history.readers import Reader, Watch
from overnight.testing.history.recorder import Recorder, boot
from overnight.testing.history.talkers import Talker

PASSING: Final = frozenset(
    {"unavailable", "draining", "unreachable", "too_many_requests", "disk_full", "action_changed"}
)
"""Refusals that a client meets by trying again later."""
FIRST_REST_S, LONGEST_REST_S = 0.1, 1.0


class Course:
    """What a reader has seen of a run, for those who wait for it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.approvals: list[str] = []
        """What was asked of people, in that order."""
        self._stirred = asyncio.Event()

    def watch(self, event: dict[str, Any]) -> None:
        """Called with every event."""
        self.counts[event["type"]] += 1
        if event["type"] == "approval.requested" and event["data"]["approval_id"] not in self.approvals:
            self.approvals.append(event["data"]["approval_id"])
        self._stirred.set()
        self._stirred = asyncio.Event()

    async def until(self, *types: str) -> str:
        """The first of these types that has been seen; waits for it."""
        while True:
            for type in types:
                if self.counts[type]:
                    return type
            await self._stirred.wait()

    async def question(self, number: int) -> str | None:
        """The approval that is asked for as the `number`th, from 0; None when the run has ended without."""
        while len(self.approvals) <= number:
            if self.ended:
                return None
            await self._stirred.wait()
        return self.approvals[number]

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return any(self.counts[type] for type in FINAL)


FINAL = ("run.completed", "run.failed", "run.cancelled")


class Workload:
    """At most `at_once` runs under way. `counts` tells how far it is."""

    def __init__(
        self, recorder: Recorder, client: RecordedClient, chance: random.Random, *,
        at_once: int = 24, readers: int = 2,
    ) -> None:  # fmt: skip
        self._recorder = recorder
        self.client = client
        self.talker = Talker(recorder, client)
        self._chance = chance
        self._slots = asyncio.Semaphore(at_once)
        self._readers = readers
        self.http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=httpx2.Timeout(30, connect=2),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )  # fmt: skip
        self.counts: Counter[str] = Counter()
        self.runs: dict[str, str] = {}
        """Run id by key, of every run that was seen to begin."""
        self.places: dict[str, str] = {}
        """What kind of workspace each of them has, by the run's id."""
        self.sessions: list[str] = []
        self.to_be_cancelled: set[str] = set()
        """Runs at work whose clients are about to cancel them."""
        self.unsettled: dict[str, Mapping[str, object]] = {}
        """What others have submitted, to be submitted again in the end under the same keys."""
        self.live: dict[str, Course] = {}
        self.all_begun = asyncio.Event()
        """Set once the last job is under way: from then on everything must come to its end."""

    async def close(self) -> None:
        """Close the readers' connections."""
        await self.http.aclose()

    async def carry_all(self, jobs: list[Job], over_s: float = 0) -> None:
        """Carry every job to its end, begun evenly over `over_s` seconds."""
        began = boot()
        async with asyncio.TaskGroup() as group:
            for index, job in enumerate(jobs):
                await asyncio.sleep(max(0.0, began + over_s * index / len(jobs) - boot()))
                await self._slots.acquire()
                group.create_task(self._carry(job))
            self.all_begun.set()

    async def settle_the_rest(self) -> None:
        """Learn what became of every submission that others have made, and carry what came of it to its end."""
        jobs = [
            Job(number=0, key=key, kind="plain", spec=spec, delay_s=0, turns=1)
            for key, spec in self.unsettled.items()
        ]
        await self.carry_all(jobs)

    async def _carry(self, job: Job) -> None:
        try:
            if job.kind == "chat":
                self.counts["accepted"] += 1
                await converse(self, job)
            else:
                ask = partial(self.client.submit, job.spec, job.key, turns=job.turns)
                answer = await self.accepted(ask, job.key)
                self.counts["accepted"] += 1
                run_id = str(answer.body["id"])
                self.places[run_id] = place_of(job.spec)
                await self.follow(job.key, run_id, partial(self._meddle, job, run_id))
            self.counts["ended"] += 1
        finally:
            self._slots.release()

    async def accepted(self, ask: Callable[[], Awaitable[Answer]], key: str) -> Answer:
        """Ask until it is accepted. AssertionError when it is refused for good."""
        answer = await self.until_certain(ask)
        assert answer.outcome == "accepted", f"{key} was refused for good: {answer.body}"
        return answer

    async def follow(
        self, key: str, run_id: str, meddle: Callable[[Course], Awaitable[object]] | None = None
    ) -> None:
        """Read a run to its end, twice, and do to it meanwhile what is to be done."""
        self.runs[key] = run_id
        course = self.live[run_id] = Course()
        try:
            async with asyncio.TaskGroup() as group:
                for reader in self.readers_of(run_id, course.watch):
                    group.create_task(reader.read())
                await (meddle(course) if meddle else self.client.snapshot(run_id))
        finally:
            del self.live[run_id]

    def readers_of(self, stream_id: str, watch: Watch | None = None) -> list[Reader]:
        """Live readers of a run or session, each at another server."""
        first = self._chance.randrange(len(self.client.urls))
        return [
            Reader(
                self._recorder, self.http, self.client.urls, stream_id, name=f"live-{n}", first=first + n,
                watch=watch if n == 0 else None,
            )
            for n in range(self._readers)
        ]  # fmt: skip

    async def _meddle(self, job: Job, run_id: str, course: Course) -> None:
        match job.kind:
            case "cancel":
                await self._cancel(job, run_id, course)
            case "pause":
                await self._pause(job, run_id, course)
            case "budget":
                changes = {"limits": {"tokens": 1_000_000}}
                await self._decide(job, run_id, course, {"raise": {"changes": changes}, "finish": {}})
            case "ask":
                await self._decide(job, run_id, course, {"allow_once": {}, "reject_once": {}})
            case _:
                await self.client.snapshot(run_id)

    async def _cancel(self, job: Job, run_id: str, course: Course) -> None:
        await course.until("turn.started", *FINAL)
        self.to_be_cancelled.add(run_id)
        await asyncio.sleep(job.delay_s)
        await self.until_certain(lambda: self.client.control(run_id, "cancel"))
        self.to_be_cancelled.discard(run_id)
        await course.until(*FINAL)
        self.look_for_leftovers(run_id)

    async def _pause(self, job: Job, run_id: str, course: Course) -> None:
        await course.until("turn.started", *FINAL)
        await asyncio.sleep(job.delay_s)
        await self.until_certain(lambda: self.client.control(run_id, "pause"))
        await course.until("run.paused", *FINAL)
        await self.client.snapshot(run_id)
        while not course.ended:
            # A pause that was asked for again after a lost answer may come once more.
            await self.until_certain(lambda: self.client.control(run_id, "resume"))
            await asyncio.sleep(1)

    async def _decide(
        self, job: Job, run_id: str, course: Course, options: Mapping[str, Mapping[str, object]]
    ) -> None:
        """Whatever the run asks: two people decide it at once, each otherwise."""
        number = 0
        while (approval_id := await course.question(number)) is not None:
            number += 1
            await self.client.snapshot(run_id)
            await asyncio.sleep(job.delay_s)
            await asyncio.gather(
                *(
                    self.until_certain(partial(self.client.decide, run_id, approval_id, option, **more))
                    for option, more in self._mixed(options)
                )
            )

    def _mixed(self, options: Mapping[str, Mapping[str, object]]) -> list[tuple[str, Mapping[str, object]]]:
        """In an order drawn by chance: who asks first is mostly the one who decides."""
        return self._chance.sample(list(options.items()), len(options))

    async def until_certain(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask until there is an answer that is neither lost nor passing."""
        rest = FIRST_REST_S
        while True:
            answer = await ask()
            if answer.outcome == "accepted" or (answer.outcome == "refused" and answer.code not in PASSING):
                return answer
            self.counts[answer.outcome] += 1
            await asyncio.sleep(rest)
            rest = min(LONGEST_REST_S, rest * 2)

    def look_for_leftovers(self, *run_ids: str) -> None:
        """Record which processes carry the marker of runs that have ended."""
        left = processes_by_run()
        for run_id in run_ids:
            self._recorder.add(Leftover(at=boot(), run_id=run_id, pids=tuple(left.get(run_id, ()))))
