"""What holds for all that is written: turns, order, no waiting for ever, and texts that Postgres cannot keep."""

import asyncio
from functools import partial
from secrets import token_hex
from typing import Any

import pytest
from tests.stores.acts import get, put, together

from overnight.clock import SystemClock
from overnight.domain.event import Draft, canonical
from overnight.domain.queue_limits import QueueLimits
from overnight.domain.request import Principal
from overnight.domain.rule import MOST_RULE, Rule
from overnight.domain.session import SessionMessage
from overnight.errors import Conflict, DiskFull, NotFound, Unavailable
from overnight.ids import RunId
from overnight.ports.session_tables import SessionFilter
from overnight.ports.tables import RunFilter
from overnight.ports.unit_of_work import Transaction
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import postgres_schema
from overnight.stores.sql.postgres import PostgresStore
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.testing.conformance.approvals import approval_of
from overnight.testing.conformance.stage import Stage
from overnight.testing.services.postgres import PostgresServer

pytestmark = pytest.mark.anyio
CLOCK = SystemClock()


async def test_two_stores_take_turns_without_deadlocks(url: str, postgres_server: PostgresServer) -> None:
    """Units that touch the same rows in opposite orders, in batches, from two processes' stores."""
    stores = [PostgresStore(url, CLOCK, InprocNotifier()) for _ in range(2)]
    for each in stores:
        await each.start()

    def both(names: tuple[str, ...], tx: Transaction) -> int:
        return sum(put(name, tx) for name in names)

    names = ("a", "b", "c")
    await asyncio.gather(
        *(
            each.write(partial(both, order))
            for _ in range(40)
            for each, order in ((stores[0], names), (stores[1], names[::-1]))
        )
    )
    assert [await get(stores[0], name) for name in names] == ["80"] * 3
    found = postgres_server.execute(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert found == [(0,)]
    for each in stores:
        await each.close()


async def test_changes_are_ordered_as_they_are_committed(url: str) -> None:
    """A reader that asks for what is later than the last change that it has seen never misses one."""
    stores = [PostgresStore(url, CLOCK, InprocNotifier()) for _ in range(2)]
    for each in stores:
        await each.start()
    over, seen = asyncio.Event(), list[int]()
    link = PostgresConnections(url).open(writing=False)

    async def watch() -> None:
        while not over.is_set():
            ((value,),) = await asyncio.to_thread(
                link.rows, "SELECT value FROM counters WHERE name = 'change'"
            )
            seen.append(value)

    def unit(tx: Any) -> int:
        from overnight.stores.sql.changes import next_number

        return next_number(tx._context)

    watching = asyncio.ensure_future(watch())
    numbers = await asyncio.gather(*(each.write(unit) for _ in range(100) for each in stores))
    over.set()
    await watching
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + 200))
    assert seen == sorted(seen)
    link.close()
    for each in stores:
        await each.close()


