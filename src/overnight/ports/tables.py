"""What a transaction offers, one small Protocol per aggregate. All calls are synchronous and plain SQL beneath.

`pk` is always the integer key; text ids occur only where a caller from outside names something. Queries that serve a
caller take the owner (None: every owner, for the server's own duties and for admins).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from overnight.domain.connection import Connection
from overnight.domain.event import Draft, Recorded
from overnight.domain.lease import DEFAULT_LEASE_S, Lease
from overnight.domain.queue_limits import QueueLimits
from overnight.domain.request import Principal, Request, RequestKind
from overnight.domain.run import Position, Run, Turn
from overnight.domain.states import State
from overnight.domain.token import AccessToken
from overnight.domain.values import WaitingFor
from overnight.domain.worker import Lane, Offer
from overnight.ids import HostId, RunId, SessionId, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs; every field that is set must match. `text` is looked for in the goal, case-insensitively."""

    owner: str | None = None
    states: tuple[State, ...] = ()
    mode: str | None = None
    backend: str | None = None
    session_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    since: int | None = None
    """Created at or after; wall milliseconds."""
    text: str | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """A page of runs, newest first, and the cursor of the next one."""

    runs: tuple[Run, ...]
    next: tuple[int, int] | None
    """(created_at, pk) of the last run here, when there are more."""


class RunTable(Protocol):
    """Runs. Every `save` of a non-hot field raises the run's `change` and wakes `CHANGES` after commit."""

    def add(self, run: Run, *, secret_environment: Mapping[str, str], idempotency: Idempotency | None) -> Run:
        """Store a new run with its stream; `run.pk` is ignored, the stored run comes back. Wakes `QUEUE`."""
        ...

    def lock(self, pk: int) -> Run:
        """The run as it is now, held against other writers until the transaction ends. Raises NotFound."""
        ...

    def save(self, run: Run) -> Run:
        """Write all that can change (never spec, owner or ids); comes back with its new `change`."""
        ...

    def get(self, run_id: RunId, owner: str | None) -> Run:
        """By id. Raises NotFound, also for another owner's run."""
        ...

    def page(self, filter: RunFilter, *, limit: int, after: tuple[int, int] | None = None) -> RunPage:
        """Newest first by (created_at, pk)."""
        ...

    def counts(self, filter: RunFilter) -> dict[State, int]:
        """How many, by state; states without any are left out."""
        ...

    def changed_after(self, change: int, owner: str | None, limit: int) -> tuple[Run, ...]:
        """Runs whose last change is later, in order of change."""
        ...

    def last_change(self) -> int:
        """The newest `change` of any run; 0 while there is none. Where a new reader of summaries begins."""
        ...

    def secret_environment(self, pk: int) -> dict[str, str]:
        """The environment values as they were given."""
        ...

    def same_request(self, owner: str, route: str, key: str) -> tuple[Idempotency, Run] | None:
        """The run that an earlier request with this Idempotency-Key made."""
        ...

    def set_workspace(self, pk: int, path: str, chain: tuple[str, ...]) -> bool:
        """Record where the run works, so that workspace locks know it; best done in the unit that adds the run.

        `chain` names that directory and then every one around it up to the root, each as `device:inode` of the run's
        host. While the run is held its locks follow; False (and nothing is changed) when another held run is in the
        way. A run without a chain (its own scratch folder, a git checkout of its own) never waits for a workspace.
        """
        ...

    def delete(self, pk: int) -> str:
        """Remove a final run, its turns, requests and events; its id comes back. The caller removes its files.

        A session that was made for a run goes with the last run in it. Raises NotFound, RunNotFinal. Removing a long
        log takes long: trim it in slices first.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """An Idempotency-Key with the route and the hash of the body that it came with."""

    route: str
    key: str
    body_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A run that is held by somebody: what adoption and rescue look at."""

    run: Run
    worker_pk: int | None
    renewal: int
    expired: bool
    """Whether the database's clock is past the end of the lease; true where there is none any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a hold stands, without its run: what is looked at often."""

    run_pk: int
    token: int
    worker_pk: int | None
    renewal: int
    expired: bool
    """See `Held.expired`."""


