"""The provider protocol between a client and a server: one terminal each, whatever happens on the way."""

import asyncio
import random
from typing import Any

import pytest
from tests.socket.models import (
    USAGE,
    TestModels,
    question,
    saying,
    sent,
    talking,
    terminals,
    words,
)

from overnight.client.socket.link import Nacked
from overnight.errors import (
    ContextOverflow,
    ModelError,
    OvernightError,
)
from overnight.ports.model import (
    ModelFilter,
    Started,
    ThinkingDelta,
    ThinkingEnded,
    ThinkingStarted,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
)
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


async def test_an_answer_comes_in_events_and_as_a_whole() -> None:
    async with talking(TestModels(lambda _: saying("Hello ", "world"))) as talk:
        stream = await talk.streams.start_stream(question())
        events = [event async for event in talk.streams.events(stream)]
        assert events == saying("Hello ", "world")
        done = await talk.streams.wait_result(stream)
        assert (done.message.text, done.usage, done.reason) == ("Hello world", USAGE, "stop")
        assert talk.desk.live == 0
        assert terminals(talk.frames) == {f"stream:{stream}": 1}


async def test_thinking_and_calls_travel_with_what_belongs_to_them() -> None:
    whole = saying("x")[-1]
    steps: list[Any] = [
        Started(model="one"), ThinkingStarted(index=0), ThinkingDelta(index=0, delta="hm"),
        ThinkingEnded(index=0, signature="sealed"), ToolCallStarted(index=1, id="c", name="shell"),
        ToolCallDelta(index=1, delta="{}"), ToolCallEnded(index=1, id="c", name="shell", arguments="{}"), whole,
    ]  # fmt: skip
    async with talking(TestModels(lambda _: steps)) as talk:
        stream = await talk.streams.start_stream(question())
        assert [event async for event in talk.streams.events(stream)] == steps


async def test_the_result_can_be_waited_for_while_another_reads_or_nobody() -> None:
    async with talking(TestModels(lambda _: saying("a", "b"))) as talk:
        first = await talk.streams.start_stream(question())
        assert (await talk.streams.wait_result(first)).message.text == "ab"
        second = await talk.streams.start_stream(question())
        reader = talk.streams.events(second)
        await anext(reader)
        waiting = asyncio.create_task(talk.streams.wait_result(second))
        assert [event async for event in reader][-1] == saying("a", "b")[-1]
        assert (await waiting).message.text == "ab"


async def test_a_done_without_deltas_has_its_message() -> None:
    async with talking(TestModels(lambda _: saying("all at once")[-1:])) as talk:
        stream = await talk.streams.start_stream(question())
        assert (await talk.streams.wait_result(stream)).message.text == "all at once"


async def test_a_reader_of_one_stream_needs_no_reader_of_the_others() -> None:
    pieces = [str(number) for number in range(2000)]
    async with talking(TestModels(lambda _: saying(*pieces))) as talk:
        streams = [await talk.streams.start_stream(question(), window=16) for _ in range(3)]
        for stream in reversed(streams):
            assert (await talk.streams.wait_result(stream)).message.text == "".join(pieces)


async def test_a_source_pauses_while_nobody_reads() -> None:
    said = 0

    def script(_: Any) -> Any:
        nonlocal said
        for step in saying(*(["word "] * 5000)):
            said += 1
            yield step

    async with talking(TestModels(script)) as talk:
        stream = await talk.streams.start_stream(question(), window=4)
        before = -1
        while before != said:
            before = said
            for _ in range(200):
                await asyncio.sleep(0)
        assert said < 2000, "the bounds of the protocol hold the source back"
        assert len((await talk.streams.wait_result(stream)).message.text) == 25_000


async def test_models_are_listed_and_filtered() -> None:
    async with talking(TestModels(lambda _: [], needs="OTHER_KEY")) as talk:
        assert [model.name for model in await talk.streams.models()] == ["test:one", "other:two"]
        (other,) = await talk.streams.models(ModelFilter(provider="other"))
        assert (other.ready, other.needs) == (False, "OTHER_KEY")
        assert await talk.streams.models(ModelFilter(provider="other", include_unready=False)) == ()
        assert [model.name for model in await talk.streams.models(ModelFilter(model="first"))] == ["test:one"]


@pytest.mark.parametrize("model, code", [("nobody:here", "model_not_found"), ("other:two", "auth_required")])
async def test_a_model_that_cannot_be_had_is_refused_before_it_begins(model: str, code: str) -> None:
    models = TestModels(lambda _: saying("x"), needs="OTHER_KEY")
    async with talking(models) as talk:
        with pytest.raises(Nacked) as refused:
            await talk.streams.start_stream(question(model=model))
        assert refused.value.code == code
        with pytest.raises(Nacked) as refused:
            await talk.streams.complete(question(model=model))
        assert refused.value.code == code
        assert talk.streams.streams == ()
        assert talk.desk.live == 0
        assert models.asked == []


@pytest.mark.parametrize(
    "extra",
    [{"api_key": "k"}, {"base_url": "http://x"}, {"headers": {"a": "b"}}, {"options": {"apiKey": "k"}},
     {"options": {"extra_headers": {}}}, {"options": {"Authorization": "Bearer k"}}],
)  # fmt: skip
async def test_nobody_brings_keys_or_addresses(extra: dict[str, Any]) -> None:
    models = TestModels(lambda _: saying("x"))
    payload = {"model": "test:one", "context": {"messages": []}, **extra}
    async with talking(models) as talk:
        for type_ in ("stream.start", "complete"):
            with pytest.raises(Nacked) as refused:
                await talk.client.request(f"stream:{type_}", type_, payload)
            assert refused.value.code == "invalid_payload"
    assert models.asked == []


