"""What passes between a server and a worker without a database: facts about one held run, and what is recorded for it.

The worker runs units of work against `Facts` and sends what they did as `Op`s; the server does them again in one
transaction. All of it is about one run: nothing here names another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from overnight.domain.approval import Approval
from overnight.domain.event import Draft
from overnight.domain.request import Request
from overnight.domain.run import Position, Run, Turn
from overnight.domain.session import QueuedMessage, Session, SessionMessage
from overnight.domain.worker import Worker
from overnight.ids import RunId, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a unit of work finds about its run. `base` changes with every fact in here."""

    run: Run
    session: Session
    """Without variables, configuration and plan: these are asked for."""
    turn: Turn | None = None
    """The latest attempt at the latest turn."""
    requests: tuple[Request, ...] = ()
    approvals: tuple[Approval, ...] = ()
    """Those that are open."""
    queued: tuple[QueuedMessage, ...] = ()
    """The message that has waited longest, if any waits."""
    messages: int = 0
    """How long the session's history is."""
    base: str = ""
    now: int = 0
    """The server's wall clock, milliseconds."""


AskKind = Literal[
    "events", "messages", "inputs", "turn", "approval", "approval_of", "allowance", "rules", "message",
    "session", "state", "environment",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A fact that is not among `Facts`; which of the other members count depends on `what`."""

    what: AskKind
    id: str = ""
    """approval, message: its id. approval_of: the agent's key. allowance: the digest. state: the backend."""
    number: int | None = None
    attempt: int | None = None
    after: int | None = None
    before: int | None = None
    descending: bool = False
    types: tuple[str, ...] = ()
    limit: int = 0


Answers = dict[Ask, object]
"""What was found: the value that the table's method would have given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Events. The server numbers and stamps them."""

    drafts: tuple[Draft, ...]
    to: Literal["run", "session"] = "run"
    op: Literal["append"] = "append"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRun:
    """The run as it shall be; only what a holder may change counts."""

    run: Run
    op: Literal["save_run"] = "save_run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """The hold ends."""

    op: Literal["drop"] = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the run works; `taken` is what the worker expects the answer to be."""

    path: str
    chain: tuple[str, ...]
    free: bool
    op: Literal["place"] = "place"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTurn:
    """A new attempt at a turn."""

    turn: Turn
    op: Literal["open_turn"] = "open_turn"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveTurn:
    """All that can change of the turn in progress."""

    turn: Turn
    op: Literal["save_turn"] = "save_turn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """How far the output of the turn in progress has been recorded, and how many items more."""

    position: Position
    items: int = 0
    op: Literal["advance"] = "advance"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddInput:
    """A message for the agent's stdin, stored before it is sent."""

    n: int
    data: bytes
    op: Literal["add_input"] = "add_input"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """A request was acted on."""

    request: int
    outcome: str
    op: Literal["settle"] = "settle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """The session was used."""

    phase: str | None = None
    step: int | None = None
    op: Literal["touch"] = "touch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """One message more in the session's history."""

    message: SessionMessage
    op: Literal["say"] = "say"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remember:
    """The backend's own state of the session."""

    backend: str
    state: Mapping[str, object]
    op: Literal["remember"] = "remember"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSession:
    """The session that was made for the run ends with it."""

    state: Literal["completed", "suspended"]
    op: Literal["end_session"] = "end_session"


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeMessage:
    """A message that waited has reached the run's present turn."""

    id: str
    op: Literal["take_message"] = "take_message"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddApproval:
    """A question to people."""

    approval: Approval
    op: Literal["add_approval"] = "add_approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveApproval:
    """An open approval is withdrawn, or a decided one is used (or was not used after all)."""

    id: str
    cancelled: bool
    used: bool
    op: Literal["save_approval"] = "save_approval"


Op = (
    Append | SaveRun | Drop | Place | OpenTurn | SaveTurn | Advance | AddInput | Settle | Touch | Say | Remember
    | EndSession | TakeMessage | AddApproval | SaveApproval
)  # fmt: skip
_PROGRESS = (Append, Advance, AddInput, Remember, SaveRun)
_MOVING = ("run.", "turn.", "approval.")


def is_progress(ops: Sequence[Op]) -> bool:
    """Whether they only tell how a turn goes on: no state changes by them."""
    return all(isinstance(op, _PROGRESS) for op in ops) and not any(
        draft.type.startswith(_MOVING) for op in ops if isinstance(op, Append) for draft in op.drafts
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LastBatch:
    """The last batch of a run that was applied."""

    token: int
    n: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one unit of work did. `n` counts the batches of one token from 1; the same one again changes nothing."""

    token: int
    n: int
    base: str
    ops: tuple[Op, ...]
    wake: bool = False
    """Whether other workers shall look at the queue."""
    digest: str = ""
    """SHA-256 of the whole, so that another batch under the same number is noticed."""

    @property
    def mark(self) -> LastBatch:
        """What is kept of it once it is applied."""
        return LastBatch(token=self.token, n=self.n, digest=self.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A run that was leased: its facts, and the values that its agent is given as environment."""

    facts: Facts
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    agent_key: str = field(default="", repr=False)
    """What the tokens of this run's own agents are signed with, in hex; empty where the server knows of none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a worker has fared since the offer of its that was answered last."""

    well: bool = False
    """A turn got under way, before all of `faults`."""
    faults: tuple[str, ...] = ()
    """Why turns could not even begin, or leases were lost, oldest first."""


NOTHING_NEW: Final = Report()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The answer to an offer. `state`: what the operator wants of the worker."""

    runs: tuple[Granted, ...] = ()
    state: str = "active"
    lease_s: float = 15.0
    now: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """Which of the leases are lost, and the newest request to each of the others (0: none is pending)."""

    lost: tuple[RunId, ...] = ()
    requests: Mapping[RunId, int] = field(default_factory=dict)
    state: str = "active"
    lease_s: float = 0.0
    """How long the server's leases are now; 0 where it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a worker that watched has missed: runs with newer requests, runs that are no longer its, new work."""

    requests: Mapping[RunId, int] = field(default_factory=dict)
    lost: tuple[RunId, ...] = ()
    work: bool = False
    state: str = "active"


FragmentType = Literal["message.delta", "reasoning.delta", "output.delta"]
MOST_FRAGMENTS: Final = 500
"""In one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """A piece of an item for live display: shown to whoever looks at this moment, and never stored."""

    run_id: RunId
    token: int
    type: FragmentType
    turn: int
    item_id: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A worker elsewhere as the server knows it: its row, whose token it came with, and its last grant."""

    worker: Worker
    token_pk: int
    request_id: str = ""
    granted: Mapping[int, int] = field(default_factory=dict)
    """{run pk: token}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a run. `expired`: by the database's clock, where it knows."""

    worker_pk: int
    token: int
    expired: bool


class RemoteTable(Protocol):
    """Workers elsewhere."""

    def seat(self, worker_id: WorkerId) -> Seat | None:
        """The worker of that id, if it is one of these."""
        ...

    def sit(self, worker: Worker, token_pk: int, *, quarantine_after: int = 0) -> Seat:
        """Register it; what it offers is what it said first. Raises Forbidden when another token has that id.

        On a host that kept failing just now it begins in quarantine.
        """
        ...

    def seats(self, host_id: str, token_pk: int) -> tuple[Seat, ...]:
        """Those of a host that came with that token, gone or not."""
        ...

    def grant(self, worker_pk: int, request_id: str, granted: Mapping[int, int]) -> None:
        """Remember the last offer that changed something, and what was granted."""
        ...

    def holder(self, run_pk: int) -> Holder | None:
        """Who holds that run."""
        ...

    def last_batch(self, run_pk: int) -> LastBatch | None:
        """The last one that was applied."""
        ...

    def applied(self, run_pk: int, batch: LastBatch) -> None:
        """Replace it."""
        ...
