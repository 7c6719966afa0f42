"""The provider protocol between a client and a server: one terminal each, whatever happens on the way."""

import asyncio
import random
from collections import Counter
from typing import Any

import orjson
import pytest
from tests.socket.models import AGENT, RUN, USAGE, Book, TestModels, question, saying, talking

from overnight.client.socket.link import Nacked
from overnight.client.socket.streams import RemoteModels
from overnight.domain.request import Principal
from overnight.errors import (
    Aborted,
    BudgetSpent,
    ContextOverflow,
    ModelError,
    ModelNotFound,
    ModelTimeout,
    NotFound,
    OvernightError,
    RateLimited,
)
from overnight.ports.model import (
    Done,
    ModelFilter,
    ModelRequest,
    Started,
    TextBlock,
    TextDelta,
    ThinkingDelta,
    ThinkingEnded,
    ThinkingStarted,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageKnown,
)
from overnight.server.auth import Caller
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
TERMINALS = {"done", "error", "aborted", "completed"}


def sent(frames: list[bytes]) -> list[dict[str, Any]]:
    """Every envelope that went either way."""
    found = []
    for frame in frames:
        value = orjson.loads(frame)
        found += value if isinstance(value, list) else [value]
    return found


def words(asked: ModelRequest) -> str:
    """What was asked."""
    (block,) = asked.context.messages[0].content
    return block.text if isinstance(block, TextBlock) else ""


def terminals(frames: list[bytes]) -> Counter[str]:
    """How many terminals each scope had."""
    return Counter(one["scope"] for one in sent(frames) if one["type"] in TERMINALS)


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


async def test_aborting_ends_the_providers_request_and_is_idempotent() -> None:
    models = TestModels(lambda _: [*saying("a")[:3], "forever"])
    models.signals.hold("forever")
    async with talking(models) as talk:
        stream = await talk.streams.start_stream(question())
        await models.signals.reached("forever")
        await talk.streams.abort(stream, "enough")
        await talk.streams.abort(stream, "enough")
        await models.signals.reached("left")
        with pytest.raises(Aborted, match="enough"):
            await talk.streams.wait_result(stream)
        await talk.streams.abort(stream)
        await talk.streams.abort("never-there")
        assert terminals(talk.frames) == {f"stream:{stream}": 1}
        assert talk.desk.live == 0


async def test_aborting_before_it_has_begun_answers_both() -> None:
    class Slow(TestModels):
        async def resolve(self, name: str) -> Any:
            await self.signals.passing("resolving")
            return await super().resolve(name)

    models = Slow(lambda _: saying("x"))
    models.signals.hold("resolving")
    async with talking(models) as talk:
        starting = asyncio.create_task(talk.streams.start_stream(question(), stream="s"))
        await models.signals.reached("resolving")
        await talk.streams.abort("s", "changed my mind")
        assert await starting == "s"
        with pytest.raises(Aborted):
            await talk.streams.wait_result("s")
        assert models.asked == []
        assert terminals(talk.frames) == {"stream:s": 1}


async def test_closing_aborts_and_wakes_whoever_waits() -> None:
    models = TestModels(lambda _: [*saying("a")[:3], "forever"])
    models.signals.hold("forever")
    async with talking(models) as talk:
        stream = await talk.streams.start_stream(question())
        waiting = asyncio.create_task(talk.streams.wait_result(stream))
        await models.signals.reached("forever")
        await talk.streams.close_stream(stream)
        await talk.streams.close_stream(stream)
        await models.signals.reached("left")
        with pytest.raises(Aborted):
            await waiting


async def test_what_comes_after_removal_brings_nothing_back() -> None:
    models = TestModels(lambda _: [*saying("a")[:3], "gate", *saying("b", "c")[3:]])
    models.signals.hold("gate")
    async with talking(models) as talk:
        stream = await talk.streams.start_stream(question())
        await models.signals.reached("gate")
        talk.streams.remove_stream_state(stream)
        talk.streams.remove_stream_state(stream)
        models.signals.release("gate")
        await eventually(lambda: talk.desk.live == 0)
        await talk.streams.models()
        assert talk.streams.streams == ()
        assert f"stream:{stream}" not in talk.client._inboxes
        with pytest.raises(NotFound):
            await talk.streams.wait_result(stream)


async def test_a_failure_on_the_way_says_what_was_used() -> None:
    failing = [*saying("a")[:3], UsageKnown(usage=USAGE), RateLimited("slow down", retry_after_s=7.5)]
    async with talking(TestModels(lambda _: failing)) as talk:
        stream = await talk.streams.start_stream(question())
        with pytest.raises(RateLimited) as limited:
            await talk.streams.wait_result(stream)
        assert (limited.value.retryable, limited.value.retry_after_s) == (True, 7.5)
        (terminal,) = (one for one in sent(talk.frames) if one["type"] == "error")
        assert terminal["payload"]["usage"]["total"] == USAGE.total
        assert talk.streams.partial(stream).text == "a"
        with pytest.raises(RateLimited):
            await talk.streams.wait_result(stream)


