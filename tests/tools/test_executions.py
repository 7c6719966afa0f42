"""Executions through the hub: one start, one end, in time, whatever host and caller do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from tests.tools.stage import Hub, Saying, caller, host, hub, words

from overnight.client.socket.link import Nacked
from overnight.client.socket.tools import Answer, Hear, Progress, ToolCancelled
from overnight.errors import ToolFailure

pytestmark = pytest.mark.anyio
NUMBER = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.fixture
async def there() -> AsyncIterator[Hub]:
    async with hub() as found:
        yield found


class Held:
    """A tool's work that waits until it is let go; knows whether it was stopped."""

    def __init__(self) -> None:
        self.begun, self.go, self.stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, arguments: Mapping[str, Any], hear: Hear) -> Answer:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped.set()
            raise
        return words("let go")


async def failure(work: Any) -> ToolFailure:
    with pytest.raises(ToolFailure) as found:
        await work
    return found.value


async def test_a_call_reaches_its_host_and_its_answer_comes_back(there: Hub) -> None:
    say = Saying(parameters=NUMBER)
    await there.join(caller(), host(say))
    mine = await there.join(caller())
    answer = await mine.calls.execute("say", {"a": 3}, call="call_1")
    assert (answer.text, answer.is_error) == ("say says {'a': 3}", False)
    assert (await mine.calls.execute("say", '{"a": 4}')).text == "say says {'a': 4}"
    assert say.called == [{"a": 3}, {"a": 4}]


async def test_progress_arrives_in_order_before_the_end(there: Hub) -> None:
    async def count(_: Mapping[str, Any], hear: Hear) -> Answer:
        for n in range(500):
            await hear(Progress(percent=n / 5, partial=str(n)))
        return words("done")

    await there.join(caller(), host(Saying(do=count)))
    heard: list[str | None] = []

    async def hear(progress: Progress) -> None:
        heard.append(progress.partial)

    mine = await there.join(caller())
    assert (await mine.calls.execute("say", {}, hear=hear)).text == "done"
    assert heard == [str(n) for n in range(500)]


@pytest.mark.parametrize(
    "name, arguments, code",
    [
        ("nothing", {}, "tool_not_found"),
        ("say", {}, "invalid_arguments"),
        ("say", {"a": "x"}, "invalid_arguments"),
        ("say", {"a": 1, "b": 2}, "invalid_arguments"),
        ("say", "{bad json", "invalid_arguments"),
        ("say", "[1]", "invalid_arguments"),
    ],
)
async def test_what_cannot_be_called_ends_with_its_code(
    there: Hub, name: str, arguments: Any, code: str
) -> None:
    say = Saying(parameters=NUMBER)
    await there.join(caller(), host(say))
    mine = await there.join(caller())
    assert (await failure(mine.calls.execute(name, arguments))).code == code
    assert say.called == []


async def test_a_tool_that_raises_has_failed_and_its_host_goes_on(there: Hub) -> None:
    async def fail(_: Mapping[str, Any], __: Hear) -> Answer:
        raise RuntimeError("no luck")

    await there.join(caller(), host(Saying(do=fail), Saying("other")))
    mine = await there.join(caller())
    error = await failure(mine.calls.execute("say", {}))
    assert error.code == "tool_execution_error"
    assert "no luck" in error.detail
    assert (await mine.calls.execute("other", {})).text


async def test_the_server_holds_the_clock(there: Hub) -> None:
    held = Held()
    await there.join(caller(), host(Saying(do=held)))
    mine = await there.join(caller())
    error = await failure(mine.calls.execute("say", {}, timeout_s=0.05, execution="x1"))
    assert error.code == "tool_timeout"
    await asyncio.wait_for(held.stopped.wait(), 20)
    state = await mine.link.request("conn", "tool.status", {"execution": "x1"})
    assert state.payload["status"] == "timeout"


async def test_a_deadline_that_is_past_calls_nothing(there: Hub) -> None:
    say = Saying()
    await there.join(caller(), host(say))
    mine = await there.join(caller())
    await mine.link.request(
        "tool:x", "tool.execute", {"execution": "x", "name": "say", "arguments": {}, "deadline": 1}
    )
    ends = [one.payload["code"] async for one in mine.link.inbox("tool:x")]
    assert (ends, say.called) == (["tool_timeout"], [])


async def test_a_cancel_reaches_the_host_and_has_one_end(there: Hub) -> None:
    held = Held()
    await there.join(caller(), host(Saying(do=held)))
    mine = await there.join(caller())
    work = asyncio.create_task(mine.calls.execute("say", {}, execution="x1"))
    await held.begun.wait()
    for _ in range(3):
        await mine.calls.cancel("x1", "enough")
    with pytest.raises(ToolCancelled, match="enough"):
        await work
    assert held.stopped.is_set()
    await mine.calls.cancel("x1")
    await mine.calls.cancel("never_was")


