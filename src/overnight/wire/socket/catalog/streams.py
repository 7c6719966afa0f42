"""Messages of the provider protocol, scope `stream:<id>`: the values of the model port, as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, model_validator

from overnight.ports.model import (
    AssistantMessage,
    Context,
    Done,
    ModelEvent,
    ModelInfo,
    ModelOptions,
    ModelRequest,
    ModelUsage,
    StopReason,
)
from overnight.wire.socket.catalog.message import Flow, MessageType, Payload, message

Index = Annotated[int, Field(ge=0, le=100_000)]
StreamId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
REFUSED: Final = frozenset({
    "api_key", "apikey", "key", "secret", "token", "authorization", "credentials", "headers", "extra_headers",
    "base_url", "baseurl", "url", "endpoint", "proxy", "extra_body",
})  # fmt: skip
"""Members of a request or of its options that nobody may send: keys and addresses are the operator's."""


class Question(Payload, strict=False):
    """A question to a model: which one (empty: the operator's default), all that it gets to see, and how to answer."""

    model: Annotated[str, Field(max_length=200)] = ""
    context: Context
    options: ModelOptions = Field(default_factory=ModelOptions)

    @model_validator(mode="before")
    @classmethod
    def _holds_no_credential(cls, given: Any) -> Any:
        for place in (given, given.get("options") if isinstance(given, Mapping) else None):
            for name in place if isinstance(place, Mapping) else ():
                if str(name).replace("-", "_").lower() in REFUSED:
                    raise ValueError(
                        f"{name} is not taken: keys and addresses of providers are the operator's"
                    )
        return given

    def request(self) -> ModelRequest:
        """The same for the port."""
        return ModelRequest(model=self.model, context=self.context, options=self.options)


class StreamStart(Question, strict=False):
    """A question whose answer is streamed."""

    flow: Flow | None = None


class StreamAbort(Payload):
    """Idempotent."""

    reason: Annotated[str, Field(max_length=1000)] = ""


class StreamStarted(Payload):
    """The provider has begun to answer; `model` in its own words."""

    model: str


class BlockStarted(Payload):
    """A block of the answer begins; at an index that has begun before it replaces what was there."""

    index: Index


class BlockDelta(Payload):
    """More of the block."""

    index: Index
    delta: str


class BlockEnded(Payload):
    """The block is complete."""

    index: Index


class ThinkingBlockEnded(BlockEnded):
    """`signature`: by which the provider knows its thinking again."""

    signature: str | None = None


class CallStarted(BlockStarted):
    """The model begins to write a call."""

    id: str
    name: str


class CallEnded(CallStarted):
    """`arguments` is text as the model wrote it, and counts over the deltas."""

    arguments: str


class Usage(Payload, strict=False):
    """Of the answer so far. `input` includes `cached` and `cache_write`, `output` includes `reasoning`."""

    input: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    total: int = 0
    cost_usd: float | None = None

    def usage(self) -> ModelUsage:
        """The same for the port."""
        return ModelUsage(**self.model_dump(exclude={"total"}))


class StreamDone(Payload, strict=False):
    """The answer is complete. `message` is the whole of it, to be given back unchanged with the next question."""

    reason: StopReason
    message: AssistantMessage
    usage: Usage


class StreamError(Payload, strict=False):
    """The answer broke off, or there was none. `usage` is what is known to have been used."""

    code: str
    message: str
    retryable: bool = False
    retry_after_s: float | None = None
    usage: Usage | None = None


class StreamAborted(Payload, strict=False):
    """Somebody wanted no more of it."""

    reason: str = ""
    usage: Usage | None = None


class ModelsList(Payload):
    """Which models to list; what is left out does not matter."""

    provider: str | None = None
    model: str | None = None
    include_unready: bool = True


class ModelsListed(Payload, strict=False):
    """The default model first."""

    models: list[ModelInfo]


class Sync(Payload):
    """A stream of this connection."""

    stream: StreamId


class Synced(Payload, strict=False):
    """What has been said so far. `over`: the stream has ended, or is not known."""

    stream: StreamId
    message: AssistantMessage | None = None
    over: bool = False


