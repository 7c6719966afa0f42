"""What the resources look like, for the OpenAPI description; nothing is validated against these when it is sent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from overnight.domain.spec import Mode, RunSpec
from overnight.domain.states import State, TurnState

Time = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", examples=["2026-01-31T12:00:00.000Z"])
]
RunIdField = Annotated[str, Field(pattern=r"^run_[0-9a-z]{26}$", examples=["run_01k0c3v9h4f6x8r2m5t7w9y1zb"])]
Cursor = Annotated[str | None, Field(description="Opaque; give it back as `cursor` for the next page.")]


class Resource(BaseModel):
    """A described JSON object."""

    # Built when the description is asked for, not at every start.
    model_config = ConfigDict(extra="forbid", defer_build=True)


class Tokens(Resource):
    """`input` includes `cached`, `output` includes `reasoning`, `total` is input and output."""

    input: int
    cached: int
    output: int
    reasoning: int
    total: int


class UsageModel(Tokens):
    """Tokens and money."""

    cost_usd: float | None


class FilesModel(Resource):
    """Files changed, lines added and removed."""

    changed: int
    added: int
    removed: int


class TestsModel(Resource):
    """The last known result of the tests."""

    passed: int
    failed: int
    skipped: int


class StatsModel(Resource):
    """Totals of a run."""

    turns: int
    tokens: Tokens
    cost_usd: float | None
    files: FilesModel
    tests: TestsModel | None


class CompletionModel(Resource):
    """By what the end was recognised."""

    detected: bool
    by: Literal["pattern", "stop_file", "backend", "idle", "limit", "one_turn", "decision"] | None
    line: str | None


class FailureModel(Resource):
    """Why something failed."""

    code: str
    message: str
    retryable: bool


class WaitingModel(Resource):
    """What a run waits for."""

    kind: Literal["approval", "question", "budget", "session", "workspace", "backend", "time"]
    approval_id: str | None = None
    detail: str | None = None


class CancellationModel(Resource):
    """How a run was stopped; `survivors` null when nobody could look."""

    reason: str
    steps: list[str]
    survivors: int | None


class NowModel(Resource):
    """What the agent is doing at this moment."""

    item: str
    text: str
    since: Time


class RunSummary(Resource):
    """A run in a list."""

    id: RunIdField
    owner: str
    state: State
    mode: Mode
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
    created_at: Time
    updated_at: Time
    started_at: Time | None
    ended_at: Time | None
    last_event_at: Time | None
    attempt: int
    turn: int
    stats: StatsModel
    completion: CompletionModel
    error: FailureModel | None
    waiting_for: WaitingModel | None
    cancellation: CancellationModel | None
    sandbox_effective: str
    last_seq: int
    labels: dict[str, str]
    now: NowModel | None


class RunModel(RunSummary):
    """The snapshot of a run."""

    config: RunSpec


class RunList(Resource):
    """A page of runs, newest first."""

    items: list[RunSummary]
    next_cursor: Cursor


class RunCounts(Resource):
    """How many runs match, in all and by state."""

    total: int
    states: dict[str, int]


class ControlResult(RunModel):
    """The run after the request; `steer_how` says how a steered text will reach the agent."""

    steer_how: Literal["inject", "interrupt", "queue"] | None = None


class BulkEntry(Resource):
    """What a bulk action did to one run: its state afterwards, or the problem it met."""

    id: str
    ok: bool
    run: RunSummary | None
    problem: dict[str, Any] | None


class BulkList(Resource):
    """One entry per run."""

    items: list[BulkEntry]
    next_cursor: None


class PreviewModel(Resource):
    """What a run would be given; nothing was stored or started."""

    prompt: str
    config: RunSpec


class EventModel(Resource):
    """A recorded fact; never changed."""

    seq: int
    type: str
    run_id: str | None
    session_id: str | None
    at: Time
    turn: int | None
    attempt: int | None
    data: dict[str, Any]


class EventList(Resource):
    """A piece of the log; `next_cursor` is the seq to give as `after` (as `before` where the order is desc)."""

    items: list[EventModel]
    next_cursor: str | None


class TurnModel(Resource):
    """One attempt at one turn."""

    turn: int
    attempt: int
    state: TurnState
    backend: str
    model: str | None
    pid: int | None
    started_at: Time
    ended_at: Time | None
    duration_ms: int | None
    first_seq: int
    last_seq: int | None
    stop_reason: str | None
    error: FailureModel | None
    usage: UsageModel | None
    files: FilesModel | None
    tests: TestsModel | None
    items: int
    last_message: str | None


class TurnList(Resource):
    """All turns and attempts, in order."""

    items: list[TurnModel]
    next_cursor: None


class ProblemEntry(Resource):
    """Something that a check found."""

    code: str
    message: str
    mend: str


class CheckModel(Resource):
    """A preflight; `status` null and `checked_at` null while none has been made."""

    name: str
    status: Literal["ok", "warn", "fail"] | None
    version: str | None
    capabilities: dict[str, Any]
    problems: list[ProblemEntry]
    checked_at: Time | None


class CheckList(Resource):
    """All configured backends."""

    items: list[CheckModel]
    next_cursor: None


class WorkerModel(Resource):
    """A process that carries out runs."""

    id: str
    host_id: str
    host: str
    pid: int
    version: str
    slots: int
    busy: int
    backends: list[str]
    labels: dict[str, str]
    shared_roots: list[str]
    state: Literal["active", "draining", "quarantined", "gone"]
    reason: str | None
    changed_by: str | None
    changed_at: Time | None
    fresh: bool
    started_at: Time
    seen_at: Time


class WorkerList(Resource):
    """Workers, oldest first."""

    items: list[WorkerModel]
    next_cursor: None


class StatsReport(Resource):
    """Where the work stands."""

    queue: dict[str, Any]
    runs: dict[str, int]
    workers: dict[str, Any]
    streams: dict[str, int]
    database_bytes: int


class TokenModel(Resource):
    """An access token; the secret itself is shown once, when it is made."""

    id: str
    name: str
    owner: str
    kind: Literal["user", "worker", "agent"]
    usable: bool
    created_at: Time
    last_used_at: Time | None
    expires_at: Time | None
    revoked_at: Time | None


class NewToken(TokenModel):
    """A token that was just made."""

    secret: str


class TokenList(Resource):
    """Tokens, oldest first."""

    items: list[TokenModel]
    next_cursor: None


class ChangedFile(Resource):
    """One changed file."""

    path: str
    kind: Literal["created", "modified", "deleted"]
    bytes: int
    sha256: str | None
    added_lines: int
    removed_lines: int


class DiffModel(Resource):
    """What changed: all files with their statistics, or one file's patch."""

    scope: Literal["run", "turn", "uncommitted"]
    turn: int | None
    files: list[ChangedFile] | None = None
    stats: FilesModel | None = None
    truncated: bool | None = None
    path: str | None = None
    patch: str | None = None


class Setting(Resource):
    """One setting."""

    model_config = ConfigDict(extra="allow")

    name: str


class ConfigList(Resource):
    """Every setting."""

    items: list[Setting]
    next_cursor: None


class Doctor(Resource):
    """What is in order on a host and what is not."""

    model_config = ConfigDict(extra="allow")


class Accepted(Resource):
    """A short word."""

    status: str