class LeaseTable(Protocol):
    """Exclusive rights to advance runs. Claim and take raise the token."""

    def claim(self, offer: Offer, now_ms: int) -> tuple[Run, ...]:
        """Take up to `offer.free` due runs of the lanes that the offer covers, for `offer.lease_s`.

        Highest priority first, then in the order in which they became claimable. Leaves out runs with a later
        `not_before`, whose session has another non-final run before them, whose workspace (also nested) is locked by
        a held run, and whose backend or label has reached its limit or rate; these get their `waiting_for` set,
        except where the whole backend waits (see `explain`). The claimed runs come back with a new token, the
        claimer's host and the place where they may go on, still in the state they were in: the caller moves them in
        the same transaction. A worker that is not active gets none.
        """
        ...

    def take(self, pk: int, worker_pk: int, expected_token: int, lease_s: float = DEFAULT_LEASE_S) -> Run:
        """Adopt a held run: raise its token, if it is still `expected_token`. Raises LeaseLost otherwise."""
        ...

    def renew(self, worker_pk: int, tokens: Mapping[int, int], least_s: float = 0.0) -> frozenset[int]:
        """Renew all these {run pk: token} in one statement; the pks that are lost come back.

        Each is as long as it was, or `least_s` where that is more.
        """
        ...

    def check(self, lease: Lease) -> Run:
        """Lock the run and raise LeaseLost unless `lease` holds its current token and has not run out."""
        ...

    def drop(self, pk: int) -> None:
        """End the hold of a run that is being handed back or has ended, with its workspace locks; raises the token.

        Idempotent. Saving a final run does it too.
        """
        ...

    def held(self, host_id: HostId | None = None) -> tuple[Held, ...]:
        """All held runs (of one host)."""
        ...

    def standing(self) -> tuple[Standing, ...]:
        """The same of all hosts, without the runs; cheap."""
        ...

    def lanes(self) -> tuple[Lane, ...]:
        """The lanes in which runs could be claimed if somebody offered them."""
        ...

    def explain(self, lane_pk: int, waiting: WaitingFor | None, most: int) -> int:
        """Have the first `most` claimable runs of a lane say why nobody claims them; how many said something else."""
        ...

    def unexplained(self, lane_pk: int, waiting: WaitingFor | None, most: int) -> tuple[int, ...]:
        """Those of them that say something else now."""
        ...

    def full(self, limits: QueueLimits) -> Mapping[str, str]:
        """The backends that have reached a limit or a rate, each with the reason in words for people."""
        ...


