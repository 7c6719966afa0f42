"""The agent's tools as a toolset of pydantic-ai: asked for leave first, carried out, and answered once, whatever comes.

Whatever goes wrong with a call is told to the model as the call's answer. Only what pulls the ground from under all
tools (`Fatal`) and a cancellation end the turn, and then too each call that was begun is told to have ended.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import structlog
from pydantic_ai import RunContext
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool

from overnight.agent.history import History
from overnight.agent.loop.telling import Call, Listener
from overnight.agent.tools.arguments import checked, read
from overnight.agent.tools.registry import failed
from overnight.agent.tools.tool import (
    Fatal,
    ForModel,
    PlanChanged,
    Tool,
    ToolContext,
    ToolOutcome,
    ToolSpec,
)
from overnight.ports.model import ImageBlock, InputBlock, TextBlock, ToolMessage

MOST_TRIES: Final = 1_000_000
"""Of a call that fails: how often a model may be wrong is the turn's limit to say, not the tool's."""
TEXT: Final = "text"
CANCELLED: Final = "The call was cancelled before it had ended; what it had done until then stays done."

log = structlog.get_logger(__name__)


class Unread:
    """Takes a call's arguments as the text that the model wrote: who reads them can say what is wrong with them."""

    def validate_json(self, input: str | bytes | bytearray, **_: Any) -> dict[str, object]:
        """See pydantic-ai's `SchemaValidatorProt`."""
        return {TEXT: input if isinstance(input, str) else bytes(input).decode("utf-8", "replace")}

    def validate_python(self, input: Any, **_: Any) -> dict[str, object]:
        """The same, of what pydantic-ai has read already."""
        return {TEXT: json.dumps(input)}


class AgentToolset(AbstractToolset[None]):
    """`tools` by name. `asks` says which calls want leave."""

    def __init__(
        self, tools: Mapping[str, Tool], context: ToolContext, history: History, listener: Listener,
        asks: Callable[[ToolSpec], bool],
    ) -> None:  # fmt: skip
        self._tools = tools
        self._context = context
        self._history = history
        self._listener = listener
        self._asks = asks

    @property
    def id(self) -> str:
        """See `AbstractToolset`."""
        return "overnight"

    async def get_tools(self, ctx: RunContext[None]) -> dict[str, ToolsetTool[None]]:  # noqa: ARG002 - theirs
        """See `AbstractToolset`."""
        return {name: self._offered(tool.spec) for name, tool in self._tools.items()}

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[None], tool: ToolsetTool[None]  # noqa: ARG002
    ) -> str:  # fmt: skip
        """Carry out a call. The text of its answer; the whole of it is in the history."""
        id = ctx.tool_call_id or ""
        outcome = await self.carry_out(id, name, tool_args[TEXT])
        return outcome.text

    async def carry_out(self, id: str, name: str, arguments: str) -> ToolOutcome:
        """One start, one end, one answer in the history."""
        tool = self._tools[name]
        call = Call(id=id, name=name, arguments={}, spec=tool.spec)
        context = replace(self._context, call_id=id)
        try:
            call = replace(call, arguments=read(name, arguments))
            checked(tool.spec, call.arguments)
            call = replace(call, preview=await tool.preview(call.arguments, context))
        except ForModel as refusal:
            await self._listener.began(call)
            return await self._ended(call, failed(refusal))
        await self._listener.began(call)
        try:
            outcome = await self._run(tool, call, context)
        except asyncio.CancelledError:
            await asyncio.shield(
                self._ended(call, ToolOutcome(text=CANCELLED, ok=False, code="tool_unavailable"))
            )
            raise
        except Fatal as fatal:
            await self._ended(call, ToolOutcome(text=str(fatal), ok=False, code="tool_unavailable"))
            raise
        return await self._ended(call, outcome)

    async def unknown(self, id: str, name: str, text: str) -> None:
        """The model has called what does not exist."""
        call = Call(id=id, name=name, arguments={})
        await self._listener.began(call)
        await self._ended(call, ToolOutcome(text=text, ok=False, code="tool_not_found"))

    async def _run(self, tool: Tool, call: Call, context: ToolContext) -> ToolOutcome:
        if self._asks(tool.spec):
            leave = await self._listener.ask(call)
            if not leave.allowed:
                words = "The call was not allowed." + (f" {leave.feedback}" if leave.feedback else "")
                return ToolOutcome(text=words, ok=False, code="tool_execution_error")
            context = replace(context, approved=call.preview.digest if call.preview else None)
        heard = _Progress(self._listener, call)
        try:
            return await tool.run(call.arguments, replace(context, progress=heard.hear))
        except ForModel as refusal:
            return failed(refusal)
        except Fatal:
            raise
        except Exception as fault:
            log.exception("agent.tool_failed", tool=call.name)
            return ToolOutcome(
                text=f"the tool has a fault: {type(fault).__name__}", ok=False, code="tool_execution_error"
            )
        finally:
            await heard.end()

    async def _ended(self, call: Call, outcome: ToolOutcome) -> ToolOutcome:
        self._history.add(
            ToolMessage(call=call.id, name=call.name, content=_content(outcome), is_error=not outcome.ok)
        )
        for event in outcome.events:
            if isinstance(event, PlanChanged):
                await self._listener.plan(event.steps)
        await self._listener.ended(call, outcome)
        return outcome

    def _offered(self, spec: ToolSpec) -> ToolsetTool[None]:
        definition = ToolDefinition(
            name=spec.name,
            description=spec.description,
            parameters_json_schema=dict(spec.parameters),
            sequential=not spec.parallel_safe,
        )
        return ToolsetTool(toolset=self, tool_def=definition, max_retries=MOST_TRIES, args_validator=Unread())


class _Progress:
    """What a call prints, told in order and without making the tool wait: what comes meanwhile is told together."""

    def __init__(self, listener: Listener, call: Call) -> None:
        self._listener = listener
        self._call = call
        self._pending: list[str] = []
        self._telling: asyncio.Task[None] | None = None

    def hear(self, text: str) -> None:
        """More has been printed."""
        self._pending.append(text)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell(), name="tell what a tool prints")

    async def end(self) -> None:
        """Everything has been told."""
        if self._telling is not None:
            await self._telling

    async def _tell(self) -> None:
        while self._pending:
            text = "".join(self._pending)
            self._pending.clear()
            await self._listener.progress(self._call, text)


def _content(outcome: ToolOutcome) -> tuple[InputBlock, ...]:
    pictures = (
        ImageBlock(data=base64.b64encode(image.data).decode("ascii"), media_type=image.media_type)
        for image in outcome.images
    )
    # Some services refuse a blank text, and with it the whole conversation from then on.
    return (TextBlock(text=outcome.text if outcome.text.strip() else "(no words)"), *pictures)
