"""What the server sends, as types. The objects are the plain JSON; nothing is hidden or renamed.

A newer server may send further members: ignore what you do not know.
"""

from __future__ import annotations

from typing import Generic, Literal, NotRequired, TypedDict, TypeVar

T = TypeVar("T")

State = Literal[
    "queued",
    "running",
    "pausing",
    "paused",
    "waiting",
    "blocked",
    "cancelling",
    "completed",
    "failed",
    "cancelled",
]
FINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


class Tokens(TypedDict):
    """`input` includes `cached`, `output` includes `reasoning`; `total` is input and output."""

    input: int
    cached: int
    output: int
    reasoning: int
    total: int


class Files(TypedDict):
    """Files changed, lines added and removed."""

    changed: int
    added: int
    removed: int


class Tests(TypedDict):
    """The last result of the tests."""

    passed: int
    failed: int
    skipped: int


class Stats(TypedDict):
    """Totals of a run."""

    turns: int
    tokens: Tokens
    cost_usd: float | None
    files: Files
    tests: Tests | None


class Failure(TypedDict):
    """Why something failed."""

    code: str
    message: str
    retryable: bool


class WaitingFor(TypedDict):
    """What a run waits for."""

    kind: str
    approval_id: NotRequired[str]
    detail: NotRequired[str]


class Completion(TypedDict):
    """How the end was recognised."""

    detected: bool
    by: str | None
    line: str | None


class Cancellation(TypedDict):
    """How a run was stopped. `survivors` None: nobody could look."""

    reason: str
    steps: list[str]
    survivors: int | None


class Now(TypedDict):
    """What the agent is doing; `since` is RFC 3339."""

    item: str
    text: str
    since: str


class Run(TypedDict):
    """The snapshot of a run. Lists leave out `config`."""

    id: str
    owner: str
    state: State
    mode: str
    backend: str
    agent: str | None
    goal: str
    session_id: str
    parent_id: str | None
    retry_of: str | None
    workspace: str | None
    host_id: str
    worker: str | None
    pid: int | None
    created_at: str
    updated_at: str
    started_at: str | None
    ended_at: str | None
    last_event_at: str | None
    attempt: int
    turn: int
    stats: Stats
    completion: Completion
    error: Failure | None
    waiting_for: WaitingFor | None
    cancellation: Cancellation | None
    sandbox_effective: str
    last_seq: int
    labels: dict[str, str]
    now: Now | None
    config: NotRequired[dict[str, object]]
    steer_how: NotRequired[str | None]


class Event(TypedDict):
    """A recorded event of a run; `seq` counts from 1 without gaps."""

    seq: int
    type: str
    run_id: str | None
    session_id: str | None
    at: str
    turn: int | None
    attempt: int | None
    data: dict[str, object]


class Fragment(TypedDict):
    """`offset` counts the characters of the item before this one."""

    item_id: str
    offset: int
    text: str


class Delta(TypedDict):
    """A fragment for live display: no seq, never sent again. `type` is `message.delta`, `reasoning.delta`, …"""

    type: str
    run_id: str
    session_id: str
    turn: int
    data: Fragment


class Turn(TypedDict):
    """One attempt at one turn."""

    turn: int
    attempt: int
    state: str
    first_seq: int
    last_seq: int | None
    usage: dict[str, object] | None
    error: Failure | None


class ApprovalOption(TypedDict):
    """One way to decide; `rule` is what it would write for the session."""

    id: str
    label: str
    kind: str
    rule: NotRequired[dict[str, object]]


class Decision(TypedDict):
    """What was decided; `by` is `system` when nobody decided in time."""

    option: str
    feedback: str | None
    changes: dict[str, object] | None
    by: str


class Approval(TypedDict):
    """A question to a person. `state`: pending, resolved, expired, cancelled."""

    id: str
    owner: str
    run_id: str
    session_id: str
    kind: str
    title: str
    context: dict[str, object]
    digest: str
    options: list[ApprovalOption]
    state: str
    decision: Decision | None
    default_option: str
    expires_at: str
    created_at: str
    resolved_at: str | None


class Session(TypedDict):
    """A session. `state`: active, suspended, completed, expired. `config`: fields of a run, for its runs."""

    id: str
    owner: str
    name: str
    mode: str
    state: str
    phase: str
    step: int | None
    version: int
    variables: dict[str, object]
    plan: dict[str, object] | None
    config: dict[str, object]
    created_at: str
    updated_at: str
    expires_at: str | None


class Message(TypedDict):
    """A message to a session: `queued` until a turn begins with it, then `sent`; `removed` when it was taken back."""

    id: str
    text: str
    by: str
    state: str
    run_id: str | None
    turn: int | None
    created_at: str


class Posted(TypedDict):
    """A message that was accepted, and the run that takes it. `steer_how`: how one that is said now gets there."""

    message: Message
    run: Run | None
    steer_how: str | None


class Said(TypedDict):
    """One message of a history. `role`: user, assistant, system."""

    role: str
    text: str
    at: str
    run_id: str | None
    turn: int | None


class History(TypedDict):
    """A page of a history, oldest first; `next_cursor` is the `before` of the page before it."""

    items: list[Said]
    total: int
    next_cursor: str | None


class Problem(TypedDict):
    """What a check found, and how to mend it."""

    code: str
    message: str
    mend: str


class Backend(TypedDict):
    """A backend and what its last preflight found."""

    name: str
    status: str
    version: str | None
    capabilities: dict[str, object]
    problems: list[Problem]
    checked_at: str | None


class Page(TypedDict, Generic[T]):
    """One page of a list; `next_cursor` None: it is the last."""

    items: list[T]
    next_cursor: str | None
