"""Every method of the client against the real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.server.stage import Stage, staged

from overnight.cli.ids import resolve
from overnight.client import Client, Endpoint, Run
from overnight.errors import (
    Conflict,
    IdempotencyKeyReused,
    InvalidId,
    InvalidInput,
    NotFound,
    RunNotFinal,
    Unauthorized,
    UnknownBackend,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[Client]:
    async with Client(stage.base, stage.secret) as made:
        yield made


async def submitted(client: Client, goal: str = "say hello", **spec: Any) -> Run:
    return await client.submit({"goal": goal, "mode": "oneshot", "backend": "echo", **spec})


async def test_a_run_goes_in_and_is_found_again(client: Client) -> None:
    run = await submitted(client, labels={"team": "a"})
    assert await client.run(run["id"]) == run
    listed = (await client.runs(state=["queued", "running"], label=["team=a"], text="hello"))["items"]
    assert [item["id"] for item in listed] == [run["id"]]
    assert (await client.runs(state="failed"))["items"] == []
    assert (await client.counts())["total"] == 1
    assert (await client.turns(run["id"])) == []
    assert (await client.preview({"goal": "g", "backend": "echo"}))["config"]["backend"] == "echo"


async def test_the_same_key_makes_one_run(client: Client) -> None:
    first = await client.submit({"goal": "g", "backend": "echo"}, key="k")
    assert (await client.submit({"goal": "g", "backend": "echo"}, key="k"))["id"] == first["id"]
    with pytest.raises(IdempotencyKeyReused):
        await client.submit({"goal": "other", "backend": "echo"}, key="k")
    assert (await client.counts())["total"] == 1


async def test_pages_go_through_all_runs(client: Client) -> None:
    made = [(await submitted(client, str(number)))["id"] for number in range(5)]
    seen, cursor = [], None
    while True:
        page = await client.runs(limit=2, cursor=cursor)
        seen += [run["id"] for run in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


async def test_control_retry_delete(client: Client) -> None:
    run = await submitted(client)
    assert (await client.control(run["id"], "pause", reason="lunch"))["state"] == "paused"
    assert (await client.control(run["id"], "resume"))["state"] == "queued"
    assert (await client.control(run["id"], "steer", text="faster"))["steer_how"] == "queue"
    with pytest.raises(RunNotFinal):
        await client.delete(run["id"])
    results = (await client.control_many("cancel", ids=[run["id"]]))["items"]
    assert [result["ok"] for result in results] == [True]
    with pytest.raises(Conflict):
        await client.control(run["id"], "pause")
    again = await client.retry(run["id"])
    assert again["retry_of"] == run["id"]
    await client.delete(run["id"])
    with pytest.raises(NotFound):
        await client.run(run["id"])


async def test_refusals_are_the_servers_own_errors(stage: Stage, client: Client) -> None:
    with pytest.raises(UnknownBackend) as unknown:
        await client.submit({"goal": "g", "backend": "nobody"})
    assert "echo" in unknown.value.mend
    with pytest.raises(InvalidInput) as invalid:
        await client.submit({"goal": "g", "limits": {"turns": 0}})
    errors = invalid.value.extra["errors"]
    assert isinstance(errors, list)
    assert "turns" in str(errors[0])
    with pytest.raises(NotFound):
        await client.run("run_" + "0" * 26)
    with pytest.raises(InvalidId):
        await client.run("..")
    async with Client(stage.base, "ovn_wrong") as stranger:
        with pytest.raises(Unauthorized):
            await stranger.runs()


async def test_a_new_token_is_found_by_itself(stage: Stage) -> None:
    async with Client(stage.base, "old", locate=lambda: Endpoint(stage.base, stage.secret)) as client:
        assert (await client.runs())["items"] == []


async def test_following_a_run_to_its_end(stage: Stage, client: Client) -> None:
    run = await stage.submitted()
    await stage.append(run, "one", "two")
    seen: list[Any] = []

    async def follow() -> None:
        async for event in client.follow(run.id):
            seen.append(event)
            if len(seen) == 3:
                await stage.append(run, "three")
                await stage.finish(run)

    await asyncio.wait_for(follow(), 60)
    log = [record.seq for record in await stage.log(run)]
    assert [event["seq"] for event in seen] == log == list(range(1, len(log) + 1))
    assert seen[-1]["type"] == "run.completed"
    assert [event async for event in client.follow(run.id, log[-1])] == []
    assert [event async for event in client.follow(run.id, log[-2])] == seen[-1:]
    page = await client.events(run.id, order="desc", limit=2)
    assert [event["seq"] for event in page["items"]] == log[:-3:-1]


async def test_changes_of_all_runs(client: Client) -> None:
    run = await submitted(client)
    async for change in client.changes():
        assert change["id"] == run["id"]
        break


async def test_the_operators_calls(stage: Stage, client: Client) -> None:
    assert await client.ready()
    assert [backend["name"] for backend in await client.backends()] == ["echo"]
    assert (await client.check("echo"))["status"] == "ok"
    with pytest.raises((NotFound, UnknownBackend)):
        await client.check("nobody")
    assert await client.workers() == []
    assert isinstance(await client.stats(), dict)
    assert (await client.doctor())["status"] == "ok"
    assert (await client.config())[0]["origin"] == "default"
    made = await client.new_token("ci", kind="agent", expires_in_s=60)
    async with Client(stage.base, made["secret"]) as agent:
        await agent.runs()
        await client.revoke_token("ci")
        with pytest.raises(Unauthorized):
            await agent.runs()
    assert {token["name"] for token in await client.tokens()} >= {"ci", "operator"}
    await client.handover()
    assert stage.handovers == ["now"]


async def test_what_a_person_types_finds_its_run(client: Client) -> None:
    with pytest.raises(NotFound):
        await resolve(client, "last")
    first, second = await submitted(client), await submitted(client)
    assert await resolve(client, first["id"]) == first["id"]
    assert await resolve(client, first["id"].upper()) == first["id"]
    assert await resolve(client, second["id"][-8:]) == second["id"]
    assert await resolve(client, second["id"][4:29]) == second["id"]
    assert await resolve(client, "last") == second["id"]
    for unclear in ("run_", first["id"][:8], ""):
        with pytest.raises(InvalidId):
            await resolve(client, unclear)
    with pytest.raises(NotFound):
        await resolve(client, "zzzzzzzz")


async def test_a_lost_answer_makes_no_second_run(stage: Stage) -> None:
    """A proxy that swallows the first answer: the client asks again with the same key."""
    lost = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", stage.port)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(httpx2.Headers(_headers(head)).get("content-length", "0"))
        upstream.write(head + await reader.readexactly(length))
        answer = await upstream_reader.readuntil(b"\r\n\r\n")
        if not lost.is_set():
            lost.set()
        else:
            body = int(httpx2.Headers(_headers(answer)).get("content-length", "0"))
            writer.write(answer + await upstream_reader.readexactly(body))
            await writer.drain()
        upstream.close()
        writer.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as proxy:
        host = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        async with Client(f"http://{host}", stage.secret) as client:
            await client.submit({"goal": "once", "backend": "echo"})
    assert lost.is_set()
    async with Client(stage.base, stage.secret) as client:
        assert (await client.counts())["total"] == 1


def _headers(head: bytes) -> list[tuple[str, str]]:
    lines = head.decode().split("\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines) if name]
