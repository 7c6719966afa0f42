"""What clients, models and crashes do to an agent that they should not: nothing lost, doubled, or stuck for good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.agent.test_acp import opened, talking, words
from tests.agent.test_turn import SAY, Stage, history, ring, stage, workspace
from tests.agent.turns import Bell, Scripted, asking

from overnight.agent.acp.peer import Refusal
from overnight.agent.history import INTERRUPTED, History
from overnight.agent.loop import compaction
from overnight.agent.loop.compaction import HEADING
from overnight.agent.loop.model import PortModel
from overnight.agent.pairing import paired
from overnight.agent.tools.tool import Fatal, ToolContext
from overnight.errors import ContextOverflow, ModelError, SessionBusy
from overnight.ports.model import (
    AssistantMessage,
    Context,
    Done,
    Message,
    ModelEvent,
    ModelRequest,
    ModelUsage,
    OutputBlock,
    TextBlock,
    TextDelta,
    ThinkingDelta,
    ToolCallBlock,
    ToolMessage,
    UserMessage,
)

__all__ = ["history", "stage", "workspace"]
pytestmark = pytest.mark.anyio


def sound(messages: Sequence[Message]) -> bool:
    """Whether every call has one answer, directly behind it."""
    return paired(messages, "?") == tuple(messages)


class Holding(Bell):
    """A tool that waits for ever once `enough` calls of it have begun."""

    def __init__(self, enough: int = 1, **named: Any) -> None:
        super().__init__(**named)
        self.begun = asyncio.Event()

        async def forever(_: object, __: ToolContext) -> str:
            if self.rung == enough:
                self.begun.set()
            await asyncio.Event().wait()
            return ""

        self.do = forever


class Said(Scripted):
    """Models whose answers are given event by event; a failure is raised where it stands."""

    def __init__(self, *answers: Sequence[ModelEvent | Exception]) -> None:
        super().__init__([])
        self._answers = list(answers)

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ModelEvent]]:
        self.asked.append(request.context)

        async def told() -> AsyncIterator[ModelEvent]:
            for event in self._answers.pop(0):
                if isinstance(event, Exception):
                    raise event
                yield event

        yield told()


def done(*content: OutputBlock, cost: float | None = None) -> Done:
    reason = "tool_use" if any(block.type == "tool_call" for block in content) else "stop"
    usage = ModelUsage(input=10, output=5, cost_usd=cost)
    return Done(reason=reason, message=AssistantMessage(content=content), usage=usage)  # type: ignore[arg-type]


def call(id: str) -> ToolCallBlock:
    return ToolCallBlock(id=id, name="bell")


# Clients.


async def test_a_cancel_right_behind_its_prompt_meets_it(tmp_path: Path) -> None:
    async with talking(tmp_path, [{"fault": "hang"}]) as client:
        session = await opened(client, tmp_path)
        work = asyncio.create_task(client.call("session/prompt", sessionId=session, prompt=words("Go.")))
        await asyncio.sleep(0)
        await client.peer.notify("session/cancel", {"sessionId": session})
        async with asyncio.timeout(20):
            assert (await work)["stopReason"] == "cancelled"


async def test_a_session_that_is_closed_answers_its_prompt_and_can_be_taken_up(tmp_path: Path) -> None:
    bell = Holding()
    async with talking(tmp_path, [{"tool": "bell"}], bell) as client:
        session = await opened(client, tmp_path)
        work = asyncio.create_task(client.call("session/prompt", sessionId=session, prompt=words("Go.")))
        await bell.begun.wait()
        await client.call("session/close", sessionId=session)
        async with asyncio.timeout(20):
            answer = await work
        assert (answer["stopReason"], answer["usage"]["totalTokens"]) == ("cancelled", 1050)
        await client.call("session/resume", sessionId=session, cwd=str(tmp_path / "work"), mcpServers=[])


async def test_a_session_at_work_cannot_be_opened_a_second_time(tmp_path: Path) -> None:
    bell = Holding()
    place = {"cwd": str(tmp_path / "work"), "mcpServers": []}
    async with talking(tmp_path, [{"tool": "bell"}], bell) as client:
        session = await opened(client, tmp_path)
        work = asyncio.create_task(client.call("session/prompt", sessionId=session, prompt=words("Go.")))
        await bell.begun.wait()
        with pytest.raises(Refusal, match="being worked on"):
            await client.call("session/load", sessionId=session, **place)
        async with talking(tmp_path, []) as other:
            with pytest.raises(Refusal, match="another process"):
                await other.call("session/resume", sessionId=session, **place)
        await client.peer.notify("session/cancel", {"sessionId": session})
        assert (await work)["stopReason"] == "cancelled"
        await client.call("session/load", sessionId=session, **place)


async def test_what_is_allowed_for_good_stays_allowed_in_the_session(tmp_path: Path) -> None:
    bell = Bell()
    async with talking(tmp_path, {"turns": [{"moves": [ring(), {"text": "."}]}]}, bell) as client:
        session = await opened(client, tmp_path)
        await client.call("session/set_mode", sessionId=session, modeId="ask")
        client.option = "allow_always"
        for _ in range(2):
            await client.call("session/prompt", sessionId=session, prompt=words("Ring."))
    assert (bell.rung, len(client.asked)) == (2, 1)


@pytest.mark.parametrize("servers", [7, "x", {"a": 1}])
async def test_servers_that_are_no_list_are_refused(tmp_path: Path, servers: object) -> None:
    async with talking(tmp_path, []) as client:
        with pytest.raises(Refusal, match="list"):
            await client.call("session/new", cwd=str(tmp_path / "work"), mcpServers=servers)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text", "text": " \n"},
        {"type": "image", "data": "no base64!", "mimeType": "image/png"},
        {"type": "image", "data": "AAAA", "mimeType": "image/x-xcf"},
    ],
)
async def test_what_no_model_takes_never_gets_into_a_history(tmp_path: Path, block: dict[str, str]) -> None:
    async with talking(tmp_path, [{"text": "."}]) as client:
        session = await opened(client, tmp_path)
        with pytest.raises(Refusal):
            await client.call("session/prompt", sessionId=session, prompt=[block])
        answer = await client.call("session/prompt", sessionId=session, prompt=words("Go."))
    assert answer["stopReason"] == "end_turn"


async def test_a_lost_workspace_is_told_in_words(tmp_path: Path) -> None:
    def gone(_: object, __: object) -> str:
        raise Fatal("the workspace is gone")

    async with talking(tmp_path, [{"tool": "bell"}], Bell(do=gone)) as client:
        session = await opened(client, tmp_path)
        with pytest.raises(Refusal, match="the workspace is gone"):
            await client.call("session/prompt", sessionId=session, prompt=words("Go."))


# Models.


async def test_an_answer_without_a_word_is_the_end_and_not_asked_for_again(stage: Stage) -> None:
    ended = await stage.play([ring(), {"text": ""}], Bell())
    assert (ended.reason, len(stage.models.asked)) == ("end_turn", 2)
    # A provider takes neither an empty answer nor a conversation that ends with one.
    assert stage.history.messages[-1].role == "tool"
    assert (await stage.play([{"text": "Here."}])).reason == "end_turn"


async def test_calling_what_does_not_exist_again_and_again_is_answered_each_time(stage: Stage) -> None:
    ended = await stage.play([{"tool": "nowhere"}] * 8 + [{"text": "I give up."}], Bell())
    assert (ended.reason, len(stage.answers())) == ("end_turn", 8)
    assert sound(stage.history.messages)


async def test_calls_with_the_same_id_are_told_apart(stage: Stage) -> None:
    models = Said(
        [done(call("call_0"), call("call_0"))], [done(call("call_0"), call(""))], [done(TextBlock(text="."))]
    )
    bell = Bell()
    turn = stage.turn([], bell)
    ended = await type(turn)(
        asking=asking(models), history=turn.history, tools=turn.tools, context=turn.context,
        listener=turn.listener,
    ).run(SAY)  # fmt: skip
    ids = [id for id, _ in stage.listener.said("ended")]
    assert (ended.reason, bell.rung, len(set(ids))) == ("end_turn", 4, 4)
    assert "" not in ids
    assert sound(stage.history.messages)


@pytest.mark.parametrize("times", [1, 3])
async def test_calls_side_by_side_that_are_cancelled_have_one_answer_each(stage: Stage, times: int) -> None:
    bell = Holding(3, parallel_safe=True)
    work = asyncio.create_task(stage.play([{"tools": [{"tool": "bell"}] * 3}], bell))
    await bell.begun.wait()
    for _ in range(times):
        work.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await work
    assert sound(stage.history.messages)
    assert sorted(stage.listener.said("began")) == sorted(id for id, _ in stage.listener.said("ended"))


async def test_a_ground_that_is_lost_ends_the_calls_beside_it_too(stage: Stage) -> None:
    def gone(_: object, __: object) -> str:
        raise Fatal("the workspace is gone")

    tools = (Holding(9, parallel_safe=True), Bell("gone", gone, parallel_safe=True))
    with pytest.raises(Fatal):
        await stage.play([{"tools": [{"tool": "bell"}, {"tool": "gone"}, {"tool": "bell"}]}], *tools)
    assert sound(stage.history.messages)
    assert sorted(stage.listener.said("began")) == sorted(id for id, _ in stage.listener.said("ended"))


CUT = ModelError("cut", retryable=True)


def deltas(*pieces: str) -> list[ModelEvent]:
    """`~x` is thinking, all else words."""
    return [
        ThinkingDelta(index=0, delta=piece[1:]) if piece.startswith("~") else TextDelta(index=1, delta=piece)
        for piece in pieces
    ]


@pytest.mark.parametrize(
    "first, second, heard",
    [
        # The same again: the telling goes on where it had stopped, however it is cut into pieces.
        (["Hello ", "wo"], ["Hel", "lo world", "!"], ["Hello ", "wo", "rld", "!"]),
        (["~Hm", "Well"], ["~Hm", "Well", " then"], ["~Hm", "Well", " then"]),
        (["~Hm"], ["~Hm", "Well"], ["~Hm", "Well"]),
        (["All"], ["All"], ["All"]),
        # Something else: it is told from its beginning, and what was heard does not count.
        (["Hello "], ["Hel", "p!"], ["Hello ", "BROKEN", "Hel", "p!"]),
        (["Hello "], ["Hel"], ["Hello ", "BROKEN", "Hel"]),
        (["~Hm"], ["Hm"], ["~Hm", "BROKEN", "Hm"]),
        (["Hello"], [], ["Hello", "BROKEN"]),
        ([], ["Hello"], ["BROKEN", "Hello"]),
    ],
)
async def test_a_second_try_repeats_nothing_that_was_heard(
    stage: Stage, first: list[str], second: list[str], heard: list[str]
) -> None:
    models = Said([*deltas(*first), CUT], [*deltas(*second), done(TextBlock(text="."))])
    model = PortModel(asking(models), stage.history, stage.listener)
    await model.answer(Context(messages=(UserMessage(content=SAY),)))
    marks = {"text": "", "thought": "~"}
    said = [
        "BROKEN" if kind == "broken_off" else marks[kind] + what
        for kind, what in stage.listener.heard
        if kind != "usage"
    ]
    assert said == heard


async def test_a_third_try_goes_on_from_what_the_first_has_told(stage: Stage) -> None:
    models = Said([*deltas("One two"), CUT], [*deltas("One"), CUT], [*deltas("One ", "two three"), done()])
    await PortModel(asking(models), stage.history, stage.listener).answer(Context(messages=()))
    assert stage.listener.said("text") == ["One two", " three"]
    assert stage.listener.said("broken_off") == []


# Long conversations.


async def test_a_long_turn_may_become_too_long_again_and_again(stage: Stage) -> None:
    too_long = ContextOverflow("too long")
    work: list[Sequence[ModelEvent | Exception]] = []
    for round in range(6):
        work += [[done(call(f"c{round}.{n}"))] for n in range(8)]
        work += [[too_long], [done(TextBlock(text=f"Summary {round}."))]]
    models = Said(*work, [done(TextBlock(text="Done."))])
    turn = stage.turn([], Bell())
    ended = await type(turn)(
        asking=asking(models), history=turn.history, tools=turn.tools, context=turn.context,
        listener=turn.listener,
    ).run(SAY)  # fmt: skip
    assert ended.reason == "end_turn"
    told = [
        block.text
        for message in stage.history.messages
        if isinstance(message, UserMessage)
        for block in message.content
        if isinstance(block, TextBlock)
    ]
    # The latest summary only, and it was made with the one before in sight.
    assert told[0] == "Ring."
    assert [text.rsplit("\n", 1)[-1] for text in told[1:]] == ["Summary 5."]
    summaries = [context for context in models.asked if context.system == compaction.ORDER]
    assert "Summary 4." in str(summaries[5].messages)
    assert sound(stage.history.messages)


async def test_one_huge_answer_of_a_tool_does_not_end_a_conversation(stage: Stage) -> None:
    models = Said([done(call("a"))], [ContextOverflow("too long")], [done(TextBlock(text="Done."))])
    turn = stage.turn([], Bell(do=lambda _, __: "x" * 500_000))
    ended = await type(turn)(
        asking=asking(models), history=turn.history, tools=turn.tools, context=turn.context,
        listener=turn.listener,
    ).run(SAY)  # fmt: skip
    assert ended.reason == "end_turn"
    assert len(str(models.asked[-1])) < 10_000


# Histories.


async def test_a_line_that_cannot_be_read_costs_no_other(stage: Stage, tmp_path: Path) -> None:
    await stage.play([ring(), {"text": "First."}], Bell())
    await stage.play([{"text": "Second."}])
    path = stage.history.folder / "history.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for at in range(1, len(lines)):
        for bad in (b"\0\0\0\n", b"[]\n", b'{"role": "robot"}\n', b'{"compacted": [7]}\n', b"7\n"):
            path.write_bytes(b"".join([*lines[:at], bad, *lines[at + 1 :], b'{"half":']))
            found = History.load(tmp_path / "agent", stage.history.id)
            assert sound(found.messages)
            assert len(found.messages) >= len(lines) - 4
            found.add(UserMessage(content=SAY))
            again = History.load(tmp_path / "agent", stage.history.id)
            assert again.messages == found.messages


async def test_an_answer_that_was_lost_is_not_taken_for_a_later_one(stage: Stage, tmp_path: Path) -> None:
    messages: list[Message] = [
        UserMessage(content=SAY),
        AssistantMessage(content=(call("call_0"),)),
        UserMessage(content=SAY),
        AssistantMessage(content=(call("call_0"),)),
        ToolMessage(call="call_0", name="bell", content=SAY),
        ToolMessage(call="call_0", name="bell", content=SAY),
        ToolMessage(call="never", name="bell", content=SAY),
    ]
    stage.history.add(*messages)
    found = History.load(tmp_path / "agent", stage.history.id).messages
    assert [message.role for message in found] == ["user", "assistant", "tool", "user", "assistant", "tool"]
    assert INTERRUPTED in str(found[2])


async def test_one_process_at_a_time_writes_a_history(stage: Stage, tmp_path: Path) -> None:
    stage.history.hold()
    stage.history.hold()
    other = History.load(tmp_path / "agent", stage.history.id)
    with pytest.raises(SessionBusy):
        other.hold()
    stage.history.release()
    other.hold()
    other.release()


async def test_what_a_session_has_cost_never_becomes_less(tmp_path: Path) -> None:
    bell = Holding()
    models = Said([done(call("a"), cost=0.25)], [done(TextBlock(text="."), cost=0.5)])
    async with talking(tmp_path, models, bell) as client:
        session = await opened(client, tmp_path)
        work = asyncio.create_task(client.call("session/prompt", sessionId=session, prompt=words("Go.")))
        await bell.begun.wait()
        await client.peer.notify("session/cancel", {"sessionId": session})
        await work
        await client.call("session/prompt", sessionId=session, prompt=words("Go."))
    costs = [u["cost"]["amount"] for u in client.updates if u["sessionUpdate"] == "usage_update"]
    assert costs == [0.25, 0.75]
    kept = (tmp_path / ".overnight" / "agent" / session / "history.jsonl").read_bytes().splitlines()
    assert json.loads(kept[-1]) == {"spent": 0.75}


def test_a_summary_is_told_whole_to_the_next_one() -> None:
    summary = TextBlock(text=f"{HEADING}\n\n" + "word " * 900 + "END")
    question = compaction.question((UserMessage(content=(*SAY, summary)),))
    assert "END" in str(question.messages)
