"""Messages of `run:<id>`: the log of a run, live and from any cursor."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from overnight.wire.socket.catalog.message import Empty, Flow, MessageType, Payload, message

Cursor = Annotated[int, Field(ge=0)]


class RunSubscribe(Payload):
    """`after`: the cursor to go on from; `fragments`: live pieces of text as well."""

    run: str
    after: Cursor = 0
    fragments: bool = False
    flow: Flow | None = None


class RunEvents(Payload):
    """Facts of the log, in order and without a gap; `cursor` is the number of the last one."""

    cursor: Cursor
    events: list[Any]


class RunFragment(Payload):
    """A piece of text that is being written; never repeated."""

    cursor: Cursor
    fragment: dict[str, Any]


class RunEnd(Payload):
    """Nothing more comes. With a `code` the subscription failed, and may be taken up again after `cursor`."""

    cursor: Cursor | None = None
    code: str | None = None
    message: str | None = None
    retryable: bool = False


MESSAGES: Final[tuple[MessageType, ...]] = (
    message("run.subscribe", "run", "client", "request", RunSubscribe,
            "Follow the log of a run.", opens=True, replies=("ack",)),
    message("run.unsubscribe", "run", "client", "request", Empty,
            "Follow it no longer; `run.end` comes as well.", settles=True, replies=("ack",)),
    message("run.events", "run", "server", "event", RunEvents, "Entries of the log."),
    message("run.fragment", "run", "server", "transient", RunFragment, "A piece of live text."),
    message("run.end", "run", "server", "terminal", RunEnd, "Log or subscription is at its end.", fails=True),
)  # fmt: skip
