"""A process without a key asks a model: over a real socket, by the providers' own clients, on its run's account."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.models.asking import IDS, KEY, KINDS, TOOL, endpoint, models, say
from tests.server.stage import Stage, staged
from tests.socket.models import TestModels, question, saying

from overnight.client.socket.link import Link
from overnight.client.socket.streams import ModelStreams, RemoteModels
from overnight.client.socket.target import Target
from overnight.client.socket.transport import SocketTransport
from overnight.domain.agent_token import Claim, agent_secret, key_of_run
from overnight.domain.run import Run
from overnight.engine.agent_access import agent_key
from overnight.errors import BudgetSpent, ModelError, RateLimited
from overnight.ports.model import (
    Context,
    Done,
    Message,
    ModelFilter,
    ModelRequest,
    TextBlock,
    TextDelta,
    ToolMessage,
)
from overnight.testing.model_server import ModelServer
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
SCRIPT = [
    {"reasoning": "Look first.", "text": "I look.", "tool": "shell", "arguments": {"command": "ls"}},
    {"text": "Three files."},
]


@pytest.fixture(scope="module")
def provider() -> Any:
    with ModelServer([]) as made:
        yield made


@pytest.fixture(scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, anyio_backend: str, provider: ModelServer
) -> AsyncIterator[Stage]:
    configured = models(*(endpoint(kind, provider) for kind in KINDS))
    async with staged(tmp_path_factory.mktemp("chain"), models=configured) as made:
        yield made
    await configured.close()


@contextlib.asynccontextmanager
async def linked(stage: Stage, token: str, frames: list[bytes] | None = None) -> AsyncIterator[Link]:
    """A link to the server. Whatever goes either way is kept in `frames`."""
    transport = SocketTransport()
    await transport.connect(Target(url=f"ws://127.0.0.1:{stage.port}", token=token))
    link = Link("client")
    serving = asyncio.create_task(link.run(Overheard(transport, [] if frames is None else frames)))
    try:
        await link.ready()
        yield link
    finally:
        await link.close()
        await serving


@contextlib.asynccontextmanager
async def asking(stage: Stage, run: Run, frames: list[bytes] | None = None) -> AsyncIterator[Link]:
    """A link of the run's own agent."""
    claim = Claim(run_id=run.id, turn=run.turn, attempt=run.attempt)
    key = key_of_run(await agent_key(stage.store), run.id)
    async with linked(stage, agent_secret(key, claim), frames) as link:
        yield link


class Overheard:
    """A transport that keeps whatever goes either way."""

    def __init__(self, inner: Any, frames: list[bytes]) -> None:
        self._inner = inner
        self._frames = frames

    async def send(self, message: bytes) -> None:
        self._frames.append(bytes(message))
        await self._inner.send(message)

    async def receive(self) -> bytes | str | None:
        found: bytes | str | None = await self._inner.receive()
        if found is not None:
            self._frames.append(found.encode() if isinstance(found, str) else bytes(found))
        return found

    async def close(self, code: int, reason: str) -> None:
        await self._inner.close(code, reason)


async def ask(link: Link, kind: str, *messages: Message) -> tuple[Done, str]:
    """The answer, and the text as it came in pieces."""
    context = Context(messages=messages or (say("Do it."),), tools=(TOOL,))
    request = ModelRequest(model=f"{kind}:{IDS[kind]}", context=context)
    async with RemoteModels(link).stream(request) as events:
        found = [event async for event in events]
    assert isinstance(found[-1], Done)
    return found[-1], "".join(event.delta for event in found if isinstance(event, TextDelta))


async def account(stage: Stage, run: Run) -> Any:
    async with stage.client(stage.secret) as http:
        answer = await http.get(f"/api/v1/runs/{run.id}/model-calls")
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_whole_way_to_a_provider_and_back(served: Stage, provider: ModelServer, kind: Any) -> None:
    provider.play(SCRIPT)
    before = len(provider.requests)
    frames: list[bytes] = []
    run = await served.submitted()
    async with asking(served, run, frames) as link:
        first, told = await ask(link, kind)
        assert (first.reason, told) == ("tool_use", "I look.")
        (call,) = first.message.tool_calls
        result = ToolMessage(call=call.id, name=call.name, content=(TextBlock(text="a, b, c"),))
        second, told = await ask(link, kind, say("Do it."), first.message, result)
        assert (second.reason, told, second.message.text) == ("stop", "Three files.", "Three files.")
    asked = provider.requests[before:]
    assert all(KEY in str(one.headers) for one in asked)
    assert not [frame for frame in frames if KEY.encode() in frame or provider.url.encode() in frame]
    found = await account(served, run)
    assert [(one["ending"], one["reason"]) for one in found["items"]] == [
        ("done", "tool_use"),
        ("done", "stop"),
    ]
    assert (found["total"]["calls"], found["total"]["input"], found["total"]["output"]) == (2, 2000, 100)
    if kind == "openai":
        sent = asked[1].body["input"]
        assert [item["encrypted_content"] for item in sent if item.get("type") == "reasoning"] == [
            first.message.content[0].signature  # type: ignore[union-attr]
        ]


