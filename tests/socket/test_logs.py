"""Logs over a socket: exact from any cursor, many on one connection, over cuts, for those who may read them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.stage import Stage, staged

from overnight.client.socket.connector import Backoff, Connector
from overnight.client.socket.link import Link, Nacked
from overnight.client.socket.target import Target
from overnight.client.socket.transport import SocketTransport
from overnight.domain.agent_token import Claim, agent_secret, key_of_run
from overnight.engine.agent_access import agent_key
from overnight.errors import StreamTrimmed
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def linked(stage: Stage, token: str | None = None) -> AsyncIterator[Link]:
    transport = SocketTransport()
    await transport.connect(Target(url=f"ws://127.0.0.1:{stage.port}", token=token or stage.secret))
    link = Link("client", transport)
    task = asyncio.create_task(link.run())
    await link.ready()
    try:
        yield link
    finally:
        await link.close()
        await task


async def events(link: Link, scope: str, upto: int) -> list[dict[str, Any]]:
    """What comes until entry `upto`."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        async for one in link.inbox(scope):
            if one.type in {"run.events", "agent.event"}:
                found += one.payload["events"]
                assert one.payload["cursor"] == found[-1]["seq"]
            if found and found[-1]["seq"] >= upto:
                break
    return found


async def subscribe(link: Link, run: str, after: int = 0, **more: Any) -> None:
    await link.request(f"run:{run}", "run.subscribe", {"run": run, "after": after, **more})


async def test_a_log_comes_whole_then_live_then_ends(stage: Stage) -> None:
    run = await stage.submitted()
    await stage.append(run, *(f"before {n}" for n in range(300)))
    async with linked(stage) as link:
        await subscribe(link, run.id, flow={"window": 2})
        first = await events(link, f"run:{run.id}", 301)
        await stage.append(run, "live")
        more = await events(link, f"run:{run.id}", 302)
        await stage.finish(run)
        rest = [one async for one in link.inbox(f"run:{run.id}")]
    log = await stage.log(run)
    told = (
        first + more + [event for one in rest if one.type == "run.events" for event in one.payload["events"]]
    )
    assert told == [json.loads(event.body) for event in log]
    assert (rest[-1].type, rest[-1].payload["cursor"]) == ("run.end", log[-1].seq)


@pytest.mark.parametrize("after", [0, 1, 150, 300])
async def test_any_cursor_goes_on_exactly_behind_it(stage: Stage, after: int) -> None:
    run = await stage.submitted()
    await stage.append(run, *(str(n) for n in range(300)))
    async with linked(stage) as link:
        await subscribe(link, run.id, after)
        found = await events(link, f"run:{run.id}", 301)
    assert [event["seq"] for event in found] == list(range(after + 1, 302))


async def test_many_logs_share_a_connection(stage: Stage) -> None:
    runs = [await stage.submitted(f"goal {n}") for n in range(20)]
    async with linked(stage) as link:
        for run in runs:
            await subscribe(link, run.id)
        for n in range(5):
            await asyncio.gather(*(stage.append(run, f"{run.id} {n}") for run in runs))
        for run in runs:
            found = await events(link, f"run:{run.id}", 6)
            said = [event["data"]["text"] for event in found if event["type"] == "message.completed"]
            assert said == [f"{run.id} {n}" for n in range(5)]


async def test_followers_over_cuts_miss_nothing_and_hear_nothing_twice(stage: Stage) -> None:
    run = await stage.submitted()
    link = Link("client")
    connector = Connector(
        link,
        Target(url=f"ws://127.0.0.1:{stage.port}", token=stage.secret),
        backoff=Backoff(first_s=0.01, most_s=0.05),
    )
    running = asyncio.create_task(connector.run())
    heard: list[int] = []
    goal = [0]

    def arrived() -> bool:
        return bool(heard) and heard[-1] >= goal[0]

    async def follow() -> None:
        async for one in connector.follow(f"run:{run.id}"):
            heard.extend(event["seq"] for event in one.payload.get("events", ()))

    following = asyncio.create_task(follow())
    for n in range(6):
        await stage.append(run, *(f"{n} {m}" for m in range(50)))
        goal[0] = 1 + (n + 1) * 50
        await eventually(arrived)
        await connector._transport.close(1011, "cut")
    await stage.finish(run)
    async with asyncio.timeout(30):
        await following
    await connector.close()
    await running
    assert heard == list(range(1, len(await stage.log(run)) + 1))
    assert connector.attempts >= 6


async def test_who_follows_no_longer_hears_no_more(stage: Stage) -> None:
    run = await stage.submitted()
    async with linked(stage) as link:
        await subscribe(link, run.id)
        await events(link, f"run:{run.id}", 1)
        await link.request(f"run:{run.id}", "run.unsubscribe", {})
        rest = [one.type async for one in link.inbox(f"run:{run.id}")]
        await stage.append(run, "unheard")
        assert rest == ["run.end"]
        await subscribe(link, run.id, 1)
        assert [event["seq"] for event in await events(link, f"run:{run.id}", 2)] == [2]


async def test_what_cannot_be_followed_is_refused_with_its_code(stage: Stage) -> None:
    run = await stage.submitted()
    strangers = await stage.token(owner="usr_other")
    worker = await stage.token(kind="worker")
    key = key_of_run(await agent_key(stage.store), run.id)
    process = agent_secret(key, Claim(run_id=run.id, turn=run.turn, attempt=run.attempt))
    other = await stage.submitted("another")
    missing = "run_" + "0" * 26
    for token, id, after, code in (
        (stage.secret, run.id, 2, "invalid_cursor"),
        (stage.secret, missing, 0, "not_found"),
        (stage.secret, "nonsense", 0, "invalid_id"),
        (strangers, run.id, 0, "not_found"),
        (worker, run.id, 0, "not_available"),
        (process, other.id, 0, "forbidden"),
    ):
        async with linked(stage, token) as link:
            with pytest.raises(Nacked) as refused:
                await subscribe(link, id, after)
            assert refused.value.code == code, (id, code)
    async with linked(stage, process) as link:
        await subscribe(link, run.id)
        assert await events(link, f"run:{run.id}", 1)


async def test_a_log_whose_beginning_is_gone_tells_of_the_gap(stage: Stage) -> None:
    run = await stage.submitted()
    await stage.append(run, *(str(n) for n in range(20)))
    await stage.store.write(lambda tx: tx.events.trim(run.pk, 10, 100))
    async with linked(stage) as link:
        with pytest.raises(Nacked) as refused:
            await subscribe(link, run.id, 3)
        assert (refused.value.code, refused.value.extra["earliest"]) == ("stream_trimmed", 10)
        await link.resume({f"run:{run.id}": 3})
        with pytest.raises(StreamTrimmed):
            await events(link, f"run:{run.id}", 21)


async def test_long_entries_come_in_messages_that_fit(stage: Stage) -> None:
    run = await stage.submitted()
    for n in range(12):
        await stage.append(run, str(n) * 200_000)
    async with linked(stage) as link:
        await subscribe(link, run.id)
        assert [event["seq"] for event in await events(link, f"run:{run.id}", 13)] == list(range(1, 14))