async def test_a_stream_too_many_is_refused_and_another_may_follow() -> None:
    models = TestModels(lambda _: ["gate", *saying("x")])
    models.signals.hold("gate")
    async with talking(models, streams=2) as talk:
        streams = [await talk.streams.start_stream(question()) for _ in range(2)]
        with pytest.raises(Nacked) as refused:
            await talk.streams.start_stream(question())
        assert refused.value.code == "rate_limited"
        with pytest.raises(Nacked) as refused:
            await talk.streams.complete(question())
        assert refused.value.code == "rate_limited"
        models.signals.release("gate")
        for stream in streams:
            await talk.streams.wait_result(stream)
        await talk.streams.wait_result(await talk.streams.start_stream(question()))


async def test_an_id_in_use_is_refused() -> None:
    models = TestModels(lambda _: ["gate", *saying("x")])
    models.signals.hold("gate")
    async with talking(models) as talk:
        await talk.streams.start_stream(question(), stream="mine")
        with pytest.raises(ValueError, match="in use"):
            await talk.streams.start_stream(question(), stream="mine")
        models.signals.release("gate")
        await talk.streams.wait_result("mine")
        talk.streams.remove_stream_state("mine")
        with pytest.raises(OvernightError):
            await talk.streams.start_stream(question(), stream="mine")


async def test_completing_holds_nobody_up() -> None:
    models = TestModels(lambda asked: [words(asked), *saying("x")])
    models.signals.hold("slow")
    async with talking(models) as talk:
        slow = asyncio.create_task(talk.streams.complete(question("slow")))
        await models.signals.reached("slow")
        assert (await talk.streams.complete(question("quick"))).message.text == "x"
        await talk.streams.models()
        assert not slow.done()
        models.signals.release("slow")
        assert (await slow).usage == USAGE
        assert set(terminals(talk.frames).values()) == {1}


async def test_completing_fails_with_the_code_of_what_went_wrong() -> None:
    async with talking(TestModels(lambda _: [ContextOverflow("too long")])) as talk:
        with pytest.raises(Nacked) as refused:
            await talk.streams.complete(question())
        assert refused.value.code == "context_overflow"


async def test_an_answer_in_one_piece_can_be_given_up() -> None:
    models = TestModels(lambda _: ["forever"])
    models.signals.hold("forever")
    async with talking(models) as talk:
        payload = {"model": "", "context": {"messages": [{"role": "user", "content": []}]}}
        asking = asyncio.create_task(talk.client.request("stream:c", "complete", payload))
        await models.signals.reached("forever")
        await talk.streams.abort("c", "enough")
        with pytest.raises(Nacked) as refused:
            await asking
        assert refused.value.code == "aborted"
        await models.signals.reached("left")


async def test_a_stream_tells_how_far_it_is() -> None:
    models = TestModels(lambda _: [*saying("so ", "far", "!")[:4], "gate", *saying("so ", "far", "!")[4:]])
    models.signals.hold("gate")
    async with talking(models) as talk:
        stream = await talk.streams.start_stream(question())
        await models.signals.reached("gate")
        partial = await talk.streams.sync(stream)
        assert partial is not None
        assert partial.text == "so far"
        models.signals.release("gate")
        await talk.streams.wait_result(stream)
        assert await talk.streams.sync(stream) is None
        assert await talk.streams.sync("never-there") is None


async def test_a_link_that_ends_ends_its_streams_on_both_sides() -> None:
    models = TestModels(lambda _: [*saying("a")[:3], "forever"])
    models.signals.hold("forever")
    async with talking(models) as talk:
        stream = await talk.streams.start_stream(question())
        waiting = asyncio.create_task(talk.streams.wait_result(stream))
        await models.signals.reached("forever")
        await talk.client.close()
        await models.signals.reached("left")
        with pytest.raises(OvernightError):
            await waiting
        await eventually(lambda: talk.desk.live == 0)


async def test_a_hundred_streams_at_once_each_have_their_own_answer() -> None:
    def script(asked: Any) -> Any:
        number = words(asked)
        if int(number) % 10 == 7:
            return [*saying(f"<{number}")[:3], ModelError(f"stream {number} failed")]
        return saying(f"<{number}", *(["."] * 30), ">")

    async with talking(TestModels(script)) as talk:
        names = await asyncio.gather(*(talk.streams.start_stream(question(str(n))) for n in range(100)))
        order = list(enumerate(names))
        random.Random(5).shuffle(order)

        async def judge(number: int, name: str) -> None:
            if number % 10 == 7:
                with pytest.raises(ModelError, match=f"stream {number} failed"):
                    await talk.streams.wait_result(name)
            else:
                done = await talk.streams.wait_result(name)
                assert done.message.text == f"<{number}" + "." * 30 + ">"

        await asyncio.gather(*(judge(number, name) for number, name in order))
        assert set(terminals(talk.frames).values()) == {1}
        assert len(terminals(talk.frames)) == 100
        for name in names:
            talk.streams.remove_stream_state(name)
        assert talk.streams.streams == ()
        assert talk.desk.live == 0
        starts = [one for one in sent(talk.frames) if one["type"] == "stream.start"]
        assert {one["seq"] for one in starts} == {1}, "numbers are counted for each stream by itself"
