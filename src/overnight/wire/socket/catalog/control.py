"""Messages of the connection itself, and the replies that every scope knows."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from overnight.wire.socket.catalog.message import Empty, MessageType, Payload, message

Count = Annotated[int, Field(ge=0)]
Credit = Annotated[int, Field(ge=0, le=1_000_000)]
ScopeName = Annotated[str, Field(pattern=r"^(session|stream|tool|run):[A-Za-z0-9_.-]{1,64}$")]
EVERYWHERE: Final = "conn session stream tool run"


class Arrived(Payload):
    """What has come of one scope: all its messages, and how many events may come beside them."""

    messages: Count
    credit: Count


class Resumption(Payload):
    """The connection that was cut, as its `welcome` named it."""

    connection: str
    key: str


class Hello(Payload):
    """`received`: what has come of each scope that outlived the cut; wanted with `resume`."""

    versions: Annotated[list[int], Field(min_length=1, max_length=16)]
    token: Annotated[str | None, Field(repr=False, max_length=2048)] = None
    capabilities: dict[str, Any] = Field(default_factory=dict)
    resume: Resumption | None = None
    received: Annotated[dict[ScopeName, Arrived], Field(max_length=2000)] = Field(default_factory=dict)


class Welcome(Payload):
    """`resumed`: the scopes of the connection that was cut go on; `received` is then the server's own account."""

    version: int
    capabilities: dict[str, Any]
    limits: dict[str, Any]
    connection: str
    resume_key: Annotated[str, Field(repr=False)]
    resumed: bool = False
    received: dict[ScopeName, Arrived] = Field(default_factory=dict)


class CreditGrant(Payload):
    """So many more events may come in the scope. For a scope that is over: its terminal has arrived."""

    scope: ScopeName
    messages: Credit


class ResumePoint(Payload):
    """A scope with a log, and the last entry of it that has arrived."""

    scope: ScopeName
    cursor: Count


class Resume(Payload):
    """Open these scopes, and go on after their cursors."""

    scopes: Annotated[list[ResumePoint], Field(min_length=1, max_length=1000)]


class Gap(Payload):
    """The scope cannot go on from there: its log begins later, or what was under way is no longer kept."""

    scope: ScopeName
    earliest: Count | None = None
    latest: Count | None = None


class Nack(Payload):
    """`code` is one of the error codes; `rejected`: the type that was refused, `extra`: what else is to be known."""

    code: str
    message: str
    mend: str = ""
    rejected: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


class Ack(Payload):
    """It is done, or has begun. What more there is to say depends on the request."""


class Goodbye(Payload):
    """The sender is about to close. `reason` is for people."""

    reason: str = ""


class Failure(Payload):
    """What a terminal that fails its scope says at least."""

    code: str
    message: str
    retryable: bool = False


class Pong(Payload):
    """Answers the ping named by `reply_to`."""


MESSAGES: Final[tuple[MessageType, ...]] = (
    message("hello", "conn", "client", "control", Hello, "The first message: who it is, and what it speaks."),
    message("welcome", "conn", "server", "control", Welcome, "The server's answer to `hello`, with its limits."),
    message("ping", "conn", "both", "control", Empty, "Answer with `pong`."),
    message("pong", "conn", "both", "control", Pong, "The answer to `ping`."),
    message("credit", "conn", "both", "control", CreditGrant, "Grants events of a scope to its sender."),
    message("resume", "conn", "client", "request", Resume,
            "Go on with scopes that have a log. What cannot go on is told by `gap`, before the `ack`.",
            replies=("ack",)),
    message("gap", "conn", "both", "control", Gap, "The scope cannot go on, and is over on this connection."),
    message("goodbye", "conn", "both", "control", Goodbye, "The sender closes now; there is no reply."),
    message("ack", EVERYWHERE, "both", "reply", Ack, "The request is carried out."),
    message("nack", EVERYWHERE, "both", "reply", Nack, "The message is refused, and why."),
)  # fmt: skip
