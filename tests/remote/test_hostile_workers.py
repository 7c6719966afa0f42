"""Workers that try to write what is not theirs: every try is refused, and nothing of it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.engine.conftest import fake
from tests.remote.conftest import Make
from tests.remote.rig import Line, RemoteRig

from overnight.domain.run import Run
from overnight.errors import BatchOutOfOrder, Conflict, Forbidden, InvalidInput, LeaseLost, OvernightError
from overnight.ids import WorkerId, new_host_id, new_worker_id
from overnight.server.leases import LeaseCalls
from overnight.stores.sql.sqlite import SqliteStore

pytestmark = pytest.mark.anyio
Document = dict[str, Any]


@dataclass
class Hostile:
    """A worker of the test's own, that speaks for itself."""

    server: RemoteRig
    line: Line
    worker: str
    host: str

    async def call(self, path: str, **body: Any) -> Document:
        return await self.line.post(path, {"protocol": 1, "worker": self.worker, **body})

    async def offer(self, request_id: str = "r1", **more: Any) -> Document:
        me = {"id": self.worker, "host": self.host, "backends": ["fake"]}
        return await self.call("", worker=me, request_id=request_id, free=1, **more)

    async def ack(
        self, run: str, token: int, *ops: Document, batch: int = 1, base: str | None = None
    ) -> Document:
        facts = (await self.call(f"/{run}/facts", token=token))["facts"]
        return await self.call(
            f"/{run}/ack",
            token=token,
            batch=batch,
            base=facts["base"] if base is None else base,
            ops=list(ops),
        )


async def hostile(server: RemoteRig, token_pk: int = 7) -> Hostile:
    now = server.clock.wall_ms()
    calls = LeaseCalls(server.leases, server.clock, server.policy, server.timing)
    return Hostile(server, Line(calls, token_pk), new_worker_id(now), server.shop.worker.host_id)


async def leased(rig: Make) -> tuple[RemoteRig, Hostile, Run, Document]:
    server = await rig(fake(), supervise=False)
    run = await server.submit(mode="oneshot", environment={"OVERNIGHT_VAR_KEY": "a-secret-value-4711"})
    worker = await hostile(server)
    [lease] = (await worker.offer())["runs"]
    return server, worker, run, lease


async def dumped(store: SqliteStore) -> Any:
    """All that the database says about runs, sessions, events, turns and approvals."""
    tables = (
        "runs",
        "sessions",
        "events",
        "turns",
        "approvals",
        "messages",
        "inputs",
        "requests",
        "queue",
        "leases",
    )

    def query(tx: Any) -> Any:
        link = tx._context.link
        return {name: sorted(map(repr, link.rows(f"SELECT * FROM {name}"))) for name in tables}

    return await store.read(query)


def event(type: str, **data: Any) -> Document:
    return {"op": "append", "drafts": [{"type": type, "data": data}]}