class TurnTable(Protocol):
    """Turns, their stdin messages and the backends' session states."""

    def open(self, turn: Turn) -> None:
        """A new attempt at a turn."""
        ...

    def save(self, turn: Turn) -> None:
        """Everything that can change."""
        ...

    def last(self, run_pk: int) -> Turn | None:
        """The latest attempt of the latest turn."""
        ...

    def get(self, run_pk: int, number: int) -> Turn:
        """The latest attempt of that turn. Raises NotFound."""
        ...

    def page(self, run_pk: int) -> tuple[Turn, ...]:
        """All turns and attempts, in order."""
        ...

    def advance(self, run_pk: int, number: int, attempt: int, position: Position, items: int) -> None:
        """Hot path: the position recorded so far, and how many items more."""
        ...

    def add_input(self, run_pk: int, number: int, attempt: int, n: int, data: bytes) -> None:
        """Stdin message n (from 1, without holes); raises Conflict when it is not the next one."""
        ...

    def inputs(self, run_pk: int, number: int, attempt: int, after: int) -> tuple[tuple[int, bytes], ...]:
        """Stdin messages after number `after`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMark:
    """The ends of a stream: `first` is the earliest seq still there (1 if nothing was trimmed), `last` the newest."""

    first: int
    last: int


class EventLog(Protocol):
    """The append-only log of every stream. A stream's pk is the pk of its run or session."""

    def append(self, stream_pk: int, drafts: Sequence[Draft], at: int) -> tuple[Recorded, ...]:
        """Number, stamp (never backwards within the stream), encode once and store. Wakes the stream after commit."""
        ...

    def mark(self, stream_pk: int) -> StreamMark:
        """Both ends now. Raises NotFound for an unknown stream."""
        ...

    def after(
        self, stream_pk: int, seq: int, limit: int, most_bytes: int | None = None
    ) -> tuple[Recorded, ...]:
        """The events after `seq` in order, upcast, at most `limit`.

        With `most_bytes` the one by which their bodies reach so many is the last.
        """
        ...

    def select(
        self,
        stream_pk: int,
        *,
        after: int | None,
        before: int | None,
        descending: bool,
        types: tuple[str, ...],
        turn: int | None,
        limit: int,
    ) -> tuple[Recorded, ...]:
        """For the JSON log: exclusive bounds, filters, either order."""
        ...

    def trim(self, stream_pk: int, before: int, limit: int) -> int:
        """Remove at most `limit` events below seq `before`; how many were removed."""
        ...


class RequestTable(Protocol):
    """Requests to runs."""

    def add(
        self, run_pk: int, kind: RequestKind, body: Mapping[str, object], by: Principal, at: int
    ) -> Request:
        """Store one and wake the holder."""
        ...

    def pending(self, run_pk: int) -> tuple[Request, ...]:
        """Oldest first."""
        ...

    def settle(self, pk: int, outcome: str, at: int) -> None:
        """The holder has acted on it (or it has become pointless); idempotent."""
        ...


class ConnectionTable(Protocol):
    """Who is connected, to whichever server."""

    def add(self, connection: Connection) -> None:
        """Store."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Those that have ended; idempotent."""
        ...

    def beat(self, server: WorkerId, at: int) -> int:
        """All connections of one server are alive; how many."""
        ...

    def stale(self, before: int) -> int:
        """Remove those whose last heartbeat is older, whoever held them; how many."""
        ...

    def forget(self, server: WorkerId) -> int:
        """Remove all of one server, which has ended."""
        ...

    def all(self, owner: str | None) -> tuple[Connection, ...]:
        """Oldest first."""
        ...

    def following(self, session_id: SessionId) -> tuple[Connection, ...]:
        """Those to a session or to one of its runs, whosever they are; oldest first."""
        ...


class TokenTable(Protocol):
    """Access tokens, by the hash of their secret."""

    def add(self, token: AccessToken) -> AccessToken:
        """Store; `token.pk` is ignored. Raises Conflict when an unrevoked one has that name."""
        ...

    def by_digest(self, digest: str) -> AccessToken | None:
        """The token with that hash, usable or not."""
        ...

    def all(self, owner: str | None) -> tuple[AccessToken, ...]:
        """Oldest first."""
        ...

    def revoke(self, name: str, owner: str | None, at: int) -> AccessToken:
        """By name or id; idempotent. Raises NotFound."""
        ...

    def used(self, pk: int, at: int) -> None:
        """Last use; callers do this at most once a minute per token."""
        ...


class Installation(Protocol):
    """Single facts about this installation (host id, first-start time, login codes), and housekeeping."""

    def get(self, key: str) -> str | None:
        """The value, or None."""
        ...

    def put(self, key: str, value: str | None) -> None:
        """Set, or remove with None."""
        ...

    def listed(self, prefix: str, limit: int) -> tuple[str, ...]:
        """The keys that begin so, in any order; `prefix` of letters, digits, `.` and `_`."""
        ...

    def size_bytes(self) -> int:
        """How much the database holds."""
        ...

    def expired_runs(self, ended_before: int, limit: int) -> tuple[int, ...]:
        """Final runs that ended before, oldest first."""
        ...
