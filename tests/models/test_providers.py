"""Each kind of provider through its own client: what is streamed, what it used, what is sent, and what goes wrong."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.models.asking import KEY, KINDS, ask, endpoint, last, models, request, say

from overnight.errors import (
    AuthRequired,
    ContextOverflow,
    ModelError,
    ModelNotFound,
    ModelTimeout,
    RateLimited,
)
from overnight.models.configured import ConfiguredModels
from overnight.ports.model import (
    Started,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolMessage,
    UsageKnown,
)
from overnight.testing.model_server import ModelServer
from overnight.testing.pytest_plugin import StartModel
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def playing() -> Iterator[ModelServer]:
    with ModelServer([]) as made:
        yield made


@pytest.fixture
def server(playing: ModelServer) -> ModelServer:
    playing.forget()
    return playing


@pytest.fixture
async def asked(kind: Any, server: ModelServer) -> AsyncIterator[ConfiguredModels]:
    found = models(endpoint(kind, server))
    yield found
    await found.close()


async def test_words_thoughts_and_calls_arrive_in_pieces_and_whole(
    kind: Any, server: ModelServer, asked: ConfiguredModels
) -> None:
    move = {
        "reasoning": "First I look around.",
        "text": "I shall list the files of this folder now.",
        "tools": [
            {"tool": "shell", "arguments": {"command": "ls"}},
            {"tool": "shell", "arguments": {"command": "pwd"}},
        ],
    }
    server.play([move])
    events = await ask(asked, request(kind))
    assert isinstance(events[0], Started)
    assert "".join(event.delta for event in events if isinstance(event, TextDelta)) == move["text"]
    end = last(events)
    assert end.reason == "tool_use"
    assert end.message.text == move["text"]
    assert [call.arguments.replace(" ", "") for call in end.message.tool_calls] == [
        '{"command":"ls"}', '{"command":"pwd"}'
    ]  # fmt: skip
    assert len({call.id for call in end.message.tool_calls}) == 2
    ended = [event for event in events if isinstance(event, ToolCallEnded)]
    assert [(event.id, event.arguments) for event in ended] == [
        (call.id, call.arguments) for call in end.message.tool_calls
    ]
    assert any(isinstance(event, ToolCallDelta) for event in events)
    if kind != "github-copilot":
        thoughts = "".join(event.delta for event in events if isinstance(event, ThinkingDelta))
        assert thoughts == move["reasoning"]
        assert any(isinstance(block, ThinkingBlock) for block in end.message.content)


async def test_usage_is_told_with_what_it_cost(
    kind: Any, server: ModelServer, asked: ConfiguredModels
) -> None:
    server.play([{"text": "Done."}])
    events = await ask(asked, request(kind))
    usage = last(events).usage
    assert (usage.input, usage.cached, usage.output) == (1000, 200, 50)
    assert [event.usage.total for event in events if isinstance(event, UsageKnown)][-1] == usage.total
    if kind != "github-copilot":
        assert usage.cost_usd is not None
        assert 0 < usage.cost_usd < 1


async def test_the_answer_goes_back_with_the_result_of_its_call(
    kind: Any, server: ModelServer, asked: ConfiguredModels
) -> None:
    server.play(
        [{"reasoning": "Hm.", "tool": "shell", "arguments": {"command": "ls"}}, {"text": "Three files."}]
    )
    first = last(await ask(asked, request(kind)))
    (call,) = first.message.tool_calls
    result = ToolMessage(call=call.id, name=call.name, content=(TextBlock(text="three names"),))
    second = last(await ask(asked, request(kind, say("Do the work."), first.message, result)))
    assert second.message.text == "Three files."
    sent = server.requests[-1]
    assert "three names" in sent.conversation.last_results[0]
    assert "You are careful." in str(sent.body)


async def test_the_key_goes_to_the_provider_and_nowhere_else(
    kind: Any, server: ModelServer, asked: ConfiguredModels
) -> None:
    server.play([{"text": "Done."}])
    events = await ask(asked, request(kind))
    assert KEY in str(server.requests[0].headers)
    assert KEY not in repr(events)
    assert KEY not in repr(asked.__dict__)


async def test_a_limit_is_told_with_the_time_to_wait(
    kind: Any, server: ModelServer, asked: ConfiguredModels
) -> None:
    server.play([{"fault": "429", "retry_after_s": 7}])
    with pytest.raises(RateLimited) as refused:
        await ask(asked, request(kind))
    assert refused.value.retry_after_s == 7
    assert refused.value.retryable
    assert len(server.requests) == 1, "nothing is retried beneath the port"


async def test_the_time_to_wait_may_stand_in_the_words(
    kind: Any, server: ModelServer, asked: ConfiguredModels
) -> None:
    server.play([{"fault": "429", "message": "Rate limit reached. Please try again in 250ms."}])
    with pytest.raises(RateLimited) as refused:
        await ask(asked, request(kind))
    assert refused.value.retry_after_s == 0.25


@pytest.mark.parametrize(
    "fault, kind_of_error, retryable",
    [("401", AuthRequired, False), ("404", ModelNotFound, False), ("500", ModelError, True),
     ("503", ModelError, True), ("400", ModelError, False)],
)  # fmt: skip
async def test_a_status_becomes_an_error_with_a_code(
    kind: Any, server: ModelServer, asked: ConfiguredModels,
    fault: str, kind_of_error: type[ModelError], retryable: bool,
) -> None:  # fmt: skip
    server.play([{"fault": fault, "message": f"no, and your key is {KEY}"}])
    with pytest.raises(kind_of_error) as refused:
        await ask(asked, request(kind))
    assert type(refused.value) is kind_of_error
    assert refused.value.retryable is retryable
    assert KEY not in refused.value.detail
    assert "your key is ***" in refused.value.detail


async def test_a_conversation_that_is_too_long_is_told_apart(
    kind: Any, server: ModelServer, asked: ConfiguredModels
) -> None:
    server.play([{"fault": "400", "message": "This model's maximum context length is 10 tokens."}])
    with pytest.raises(ContextOverflow):
        await ask(asked, request(kind))


@pytest.mark.parametrize("fault", ["disconnect", "invalid_json"])
async def test_a_stream_that_breaks_off_is_an_error_and_no_answer(
    kind: Any, server: ModelServer, asked: ConfiguredModels, fault: str
) -> None:
    server.play([{"text": "These are the words that nobody will hear to their end.", "fault": fault}])
    with pytest.raises(ModelError) as broken:
        await ask(asked, request(kind))
    assert broken.value.code == "provider_error"
    assert broken.value.retryable


async def test_who_leaves_early_ends_the_providers_request(
    kind: Any, server: ModelServer, asked: ConfiguredModels
) -> None:
    server.play([{"text": "A beginning, and then nothing more.", "fault": "hang"}])
    async with asked.stream(request(kind)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    await eventually(lambda: server.abandoned == 1)


async def test_cancelling_ends_the_providers_request(
    kind: Any, server: ModelServer, asked: ConfiguredModels
) -> None:
    server.play([{"text": "A beginning, and then nothing more.", "fault": "hang"}])
    task = asyncio.ensure_future(ask(asked, request(kind)))
    await eventually(lambda: len(server.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: server.abandoned == 1)


async def test_a_provider_that_says_nothing_is_not_waited_for(kind: Any, start_model: StartModel) -> None:
    # Nobody knows when this server notices that it was given up, so it serves no other test.
    server = start_model([{"text": "A beginning, and then nothing more.", "fault": "hang"}])
    asked = models(endpoint(kind, server))
    with pytest.raises(ModelError) as broken:
        await ask(asked, request(kind, timeout_s=0.3))
    assert type(broken.value) in {ModelTimeout, ModelError}
    assert broken.value.retryable
    await asked.close()


async def test_the_readers_own_error_stays_its_own(
    kind: Any, server: ModelServer, asked: ConfiguredModels
) -> None:
    server.play([{"text": "Done."}])

    async def fail_while_reading() -> None:
        async with asked.stream(request(kind)) as events:
            async for _ in events:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_while_reading()


async def test_options_reach_the_provider(kind: Any, server: ModelServer, asked: ConfiguredModels) -> None:
    server.play([{"text": "Done."}])
    await ask(
        asked, request(kind, max_tokens=4321, thinking="high", tool_choice="auto", conversation="ses_1")
    )
    body = server.requests[0].body
    assert "4321" in str(body)
    if kind == "openai":
        assert body["store"] is False
        assert body["reasoning"]["effort"] == "high"
        assert body["prompt_cache_key"] == "ses_1"
