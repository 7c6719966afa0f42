"""Leases over REST: the bodies of what workers send.

Members that are not known are passed over here, unlike everywhere else: server and worker may be a version apart.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from overnight.domain.event import canonical
from overnight.ports.remote import MOST_FRAGMENTS, FragmentType
from overnight.wire.v1.leases import PROTOCOL
from overnight.wire.v1.untrusted import Code, Untrusted

MOST_RUNS: Final = 1000
MOST_FAULTS: Final = 100
MOST_TEXT: Final = 64 * 1024
Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_Number = Annotated[int, Field(ge=0, le=1 << 53)]
_Length = Annotated[float, Field(ge=0, le=3600, description="On which length of a lease the worker counts")]
_Tokens = Annotated[dict[Id, _Number], Field(max_length=MOST_RUNS)]


class Loose(BaseModel):
    """A frozen JSON document that passes over what it does not know."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Call(Loose):
    """What every call of a worker says."""

    protocol: Annotated[int, Field(ge=1, description="Always 1")] = PROTOCOL
    worker: Id


class WorkerBody(Loose):
    """A worker: where it runs and what it offers. The first description of an id counts."""

    id: Id
    host: Id
    name: _Word = "worker"
    pid: _Number = 0
    version: _Word = "0"
    slots: Annotated[int, Field(ge=0, le=100_000)] = 1
    backends: Annotated[list[_Word], Field(max_length=200)]
    labels: Annotated[dict[_Word, _Word], Field(max_length=50)] = Field(default_factory=dict)
    roots: Annotated[list[_Word], Field(max_length=100)] = Field(default_factory=list)


class OfferBody(Loose):
    """An offer of free slots. The same `request_id` again gives the same runs.

    `faults` tells why turns could not even begin, or leases were lost, since the offer before; `well`, that one got
    under way before those. A worker that keeps failing is put into quarantine.
    """

    protocol: Annotated[int, Field(ge=1)] = PROTOCOL
    request_id: Id
    worker: WorkerBody
    free: Annotated[int, Field(ge=0, le=1000)] = 1
    wait_s: Annotated[float, Field(ge=0, le=30)] = 0
    checks: Annotated[list[Untrusted], Field(max_length=200)] = Field(default_factory=list)
    well: bool = False
    faults: Annotated[list[_Word], Field(max_length=MOST_FAULTS)] = Field(default_factory=list)
    lease_s: _Length = 0


class SeatBody(Loose):
    """A worker that begins, or ends, on its host."""

    protocol: Annotated[int, Field(ge=1)] = PROTOCOL
    worker: WorkerBody


class TokensBody(Call):
    """Leases: {run id: token}."""

    tokens: _Tokens


class RenewBody(TokensBody):
    """Leases that shall last."""

    lease_s: _Length = 0


class WatchBody(TokensBody):
    """What to wait for: newer requests than `seen` ({run id: number}), and (`work`) something to claim."""

    seen: _Tokens = Field(default_factory=dict)
    wait_s: Annotated[float, Field(ge=0, le=30)] = 30
    work: bool = False


class TokenBody(Call):
    """One lease."""

    token: _Number


class RenewOneBody(TokenBody):
    """One lease that shall last."""

    lease_s: _Length = 0


class FactsBody(TokenBody):
    """What is asked for besides the facts that are always told."""

    asks: Annotated[list[Untrusted], Field(max_length=50)] = Field(default_factory=list)


class GiveUpBody(TokenBody):
    """Why a run cannot be carried out there."""

    code: Code = "internal"
    message: Annotated[str, StringConstraints(max_length=2000)] = ""


class PlainEvent(Loose):
    """An event as a worker of any kind reports it."""

    type: Annotated[str, StringConstraints(min_length=3, max_length=80)]
    data: Untrusted = Field(default_factory=dict)


class Cursor(Loose):
    """How much of the agent's output has been reported, bytes."""

    stdout: _Number = 0
    stderr: _Number = 0


class BatchBody(TokenBody):
    """A batch: `batch` counts 1, 2, 3 … for each token, and the same batch again changes nothing."""

    batch: Annotated[int, Field(ge=1, le=1 << 53)]
    base: Annotated[str, StringConstraints(max_length=64)] = ""
    ops: Annotated[list[Untrusted], Field(max_length=2000)] = Field(default_factory=list)
    wake: bool = False

    @property
    def of_engine(self) -> bool:
        """Whether it comes from a worker that has the engine: others know no `base` and send no `ops`."""
        return bool(self.ops or self.base)

    @property
    def digest(self) -> str:
        """SHA-256 of all that it says."""
        return hashlib.sha256(canonical(self.model_dump(mode="json"))).hexdigest()


class EventsBody(BatchBody):
    """Progress: either `events` (and how far the output was read), or `ops` of a worker that has the engine."""

    after_seq: _Number | None = None
    cursor: Cursor | None = None
    events: Annotated[list[PlainEvent], Field(max_length=5000)] = Field(default_factory=list)


class FragmentBody(Loose):
    """A piece of an item: `offset` counts the characters of the item before it."""

    run_id: Id
    token: _Number
    type: FragmentType = "message.delta"
    turn: _Number
    item_id: _Word
    offset: _Number = 0
    text: Annotated[str, StringConstraints(max_length=MOST_TEXT)]


class ShowBody(Call):
    """Text for live display. It is shown to whoever looks at this moment, and kept nowhere."""

    fragments: Annotated[list[FragmentBody], Field(max_length=MOST_FRAGMENTS)]


class UsageBody(Loose):
    """What this turn has used."""

    input: _Number = 0
    cached: _Number = 0
    output: _Number = 0
    reasoning: _Number = 0
    cost_usd: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None


class AckBody(BatchBody):
    """A transition: either `outcome` of the turn, with which the lease ends, or `ops`.

    `completed`: the turn ended in order (`done`: so did the whole goal). `failed`: with `code` and `message`;
    `retryable` when another try may help. `released`: given back, nothing is held against the run.
    """

    outcome: Annotated[str, StringConstraints(pattern="^(completed|failed|released)$")] | None = None
    done: bool = False
    message: Annotated[str, StringConstraints(max_length=1_000_000)] | None = None
    code: Code = "failed"
    retryable: bool = False
    usage: UsageBody | None = None