async def test_a_lock_that_somebody_keeps_is_not_waited_for_for_ever(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write(lambda tx: tx._context.link.script("SET lock_timeout = 300"))  # type: ignore[attr-defined]
    holder = PostgresConnections(url).open(writing=True)
    holder.script("SET idle_in_transaction_session_timeout = 0")
    holder.script(postgres_schema.BEGIN)
    with pytest.raises(Unavailable, match="lock timeout"):
        await store.write(partial(put, "a"))
    holder.close()
    assert await store.write(partial(put, "a")) == 1


async def test_what_postgres_cannot_keep(postgres_stage: Stage) -> None:
    """Wherever a NUL comes in, as what an agent said or as what somebody looks for, nothing fails."""
    uow, nul = postgres_stage.uow, "a\0b"
    run = await postgres_stage.run(spec={"labels": {"x": nul}}, environment={"A": nul})
    now = run.created_at

    def say(tx: Transaction) -> None:
        tx.sessions.add_message(run.session_pk, SessionMessage(role="user", text=nul, at=now))
        tx.events.append(run.pk, [Draft(type="output.recorded", data={"text": nul})], now)
        tx.requests.add(run.pk, "steer", {"text": nul}, Principal(owner="o", name=nul), now)
        tx.installation.put(nul, nul)

    await uow.write(say)
    found = await uow.read(lambda tx: tx.sessions.messages(run.session_pk, 5))
    assert [message.text for message in found] == ["a\ufffdb"]
    assert (await uow.read(lambda tx: tx.events.after(run.pk, 1, 5)))[0].body.count(b"a\\u0000b") == 1
    assert await uow.read(lambda tx: tx.installation.get(nul)) == "a\ufffdb"
    assert await uow.read(lambda tx: tx.runs.secret_environment(run.pk)) == {"A": nul}
    (request,) = await uow.read(lambda tx: tx.requests.pending(run.pk))
    assert (request.body, request.actor) == ({"text": nul}, "a\ufffdb")
    for asked, many in (
        (RunFilter(labels={"x": nul}), 1),
        (RunFilter(text=nul), 0),
        (RunFilter(session_id=nul, ids=(nul,), backend=nul, mode=nul, owner=nul), 0),
    ):
        page = await uow.read(lambda tx, asked=asked: tx.runs.page(asked, limit=5))  # type: ignore[misc]
        assert len(page.runs) == many, asked
    assert await uow.read(lambda tx: tx.sessions.page(SessionFilter(owner=nul, text=nul), limit=5)) == ()
    with pytest.raises(NotFound):
        await uow.read(lambda tx: tx.runs.get(RunId(nul), nul))
    with pytest.raises(UnicodeEncodeError):
        await uow.write(lambda tx: tx.installation.put("bad", "\ud800"))
    assert await uow.write(lambda tx: tx.installation.get("bad")) is None


async def test_a_nul_in_what_is_asked_for_by_the_list(postgres_stage: Stage) -> None:
    """Lists go as JSON, where it is written as an escape."""
    run = await postgres_stage.run(spec={"labels": {"team\0": "a\0"}})
    worker = await postgres_stage.worker(places=("root:/a\0b",), labels={"x\0": "y"})
    limits = QueueLimits(labels={("team\0", "a\0"): 1})
    (claimed,) = await postgres_stage.claim(worker, 5, limits=limits)
    assert claimed.pk == run.pk


async def test_the_longest_that_an_index_is_given(postgres_stage: Stage) -> None:
    """None of it can be made shorter, as what stands for itself often can."""
    run = await postgres_stage.run(
        spec={"labels": {f"worker/{token_hex(90)}": token_hex(90) for _ in range(5)}}
    )
    rule = Rule(effect="allow", tool="execute", command=token_hex(MOST_RULE // 2 - 60), exact=True)
    assert MOST_RULE - 100 < len(canonical(rule.to_json())) <= MOST_RULE
    request = f'reply:"{token_hex(100)}"'

    def keep(tx: Transaction) -> None:
        tx.approvals.add(approval_of(run, request=request))
        tx.approvals.add_rule(run.session_pk, rule, approval_pk=1, by="a", at=1)

    await postgres_stage.uow.write(keep)
    assert await postgres_stage.uow.read(lambda tx: tx.approvals.rules(run.session_pk)) == (rule,)


@pytest.mark.parametrize(
    "state, told_as", [("53100", DiskFull), ("58030", Unavailable), ("57014", Unavailable)]
)
async def test_a_server_that_fails_fails_one_unit_alone(
    store: PostgresStore, state: str, told_as: type[Exception]
) -> None:
    """As a full disk, a failing one, and a statement that took too long are said by the server."""

    def fails(tx: Any) -> None:
        put("lost", tx)
        tx._context.link.script(f"DO $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END$$")

    results = await together(store, partial(put, "a"), fails, partial(put, "b"))
    assert (results[0], results[2]) == (1, 1)
    assert type(results[1]) is told_as
    assert [await get(store, name) for name in ("a", "lost", "b")] == ["1", None, "1"]


async def test_numbers_of_a_transaction_that_failed_are_forgotten(url: str) -> None:
    """Others go on counting where the counter stands, so whoever fails has to look there again."""
    stores = [PostgresStore(url, CLOCK, InprocNotifier()) for _ in range(2)]
    for each in stores:
        await each.start()

    def unit(tx: Any, fails: bool = False) -> int:
        from overnight.stores.sql.changes import next_number

        number = next_number(tx._context)
        if fails:
            raise Conflict("no")
        return number

    numbers = list[int]()
    for _ in range(3):
        with pytest.raises(Conflict):
            await stores[0].write(partial(unit, fails=True))
        numbers += [await stores[1].write(unit), await stores[1].write(unit), await stores[0].write(unit)]
    assert numbers == list(range(numbers[0], numbers[0] + 9))
    for each in stores:
        await each.close()
