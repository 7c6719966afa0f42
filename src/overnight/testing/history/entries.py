"""What a history consists of: one line for each thing that a client, or a witness beside it, has seen.

Times (`at`) are seconds of the boot clock, which all processes of a machine share and nobody can set.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final, Literal, get_args

Outcome = Literal["accepted", "refused", "unknown"]
"""`unknown`: the answer was lost, or the server itself could not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The history begins. `bound_s`: how long after the last fault everything may take to come to an end; `servers`:
    who must tell the whole story in the end.
    """

    at: float
    seed: int
    bound_s: float
    servers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A submission under an Idempotency-Key, with what its client learned.

    `turns`: how many it takes to be completed, where its limits alone say so; `place`: its kind of workspace.
    """

    at: float
    key: str
    outcome: Outcome
    run_id: str | None = None
    code: str | None = None
    server: str = ""
    turns: int | None = None
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controlled:
    """A pause, resume, cancel or steer, with what its client learned."""

    at: float
    run_id: str
    action: str
    outcome: Outcome
    code: str | None = None
    server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision on an approval, sent at `sent`. `counts`: the option that counts, where the answer named it."""

    at: float
    sent: float = 0.0
    run_id: str
    approval_id: str
    option: str
    outcome: Outcome
    counts: str | None = None
    code: str | None = None
    server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A message to a session under an Idempotency-Key. `run_id`: the run that was named to take it."""

    at: float
    session_id: str
    key: str
    outcome: Outcome
    message_id: str | None = None
    run_id: str | None = None
    code: str | None = None
    server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """A message whose sender wanted it back, with what was learned."""

    at: float
    session_id: str
    key: str
    outcome: Outcome
    code: str | None = None
    server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The history of a session as one server gave it at the end: its messages as JSON, oldest first."""

    at: float
    server: str
    session_id: str
    bodies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run as a client saw it; `missing` is the state of one that the server did not know."""

    at: float
    run_id: str
    state: str
    last_seq: int
    waits_for: str | None = None
    server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Everything that a server listed at the end: run ids by the key under which they were submitted."""

    at: float
    server: str
    runs: dict[str, str] = field(default_factory=dict)
    """Run id to the key that its label names ("" without one)."""
    twice: tuple[str, ...] = ()
    """Run ids that stood in it more than once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A reader got a stream that begins after `after`."""

    at: float
    reader: str
    run_id: str
    after: int
    server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A reader got one event; `digest` is of its bytes."""

    at: float
    reader: str
    run_id: str
    seq: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed:
    """A reader of the summaries of all runs got one; `change` is its position among all changes."""

    at: float
    reader: str
    change: int
    run_id: str
    state: str
    last_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A reader's connection ended before the stream did."""

    at: float
    reader: str
    run_id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded:
    """A reader was told that there is nothing more; `last` is the seq that it was told."""

    at: float
    reader: str
    run_id: str
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """The whole log of a run as one server gave it as JSON: the events' bytes, as text, in the order given."""

    at: float
    server: str
    run_id: str
    bodies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Processes that carried the run's marker in their environment when the run had ended."""

    at: float
    run_id: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something was done to the system, or undone. `target` is what it was done to; `host` is its id, where a host
    was kept from its runs by it.
    """

    at: float
    name: str
    phase: Literal["began", "ended"]
    target: str = ""
    words: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A read, write or cancel that was tried to see what a fault does to it."""

    at: float
    during: str
    tried: Literal["read", "write", "cancel"]
    outcome: Outcome
    status: int
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The history ends: nothing more was looked at after this. `settled`: when the last work had come to its end."""

    at: float
    settled: float | None


Entry = (
    Opened | Submitted | Controlled | Decided | Posted | TakenBack | Conversation | Snapshot | Listed | Connected
    | Received | Summed | Cut | StreamEnded | Logged | Leftover | Fault | Probe | Closed
)  # fmt: skip

KINDS: Final[dict[str, type[Entry]]] = {kind.__name__.lower(): kind for kind in get_args(Entry)}
"""By the name that stands in a line's member `kind`."""


def to_document(entry: Entry) -> dict[str, object]:
    """The line's JSON object."""
    members = {member.name: getattr(entry, member.name) for member in fields(entry)}
    return {"kind": type(entry).__name__.lower(), **members}


def from_document(document: dict[str, object]) -> Entry:
    """The inverse of `to_document`. Raises KeyError for an unknown kind, TypeError for strange members."""
    members = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in document.items()
        if name != "kind"
    }
    return KINDS[str(document["kind"])](**members)  # type: ignore[arg-type]