async def test_an_answer_may_take_only_so_long() -> None:
    models = TestModels(lambda _: [*saying("a")[:3], "forever"])
    models.signals.hold("forever")
    async with talking(models, stream_s=0.05) as talk:
        stream = await talk.streams.start_stream(question())
        with pytest.raises(ModelTimeout):
            await talk.streams.wait_result(stream)
        await models.signals.reached("left")
        with pytest.raises(Nacked) as late:
            await talk.streams.complete(question())
        assert late.value.code == "model_timeout"


async def test_a_model_that_just_stops_is_an_error() -> None:
    async with talking(TestModels(lambda _: saying("a")[:3])) as talk:
        stream = await talk.streams.start_stream(question())
        with pytest.raises(ModelError):
            await talk.streams.wait_result(stream)


async def test_what_is_wrong_inside_becomes_an_internal_error(capsys: pytest.CaptureFixture[str]) -> None:
    async with talking(TestModels(lambda _: [ZeroDivisionError("the secret key is k")])) as talk:
        stream = await talk.streams.start_stream(question())
        with pytest.raises(ModelError) as broken:
            await talk.streams.wait_result(stream)
        assert broken.value.code == "internal"
        assert "secret" not in broken.value.detail


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


async def test_what_an_agent_asks_is_on_its_runs_account() -> None:
    book = Book()
    failing = [*saying("a")[:3], UsageKnown(usage=USAGE), ModelError("broken")]
    models = TestModels(lambda asked: {"go": saying("x"), "fail": failing, "hang": [*failing[:-1], "forever"]}[
        words(asked)
    ])  # fmt: skip
    models.signals.hold("forever")
    async with talking(models, ledger=book, caller=AGENT) as talk:
        done = await talk.streams.start_stream(question(), stream="a")
        await talk.streams.wait_result(done)
        await talk.streams.complete(question())
        failed = await talk.streams.start_stream(question("fail"), stream="b")
        with pytest.raises(ModelError):
            await talk.streams.wait_result(failed)
        hanging = await talk.streams.start_stream(question("hang"), stream="c")
        await models.signals.reached("forever")
        await talk.streams.abort(hanging)
        await eventually(lambda: len(book.calls) == 4)
        lost = await talk.streams.start_stream(question("hang"), stream="d")
        await models.signals.reached("forever", times=2)
        assert lost == "d"
    assert [(run, call.ending, call.reason, call.usage) for run, call in book.calls] == [
        (RUN, "done", "stop", USAGE),
        (RUN, "done", "stop", USAGE),
        (RUN, "error", "provider_error", USAGE),
        (RUN, "aborted", "", USAGE),
        (RUN, "lost", "", USAGE),
    ]
    assert {call.model for _, call in book.calls} == {"test:one"}
    assert [call.stream for _, call in book.calls if call.stream in "abcd"] == ["a", "b", "c", "d"]


async def test_a_run_that_has_spent_its_budget_asks_in_vain() -> None:
    models = TestModels(lambda _: saying("x"))
    async with talking(models, ledger=Book(refusal=BudgetSpent("100 of 100 tokens")), caller=AGENT) as talk:
        with pytest.raises(Nacked) as refused:
            await talk.streams.start_stream(question())
        assert refused.value.code == "budget_spent"
    assert models.asked == []


async def test_guests_and_workers_ask_no_model() -> None:
    worker = Caller(
        principal=Principal(owner="usr_local", name="w", kind="worker"), digest="d", user="usr_local"
    )
    models = TestModels(lambda _: saying("x"))
    async with talking(models, caller=worker) as talk:
        for asking in (talk.streams.start_stream(question()), talk.streams.models()):
            with pytest.raises(Nacked) as refused:
                await asking
            assert refused.value.code == "forbidden"


async def test_the_port_over_a_link_is_the_port() -> None:
    models = TestModels(lambda _: saying("a", "b"), needs="OTHER_KEY")
    async with talking(models) as talk:
        remote = RemoteModels(talk.client)
        assert await remote.list(ModelFilter()) == models.infos
        assert (await remote.resolve("first")).name == "test:one"
        assert (await remote.resolve("")).name == "test:one"
        with pytest.raises(ModelNotFound):
            await remote.resolve("nobody:here")
        async with remote.stream(question()) as events:
            assert [event async for event in events] == saying("a", "b")
        with pytest.raises(ModelError) as refused:
            async with remote.stream(question(model="other:two")):
                pass
        assert refused.value.code == "auth_required"
        assert not refused.value.retryable


async def test_leaving_the_port_early_ends_the_answer_everywhere() -> None:
    models = TestModels(lambda _: [*saying("a")[:3], "forever"])
    models.signals.hold("forever")
    async with talking(models) as talk:
        async with RemoteModels(talk.client).stream(question()) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        await models.signals.reached("left")
        assert terminals(talk.frames).total() == 1


async def test_a_conversation_over_the_message_limit_has_to_become_shorter() -> None:
    async with talking(TestModels(lambda _: saying("x"))) as talk:
        with pytest.raises(ContextOverflow):
            async with RemoteModels(talk.client).stream(question("x" * 1_100_000)):
                pass
        assert isinstance((await talk.streams.complete(question())), Done)
