"""What the tests of turns share: a scripted model behind the port, and a listener that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overnight.agent.loop.model import Asking
from overnight.agent.loop.retry import Patience
from overnight.agent.loop.telling import Call, Leave
from overnight.agent.tools.tool import (
    ForModel,
    PlanStep,
    Preview,
    ToolContext,
    ToolOutcome,
    ToolSpec,
)
from overnight.agent.tools.workspace import Workspace
from overnight.models.endpoint import Endpoint
from overnight.models.script import parse_script
from overnight.models.scripted import ScriptedModel
from overnight.ports.model import (
    Context,
    ModelEvent,
    ModelFilter,
    ModelInfo,
    ModelOptions,
    ModelRequest,
    ModelUsage,
)


class Scripted:
    """The port, answered by one script; remembers what was asked."""

    def __init__(self, script: Any, event: asyncio.Event | None = None) -> None:
        self._event = event or asyncio.Event()
        self._model = ScriptedModel(Endpoint(name="scripted", kind="scripted"), parse_script(script))
        self.asked: list[Context] = []

    async def list(self, filter: ModelFilter) -> tuple[ModelInfo, ...]:
        return (await self.resolve(filter.model or ""),)

    async def resolve(self, name: str) -> ModelInfo:
        return ModelInfo(name=name or "scripted:script", provider="scripted", id="script")

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ModelEvent]]:
        self.asked.append(request.context)
        self._event.set()
        async with self._model.stream(request) as events:
            yield events


@dataclass
class Remembering:
    """A `Listener`: everything it heard, as (kind, what)."""

    heard: list[tuple[str, Any]] = field(default_factory=list)
    leave: Leave = field(default_factory=lambda: Leave(allowed=True))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.heard]

    def said(self, kind: str) -> list[Any]:
        return [what for found, what in self.heard if found == kind]

    async def text(self, delta: str) -> None:
        self.heard.append(("text", delta))

    async def thought(self, delta: str) -> None:
        self.heard.append(("thought", delta))

    async def broken_off(self, why: str) -> None:
        self.heard.append(("broken_off", why))

    async def began(self, call: Call) -> None:
        self.heard.append(("began", call.id))

    async def progress(self, call: Call, text: str) -> None:
        self.heard.append(("progress", text))

    async def ended(self, call: Call, outcome: ToolOutcome) -> None:
        self.heard.append(("ended", (call.id, outcome)))

    async def plan(self, steps: tuple[PlanStep, ...]) -> None:
        self.heard.append(("plan", steps))

    async def usage(self, turn: ModelUsage) -> None:
        self.heard.append(("usage", turn))

    async def ask(self, call: Call) -> Leave:
        self.heard.append(("ask", call.id))
        return self.leave


@dataclass
class Bell:
    """A tool that does what the test wants, and counts how often."""

    name: str = "bell"
    do: Callable[[Mapping[str, object], ToolContext], Any] = lambda _, __: "rung"
    parallel_safe: bool = False
    required: frozenset[Any] = frozenset({"execute"})
    rung: int = 0

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(
            name=self.name, description="Rings.", parallel_safe=self.parallel_safe, is_destructive=False,
            parameters={"type": "object", "properties": {"times": {"type": "integer"}}, "additionalProperties": False},
            required_permissions=self.required,
        )  # fmt: skip

    async def preview(self, arguments: Mapping[str, object], context: ToolContext) -> Preview:
        return Preview(title="ring", digest="d1")

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        self.rung += 1
        found = self.do(arguments, context)
        if asyncio.iscoroutine(found):
            found = await found
        return found if isinstance(found, ToolOutcome) else ToolOutcome(text=str(found))


def refusing(_: Mapping[str, object], __: ToolContext) -> str:
    raise ForModel("the bell is cracked")


def asking(models: Scripted, *, retries: int = 5, waits: list[float] | None = None) -> Asking:
    async def wait(seconds: float) -> None:
        (waits if waits is not None else []).append(seconds)

    return Asking(
        models=models, name="", system="You ring bells.", options=ModelOptions(), patience=Patience(retries=retries),
        wait=wait,
    )  # fmt: skip


def context(workspace: Workspace, folder: Path) -> ToolContext:
    return ToolContext(workspace=workspace, folder=folder)
