"""What the tests of the provider protocol share: models under a test's control, and two links that talk."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from overnight.client.socket.inproc import pair
from overnight.client.socket.link import Admission, Link
from overnight.client.socket.streams import ModelStreams
from overnight.domain.agent_token import Claim
from overnight.domain.request import Principal
from overnight.errors import ModelNotFound
from overnight.ids import RunId
from overnight.ports.model import (
    AssistantMessage,
    Context,
    Done,
    ModelEvent,
    ModelFilter,
    ModelInfo,
    ModelRequest,
    ModelUsage,
    Started,
    TextBlock,
    TextDelta,
    TextEnded,
    TextStarted,
    UsageKnown,
    UserMessage,
)
from overnight.ports.model_ledger import ModelCall, ModelLedger, NoLedger
from overnight.server.auth import Caller
from overnight.server.socket.provider import ProviderDesk
from overnight.testing.signals import Signals

USAGE = ModelUsage(input=100, cached=20, output=10, cost_usd=0.25)
Step = ModelEvent | Exception | str
"""An event to say, an error to raise, or the name of a point to pass."""


def question(text: str = "go", model: str = "test:one", **options: Any) -> ModelRequest:
    """A question of one sentence."""
    context = Context(messages=(UserMessage(content=(TextBlock(text=text),)),))
    return ModelRequest(model=model, context=context, **options)


def saying(*pieces: str) -> list[Step]:
    """A whole answer of these pieces."""
    text = TextBlock(text="".join(pieces))
    return [
        Started(model="one"),
        TextStarted(index=0),
        *(TextDelta(index=0, delta=piece) for piece in pieces),
        TextEnded(index=0),
        UsageKnown(usage=USAGE),
        Done(reason="stop", message=AssistantMessage(content=(text,), model="one"), usage=USAGE),
    ]


class TestModels:
    """Says what `script` makes of a question. `signals` marks `asked`, and `left` when an answer is no longer read."""

    __test__ = False

    def __init__(self, script: Callable[[ModelRequest], Sequence[Step]], *, needs: str = "") -> None:
        self.script = script
        self.signals = Signals()
        self.asked: list[ModelRequest] = []
        self.infos = (
            ModelInfo(name="test:one", provider="test", id="one", default=True, aliases=("first",)),
            ModelInfo(name="other:two", provider="other", id="two", ready=not needs, needs=needs),
        )

    async def list(self, filter: ModelFilter) -> tuple[ModelInfo, ...]:
        return tuple(
            info
            for info in self.infos
            if filter.provider in (None, info.provider)
            and filter.model in (None, info.name, *info.aliases)
            and (filter.include_unready or info.ready)
        )

    async def resolve(self, name: str) -> ModelInfo:
        for info in self.infos:
            if name in {info.name, *info.aliases} or (not name and info.default):
                return info
        raise ModelNotFound(f"no model is called {name!r}")

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ModelEvent]]:
        self.asked.append(request)
        self.signals.mark("asked", request)
        try:
            yield self._said(request)
        finally:
            self.signals.mark("left", request)

    async def _said(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        for step in self.script(request):
            if isinstance(step, str):
                await self.signals.passing(step)
            elif isinstance(step, Exception):
                raise step
            else:
                yield step
                await asyncio.sleep(0)


@dataclass
class Book:
    """A ledger in memory."""

    calls: list[tuple[RunId, ModelCall]] = field(default_factory=list)
    refusal: Exception | None = None

    async def allow(self, run_id: RunId) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def record(self, run_id: RunId, call: ModelCall) -> None:
        self.calls.append((run_id, call))


@dataclass
class Talk:
    """Both ends of a connection."""

    client: Link
    server: Link
    desk: ProviderDesk
    streams: ModelStreams
    frames: list[bytes]
    cut: Callable[[], None]
    tasks: list[asyncio.Task[Any]]

    async def ended(self) -> None:
        """Both ends have noticed that the connection is over."""
        await asyncio.wait(self.tasks)

    def terminals(self) -> list[str]:
        """The scopes that have been ended, each as often as that was said."""
        return list(terminals(self.frames).elements())


RUN = RunId("run_01k0c3v9h4f6x8r2m5t7w9y1zb")
AGENT = Caller(
    principal=Principal(owner="usr_local", name="agent", kind="agent"), digest="d", user="usr_local",
    claim=Claim(run_id=RUN, turn=1, attempt=1),
)  # fmt: skip


USER = Caller(principal=Principal(owner="usr_local", name="usr_local"), digest="d", user="usr_local")


@asynccontextmanager
async def talking(
    models: Any, *, ledger: ModelLedger | None = None, caller: Caller = USER, **options: Any
) -> AsyncIterator[Talk]:
    """A client and a server with models, in one process. Every message between them is in `frames`."""
    near, far = pair()
    desk = ProviderDesk(models, ledger or NoLedger(), lambda: caller, **options)

    async def greet(link: Link, hello: Any) -> Admission:
        return Admission(connection="con_1", resume_key="again")

    server = Link("server", near, on_hello=greet, handlers=desk.handlers())
    client = Link("client", far, hello={"token": "t"})
    frames: list[bytes] = []
    for transport in (near, far):
        _overhear(transport, frames)
    tasks = [asyncio.create_task(server.run()), asyncio.create_task(client.run())]
    try:
        await client.ready()
        yield Talk(client, server, desk, ModelStreams(client), frames, near.cut, tasks)
    finally:
        await client.close()
        await server.close()
        await desk.close()
        await asyncio.gather(*tasks)


def _overhear(transport: Any, frames: list[bytes]) -> None:
    send = transport.send

    async def overheard(message: bytes) -> None:
        frames.append(bytes(message))
        await send(message)

    transport.send = overheard


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
