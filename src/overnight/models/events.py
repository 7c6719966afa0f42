"""pydantic-ai's stream of an answer as our events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final, assert_never

from pydantic_ai.messages import (
    FinalResultEvent,
    ModelResponse,
    ModelResponsePartDelta,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    SpeechPartDelta,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.models import StreamedResponse
from pydantic_ai.usage import RequestUsage

from overnight.errors import ModelError
from overnight.models.messages import arguments_text, from_provider
from overnight.ports.model import (
    Done,
    ModelEvent,
    ModelUsage,
    Started,
    StopReason,
    TextDelta,
    TextEnded,
    TextStarted,
    ThinkingDelta,
    ThinkingEnded,
    ThinkingStarted,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageKnown,
)

_REASONS: Final[dict[str, StopReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_call": "tool_use",
    "content_filter": "content_filter",
}


async def events(stream: StreamedResponse, endpoint: str) -> AsyncIterator[ModelEvent]:
    """The whole answer, `Started` to `Done`. Raises ModelError when it breaks off without an end."""
    yield Started(model=stream.model_name)
    blocks = _Blocks()
    known = ModelUsage()
    async for event in stream:
        for ours in blocks.take(event):
            yield ours
        now = usage(stream.usage)
        if (now.input, now.output) != (known.input, known.output):
            known = now
            yield UsageKnown(usage=now)
    response = stream.get()
    for ours in blocks.finish(response):
        yield ours
    yield done(response, endpoint)


def done(response: ModelResponse, endpoint: str) -> Done:
    """The last event of a complete answer. Raises ModelError for one that broke off."""
    details = response.provider_details or {}
    if response.state != "complete" or (response.finish_reason is None and "finish_reason" not in details):
        raise ModelError("the provider's stream closed before the answer was complete")
    if response.finish_reason == "error":
        raise ModelError("the provider ended the answer with an error")
    return Done(
        reason=_reason(response),
        message=from_provider(response, endpoint),
        usage=usage(response.usage, cost_usd=_cost(response)),
    )


def usage(found: RequestUsage, *, cost_usd: float | None = None) -> ModelUsage:
    """Their usage as ours."""
    return ModelUsage(
        input=found.input_tokens,
        cached=found.cache_read_tokens,
        cache_write=found.cache_write_tokens,
        output=found.output_tokens,
        reasoning=found.details.get("reasoning_tokens", 0),
        cost_usd=cost_usd,
    )


class _Blocks:
    """Which blocks have begun and not ended. A block that begins again at its index replaces what was there."""

    def __init__(self) -> None:
        self._open: dict[int, TextPart | ThinkingPart | ToolCallPart] = {}

    def take(self, event: ModelResponseStreamEvent) -> Iterator[ModelEvent]:
        match event:
            case PartStartEvent(index=index, part=part):
                yield from self._start(index, part)
            case PartDeltaEvent(index=index, delta=delta) if index in self._open:
                yield from _delta(index, delta)
            case PartEndEvent(index=index, part=part) if not isinstance(part, ToolCallPart):
                # The arguments of a call may go on after another block has begun: calls end at the very end.
                yield from self._end(index, part)
            case PartDeltaEvent() | PartEndEvent() | FinalResultEvent():
                pass
            case _ as never:
                assert_never(never)

    def finish(self, response: ModelResponse) -> Iterator[ModelEvent]:
        """Ends of whatever is still open, as it finally is."""
        for index, part in enumerate(response.parts):
            if index in self._open:
                yield from self._end(index, part)

    def _start(self, index: int, part: object) -> Iterator[ModelEvent]:
        match part:
            case TextPart():
                yield TextStarted(index=index)
                if part.content:
                    yield TextDelta(index=index, delta=part.content)
            case ThinkingPart():
                yield ThinkingStarted(index=index)
                if part.content:
                    yield ThinkingDelta(index=index, delta=part.content)
            case ToolCallPart():
                yield ToolCallStarted(index=index, id=part.tool_call_id, name=part.tool_name)
                if part.args:
                    yield ToolCallDelta(index=index, delta=arguments_text(part.args))
            case _:
                return
        self._open[index] = part

    def _end(self, index: int, part: object) -> Iterator[ModelEvent]:
        self._open.pop(index, None)
        match part:
            case TextPart():
                yield TextEnded(index=index)
            case ThinkingPart():
                yield ThinkingEnded(index=index, signature=part.signature)
            case ToolCallPart():
                yield ToolCallEnded(
                    index=index,
                    id=part.tool_call_id,
                    name=part.tool_name,
                    arguments=arguments_text(part.args),
                )
            case _:
                return


def _delta(index: int, delta: ModelResponsePartDelta) -> Iterator[ModelEvent]:
    match delta:
        case TextPartDelta():
            if delta.content_delta:
                yield TextDelta(index=index, delta=delta.content_delta)
        case ThinkingPartDelta():
            if delta.content_delta:
                yield ThinkingDelta(index=index, delta=delta.content_delta)
        case ToolCallPartDelta():
            if delta.args_delta:
                yield ToolCallDelta(index=index, delta=arguments_text(delta.args_delta))
        case SpeechPartDelta():
            pass
        case _ as never:
            assert_never(never)


def _reason(response: ModelResponse) -> StopReason:
    reason = _REASONS.get(response.finish_reason or "", "stop")
    # Some providers say `stop` after calls; whoever reads goes by the reason alone.
    return "tool_use" if reason == "stop" and response.tool_calls else reason


def _cost(response: ModelResponse) -> float | None:
    if response.usage.cost is not None:
        return float(response.usage.cost)
    if not response.model_name:
        return None
    try:
        return round(float(response.cost().total_price), 9)
    except (LookupError, ValueError):
        return None  # a model without a public price, or usage that adds up to nothing sensible
