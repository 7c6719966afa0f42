"""A model that plays a script: the same moves as the scripted server, without any."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.models.asking import ask, last, say

from overnight.errors import AuthRequired, ContextOverflow, ModelError, ModelNotFound, RateLimited
from overnight.models.configured import ConfiguredModels
from overnight.models.endpoint import Endpoint, ModelSettings
from overnight.models.scripted import USAGE
from overnight.ports.model import (
    AssistantMessage,
    Context,
    Message,
    ModelRequest,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ToolMessage,
)
from overnight.wire.socket.reconstruction import Reconstruction

pytestmark = pytest.mark.anyio


def playing(folder: Path, script: Any) -> ConfiguredModels:
    path = folder / "script.json"
    path.write_text(json.dumps(script))
    endpoint = Endpoint(name="demo", kind="scripted", script=path)
    return ConfiguredModels(ModelSettings(endpoints=(endpoint,)))


def asked(*messages: Message) -> ModelRequest:
    return ModelRequest(model="", context=Context(messages=messages or (say("go"),)))


async def test_a_conversation_is_played_by_its_tool_results(tmp_path: Path) -> None:
    moves = [
        {
            "reasoning": "Hm.",
            "text": "I look around here, slowly.",
            "tool": "shell",
            "arguments": {"command": "ls"},
        },
        {"text": "Done with turn $TURN."},
    ]
    models = playing(tmp_path, {"turns": [moves, moves]})
    first = last(await ask(models, asked()))
    assert (first.reason, first.usage) == ("tool_use", USAGE)
    assert isinstance(first.message.content[0], ThinkingBlock)
    (call,) = first.message.tool_calls
    assert json.loads(call.arguments) == {"command": "ls"}
    result = ToolMessage(call=call.id, name="shell", content=(TextBlock(text="a"),))
    second = last(await ask(models, asked(say("go"), first.message, result)))
    assert (second.reason, second.message.text) == ("stop", "Done with turn 1.")
    again = await ask(models, asked(say("go"), first.message, result, second.message, say("more")))
    assert last(again).reason == "tool_use"


async def test_its_events_add_up_to_its_message(tmp_path: Path) -> None:
    move = {
        "reasoning": "a b c d e f",
        "text": "one two three four five six",
        "tools": [{"tool": "x"}, {"tool": "y"}],
    }
    events = await ask(playing(tmp_path, [move]), asked())
    said = Reconstruction()
    for event in events[:-1]:
        said.take(event)
    assert said.message() == last(events).message
    assert sum(isinstance(event, TextDelta) for event in events) == 2


@pytest.mark.parametrize(
    "move, kind, retryable",
    [
        ({"fault": "429", "retry_after_s": 4}, RateLimited, True),
        ({"fault": "401"}, AuthRequired, False),
        ({"fault": "404"}, ModelNotFound, False),
        ({"fault": "500"}, ModelError, True),
        ({"fault": "400"}, ModelError, False),
        ({"fault": "400", "message": "the context is too long"}, ContextOverflow, False),
        ({"text": "so far", "fault": "disconnect"}, ModelError, True),
    ],
)  # fmt: skip
async def test_faults_are_those_of_a_provider(
    tmp_path: Path, move: Any, kind: type[ModelError], retryable: bool
) -> None:
    with pytest.raises(ModelError) as refused:
        await ask(playing(tmp_path, [move]), asked())
    assert type(refused.value) is kind
    assert refused.value.retryable is retryable


async def test_a_model_that_hangs_can_be_left(tmp_path: Path) -> None:
    models = playing(tmp_path, [{"text": "so far", "fault": "hang"}])
    task = asyncio.create_task(ask(models, asked()))
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_a_script_there_is_nothing_to_do() -> None:
    endpoint = Endpoint(name="demo", kind="scripted")
    models = ConfiguredModels(ModelSettings(endpoints=(endpoint,)))
    assert "nothing left" in last(await ask(models, asked())).message.text


async def test_a_script_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be played"):
        await ask(
            playing(tmp_path, {"nonsense": 1}), asked(say("go"), AssistantMessage(content=()), say("x"))
        )
