"""A transaction that reads facts which the server has told, and writes down what is done instead of doing it.

It offers what carrying out a run needs of `ports.unit_of_work.Transaction`, and nothing else: another table, or
another method, is a fault of ours and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Never

from overnight.client.worker.session_tables import RemoteApprovals, RemoteQueue, RemoteSessions
from overnight.client.worker.stage import Stage
from overnight.clock import Clock
from overnight.domain.backend import BackendCheck
from overnight.domain.event import Draft, Recorded
from overnight.domain.lease import Lease
from overnight.domain.request import Request
from overnight.domain.run import Position, Run, Turn
from overnight.domain.states import HELD
from overnight.errors import Conflict, NotFound, OvernightError
from overnight.ids import HostId, RunId
from overnight.ports.notifier import QUEUE
from overnight.ports.remote import (
    AddInput,
    Advance,
    Append,
    Ask,
    Drop,
    OpenTurn,
    Place,
    SaveRun,
    SaveTurn,
    Settle,
)


class RemoteTransaction:
    """See the module. Valid only inside the unit that it was given to."""

    def __init__(self, stage: Stage, clock: Clock) -> None:
        self.stage = stage
        self.runs = _Runs(stage)
        self.leases = _Leases(stage, clock)
        self.turns = _Turns(stage)
        self.events = _Events(stage)
        self.requests = _Requests(stage)
        self.sessions = RemoteSessions(stage)
        self.queue = RemoteQueue(stage)
        self.approvals = RemoteApprovals(stage)
        self.workers = _Workers(stage)

    def notify(self, topic: str) -> None:
        """See the port: the queue is woken everywhere, any other topic here."""
        self.stage.wake |= topic == QUEUE
        self.stage.topics.append(topic)

    def __getattr__(self, name: str) -> Never:
        raise OvernightError(f"a worker without a database has no table {name!r}")


class _Runs:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def lock(self, pk: int) -> Run:
        self._stage.about(pk)
        return self._stage.run

    def get(self, run_id: RunId, owner: str | None) -> Run:  # noqa: ARG002 -- as the port names it
        self._stage.about(run_id)
        return self._stage.run

    def save(self, run: Run) -> Run:
        self._stage.about(run.pk)
        self._stage.ops.append(SaveRun(run=run))
        self._stage.run = replace(run, last_seq=self._stage.run.last_seq)
        return self._stage.run

    def secret_environment(self, pk: int) -> dict[str, str]:
        self._stage.about(pk)
        return dict(self._stage.environment)

    def set_workspace(self, pk: int, path: str, chain: tuple[str, ...]) -> bool:
        self._stage.about(pk)
        # Who holds a run no more locks nothing: the place is where it will wait, and any is free for that.
        free = self._stage.place_free or self._stage.run.state not in HELD
        self._stage.ops.append(Place(path=path, chain=chain, free=free))
        if free:
            self._stage.run = replace(self._stage.run, workspace=path)
        return free


class _Leases:
    def __init__(self, stage: Stage, clock: Clock) -> None:
        self._stage = stage
        self._clock = clock

    def check(self, lease: Lease) -> Run:
        self._stage.about(lease.run_pk)
        lease.check(self._clock.boot(), self._stage.run.token)
        return self._stage.run

    def drop(self, pk: int) -> None:
        self._stage.about(pk)
        self._stage.ops.append(Drop())


class _Turns:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def open(self, turn: Turn) -> None:
        self._stage.about(turn.run_pk)
        self._stage.ops.append(OpenTurn(turn=turn))
        self._stage.turn = turn

    def save(self, turn: Turn) -> None:
        self._stage.about(turn.run_pk)
        self._stage.ops.append(SaveTurn(turn=turn))
        self._stage.turn = turn

    def last(self, run_pk: int) -> Turn | None:
        self._stage.about(run_pk)
        return self._stage.turn

    def get(self, run_pk: int, number: int) -> Turn:
        self._stage.about(run_pk)
        if self._stage.turn is not None and self._stage.turn.number == number:
            return self._stage.turn
        found = self._stage.asked(Ask(what="turn", number=number))
        if not isinstance(found, Turn):
            raise NotFound(f"the run has no turn {number}")
        return found

    def advance(self, run_pk: int, number: int, attempt: int, position: Position, items: int) -> None:
        turn = self.last(run_pk)
        if turn is None or (turn.number, turn.attempt) != (number, attempt):
            raise NotFound(f"run {run_pk} has no such attempt at turn {number}")
        self._stage.ops.append(Advance(position=position, items=items))
        self._stage.turn = replace(turn, position=position, items=turn.items + items)

    def add_input(self, run_pk: int, number: int, attempt: int, n: int, data: bytes) -> None:
        turn = self.last(run_pk)
        if turn is None or (turn.number, turn.attempt) != (number, attempt):
            raise Conflict("that turn is not in progress")
        self._stage.ops.append(AddInput(n=n, data=data))

    def inputs(self, run_pk: int, number: int, attempt: int, after: int) -> tuple[tuple[int, bytes], ...]:
        self._stage.about(run_pk)
        found: Any = self._stage.asked(Ask(what="inputs", number=number, attempt=attempt, after=after))
        return tuple(found)


class _Events:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def append(self, stream_pk: int, drafts: Sequence[Draft], at: int) -> tuple[Recorded, ...]:  # noqa: ARG002
        """The numbers are those that the server will give, if nothing has changed meanwhile; the bodies are its."""
        stage = self._stage
        if stream_pk == stage.session.pk:
            stage.ops.append(Append(drafts=tuple(drafts), to="session"))
            return ()
        stage.about(stream_pk)
        if not drafts:
            return ()
        stage.ops.append(Append(drafts=tuple(drafts)))
        first = stage.run.last_seq + 1
        recorded = tuple(Recorded(seq, draft.type, b"{}") for seq, draft in enumerate(drafts, first))
        stage.run = replace(stage.run, last_seq=recorded[-1].seq)
        return recorded

    def select(
        self, stream_pk: int, *, after: int | None, before: int | None, descending: bool, types: tuple[str, ...],
        turn: int | None, limit: int,
    ) -> tuple[Recorded, ...]:  # fmt: skip
        self._stage.about(stream_pk)
        ask = Ask(
            what="events",
            after=after,
            before=before,
            descending=descending,
            types=types,
            number=turn,
            limit=limit,
        )
        found: Any = self._stage.asked(ask)
        return tuple(found)


class _Requests:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def pending(self, run_pk: int) -> tuple[Request, ...]:
        self._stage.about(run_pk)
        return self._stage.requests

    def settle(self, pk: int, outcome: str, at: int) -> None:  # noqa: ARG002 -- the server's time counts
        self._stage.ops.append(Settle(request=pk, outcome=outcome))
        self._stage.requests = tuple(one for one in self._stage.requests if one.pk != pk)


class _Workers:
    """Preflights: told with the next offer."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def save_check(self, host_id: HostId, check: BackendCheck) -> None:  # noqa: ARG002 -- it is this worker's
        self._stage.checks[check.name] = check

    def checks(self, host_id: HostId | None) -> tuple[BackendCheck, ...]:  # noqa: ARG002 -- the same
        return ()