async def test_a_limit_of_the_provider_comes_through(served: Stage, provider: ModelServer) -> None:
    provider.play([{"fault": "429", "retry_after_s": 3, "message": f"slow down, {KEY}"}])
    frames: list[bytes] = []
    run = await served.submitted()
    async with asking(served, run, frames) as link:
        with pytest.raises(RateLimited) as limited:
            await ask(link, "openai")
    assert (limited.value.retry_after_s, limited.value.retryable) == (3, True)
    assert not [frame for frame in frames if KEY.encode() in frame]
    assert [(one["ending"], one["reason"]) for one in (await account(served, run))["items"]] == [
        ("error", "rate_limited")
    ]


@pytest.mark.parametrize("kind", KINDS)
async def test_leaving_reaches_the_provider(served: Stage, provider: ModelServer, kind: Any) -> None:
    provider.play([{"text": "A beginning, and then nothing more.", "fault": "hang"}])
    before = provider.abandoned
    run = await served.submitted()
    async with asking(served, run) as link:
        request = ModelRequest(
            model=f"{kind}:{IDS[kind]}", context=Context(messages=(say("Do it."),), tools=(TOOL,))
        )
        async with RemoteModels(link).stream(request) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        await eventually(lambda: provider.abandoned == before + 1)

    async def aborted() -> bool:
        return [one["ending"] for one in (await account(served, run))["items"]] == ["aborted"]

    await eventually(aborted)


async def test_what_is_cut_off_on_the_way_is_an_error_that_may_pass(
    served: Stage, provider: ModelServer
) -> None:
    provider.play([{"text": "These are the words that nobody will hear.", "fault": "disconnect"}])
    run = await served.submitted()
    async with asking(served, run) as link:
        with pytest.raises(ModelError) as broken:
            await ask(link, "anthropic")
    assert (broken.value.code, broken.value.retryable) == ("provider_error", True)


async def test_models_are_listed_without_keys_or_addresses(served: Stage, provider: ModelServer) -> None:
    frames: list[bytes] = []
    async with asking(served, await served.submitted(), frames) as link:
        found = await RemoteModels(link).list(ModelFilter(provider="anthropic"))
        assert any(model.name.startswith("anthropic:claude-") and model.context_window for model in found)
    assert not [frame for frame in frames if KEY.encode() in frame or provider.url.encode() in frame]


async def test_a_run_may_ask_until_its_budget_is_spent(tmp_path: Path) -> None:
    async with staged(tmp_path, models=TestModels(lambda _: saying("x"))) as stage:
        run = await stage.submitted(limits={"tokens": 200})
        other = await stage.submitted(limits={"cost_usd": 0.3})
        async with asking(stage, run) as link:
            await ModelStreams(link).complete(question())
            await ModelStreams(link).complete(question())
            with pytest.raises(BudgetSpent) as spent:
                async with RemoteModels(link).stream(question()):
                    pass
            assert "220 of 200 tokens" in spent.value.detail
            assert not spent.value.retryable
        async with asking(stage, other) as link:
            await ModelStreams(link).complete(question())
            await ModelStreams(link).complete(question())
            with pytest.raises(BudgetSpent):
                async with RemoteModels(link).stream(question()):
                    pass
        found = await account(stage, other)
        assert (found["total"]["calls"], found["total"]["cost_usd"]) == (2, 0.5)
        async with stage.client(stage.secret) as http:
            path = f"/api/v1/runs/{other.id}/model-calls"
            first = (await http.get(path, params={"limit": 1})).json()
            second = (await http.get(path, params={"limit": 1, "cursor": first["next_cursor"]})).json()
            assert [len(one["items"]) for one in (first, second)] == [1, 1]
            assert first["items"] != second["items"]
            assert second["next_cursor"] is None


async def test_a_user_asks_on_nobodys_account(tmp_path: Path) -> None:
    async with staged(tmp_path, models=TestModels(lambda _: saying("x"))) as stage:
        run = await stage.submitted()
        async with linked(stage, stage.secret) as link:
            assert (await ModelStreams(link).complete(question())).message.text == "x"
        assert (await account(stage, run))["items"] == []


def test_nothing_of_a_provider_is_loaded_before_it_is_asked() -> None:
    import subprocess
    import sys

    script = (
        "import sys, overnight.compose.foreground, overnight.models.configured, overnight.server.socket.spoken\n"
        "from overnight.models.endpoint import ModelSettings\n"
        "overnight.models.configured.ConfiguredModels(ModelSettings())\n"
        "print(*[name for name in ('pydantic_ai', 'openai', 'anthropic', 'google.genai', 'genai_prices')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
