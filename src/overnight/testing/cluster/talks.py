"""Conversations, as people have them: one message after the other, some of which are wanted back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from overnight.testing.cluster.jobs import Job, Words
from overnight.testing.history.clients import Answer
from overnight.testing.history.readers import Reader
from overnight.testing.history.talkers import Talker

Ask = Callable[[], Awaitable[Answer]]


class Carrier(Protocol):
    """Who carries a conversation: the workload."""

    talker: Talker
    sessions: list[str]

    async def accepted(self, ask: Ask, key: str) -> Answer:
        """Ask until it is accepted."""
        ...

    async def until_certain(self, ask: Ask) -> Answer:
        """Ask until there is an answer that is neither lost nor passing."""
        ...

    async def follow(self, key: str, run_id: str) -> None:
        """Read a run to its end."""
        ...

    def readers_of(self, stream_id: str) -> Sequence[Reader]:
        """Live readers of a session."""
        ...


async def converse(carrier: Carrier, job: Job) -> None:
    """Open a session, say everything in it, and follow its runs to their ends."""
    made = await carrier.accepted(partial(carrier.talker.open, job.spec, job.key), job.key)
    session_id = str(made.body["id"])
    carrier.sessions.append(session_id)
    async with asyncio.TaskGroup() as readers:
        reading = [readers.create_task(reader.read()) for reader in carrier.readers_of(session_id)]
        async with asyncio.TaskGroup() as following:
            await _Talk(carrier, job, session_id, following).carry()
        for task in reading:
            task.cancel()


class _Talk:
    """One conversation under way. Its runs are followed in `following`."""

    def __init__(self, carrier: Carrier, job: Job, session_id: str, following: asyncio.TaskGroup) -> None:
        self._carrier = carrier
        self._job = job
        self._session_id = session_id
        self._following = following
        self._runs: set[str] = set()

    async def carry(self) -> None:
        """Say everything, then look which runs have come of it; no later one can."""
        for words in self._job.messages:
            await asyncio.sleep(words.delay_s)
            await self._say(words)
        answer = await self._carrier.until_certain(partial(self._carrier.talker.runs, self._session_id))
        for run in answer.body["items"]:
            self._follow(run)

    async def _say(self, words: Words) -> None:
        carrier, talker = self._carrier, self._carrier.talker
        posted = await carrier.accepted(
            partial(talker.post, self._session_id, words.text, words.key), words.key
        )
        if posted.body["run"] is not None:
            self._follow(posted.body["run"])
        if words.taken_back:
            message_id = posted.body["message"]["id"]
            await carrier.until_certain(partial(talker.take_back, self._session_id, message_id, words.key))

    def _follow(self, run: dict[str, Any]) -> None:
        if run["id"] not in self._runs:
            self._runs.add(run["id"])
            key = f"{self._job.key}/{len(self._runs)}"
            self._following.create_task(self._carrier.follow(key, run["id"]))
