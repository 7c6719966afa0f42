"""Where executions go wrong: callers that read nothing, cancels that come at once, ends that come twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from tests.tools.stage import Hub, Saying, caller, host, hub, words
from tests.tools.test_executions import Held

from overnight.client.socket.link import Nacked
from overnight.client.socket.tools import Answer, Hear, Progress, ToolHost
from overnight.errors import OvernightError
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def there() -> AsyncIterator[Hub]:
    async with hub() as found:
        yield found


async def begin(party: Any, id: str, **more: Any) -> None:
    payload = {"execution": id, "name": "say", "arguments": {}, **more}
    await party.link.request(f"tool:{id}", "tool.execute", payload)


async def ends(party: Any, id: str) -> list[str]:
    return [one.type async for one in party.link.inbox(f"tool:{id}") if one.type != "tool.stream"]


async def test_a_caller_that_reads_too_slowly_for_its_own_policy_stops_the_host(there: Hub) -> None:
    stopped = asyncio.Event()

    async def flood(_: Mapping[str, Any], hear: Hear) -> Answer:
        try:
            while True:
                await hear(Progress(partial="x" * 1000))
        except BaseException:
            stopped.set()
            raise

    await there.join(caller(), host(Saying(do=flood)))
    mine = await there.join(caller())
    await begin(mine, "x", flow={"window": 1, "policy": "fail"})
    await asyncio.wait_for(stopped.wait(), 60)


async def test_a_cancel_right_behind_the_call_reaches_the_host(there: Hub) -> None:
    for n in range(20):
        held = Held()
        theirs = await there.join(caller(f"usr_{n}"), host(Saying(do=held)))
        mine = await there.join(caller(f"usr_{n}"))
        begun = asyncio.create_task(begin(mine, "x"))
        await asyncio.sleep(0)
        cancelled = asyncio.create_task(mine.calls.cancel("x", "at once"))
        await asyncio.gather(begun, cancelled)
        assert await ends(mine, "x") == ["tool.cancelled"]
        assert not held.begun.is_set() or held.stopped.is_set()
        await theirs.end(there.hub)


async def test_an_ear_that_breaks_stops_the_host(there: Hub) -> None:
    held = Held()

    async def work(arguments: Mapping[str, Any], hear: Hear) -> Answer:
        await hear(Progress(partial="x"))
        return await held(arguments, hear)

    await there.join(caller(), host(Saying(do=work)))
    mine = await there.join(caller())

    async def broken(_: Progress) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await mine.calls.execute("say", {}, hear=broken)
    await eventually(lambda: not held.begun.is_set() or held.stopped.is_set(), within=60)


async def test_an_execution_has_one_name_and_is_begun_once(there: Hub) -> None:
    await there.join(caller(), host(Saying()))
    mine = await there.join(caller())
    with pytest.raises(Nacked) as refused:
        await mine.link.request("tool:x", "tool.execute", {"execution": "y", "name": "say"})
    assert refused.value.code == "invalid_request"
    await begin(mine, "z")
    assert await ends(mine, "z") == ["tool.result"]


async def test_late_updates_are_dropped_and_a_late_cancel_is_acked(there: Hub) -> None:
    later: list[Hear] = []

    async def quick(_: Mapping[str, Any], hear: Hear) -> Answer:
        later.append(hear)
        return words("done")

    await there.join(caller(), host(Saying(do=quick)))
    mine = await there.join(caller())
    await begin(mine, "x")
    assert await ends(mine, "x") == ["tool.result"]
    with pytest.raises(OvernightError):
        await later[0](Progress(percent=50))
    await mine.calls.cancel("x")
    assert (await mine.calls.execute("say", {})).text == "done"


async def test_an_answer_that_is_too_big_for_a_message_is_an_error_with_words(there: Hub) -> None:
    async def big(_: Mapping[str, Any], __: Hear) -> Answer:
        return words("x" * (2 << 20))

    await there.join(caller(), host(Saying(do=big)))
    mine = await there.join(caller())
    await begin(mine, "x")
    assert await ends(mine, "x") == ["tool.error"]


async def test_more_tools_than_one_message_takes_are_all_offered(there: Hub) -> None:
    wide = {"type": "object", "properties": {"a": {"enum": ["x" * 30_000]}}}
    many = [Saying(f"t{n:03}", parameters=wide if n < 12 else {"type": "object"}) for n in range(300)]
    await there.join(caller(), host(*many))
    mine = await there.join(caller())
    assert len(await mine.calls.list()) == 300
    with pytest.raises(Nacked) as refused:
        await there.join(caller(), host(*(Saying(f"u{n:03}", parameters=wide) for n in range(12))))
    assert refused.value.code == "too_many_requests"
    assert len(await mine.calls.list()) < 320


async def test_a_host_that_ends_in_order_tells_its_callers(there: Hub) -> None:
    held = Held()
    mine_host: ToolHost = host(Saying(do=held))
    await there.join(caller(), mine_host)
    mine = await there.join(caller())
    await begin(mine, "x")
    await held.begun.wait()
    await mine_host.close("its host has ended")
    assert await ends(mine, "x") == ["tool.cancelled"]
