"""How model answers end: aborted, closed, removed, failed, too late. Always once, for everybody."""

import asyncio
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
)

from overnight.client.socket.link import Nacked
from overnight.errors import (
    Aborted,
    ModelError,
    ModelTimeout,
    NotFound,
    RateLimited,
)
from overnight.ports.model import (
    UsageKnown,
)
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


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