MESSAGES: Final[tuple[MessageType, ...]] = (
    message("stream.start", "stream", "client", "request", StreamStart, "Ask a model, and stream its answer.",
            opens=True, replies=("ack",)),
    message("stream.abort", "stream", "client", "request", StreamAbort, "Want no more of it.",
            settles=True, replies=("ack",)),
    message("complete", "stream", "client", "request", Question, "Ask a model, and get its answer in one piece.",
            opens=True, replies=("completed",)),
    message("start", "stream", "server", "event", StreamStarted, "The provider has begun to answer."),
    message("text.start", "stream", "server", "event", BlockStarted, "A block of text begins."),
    message("text.delta", "stream", "server", "event", BlockDelta, "More text."),
    message("text.end", "stream", "server", "event", BlockEnded, "The text is complete."),
    message("thinking.start", "stream", "server", "event", BlockStarted, "A block of thinking begins."),
    message("thinking.delta", "stream", "server", "event", BlockDelta, "More thinking."),
    message("thinking.end", "stream", "server", "event", ThinkingBlockEnded, "The thinking is complete."),
    message("toolcall.start", "stream", "server", "event", CallStarted, "A tool call begins."),
    message("toolcall.delta", "stream", "server", "event", BlockDelta, "More of its arguments."),
    message("toolcall.end", "stream", "server", "event", CallEnded, "The call is complete."),
    message("usage", "stream", "server", "event", Usage, "Tokens and money so far; the last one counts."),
    message("done", "stream", "server", "terminal", StreamDone, "The answer is complete."),
    message("completed", "stream", "server", "terminal", StreamDone, "The answer to `complete`."),
    message("error", "stream", "server", "terminal", StreamError, "The answer broke off.", fails=True),
    message("aborted", "stream", "server", "terminal", StreamAborted, "The answer was given up."),
    message("models.list", "conn", "client", "request", ModelsList, "Which models there are.", replies=("models",)),
    message("models", "conn", "server", "reply", ModelsListed, "The models."),
    message("sync", "conn", "client", "request", Sync, "What a stream has said so far.", replies=("synced",)),
    message("synced", "conn", "server", "reply", Synced, "What it has said so far."),
)  # fmt: skip
"""Every type of message. The reference, the JSON Schema and the AsyncAPI document are made from this."""

EVENTS: Final[TypeAdapter[ModelEvent]] = TypeAdapter(ModelEvent)
_MESSAGE: Final = TypeAdapter(AssistantMessage)
_QUESTION: Final = TypeAdapter(ModelRequest)
_INFOS: Final = TypeAdapter(tuple[ModelInfo, ...])
_USAGE: Final = TypeAdapter(ModelUsage)


def question_payload(request: ModelRequest) -> dict[str, Any]:
    """A question as it is sent, without what is as usual."""
    found: dict[str, Any] = _QUESTION.dump_python(request, mode="json")
    options = {name: value for name, value in found["options"].items() if value not in (None, [])}
    return {**found, "options": options}


def usage_payload(usage: ModelUsage) -> dict[str, Any]:
    """Usage as it is sent."""
    return {**_USAGE.dump_python(usage), "total": usage.total}


def message_payload(message: AssistantMessage) -> dict[str, Any]:
    """An answer as it is sent."""
    found: dict[str, Any] = _MESSAGE.dump_python(message, mode="json")
    return found


def done_payload(done: Done) -> dict[str, Any]:
    """The end of an answer as it is sent."""
    return {
        "reason": done.reason,
        "message": message_payload(done.message),
        "usage": usage_payload(done.usage),
    }


def infos_payload(models: tuple[ModelInfo, ...]) -> dict[str, Any]:
    """Models as they are sent."""
    return {"models": _INFOS.dump_python(models, mode="json")}


def event_payload(event: ModelEvent) -> dict[str, Any]:
    """The payload of the message of type `event.type`."""
    if event.type == "usage":
        return usage_payload(event.usage)
    if event.type == "done":
        return done_payload(event)
    return {name: getattr(event, name) for name in event.__slots__ if name != "type"}


def event_of(type: str, payload: Mapping[str, Any]) -> ModelEvent:
    """The event of a message of that type, whose payload has been checked."""
    match type:
        case "usage":
            return EVENTS.validate_python({"type": "usage", "usage": payload})
        case "done" | "completed":
            return EVENTS.validate_python({**payload, "type": "done"})
        case _:
            return EVENTS.validate_python({**payload, "type": type})
