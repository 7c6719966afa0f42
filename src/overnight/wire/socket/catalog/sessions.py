"""Messages of the agent protocol, scope `session:<id>`: talk with an agent, hear all that becomes of it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, JsonValue

from overnight.wire.socket.catalog.message import Empty, Flow, MessageType, Payload, message

Cursor = Annotated[int, Field(ge=0)]
Words = Annotated[str, Field(max_length=100_000)]


class SessionOpen(Payload):
    """A new session; what is left out is as for `POST /sessions`."""

    name: Annotated[str, Field(max_length=200)] | None = None
    mode: Annotated[str, Field(max_length=64)] = "chat"
    variables: dict[str, JsonValue] = Field(default_factory=dict)
    config: dict[str, JsonValue] = Field(default_factory=dict)


class SessionOpened(Payload):
    """The session as it is; its log has `cursor` entries. `run`: what works in it now."""

    session: dict[str, Any]
    cursor: Cursor
    run: dict[str, Any] | None = None
    capabilities: dict[str, JsonValue] = Field(default_factory=dict)


class SessionResume(Payload):
    """Hear the session from behind `after`. One that is suspended goes on being so until something is said."""

    after: Cursor = 0
    flow: Flow | None = None


class SessionSend(Payload):
    """Say something: a turn of its own, or into the one that is under way (`now`)."""

    text: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    when: Literal["after_turn", "now"] = "after_turn"


class SessionSent(Payload):
    """It is stored. `run`: what carries it out, where that is known already."""

    message: dict[str, Any]
    run: dict[str, Any] | None = None
    steer_how: str | None = None


class SessionStop(Payload):
    """Suspend the session, after cancelling what works in it."""

    reason: Annotated[str, Field(max_length=1000)] = ""


class SessionStopped(Payload):
    """Nothing more comes. With a `code` the subscription failed, and may be taken up again behind its cursor."""

    reason: str = ""
    code: str | None = None
    message: str | None = None
    retryable: bool = False


class AgentState(Payload):
    """The session, and what works in it."""

    session: dict[str, Any]
    run: dict[str, Any] | None = None
    waiting: int = 0
    """Messages that have had no turn yet."""


class AgentControl(Payload):
    """`text` is for steer and goal. `clear_saturation` and `goal` wait for plans."""

    action: Literal["pause", "resume", "cancel", "steer", "state", "heartbeat", "goal", "clear_saturation"]
    text: Words | None = None
    reason: Annotated[str, Field(max_length=1000)] | None = None
    when: Literal["now", "after_turn"] | None = None


class AgentHeartbeat(Payload):
    """How it is: `working`, `waiting_for_person`, `blocked`, `watching` (nothing is under way)."""

    status: str
    run: str | None = None
    last_event_at: str | None = None


class AgentEvents(Payload):
    """Facts of the session's log, in order and without a gap; `cursor` is the number of the last one."""

    cursor: Cursor
    events: list[Any]


class AgentProgress(Payload):
    """Facts of a run of this session; `position` is the number of the last one in the run's own log.

    After a resume those of the run that works now come again from its beginning: what is known goes by the position.
    """

    run: str
    position: Cursor
    events: list[Any]


class AgentResult(Payload):
    """A run of the session has ended."""

    run: dict[str, Any]


class AgentPlan(Payload):
    """The plan of the agent as it is now."""

    run: str
    entries: list[dict[str, Any]]


class AgentStatus(Payload):
    """The run has come into another state."""

    run: str
    state: str


class MemoryEvent(Payload):
    """What became of the session's memory."""

    event: str
    status: str
    count: int = 0
    message: str = ""


class ApprovalList(Payload):
    """Those of the session that wait."""


class Approvals(Payload):
    """Newest first."""

    approvals: list[dict[str, Any]]


class ApprovalResolve(Payload):
    """Decide, for exactly what `digest` stands for."""

    approval: Annotated[str, Field(max_length=64)]
    option: Annotated[str, Field(max_length=100)]
    digest: Annotated[str, Field(max_length=64)] | None = None
    feedback: Words | None = None
    changes: dict[str, JsonValue] | None = None


class ApprovalResolved(Payload):
    """As it is now."""

    approval: dict[str, Any]


MEMORY: Final = ("load", "update", "evict", "summarize", "pin", "forget", "recall", "query")

MESSAGES: Final[tuple[MessageType, ...]] = (
    message("session.open", "conn", "client", "request", SessionOpen, "Make a session.", replies=("session.opened",)),
    message("session.resume", "session", "client", "request", SessionResume, "Hear a session, and talk in it.",
            opens=True, replies=("session.opened",)),
    message("session.opened", "conn session", "server", "reply", SessionOpened, "The session."),
    message("session.send", "session", "client", "request", SessionSend, "Say something.", replies=("session.sent",)),
    message("session.sent", "session", "server", "reply", SessionSent, "It is stored."),
    message("session.state", "session", "client", "request", Empty, "How things are.", replies=("agent.state",)),
    message("session.stop", "session", "client", "request", SessionStop, "Suspend it; `session.stopped` comes as well.",
            settles=True, replies=("ack",)),
    message("session.stopped", "session", "server", "terminal", SessionStopped, "Nothing more comes.", fails=True),
    message("agent.control", "session", "client", "request", AgentControl, "Steer what works in the session.",
            replies=("ack", "agent.state", "agent.heartbeat")),
    message("agent.state", "session", "server", "reply", AgentState, "How things are."),
    message("agent.heartbeat", "session", "server", "reply", AgentHeartbeat, "How the agent is."),
    message("agent.event", "session", "server", "event", AgentEvents, "Entries of the session's log."),
    message("agent.progress", "session", "server", "event", AgentProgress, "Entries of the log of a run at work."),
    message("agent.plan", "session", "server", "event", AgentPlan, "The agent's plan."),
    message("agent.result", "session", "server", "event", AgentResult, "A run has ended."),
    message("agent.status", "session", "server", "transient", AgentStatus, "A run's state."),
    message("memory.event", "session", "server", "event", MemoryEvent, "Something became of the memory."),
    message("approval.list", "session", "client", "request", ApprovalList, "What waits for a person.",
            replies=("approvals",)),
    message("approvals", "session", "server", "reply", Approvals, "What waits."),
    message("approval.resolve", "session", "client", "request", ApprovalResolve, "Decide.",
            replies=("approval.resolved",)),
    message("approval.resolved", "session", "server", "reply", ApprovalResolved, "What was decided."),
    *(message(f"memory.{name}", "session", "client", "request", Empty,
              "Answered `not_available` until there is memory.") for name in MEMORY),
)  # fmt: skip
