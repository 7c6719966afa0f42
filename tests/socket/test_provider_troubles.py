"""The provider protocol when something is wrong: a cut, a reader that is too slow, a book that cannot be written."""

import asyncio
import contextlib
from typing import Any

import pytest
from tests.socket.models import AGENT, USAGE, Book, TestModels, question, saying, talking

from overnight.client.socket.inproc import pair
from overnight.client.socket.link import Link
from overnight.client.socket.terms import Admission
from overnight.errors import DiskFull, InvalidInput, ModelError
from overnight.ids import RunId
from overnight.ports.model_ledger import ModelCall
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("after", [0, 1, 5, 40])
async def test_an_answer_goes_on_after_a_cut(after: int) -> None:
    pieces = [f"{number} " for number in range(60)]
    models = TestModels(lambda _: [*saying(*pieces)[: after + 3], "gate", *saying(*pieces)[after + 3 :]])
    models.signals.hold("gate")
    async with talking(models) as talk:
        stream = await talk.streams.start_stream(question())
        reader = talk.streams.events(stream)
        found = [await anext(reader) for _ in range(min(after, 2))]
        await models.signals.reached("gate")
        talk.cut()
        await talk.ended()
        models.signals.release("gate")
        near, far = pair()

        async def greet(link: Link, hello: Any) -> Admission:
            assert hello.resume.connection == "con_1"
            return Admission(connection="con_1", resume_key="again", link=talk.server)

        server = asyncio.create_task(Link("server", near, on_hello=greet).run())
        client = asyncio.create_task(talk.client.run(far))
        found += [event async for event in reader]
        assert found == saying(*pieces)
        assert models.asked == [question()], "nothing was asked twice"
        await talk.client.close()
        await asyncio.gather(server, client)


async def test_a_reader_that_wants_to_fail_rather_than_wait_does() -> None:
    models = TestModels(lambda _: saying(*(["word "] * 5000)))
    book = Book()
    async with talking(models, ledger=book, caller=AGENT) as talk:
        payload = {
            "model": "",
            "context": {"messages": [{"role": "user", "content": [{"type": "text", "text": "go"}]}]},
            "flow": {"window": 2, "policy": "fail"},
        }
        await talk.client.request("stream:slow", "stream.start", payload)
        await models.signals.reached("left")
        events = [envelope async for envelope in talk.client.inbox("stream:slow")]
        assert (events[-1].type, events[-1].payload["code"]) == ("error", "too_slow")
        await eventually(lambda: len(book.calls) == 1)
        assert (book.calls[0][1].ending, book.calls[0][1].reason) == ("lost", "too_slow")
        assert talk.desk.live == 0


async def test_a_conversation_that_makes_no_sense_is_refused() -> None:
    async with talking(TestModels(lambda _: [InvalidInput("it ends with the model's own words")])) as talk:
        stream = await talk.streams.start_stream(question())
        with pytest.raises(ModelError) as refused:
            await talk.streams.wait_result(stream)
        assert (refused.value.code, refused.value.retryable) == ("invalid_request", False)


async def test_an_answer_is_not_withheld_because_it_cannot_be_written_down() -> None:
    class Full(Book):
        async def record(self, run_id: RunId, call: ModelCall) -> None:
            raise DiskFull("no room")

    async with talking(TestModels(lambda _: saying("x")), ledger=Full(), caller=AGENT) as talk:
        stream = await talk.streams.start_stream(question())
        assert (await talk.streams.wait_result(stream)).usage == USAGE


async def test_the_book_is_written_before_the_end_is_told() -> None:
    book = Book()
    async with talking(TestModels(lambda _: saying("x")), ledger=book, caller=AGENT) as talk:
        for number in range(1, 6):
            await talk.streams.wait_result(await talk.streams.start_stream(question()))
            assert len(book.calls) == number
            await talk.streams.complete(question())
            book.calls.pop()


async def test_what_an_abort_meets_is_one_terminal() -> None:
    """The abort comes at every step of the answer; whatever was first counts, and nothing is left behind."""
    whole = saying("a", "b")
    for at in range(len(whole)):
        models = TestModels(lambda _, at=at: [*whole[:at], "gate", *whole[at:]])  # type: ignore[misc]
        models.signals.hold("gate")
        async with talking(models) as talk:
            stream = await talk.streams.start_stream(question())
            await models.signals.reached("gate")
            models.signals.release("gate")
            await talk.streams.abort(stream, "enough")
            with contextlib.suppress(ModelError):
                await talk.streams.wait_result(stream)
            told = [one for one in talk.terminals() if one == f"stream:{stream}"]
            assert len(told) == 1
            assert talk.desk.live == 0
