"""The lease routes without their framework: bodies in, documents out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, cast

from overnight.clock import Clock
from overnight.domain.event import Draft
from overnight.domain.json_values import Unfit, dump
from overnight.domain.placement import at_root
from overnight.domain.run import Position, Run
from overnight.domain.values import Usage
from overnight.domain.worker import Worker
from overnight.engine.policy import RunPolicy, Timing
from overnight.engine.remote import plain
from overnight.engine.remote.seats import Caller
from overnight.engine.remote.service import LeaseService
from overnight.engine.settlement import Rules
from overnight.errors import InvalidInput, StaleFacts
from overnight.ids import HostId, RunId, WorkerId, check_id
from overnight.ports.remote import Batch, Facts, Fragment, Op, Report, Seat, is_progress
from overnight.ports.unit_of_work import Transaction
from overnight.wire.v1 import lease_bodies as bodies
from overnight.wire.v1 import leases as wire

Document = dict[str, Any]
_GREATEST: Final = 1 << 53


class LeaseCalls:
    """One method a route; `token_pk` is the access token that the gate has checked."""

    def __init__(self, service: LeaseService, clock: Clock, policy: RunPolicy, timing: Timing) -> None:
        self._service = service
        self._clock = clock
        self._policy = policy
        self._rules = Rules(policy=policy, timing=timing)

    def close(self) -> None:
        """Answer all who wait."""
        self._service.close()

    async def grant(self, token_pk: int, body: bodies.OfferBody) -> Document:
        """Lease runs."""
        worker = self._worker(body.protocol, body.worker)
        caller = Caller(worker_id=worker.id, token_pk=token_pk)
        checks = _valid(lambda: wire.checks_of(body.checks))
        report = Report(well=body.well, faults=tuple(body.faults))
        grant = await self._service.grant(
            caller, worker, body.free, body.request_id, checks, body.wait_s, report, body.lease_s
        )
        return wire.grant_document(grant)

    async def succeed(self, token_pk: int, body: bodies.SeatBody) -> Document:
        """A worker begins on its host; what earlier ones hold there."""
        worker = self._worker(body.protocol, body.worker)
        runs = await self._service.succeed(Caller(worker_id=worker.id, token_pk=token_pk), worker)
        return {"runs": [wire.run_document(run, spec=True) for run in runs]}

    async def leave(self, token_pk: int, body: bodies.Call) -> Document:
        """A worker ends."""
        await self._service.leave(_caller(token_pk, body))
        return {}

    async def renew(self, token_pk: int, body: bodies.RenewBody) -> Document:
        """Renew many."""
        renewal = await self._service.renew(_caller(token_pk, body), _tokens(body.tokens), body.lease_s)
        return cast("Document", dump(renewal))

    async def renew_one(self, token_pk: int, run_id: str, body: bodies.RenewOneBody) -> Document:
        """Renew one."""
        renewal = await self._service.renew(
            _caller(token_pk, body), {RunId(run_id): body.token}, body.lease_s
        )
        return cast("Document", dump(renewal))

    async def watch(self, token_pk: int, body: bodies.WatchBody) -> Document:
        """Wait for news."""
        news = await self._service.watch(
            _caller(token_pk, body),
            _tokens(body.tokens),
            _tokens(body.seen),
            wait_s=body.wait_s,
            work=body.work,
        )
        return cast("Document", dump(news))

    async def requests(self, token_pk: int, run_id: str, body: bodies.WatchBody) -> Document:
        """Pending requests to one run, newer ones than were seen."""
        caller = _caller(token_pk, body)
        news = await self._service.watch(
            caller, _tokens(body.tokens), _tokens(body.seen), wait_s=body.wait_s, work=False
        )
        if news.lost:
            return {"held": False, "requests": []}
        facts, _ = await self._service.facts(caller, RunId(run_id), body.tokens[run_id], ())
        found = _plain_answer(facts)
        newer = [one for one in found["requests"] if one["id"] > body.seen[run_id]]
        return {"held": True, "state": found["state"], "requests": newer}

    async def hand_over(self, token_pk: int, body: bodies.TokensBody) -> Document:
        """The agents are left to the next worker of the host."""
        await self._service.hand_over(_caller(token_pk, body), _tokens(body.tokens))
        return {}

    async def take(self, token_pk: int, run_id: str, body: bodies.RenewOneBody) -> Document:
        """Take over."""
        granted = await self._service.take(_caller(token_pk, body), RunId(run_id), body.token, body.lease_s)
        return wire.granted_document(granted)

    async def look(self, token_pk: int, run_id: str, body: bodies.Call) -> Document:
        """A run of the caller's host."""
        run = await self._service.look(_caller(token_pk, body), RunId(run_id))
        return {"run": wire.run_document(run, spec=True)}

    async def facts(self, token_pk: int, run_id: str, body: bodies.FactsBody) -> Document:
        """Facts, and answers."""
        asks = _valid(lambda: wire.asks_of(body.asks))
        facts, answers = await self._service.facts(_caller(token_pk, body), RunId(run_id), body.token, asks)
        return {
            "facts": wire.facts_document(facts, spec=False),
            "answers": wire.answers_document({ask: answers[ask] for ask in asks}),
        }

    async def events(self, token_pk: int, run_id: str, body: bodies.EventsBody) -> Document:
        """Progress."""
        caller = _caller(token_pk, body)
        if body.of_engine:
            if body.events or body.cursor is not None or body.after_seq is not None:
                raise InvalidInput("a report has either events or ops")
            batch = await self._batch(caller, run_id, body)
            if not is_progress(batch.ops):
                raise InvalidInput("only progress goes here", mend="send transitions to /ack")
            return await self._send(caller, run_id, batch)
        drafts = [Draft(type=event.type, data=event.data) for event in body.events]
        at = Position(stdout=body.cursor.stdout, stderr=body.cursor.stderr) if body.cursor else None

        def apply(tx: Transaction, run: Run, _seat: Seat) -> None:
            if body.after_seq is not None and body.after_seq != run.last_seq:
                raise StaleFacts(f"the run's last event is {run.last_seq}", extra={"last_seq": run.last_seq})
            redactor = self._service.redactor(tx, run)
            plain.report(tx, run, drafts, at, redactor, self._clock.wall_ms())

        facts = await self._service.send(caller, RunId(run_id), _empty(body), apply)
        return _plain_answer(facts)

    async def ack(self, token_pk: int, run_id: str, body: bodies.AckBody) -> Document:
        """A transition."""
        caller = _caller(token_pk, body)
        if (body.outcome is None) != body.of_engine:
            raise InvalidInput("a turn ends with either an outcome or ops")
        if body.of_engine:
            return await self._send(caller, run_id, await self._batch(caller, run_id, body))
        outcome = plain.Outcome(
            outcome=cast("Any", body.outcome), done=body.done, message=body.message, code=body.code,
            retryable=body.retryable, usage=Usage(**body.usage.model_dump()) if body.usage else None,
        )  # fmt: skip

        def apply(tx: Transaction, run: Run, _seat: Seat) -> None:
            redactor = self._service.redactor(tx, run)
            plain.acknowledge(tx, run, outcome, self._rules, redactor, self._clock.wall_ms())

        return _plain_answer(await self._service.send(caller, RunId(run_id), _empty(body), apply))

    async def show(self, token_pk: int, body: bodies.ShowBody) -> Document:
        """Text for live display."""
        fragments = [Fragment(**{**one.model_dump(), "run_id": RunId(one.run_id)}) for one in body.fragments]
        return {"shown": await self._service.show(_caller(token_pk, body), fragments)}

    async def give_up(self, token_pk: int, run_id: str, body: bodies.GiveUpBody) -> Document:
        """End a run that cannot be carried out there."""
        await self._service.give_up(
            _caller(token_pk, body), RunId(run_id), body.token, body.code, body.message
        )
        return {}

    async def _batch(self, caller: Caller, run_id: str, body: bodies.BatchBody) -> Batch:
        spec = await self._service.spec(caller, RunId(run_id))
        ops: Sequence[Op] = _valid(lambda: wire.ops_of(body.ops, spec))
        return replace(_empty(body), ops=tuple(ops), base=body.base, wake=body.wake)

    async def _send(self, caller: Caller, run_id: str, batch: Batch) -> Document:
        try:
            facts = await self._service.send(caller, RunId(run_id), batch)
        except StaleFacts as stale:
            true = cast("Facts", stale.facts)
            stale.extra |= {"facts": wire.facts_document(true, spec=False), "place_free": stale.place_free}
            raise
        told = None if facts is None else wire.facts_document(facts, spec=False)
        return {**_plain_answer(facts), "facts": told}

    def _worker(self, protocol: int, body: bodies.WorkerBody) -> Worker:
        _check_protocol(protocol)
        now = self._clock.wall_ms()
        return Worker(
            pk=0, id=WorkerId(check_id("wrk", body.id)), host_id=HostId(check_id("hst", body.host)),
            host_name=body.name, pid=body.pid, version=body.version, slots=body.slots,
            backends=tuple(body.backends), labels=body.labels, places=tuple(map(at_root, body.roots)),
            started_at=now, seen_at=now,
        )  # fmt: skip


