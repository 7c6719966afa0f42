"""The port to the one database: units of work are plain synchronous functions of a transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from overnight.ports.approval_tables import ApprovalTable
from overnight.ports.remote import RemoteTable
from overnight.ports.session_tables import KeyTable, QueueTable, SessionTable, ShareTable
from overnight.ports.tables import (
    ConnectionTable,
    EventLog,
    Installation,
    LeaseTable,
    RequestTable,
    RunTable,
    TokenTable,
    TurnTable,
)
from overnight.ports.worker_tables import WorkerTable

if TYPE_CHECKING:
    # A worker elsewhere has no account of model calls, and would carry the shapes of all of a model's words about.
    from overnight.ports.model_ledger import ModelCallTable

T = TypeVar("T")


class Transaction(Protocol):
    """One consistent view. Valid only inside the unit that it was given to; never keep it."""

    @property
    def runs(self) -> RunTable:
        """Runs."""
        ...

    @property
    def leases(self) -> LeaseTable:
        """Exclusive rights to advance runs."""
        ...

    @property
    def turns(self) -> TurnTable:
        """Turns and their stdin messages."""
        ...

    @property
    def events(self) -> EventLog:
        """The log of every stream."""
        ...

    @property
    def requests(self) -> RequestTable:
        """What people ask of runs."""
        ...

    @property
    def sessions(self) -> SessionTable:
        """Sessions and their histories."""
        ...

    @property
    def queue(self) -> QueueTable:
        """Messages that wait for their turn."""
        ...

    @property
    def keys(self) -> KeyTable:
        """Idempotency-Keys of sessions."""
        ...

    @property
    def shares(self) -> ShareTable:
        """To whom sessions are open."""
        ...

    @property
    def approvals(self) -> ApprovalTable:
        """Questions to people."""
        ...

    @property
    def connections(self) -> ConnectionTable:
        """Who is connected."""
        ...

    @property
    def tokens(self) -> TokenTable:
        """Access tokens."""
        ...

    @property
    def workers(self) -> WorkerTable:
        """Workers and cached preflights."""
        ...

    @property
    def remote(self) -> RemoteTable:
        """Workers that have no database."""
        ...

    @property
    def model_calls(self) -> ModelCallTable:
        """What runs have asked of language models."""
        ...

    @property
    def installation(self) -> Installation:
        """Single facts and housekeeping."""
        ...

    def notify(self, topic: str) -> None:
        """Wake the listeners of `topic` once this transaction is committed."""
        ...


Unit = Callable[[Transaction], T]


class UnitOfWork(Protocol):
    """Runs units against the database.

    A writing unit runs in a savepoint of a shared transaction: its failure rolls back only itself. Its result and
    its notices are released only after COMMIT. It contains SQL and domain code only, takes at most about 5 ms, and
    may be run again. A failed COMMIT fails all its units with `OutcomeUnknown`.
    """

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        """Run `unit` durably; `urgent` ones (renewals) go before all that wait.

        Raises what the unit raises, `OutcomeUnknown`, or `DiskFull`. If the caller is cancelled meanwhile, the unit
        may still take place.
        """
        ...

    async def read(self, query: Unit[T]) -> T:
        """Run a reading `query` on a snapshot of its own, beside the writer."""
        ...


class Store(UnitOfWork, Protocol):
    """A unit of work with a beginning and an end: one database, as a process holds it."""

    async def start(self) -> None:
        """Begin, on the loop that will use it. Raises StartRefused (or one beneath it) when that cannot be."""
        ...

    async def close(self) -> None:
        """Carry out what waits, then let go of the database; idempotent."""
        ...

    def free_bytes(self) -> int:
        """Room that is left where the facts and files lie; new work is refused below the operator's reserve."""
        ...