async def test_a_caller_that_is_cancelled_stops_the_host(there: Hub) -> None:
    held = Held()
    await there.join(caller(), host(Saying(do=held)))
    mine = await there.join(caller())
    work = asyncio.create_task(mine.calls.execute("say", {}))
    await held.begun.wait()
    work.cancel()
    await asyncio.wait_for(held.stopped.wait(), 20)
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_host_that_leaves_ends_what_it_had(there: Hub) -> None:
    held = Held()
    theirs = await there.join(caller(), host(Saying(do=held)))
    mine = await there.join(caller())
    work = asyncio.create_task(mine.calls.execute("say", {}))
    await held.begun.wait()
    await theirs.end(there.hub)
    assert (await failure(work)).code == "tool_unavailable"
    assert (await failure(mine.calls.execute("say", {}))).code == "tool_not_found"


async def test_a_host_that_is_cut_off_takes_nothing_new_and_another_may_offer_the_same(there: Hub) -> None:
    theirs = await there.join(caller(), host(Saying()))
    mine = await there.join(caller())
    theirs.cut()
    await asyncio.gather(*theirs.tasks)
    assert (await failure(mine.calls.execute("say", {}))).code == "tool_unavailable"
    assert [one["available"] for one in await mine.calls.list()] == [False]
    await there.join(caller(), host(Saying()))
    assert (await mine.calls.execute("say", {})).text


async def test_a_caller_that_leaves_stops_the_host(there: Hub) -> None:
    held = Held()
    await there.join(caller(), host(Saying(do=held)))
    mine = await there.join(caller())
    work = asyncio.create_task(mine.calls.execute("say", {}))
    await held.begun.wait()
    await mine.end(there.hub)
    await asyncio.wait_for(held.stopped.wait(), 20)
    await asyncio.gather(work, return_exceptions=True)


async def test_one_name_has_one_host_until_that_is_gone(there: Hub) -> None:
    theirs = await there.join(caller(), host(Saying()))
    with pytest.raises(Nacked) as refused:
        await there.join(caller(), host(Saying("fresh"), Saying()))
    assert refused.value.code == "tool_taken"
    mine = await there.join(caller())
    assert [one["name"] for one in await mine.calls.list()] == ["say"]
    await theirs.link.request("conn", "tool.unregister", {"names": ["say", "unheard_of"]})
    assert await mine.calls.list() == []


async def test_users_do_not_see_each_others_tools(there: Hub) -> None:
    await there.join(caller("usr_a"), host(Saying()))
    mine = await there.join(caller("usr_b"), host(Saying("other")))
    assert [one["name"] for one in await mine.calls.list()] == ["other"]
    assert (await failure(mine.calls.execute("say", {}))).code == "tool_not_found"


async def test_many_executions_side_by_side_keep_their_answers_apart(there: Hub) -> None:
    async def echo(arguments: Mapping[str, Any], hear: Hear) -> Answer:
        await hear(Progress(partial=str(arguments["a"])))
        return words(str(arguments["a"]))

    await there.join(caller(), host(Saying(do=echo, parameters=NUMBER)))
    mine = await there.join(caller())
    answers = await asyncio.gather(*(mine.calls.execute("say", {"a": n}) for n in range(100)))
    assert [answer.text for answer in answers] == [str(n) for n in range(100)]


async def test_more_than_the_limit_is_refused_and_takes_nothing_from_the_others() -> None:
    async with hub(most=2) as there:
        held = Held()
        await there.join(caller(), host(Saying(do=held)))
        mine = await there.join(caller())
        work = [asyncio.create_task(mine.calls.execute("say", {}, execution=f"x{n}")) for n in range(2)]
        await held.begun.wait()
        with pytest.raises(Nacked) as refused:
            await mine.calls.execute("say", {})
        assert refused.value.code == "rate_limited"
        held.go.set()
        assert [answer.text for answer in await asyncio.gather(*work)] == ["let go"] * 2


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {},
        {"type": "object", "properties": {"a": {"type": "smell"}}},
        {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/schema"}}},
        {"type": "object", "properties": {"a": {"enum": ["x" * 70_000]}}},
    ],
)
async def test_a_schema_that_is_none_is_refused_and_none_of_its_message_is_offered(
    there: Hub, schema: Any
) -> None:
    with pytest.raises(Nacked) as refused:
        await there.join(caller(), host(Saying("good"), Saying(parameters=schema)))
    assert refused.value.code == "invalid_request"
    mine = await there.join(caller())
    assert await mine.calls.list() == []


async def test_the_state_of_an_execution_can_be_asked_for(there: Hub) -> None:
    held = Held()
    await there.join(caller(), host(Saying(do=held)))
    mine = await there.join(caller())
    work = asyncio.create_task(mine.calls.execute("say", {}, execution="x1"))
    await held.begun.wait()
    state = await mine.link.request("conn", "tool.status", {"execution": "x1"})
    assert (state.payload["status"], state.payload["completed_at"]) == ("running", None)
    held.go.set()
    await work
    state = await mine.link.request("conn", "tool.status", {"execution": "x1"})
    assert state.payload["status"] == "completed"
    assert state.payload["completed_at"] >= state.payload["started_at"]
    with pytest.raises(Nacked):
        await mine.link.request("conn", "tool.status", {"execution": "x2"})