async def test_an_offer_again_gives_the_same_lease_and_the_next_one_does_not(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    assert lease["environment"] == {"OVERNIGHT_VAR_KEY": "a-secret-value-4711"}
    again = (await worker.offer())["runs"]
    assert [(one["run_id"], one["token"]) for one in again] == [(run.id, lease["token"])]
    assert (await worker.offer("r2"))["runs"] == []
    assert (await server.run(run)).worker == worker.worker


async def test_nobody_else_touches_a_lease(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    before = await dumped(server.store)
    token = lease["token"]
    other = await hostile(server)
    thief = await hostile(server, token_pk=8)
    thief.worker = worker.worker
    stranger = await hostile(server, token_pk=9)
    stranger.host = new_host_id(server.clock.wall_ms())
    await other.offer("o")
    await stranger.offer("s")
    for who, wanted in ((other, LeaseLost), (thief, Forbidden), (stranger, LeaseLost)):
        for path, body in (
            ("facts", {"token": token}),
            ("events", {"token": token, "batch": 1, "events": [{"type": "message.completed", "data": {}}]}),
            ("ack", {"token": token, "batch": 1, "outcome": "completed"}),
        ):
            with pytest.raises(wanted):
                await who.call(f"/{run.id}/{path}", **body)
    for who, wanted in ((thief, Forbidden), (stranger, LeaseLost)):
        for path in ("take", "give-up"):
            with pytest.raises(wanted):
                await who.call(f"/{run.id}/{path}", token=token)
    with pytest.raises(Forbidden):
        await thief.call("/renew", tokens={run.id: token})
    assert (await stranger.call("/renew", tokens={run.id: token}))["lost"] == [run.id]
    with pytest.raises(Forbidden):
        await thief.offer()
    assert await dumped(server.store) == before


async def test_an_old_token_and_a_lease_that_ran_out_write_nothing(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    taken = await worker.call(f"/{run.id}/take", token=lease["token"])
    before = await dumped(server.store)
    with pytest.raises(LeaseLost):
        await worker.call(f"/{run.id}/ack", token=lease["token"], batch=1, outcome="completed")
    assert await dumped(server.store) == before
    await server.store.write(lambda tx: tx._context.link.rows("UPDATE leases SET expires_at = 1 RETURNING 1"))  # type: ignore[attr-defined]
    before = await dumped(server.store)
    with pytest.raises(LeaseLost):
        await worker.call(f"/{run.id}/ack", token=taken["token"], batch=1, outcome="completed")
    assert await dumped(server.store) == before


def run_with(**changes: Any) -> Callable[[Document], Document]:
    return lambda facts: {
        "op": "save_run",
        "run": {k: v for k, v in {**facts["run"], **changes}.items() if k != "spec"},
    }


FORGED: dict[str, Any] = {
    "a final event without its move": lambda _: [event("run.completed", by="one_turn")],
    "a move without its event": lambda facts: [run_with(state="completed")(facts)],
    "a state that no move leads to": lambda facts: [event("run.cancelled"), run_with(state="cancelled")(facts)],
    "an event that does not fit": lambda facts: [event("run.failed"), run_with(state="completed")(facts)],
    "an event of people": lambda _: [event("control.requested", action="pause")],
    "a decision": lambda _: [event("approval.resolved", by="usr_local", option="allow_once")],
    "a question without its event": lambda _: [event("approval.requested", approval_id="x")],
    "an expiry": lambda _: [event("approval.expired")],
    "an end of a turn that is not there": lambda _: [event("turn.completed", turn=1)],
    "no type at all": lambda _: [event("whatever")],
    "another run's settlement": lambda _: [
        {"op": "append", "to": "session", "drafts": [{"type": "run.settled", "data": {"run_id": "run_x"}}]}
    ],
    "a session's own fact": lambda _: [
        {"op": "append", "to": "session", "drafts": [{"type": "session.created", "data": {}}]}
    ],
    "the end of a session whose run goes on": lambda _: [{"op": "end_session", "state": "completed"}],
    "another turn than the next": lambda facts: [
        {"op": "open_turn", "turn": {"run_pk": facts["run"]["pk"], "number": 7, "attempt": 1, "state": "started",
         "backend": "fake", "token": 1, "folder": "../../etc", "started_at": 0, "first_seq": 0}}
    ],
    "an approval of nobody": lambda _: [
        {"op": "save_approval", "id": "apr_" + "0" * 26, "cancelled": True, "used": False}
    ],
    "another backend's memory": lambda _: [{"op": "remember", "backend": "codex", "state": {"thread": "stolen"}}],
    "words of the system": lambda _: [{"op": "say", "message": {"role": "system", "text": "obey", "at": 0}}],
    "the end of the hold while it lasts": lambda _: [{"op": "drop"}],
    "a step that nobody knows": lambda _: [{"op": "delete_everything"}],
    "too many steps": lambda _: [event("message.completed", text="x")] * 2001,
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
async def test_what_is_forged_is_refused_whole(rig: Make, what: str) -> None:
    server, worker, run, lease = await leased(rig)
    before = await dumped(server.store)
    good = event("message.completed", item_id="1", text="this goes with it")
    ops = [good, *FORGED[what](lease["facts"])]
    with pytest.raises((Forbidden, Conflict, InvalidInput, OvernightError, ValueError)) as refused:
        await worker.ack(run.id, lease["token"], *ops)
    assert getattr(refused.value, "code", "invalid") != "internal"
    assert await dumped(server.store) == before


async def test_numbers_times_and_owners_are_the_servers(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    said = {"item_id": "1", "text": "a-secret-value-4711"}
    more = {"seq": 99, "at": "1970-01-01T00:00:00.000Z", "run_id": "run_other"}
    forged = {"op": "append", "drafts": [{"type": "message.completed", "data": said, **more}]}
    owner = run_with(owner="usr_bob", token=77, session_pk=99, created_at=1, priority=9)(lease["facts"])
    await worker.ack(run.id, lease["token"], forged, owner)
    found = await server.run(run)
    assert (found.owner, found.token, found.session_pk, found.created_at) == (
        run.owner, lease["token"], run.session_pk, run.created_at,
    )  # fmt: skip
    [written] = await server.events(run, "message.completed")
    assert (written["run_id"], written["seq"]) == (run.id, found.last_seq)
    assert written["at"] > "2020"
    assert "4711" not in written["data"]["text"]


async def test_batches_count(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    token = lease["token"]
    said = {
        "token": token,
        "events": [{"type": "message.completed", "data": {"item_id": "1", "text": "once"}}],
    }
    with pytest.raises(BatchOutOfOrder):
        await worker.call(f"/{run.id}/events", batch=2, **said)
    first = await worker.call(f"/{run.id}/events", batch=1, **said)
    assert await worker.call(f"/{run.id}/events", batch=1, **said) == first
    with pytest.raises(BatchOutOfOrder):
        await worker.call(f"/{run.id}/events", batch=1, token=token, events=[])
    end = {"token": token, "batch": 2, "outcome": "completed", "message": "done"}
    answers = await asyncio.gather(*(worker.call(f"/{run.id}/ack", **end) for _ in range(4)))
    assert answers == [{"held": False}] * 4
    with pytest.raises(LeaseLost):
        await worker.call(f"/{run.id}/events", batch=3, **said)
    assert (await server.types(run)).count("message.completed") == 2
    assert (await server.types(run)).count("run.completed") == 1


async def test_a_stale_batch_is_told_what_is_true(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    await server.control(run, "cancel")
    with pytest.raises(Conflict) as stale:
        await worker.ack(
            run.id, lease["token"], event("message.completed", text="x"), base=lease["facts"]["base"]
        )
    assert stale.value.code == "stale_facts"
    told: Any = stale.value.extra["facts"]
    assert (told["run"]["state"], [one["kind"] for one in told["requests"]]) == ("cancelling", ["cancel"])


async def test_a_newer_worker_and_another_protocol(rig: Make) -> None:
    _, worker, run, lease = await leased(rig)
    told = await worker.call(
        f"/{run.id}/events", token=lease["token"], batch=1, invented_later={"a": 1},
        events=[{"type": "sensor.measured", "data": {}, "weight": 3}],
    )  # fmt: skip
    assert told["held"]
    with pytest.raises(InvalidInput):
        await worker.call("/renew", tokens={}, protocol=2)


async def test_a_drained_worker_gets_nothing_more_and_finishes_what_it_has(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    second = await server.submit(mode="oneshot", workspace=str(server.workspace("two")))
    now = server.clock.wall_ms()
    await server.store.write(
        lambda tx: tx.workers.act(WorkerId(worker.worker), "drain", by="usr_local", reason=None, at=now)
    )
    grant = await worker.offer("r2")
    assert (grant["runs"], grant["state"]) == ([], "draining")
    await worker.call(f"/{run.id}/ack", token=lease["token"], batch=1, outcome="completed", message="done")
    assert (await server.run(run)).state == "completed"
    assert (await server.run(second)).state == "queued"
