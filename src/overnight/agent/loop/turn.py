"""One turn, from what a person says to the model's last word."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic_ai import Agent, ModelRequestNode
from pydantic_ai.exceptions import UnexpectedModelBehavior, UsageLimitExceeded
from pydantic_ai.messages import ModelRequest, RetryPromptPart, ToolReturnPart
from pydantic_ai.usage import UsageLimits

from overnight.agent.history import History
from overnight.agent.loop import compaction
from overnight.agent.loop.model import Asking, PortModel
from overnight.agent.loop.telling import Listener
from overnight.agent.loop.toolset import CANCELLED, MOST_TRIES, AgentToolset
from overnight.agent.pairing import open_calls
from overnight.agent.tools.tool import Tool, ToolContext, ToolSpec
from overnight.errors import ContextOverflow, ModelError
from overnight.ports.model import InputBlock, ModelUsage, UserMessage

StopReason = Literal["end_turn", "max_tokens", "max_turn_requests", "refusal"]
"""As the Agent Client Protocol has them."""
COMPACTIONS: Final = 3
"""So often a conversation is made shorter before the model answers again; one that cannot take it then never will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one turn may use."""

    requests: int = 250
    """Of the model."""
    tool_calls: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a turn came to its end."""

    reason: StopReason
    usage: ModelUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """All that a turn works with. `asks` says which tools want leave before each call."""

    asking: Asking
    history: History
    tools: Mapping[str, Tool]
    context: ToolContext
    listener: Listener
    asks: Callable[[ToolSpec], bool] = lambda _: False
    limits: Limits = Limits()

    async def run(self, content: tuple[InputBlock, ...]) -> Ended:
        """Work until the model has nothing left to call.

        Whatever ends it, the history is one that a model can go on with: every call in it has an answer. Raises
        ModelError when the model cannot be asked, Fatal when tools have lost their ground; a cancellation goes through.
        """
        self.history.add(UserMessage(content=content))
        model = PortModel(self.asking, self.history, self.listener)
        try:
            return await self._until_done(model)
        finally:
            self.history.settle(CANCELLED)

    async def _until_done(self, model: PortModel) -> Ended:
        tries, answers = 0, 0
        while True:
            try:
                return await self._drive(model)
            except ContextOverflow:
                tries, answers = tries + 1 if model.answers == answers else 1, model.answers
                if tries > COMPACTIONS or not await self._compact(model):
                    raise

    async def _drive(self, model: PortModel) -> Ended:
        toolset = AgentToolset(self.tools, self.context, self.history, self.listener, self.asks)
        # Going on after the conversation was made shorter is the same turn.
        most = max(self.limits.requests - model.answers, 0)
        limits = UsageLimits(request_limit=most, tool_calls_limit=self.limits.tool_calls)
        agent = _agent()
        try:
            async with agent.iter("-", model=model, toolsets=[toolset], usage_limits=limits) as run:
                async for node in run:
                    if isinstance(node, ModelRequestNode):
                        await self._answered_elsewhere(node.request, toolset)
        except UsageLimitExceeded:
            return Ended(reason="max_turn_requests", usage=model.usage)
        except UnexpectedModelBehavior as strange:
            if model.reason == "length":
                return Ended(reason="max_tokens", usage=model.usage)
            if model.reason == "content_filter":
                return Ended(reason="refusal", usage=model.usage)
            raise ModelError(f"the model does not answer sensibly: {strange}", retryable=False) from None
        reasons: dict[str, StopReason] = {"length": "max_tokens", "content_filter": "refusal"}
        return Ended(reason=reasons.get(model.reason, "end_turn"), usage=model.usage)

    async def _answered_elsewhere(self, request: ModelRequest, toolset: AgentToolset) -> None:
        """pydantic-ai answers calls of tools that do not exist by itself: those answers belong to the history too."""
        waiting = {call.id: call for call in open_calls(self.history.messages)}
        for part in request.parts:
            if isinstance(part, RetryPromptPart | ToolReturnPart) and part.tool_call_id in waiting:
                call = waiting.pop(part.tool_call_id)
                await toolset.unknown(call.id, call.name, str(part.content))

    async def _compact(self, model: PortModel) -> bool:
        """Make the conversation shorter; False when there is nothing that could go."""
        messages = self.history.messages
        at = compaction.cut(messages)
        if at == 0:
            clipped = compaction.clipped(messages)
            if clipped != messages:
                self.history.compact(clipped)
            return clipped != messages
        try:
            done = await model.answer(compaction.question(messages[:at]), aloud=False)
            summary = done.message.text or compaction.extract(messages[:at])
        except ModelError:
            summary = compaction.extract(messages[:at])
        self.history.compact(compaction.shortened(messages, at, summary))
        return True


@functools.cache
def _agent() -> Agent[None, str]:
    """The graph is the same for every turn; all that differs is given with each."""
    return Agent(output_type=str, retries=MOST_TRIES)
