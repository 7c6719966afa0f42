"""Who may ask models, on whose account, and the model port over a link."""

import pytest
from tests.socket.models import (
    AGENT,
    RUN,
    USAGE,
    Book,
    TestModels,
    question,
    saying,
    talking,
    terminals,
    words,
)

from overnight.client.socket.link import Nacked
from overnight.client.socket.streams import RemoteModels
from overnight.domain.request import Principal
from overnight.errors import (
    BudgetSpent,
    ContextOverflow,
    ModelError,
    ModelNotFound,
)
from overnight.ports.model import (
    Done,
    ModelFilter,
    TextDelta,
    UsageKnown,
)
from overnight.server.auth import Caller
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


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