def _caller(token_pk: int, body: bodies.Call) -> Caller:
    _check_protocol(body.protocol)
    return Caller(worker_id=WorkerId(body.worker), token_pk=token_pk)


def _check_protocol(protocol: int) -> None:
    if protocol != wire.PROTOCOL:
        raise InvalidInput(
            f"this server speaks protocol {wire.PROTOCOL}, not {protocol}",
            mend="upgrade the older of the two",
        )


def _tokens(given: dict[str, int]) -> dict[RunId, int]:
    return {RunId(run_id): token for run_id, token in given.items()}


def _empty(body: bodies.BatchBody) -> Batch:
    return Batch(token=body.token, n=body.batch, base="", ops=(), digest=body.digest)


def _plain_answer(facts: Facts | None) -> Document:
    """For workers of any kind: where the run stands, and what people ask of it. None: the lease has ended."""
    if facts is None:
        return {"held": False}
    run = facts.run
    asked = [{"id": one.pk, "kind": one.kind, "body": dict(one.body)} for one in facts.requests]
    return {
        "held": True,
        "state": run.state.value,
        "turn": run.turn,
        "last_seq": run.last_seq,
        "requests": asked,
    }


def _valid(made: Any) -> Any:
    try:
        return made()
    except Unfit as unfit:
        raise InvalidInput(str(unfit)) from None
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f"a step cannot be read: {error}") from None
