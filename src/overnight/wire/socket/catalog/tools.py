"""Messages of the tool protocol: hosts register tools, callers have them executed, scope `tool:<execution>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, JsonValue

from overnight.wire.socket.catalog.message import Flow, MessageType, Payload, message

ToolName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
ExecutionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
ToolStatus = Literal["pending", "running", "streaming", "completed", "failed", "cancelled", "timeout"]
MOST_TOOLS: Final = 128
"""Tools that one message may register."""
LONGEST_MS: Final = 24 * 60 * 60 * 1000
_NOTHING: Final[Mapping[str, JsonValue]] = {"type": "object", "properties": {}}


class ToolMeta(Payload):
    """A tool as its host describes it. `parameters` is the JSON Schema of an object."""

    name: ToolName
    description: Annotated[str, Field(max_length=10_000)] = ""
    parameters: Mapping[str, JsonValue] = Field(default_factory=lambda: dict(_NOTHING))
    version: Annotated[str, Field(max_length=64)] = "1.0.0"
    streaming: bool = False
    estimated_ms: Annotated[int, Field(ge=0)] | None = None
    destructive: bool = False
    permissions: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=32)] = Field(
        default_factory=list
    )


class ToolRegister(Payload):
    """All or none of them; one of the same name and host is replaced."""

    tools: Annotated[list[ToolMeta], Field(min_length=1, max_length=MOST_TOOLS)]


class Registered(Payload):
    """A tool and the id of this registration."""

    name: str
    id: str


class ToolRegistered(Payload):
    """In the order of the request."""

    tools: list[Registered]


class ToolUnregister(Payload):
    """Names that are not registered here are passed over."""

    names: list[ToolName]


class ToolList(Payload):
    """What may be called from here."""

    prefix: str = ""
    streaming: bool | None = None


class ListedTool(ToolMeta):
    """A tool, and whether its host is there now."""

    available: bool = True


class Tools(Payload):
    """By name."""

    tools: list[ListedTool]


class ToolExecute(Payload):
    """Have a tool called. `call` is the model's own id of the call; `arguments` an object, or JSON text of one."""

    execution: ExecutionId
    call: Annotated[str, Field(max_length=200)] = ""
    name: Annotated[str, Field(max_length=64)]
    arguments: dict[str, JsonValue] | str = Field(default_factory=dict)
    timeout_ms: Annotated[int, Field(ge=1, le=LONGEST_MS)] | None = None
    deadline: int | None = None
    """Unix milliseconds; the earlier of both counts."""
    flow: Flow | None = None


class ToolStream(Payload):
    """How far it is. `progress` in percent, `partial` a piece of what it says."""

    progress: Annotated[float, Field(ge=0, le=100)] | None = None
    partial: str | None = None
    status: Annotated[str, Field(max_length=1000)] | None = None


class Content(Payload):
    """Text, or a picture in base64."""

    type: Literal["text", "image"] = "text"
    text: str = ""
    data: str = ""
    media_type: str = ""


class ToolResult(Payload):
    """What the tool answers. `is_error`: it did its work, and that is the trouble it found."""

    content: list[Content]
    is_error: bool = False
    details: JsonValue = None
    duration_ms: Annotated[int, Field(ge=0)] = 0


class ToolError(Payload):
    """It did not come to a result. `code` is one of the tool protocol's."""

    code: str
    message: str
    retryable: bool = False
    duration_ms: Annotated[int, Field(ge=0)] = 0


class ToolCancel(Payload):
    """Idempotent."""

    reason: Annotated[str, Field(max_length=1000)] = ""


class ToolCancelled(Payload):
    """It was stopped because somebody wanted that."""

    reason: str = ""
    duration_ms: Annotated[int, Field(ge=0)] = 0


class ToolStatusAsked(Payload):
    """An execution of this connection."""

    execution: ExecutionId


class ToolState(Payload):
    """Where an execution stands. Times are Unix milliseconds."""

    execution: str
    name: str
    status: ToolStatus
    started_at: int
    completed_at: int | None = None


MESSAGES: Final[tuple[MessageType, ...]] = (
    message("tool.register", "conn", "client", "request", ToolRegister, "Offer tools to whoever may call them.",
            replies=("tool.registered",)),
    message("tool.registered", "conn", "server", "reply", ToolRegistered, "They are on offer."),
    message("tool.unregister", "conn", "client", "request", ToolUnregister, "Offer them no more.", replies=("ack",)),
    message("tool.list", "conn", "client", "request", ToolList, "Which tools there are.", replies=("tools",)),
    message("tools", "conn", "server", "reply", Tools, "The tools."),
    message("tool.status", "conn", "client", "request", ToolStatusAsked, "Where an execution stands.",
            replies=("tool.state",)),
    message("tool.state", "conn", "server", "reply", ToolState, "Where it stands."),
    message("tool.execute", "tool", "both", "request", ToolExecute,
            "Have a tool called: from a caller to the server, and from the server to the tool's host.",
            opens=True, replies=("ack",)),
    message("tool.stream", "tool", "both", "event", ToolStream, "It is at work."),
    message("tool.cancel", "tool", "both", "request", ToolCancel, "Want no more of it.",
            settles=True, replies=("ack",)),
    message("tool.result", "tool", "both", "terminal", ToolResult, "What it came to."),
    message("tool.error", "tool", "both", "terminal", ToolError, "It came to nothing.", fails=True),
    message("tool.cancelled", "tool", "both", "terminal", ToolCancelled, "It was stopped."),
)  # fmt: skip
"""Every type of message; see `streams` for what is made from this."""


def text_content(text: str) -> list[Any]:
    """A result that is words."""
    return [{"type": "text", "text": text}]
