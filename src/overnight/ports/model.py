"""The port to language models: what is said to one, what it says back, and how its stream ends.

The values are those of the provider protocol: the same dataclasses travel between a server, which has the keys, and an
agent's process, which has none. What only the provider understands (its ids of items, signatures, encrypted reasoning)
rides along as `extra` and must be given back as it came, so that the conversation can go on with that provider.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

from overnight.domain.documents import TaggedBy

Extra = Mapping[str, object]
"""JSON that only its provider understands. Never changed, never shown, given back for replay."""

Thinking = Literal["off", "minimal", "low", "medium", "high", "xhigh"]
CacheRetention = Literal["none", "short", "long"]
ServiceTier = Literal["default", "flex", "priority"]
StopReason = Literal["stop", "length", "tool_use", "content_filter"]
"""Why a model has ended its answer. What went wrong is an exception instead, see `Models.stream`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBlock:
    """Words."""

    type: Literal["text"] = "text"
    text: str
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingBlock:
    """What the model told of its thinking; `text` is empty where the provider keeps it to itself."""

    type: Literal["thinking"] = "thinking"
    text: str = ""
    signature: str | None = None
    """By which the provider knows its own thinking again; encrypted thinking, with some."""
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallBlock:
    """A call that the model wants made. `arguments` is text as the model wrote it: JSON only if it kept to that."""

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: str = "{}"
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBlock:
    """A picture, in base64."""

    type: Literal["image"] = "image"
    data: str
    media_type: str = "image/png"
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaqueBlock:
    """Something of the provider's own that Overnight has no name for (a search made by the provider, a compaction)."""

    type: Literal["opaque"] = "opaque"
    kind: str
    extra: Extra = field(default_factory=dict)


