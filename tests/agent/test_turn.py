"""A turn of the agent: one start and one end for each call, nothing run twice, a history that can be gone on with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.agent.turns import Bell, Remembering, Scripted, asking, context, refusing

from overnight.agent.history import INTERRUPTED, History
from overnight.agent.loop.compaction import HEADING
from overnight.agent.loop.telling import Leave
from overnight.agent.loop.turn import Ended, Limits, Turn
from overnight.agent.tools.tool import Fatal, Tool, ToolContext
from overnight.agent.tools.workspace import Workspace, open_workspace
from overnight.errors import ContextOverflow, ModelError
from overnight.ports.model import AssistantMessage, TextBlock, ToolMessage, UserMessage

pytestmark = pytest.mark.anyio
SAY = (TextBlock(text="Ring."),)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    (tmp_path / "work").mkdir()
    with open_workspace(tmp_path / "work") as opened:
        yield opened


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.new(tmp_path / "agent", str(tmp_path / "work"))


class Stage:
    """One session on which turns are played."""

    def __init__(self, workspace: Workspace, history: History, tmp_path: Path) -> None:
        self.listener = Remembering()
        self.history = history
        self.waits: list[float] = []
        self.asked = asyncio.Event()
        self._context = context(workspace, tmp_path)

    def turn(
        self, script: Any, *tools: Tool, retries: int = 5, asks: bool = False, limits: Limits | None = None
    ) -> Turn:
        self.models = Scripted(script, self.asked)
        named: Mapping[str, Tool] = {tool.spec.name: tool for tool in tools}
        return Turn(
            asking=asking(self.models, retries=retries, waits=self.waits), history=self.history, tools=named,
            context=self._context, listener=self.listener, asks=lambda _: asks, limits=limits or Limits(),
        )  # fmt: skip

    async def play(self, script: Any, *tools: Tool, **named: Any) -> Ended:
        return await self.turn(script, *tools, **named).run(SAY)

    def answers(self) -> list[ToolMessage]:
        return [message for message in self.history.messages if isinstance(message, ToolMessage)]


@pytest.fixture
def stage(workspace: Workspace, history: History, tmp_path: Path) -> Stage:
    return Stage(workspace, history, tmp_path)


def ring(**arguments: object) -> dict[str, object]:
    return {"tool": "bell", "arguments": arguments}


async def test_calls_are_carried_out_until_the_model_has_none_left(stage: Stage) -> None:
    bell = Bell()
    ended = await stage.play([{"text": "First.", **ring()}, ring(times=2), {"text": "Done."}], bell)
    assert (ended.reason, bell.rung, ended.usage.total) == ("end_turn", 2, 3 * 1050)
    assert [type(m) for m in stage.history.messages] == [
        UserMessage, AssistantMessage, ToolMessage, AssistantMessage, ToolMessage, AssistantMessage,
    ]  # fmt: skip
    assert stage.models.asked[-1].messages == stage.history.messages[:-1]
    assert [t.name for t in stage.models.asked[0].tools] == ["bell"]


async def test_each_call_has_one_start_and_one_end_whatever_comes_of_it(stage: Stage) -> None:
    def crash(_: object, __: object) -> str:
        raise RuntimeError("a fault")

    tools = (Bell(), Bell("cracked", refusing), Bell("faulty", crash))
    script = [
        {"tools": [
            {"tool": "bell"}, {"tool": "cracked"}, {"tool": "faulty"}, {"tool": "nowhere"},
            {"tool": "bell", "arguments": {"times": "often"}}, {"tool": "bell", "arguments": {"loudness": 3}},
        ]},
        {"text": "Done."},
    ]  # fmt: skip
    assert (await stage.play(script, *tools)).reason == "end_turn"
    began, ended = stage.listener.said("began"), [id for id, _ in stage.listener.said("ended")]
    assert len(set(began)) == 6
    assert sorted(began) == sorted(ended)
    answers = {m.name + str(i): m for i, m in enumerate(stage.answers())}
    assert len(answers) == 6
    assert [m.is_error for m in stage.answers()].count(True) == 5
    texts = " ".join(m.content[0].text for m in stage.answers() if isinstance(m.content[0], TextBlock))
    for words in ("the bell is cracked", "RuntimeError", "nowhere", "$.times", "loudness"):
        assert words in texts


async def test_a_stream_that_breaks_off_is_asked_again_and_no_tool_runs_twice(stage: Stage) -> None:
    bell = Bell()
    script = {"by": "counter", "turns": [{"moves": [
        ring(), {"text": "Half of the ans", "fault": "disconnect"}, {"fault": "500"},
        {"fault": "429", "retry_after_s": 7}, {"text": "Done."},
    ]}]}  # fmt: skip
    assert (await stage.play(script, bell)).reason == "end_turn"
    assert bell.rung == 1
    assert stage.waits == [0.2, 0.4, 7.0]
    assert len(stage.listener.said("broken_off")) == 1
    assert [m.text for m in stage.history.messages if isinstance(m, AssistantMessage)] == ["", "Done."]


async def test_a_call_of_an_answer_that_was_cut_off_is_not_carried_out(stage: Stage) -> None:
    bell = Bell()
    script = {"by": "counter", "turns": [{"moves": [{**ring(), "fault": "disconnect"}, {"text": "Done."}]}]}
    await stage.play(script, bell)
    assert bell.rung == 0
    assert stage.listener.said("began") == []


async def test_what_cannot_be_mended_by_trying_again_ends_the_turn_at_once(stage: Stage) -> None:
    with pytest.raises(ModelError) as refused:
        await stage.play([{"fault": "401"}])
    assert refused.value.code == "auth_required"
    assert stage.waits == []


async def test_trying_again_has_an_end(stage: Stage) -> None:
    with pytest.raises(ModelError):
        await stage.play({"by": "counter", "turns": [{"moves": [{"fault": "500"}] * 9}]}, retries=3)
    assert len(stage.waits) == 3


async def test_a_call_that_is_not_allowed_is_answered_and_the_model_goes_on(stage: Stage) -> None:
    bell = Bell()
    stage.listener.leave = Leave(allowed=False, feedback="It is night.")
    await stage.play([ring(), {"text": "I see."}], bell, asks=True)
    assert bell.rung == 0
    answer = stage.answers()[0]
    assert answer.is_error
    assert "It is night." in str(answer.content)
    assert stage.listener.kinds().count("ask") == 1


async def test_what_was_approved_is_what_the_tool_is_held_to(stage: Stage) -> None:
    seen: list[str | None] = []
    bell = Bell(do=lambda _, given: seen.append(given.approved))
    await stage.play([ring(), {"text": "."}], bell, asks=True)
    await stage.play({"turns": [{"moves": [ring(), {"text": "."}]}]}, bell)
    assert seen == ["d1", None]


async def test_calls_that_only_look_run_side_by_side_and_others_alone(stage: Stage) -> None:
    both = asyncio.Barrier(2)
    running: list[int] = []

    async def meet(_: object, __: ToolContext) -> str:
        async with asyncio.timeout(20):
            await both.wait()
        return "met"

    async def alone(_: object, __: ToolContext) -> str:
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0)
        running.pop()
        return "alone"

    most: list[int] = []
    look = Bell("look", meet, parallel_safe=True)
    change = Bell("change", alone)
    script = [
        {"tools": [{"tool": "look"}, {"tool": "look"}, {"tool": "change"}, {"tool": "change"}]},
        {"text": "."},
    ]
    await stage.play(script, look, change)
    assert [str(m.content[0]) for m in stage.answers() if m.is_error] == []
    assert (look.rung, change.rung, max(most)) == (2, 2, 1)


async def test_a_turn_that_is_cancelled_in_a_call_leaves_a_history_that_can_be_gone_on_with(
    stage: Stage,
) -> None:
    started = asyncio.Event()

    async def forever(_: object, __: ToolContext) -> str:
        started.set()
        await asyncio.Event().wait()
        return ""

    bell = Bell(do=forever)
    script = [{"tools": [{"tool": "bell"}, {"tool": "bell"}]}, {"text": "."}]
    work = asyncio.create_task(stage.play(script, bell))
    await started.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert len(stage.answers()) == 2
    assert all(m.is_error for m in stage.answers())
    assert sorted(stage.listener.said("began")) == sorted(id for id, _ in stage.listener.said("ended"))
    bell.do = lambda _, __: "rung"
    assert (await stage.play([{"text": "Going on."}], bell)).reason == "end_turn"


async def test_a_turn_that_is_cancelled_before_the_first_answer_asks_no_tool(stage: Stage) -> None:
    bell = Bell()
    work = asyncio.create_task(stage.play([{"fault": "hang", **ring()}], bell))
    await stage.asked.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert bell.rung == 0


async def test_tools_that_have_lost_their_ground_end_the_turn(stage: Stage) -> None:
    def gone(_: object, __: object) -> str:
        raise Fatal("the workspace is gone")

    with pytest.raises(Fatal):
        await stage.play([ring(), {"text": "."}], Bell(do=gone))
    assert [m.is_error for m in stage.answers()] == [True]


async def test_endless_calls_stop_at_the_limit_of_requests(stage: Stage) -> None:
    bell = Bell()
    ended = await stage.play([ring()] * 50, bell, limits=Limits(requests=2))
    assert (ended.reason, len(stage.models.asked)) == ("max_turn_requests", 2)
    assert stage.history.messages[-1].role == "tool"


async def test_a_conversation_that_is_too_long_is_summarised_and_goes_on(stage: Stage) -> None:
    bell = Bell()
    calls = [ring(times=n) for n in range(8)]
    await stage.play([*calls, {"text": "Rung eight times."}], bell)
    too_long = {"fault": "400", "message": "the context is too long"}
    script = {
        "by": "counter",
        "turns": [{"moves": [too_long, {"text": "All bells rang."}, {"text": "Done."}]}],
    }
    assert (await stage.play(script, bell)).reason == "end_turn"
    assert bell.rung == 8
    first = stage.history.messages[0]
    assert isinstance(first, UserMessage)
    assert isinstance(first.content[-1], TextBlock)
    assert first.content[0] == SAY[0]
    assert HEADING in first.content[-1].text
    assert "All bells rang." in first.content[-1].text
    assert len(stage.history.messages) < 12
    answered = {m.call for m in stage.history.messages if isinstance(m, ToolMessage)}
    called = {c.id for m in stage.history.messages if isinstance(m, AssistantMessage) for c in m.tool_calls}
    assert answered == called
    again = History.load(stage.history.folder.parent, stage.history.id)
    assert again.messages == stage.history.messages


async def test_a_conversation_that_cannot_be_made_shorter_ends_the_turn(stage: Stage) -> None:
    with pytest.raises(ContextOverflow):
        await stage.play([{"fault": "400", "message": "the context is too long"}])


async def test_another_process_goes_on_where_a_killed_one_has_stopped(stage: Stage, tmp_path: Path) -> None:
    await stage.play([{"tools": [{"tool": "bell"}, {"tool": "bell"}]}, {"text": "Done."}], Bell())
    path = stage.history.folder / "history.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    # Killed after the first of two answers, in the middle of writing the second.
    path.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    found = History.load(tmp_path / "agent", stage.history.id)
    last = found.messages[-1]
    assert isinstance(last, ToolMessage)
    assert last.is_error
    assert INTERRUPTED in str(last.content)
    assert [m.role for m in found.messages] == ["user", "assistant", "tool", "tool"]
    stage.history = found
    bell = Bell()
    assert (await stage.play([{"text": "Done."}], bell)).reason == "end_turn"
    assert bell.rung == 0
    assert History.load(tmp_path / "agent", stage.history.id).messages == found.messages
