"""The whole chain against every provider that has a key here: client, socket, server, provider, and back."""

import contextlib
import os
from pathlib import Path

import pytest
from tests.models.asking import TOOL, say
from tests.server.stage import staged
from tests.socket.test_provider_chain import asking

from overnight.client.socket.streams import RemoteModels
from overnight.config.settings import load
from overnight.errors import RateLimited
from overnight.models.configured import ConfiguredModels
from overnight.models.endpoint import Endpoint, ModelSettings
from overnight.ports.model import Context, Done, Message, ModelOptions, ModelRequest, TextBlock, ToolMessage

pytestmark = [pytest.mark.anyio, pytest.mark.live]
ENDPOINTS = [one for one in load().models.endpoints if one.kind != "scripted"]
PROMPT = "Call the tool `shell` once with the command `echo 4711`. Then answer with what it said, and nothing else."


def chosen(endpoint: Endpoint) -> str:
    """The model to ask: named in the environment, else the usual one."""
    variable = "OVERNIGHT_LIVE_MODEL_" + endpoint.name.upper().replace("-", "_")
    model = os.environ.get(variable) or endpoint.usual
    if endpoint.needs:
        pytest.skip(f"not run: {endpoint.name} has no key ({endpoint.needs})")
    if model is None:
        pytest.skip(f"not run: no model of {endpoint.name} is named in {variable}")
    return f"{endpoint.name}:{model}"


async def ask(models: RemoteModels, name: str, *messages: Message) -> Done:
    """The answer; a limit of the provider is no failure of ours."""
    request = ModelRequest(
        model=name,
        context=Context(system="You are terse.", messages=messages, tools=(TOOL,)),
        options=ModelOptions(max_tokens=2000),
    )
    try:
        async with models.stream(request) as events:
            found = [event async for event in events]
    except RateLimited as error:
        pytest.skip(f"the provider's limit is reached: {error.detail}")
    assert isinstance(found[-1], Done)
    return found[-1]


class Closing:
    """Closes the models at the end, also of a test that is skipped."""

    def __init__(self, models: ConfiguredModels) -> None:
        self.aclose = models.close


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
async def test_the_chain(endpoint: Endpoint, tmp_path: Path) -> None:
    name = chosen(endpoint)
    configured = ConfiguredModels(ModelSettings(endpoints=(endpoint,)))
    async with contextlib.aclosing(Closing(configured)), staged(tmp_path, models=configured) as stage:
        run = await stage.submitted()
        frames: list[bytes] = []
        async with asking(stage, run, frames) as link:
            models = RemoteModels(link)
            first = await ask(models, name, say(PROMPT))
            assert first.reason == "tool_use", first
            (call,) = first.message.tool_calls
            assert call.name == "shell"
            result = ToolMessage(call=call.id, name=call.name, content=(TextBlock(text="4711"),))
            second = await ask(models, name, say(PROMPT), first.message, result)
            assert (second.reason, "4711" in second.message.text) == ("stop", True), second
            assert second.usage.total > 0
        assert endpoint.key is None or not [frame for frame in frames if endpoint.key.encode() in frame]