InputBlock = Annotated[TextBlock | ImageBlock, TaggedBy("type")]
OutputBlock = Annotated[
    TextBlock | ThinkingBlock | ToolCallBlock | ImageBlock | OpaqueBlock, TaggedBy("type")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMessage:
    """What a person, or the harness in a person's place, says to the model."""

    role: Literal["user"] = "user"
    content: tuple[InputBlock, ...]
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantMessage:
    """One answer of a model, its blocks in the order of their indexes. To be kept whole and given back unchanged."""

    role: Literal["assistant"] = "assistant"
    content: tuple[OutputBlock, ...]
    model: str = ""
    """Which model it was, in the provider's own words."""
    extra: Extra = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All its words in one."""
        return "".join(block.text for block in self.content if isinstance(block, TextBlock))

    @property
    def tool_calls(self) -> tuple[ToolCallBlock, ...]:
        """The calls it wants made, in order."""
        return tuple(block for block in self.content if isinstance(block, ToolCallBlock))


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolMessage:
    """What came of one tool call. Every call of an answer has one before the model is asked again."""

    role: Literal["tool"] = "tool"
    call: str
    """The id of the call."""
    name: str
    content: tuple[InputBlock, ...]
    is_error: bool = False
    extra: Extra = field(default_factory=dict)


Message = Annotated[UserMessage | AssistantMessage | ToolMessage, TaggedBy("role")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that the model may call. `parameters` is the JSON Schema of an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool | None = None
    """Whether the provider must hold the model to the schema; None: as the provider prefers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTool:
    """The one tool that the model has to call."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """All that the model gets to see."""

    system: str = ""
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How the model is to answer. None: as the provider does by itself. What a model cannot do is left out.

    There is no place in here for keys, headers or addresses: those are the operator's.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    """Of the answer, thinking included."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    thinking: Thinking | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    cache: CacheRetention | None = None
    service_tier: ServiceTier | None = None
    conversation: str | None = None
    """Names the conversation, so that the provider finds its cache again. Not shown to the model."""
    timeout_s: float | None = None
    """For each wait on the provider's connection, not for the whole answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One question to one model."""

    model: str
    """A name as `Models.list` gives it, an alias, or the empty text for the operator's default model."""
    context: Context
    options: ModelOptions = field(default_factory=ModelOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """Tokens and money of one answer. `input` includes `cached` and `cache_write`, `output` includes `reasoning`."""

    input: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    cost_usd: float | None = None
    """None: nobody knows the price."""

    @property
    def total(self) -> int:
        """Input and output together."""
        return self.input + self.output

    def __add__(self, other: ModelUsage) -> ModelUsage:
        costs = [cost for cost in (self.cost_usd, other.cost_usd) if cost is not None]
        return ModelUsage(
            input=self.input + other.input,
            cached=self.cached + other.cached,
            cache_write=self.cache_write + other.cache_write,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
            cost_usd=round(sum(costs), 9) if costs else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The provider has begun to answer; always the first event."""

    type: Literal["start"] = "start"
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStarted:
    """A text block begins. `index` counts the blocks of the answer; blocks may grow side by side."""

    type: Literal["text.start"] = "text.start"
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """More of a text block."""

    type: Literal["text.delta"] = "text.delta"
    index: int
    delta: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEnded:
    """The text block is complete."""

    type: Literal["text.end"] = "text.end"
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingStarted:
    """A block of thinking begins."""

    type: Literal["thinking.start"] = "thinking.start"
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingDelta:
    """More of a block of thinking."""

    type: Literal["thinking.delta"] = "thinking.delta"
    index: int
    delta: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingEnded:
    """The block of thinking is complete."""

    type: Literal["thinking.end"] = "thinking.end"
    index: int
    signature: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallStarted:
    """The model begins to write a tool call."""

    type: Literal["toolcall.start"] = "toolcall.start"
    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """More of the call's arguments, as text."""

    type: Literal["toolcall.delta"] = "toolcall.delta"
    index: int
    delta: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallEnded:
    """The call is complete. `arguments` counts, whatever the deltas added up to."""

    type: Literal["toolcall.end"] = "toolcall.end"
    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageKnown:
    """Usage of the answer so far; the last one counts."""

    type: Literal["usage"] = "usage"
    usage: ModelUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The answer is complete; always the last event. `message` is the whole of it and counts over the deltas."""

    type: Literal["done"] = "done"
    reason: StopReason
    message: AssistantMessage
    usage: ModelUsage


ModelEvent = Annotated[
    Started
    | TextStarted
    | TextDelta
    | TextEnded
    | ThinkingStarted
    | ThinkingDelta
    | ThinkingEnded
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallEnded
    | UsageKnown
    | Done,
    TaggedBy("type"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that can be asked for."""

    name: str
    """What `ModelRequest.model` takes."""
    provider: str
    """Whose service it is, as the operator calls it: `openai`, `anthropic`, the name of a compatible endpoint …"""
    id: str
    """The provider's own name of the model."""
    aliases: tuple[str, ...] = ()
    default: bool = False
    ready: bool = True
    needs: str = ""
    """What is missing when it is not ready: the name of a variable, never a value."""
    context_window: int | None = None
    """Tokens of input and output together, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFilter:
    """Which models to list; what is not set does not matter."""

    provider: str | None = None
    model: str | None = None
    """A name or an alias; also a name that nobody has listed, where its provider takes any."""
    include_unready: bool = True


class Models(Protocol):
    """Every model that may be used from here. Safe to use for many answers at once, in one event loop."""

    async def list(self, filter: ModelFilter) -> tuple[ModelInfo, ...]:
        """What the operator has configured, the default model first. Never asks a provider, never raises."""
        ...

    async def resolve(self, name: str) -> ModelInfo:
        """What a name or alias stands for; the empty name is the default model. Raises ModelNotFound."""
        ...

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
        """Ask a model. The events are: `Started`, blocks, `UsageKnown` now and then, `Done`; then the end.

        Whatever ends the answer before `Done` is raised, on entering or while iterating, as a ModelError:
        ModelNotFound, AuthRequired, RateLimited (`retry_after_s` if the provider said), ContextOverflow, ModelTimeout
        or plain ModelError; its `retryable` says whether the same request may succeed later. Nothing is retried in
        here. Leaving the context, also by cancellation, ends the provider's request at once.
        """
        ...
