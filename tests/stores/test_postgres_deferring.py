"""Units on Postgres wait for nothing that they do not read: each still hears of its own failure, and of no other's."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import bindparam, insert

from overnight.clock import SystemClock
from overnight.errors import LeaseLost, NotFound, Unavailable
from overnight.ports.unit_of_work import Transaction
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import writer
from overnight.stores.sql.postgres import PostgresStore
from overnight.stores.sql.schema import installation
from overnight.stores.sql.statements import Statement
from overnight.testing.services.postgres import PostgresServer

pytestmark = pytest.mark.anyio
ADD = Statement(insert(installation).values(key=bindparam("key"), value=bindparam("value")))


@pytest.fixture
async def store(
    postgres_server: PostgresServer, reused: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresStore]:
    monkeypatch.setattr(writer, "BATCH_S", 5.0)
    postgres_server.execute("DELETE FROM installation WHERE key NOT LIKE 'schema.%'", reused)
    found = PostgresStore(postgres_server.url(reused), SystemClock(), InprocNotifier())
    await found.start()
    yield found
    await found.close()


async def together(store: PostgresStore, *units: Any) -> list[Any]:
    """All units in one transaction: the first holds it open until the rest have come."""
    gate = threading.Event()
    calls = [asyncio.ensure_future(store.write(unit)) for unit in (lambda _: gate.wait(60), *units)]
    await asyncio.sleep(0)
    gate.set()
    return (await asyncio.gather(*calls, return_exceptions=True))[1:]


def telling(name: str, result: object = None) -> Any:
    """Adds a row without waiting for it; twice the same name is refused by the database."""

    def unit(tx: Any) -> object:
        tx._context.link.tell(ADD, key=name, value="1")
        if isinstance(result, Exception):
            raise result
        return result

    return unit


async def kept(store: PostgresStore, *names: str) -> list[bool]:
    return [await store.read(lambda tx, n=name: tx.installation.get(n)) is not None for name in names]  # type: ignore[misc]


async def test_whoever_told_what_is_refused_hears_of_it_alone(store: PostgresStore) -> None:
    await store.write(telling("old"))
    found = await together(
        store, telling("a", "first"), telling("old"), telling("b", "second"), lambda tx: tx.runs.last_change()
    )
    assert found[0] == "first"
    assert found[1] is not None
    assert isinstance(found[1], Exception)
    assert not isinstance(found[1], (Unavailable, NotFound))
    assert found[2] == "second"
    assert isinstance(found[3], int)
    assert await kept(store, "a", "b") == [True, True]


async def test_a_refusal_within_a_unit_undoes_what_it_told_alone(store: PostgresStore) -> None:
    found = await together(
        store, telling("c", "kept"), telling("d", LeaseLost("not yours")), telling("e", "kept, too")
    )
    assert (found[0], type(found[1]), found[2]) == ("kept", LeaseLost, "kept, too")
    assert await kept(store, "c", "d", "e") == [True, False, True]


async def test_what_is_missing_is_said_at_the_end_of_its_unit(store: PostgresStore) -> None:
    def touching(tx: Transaction) -> None:
        tx.installation.put("f", "1")
        tx.sessions.touch(4711, 5)

    found = await together(store, telling("g", 1), touching, telling("h", 2))
    assert (found[0], type(found[1]), found[2]) == (1, NotFound, 2)
    assert await kept(store, "f", "g", "h") == [False, True, True]


async def test_no_doubt_of_a_unit_that_failed_is_left_to_the_next(store: PostgresStore) -> None:
    def both(tx: Transaction) -> None:
        tx.sessions.touch(4711, 5)
        raise LeaseLost("meanwhile")

    found = await together(store, both, telling("i", "fine"))
    assert (type(found[0]), found[1]) == (NotFound, "fine"), "what went wrong first is said"


async def test_what_was_told_is_seen_by_what_is_read_after_it(store: PostgresStore) -> None:
    def unit(tx: Any) -> object:
        tx._context.link.tell(ADD, key="j", value="told")
        return tx.installation.get("j")

    assert await together(store, unit) == ["told"]


async def test_a_query_that_is_put_together_joins_in(store: PostgresStore) -> None:
    def unit(tx: Any) -> object:
        tx._context.link.tell(ADD, key="k", value="1")
        tx.sessions.touch(4711, 5)
        return tx.leases.held()

    found = await together(store, telling("l", 1), unit, telling("m", 2))
    assert (found[0], type(found[1]), found[2]) == (1, NotFound, 2)
    assert await kept(store, "k", "l", "m") == [False, True, True]


async def test_a_single_unit_that_is_refused_keeps_the_store_usable(store: PostgresStore) -> None:
    await store.write(telling("n"))
    with pytest.raises(Exception, match="duplicate"):
        await store.write(telling("n"))
    assert await store.write(lambda tx: tx.installation.get("n")) == "1"


async def test_a_unit_that_stands_still_after_it_told_is_thrown_out_and_run_again(
    store: PostgresStore,
) -> None:
    """Whoever is stopped there holds the lock that all writers need: the server lets go of it after two seconds."""
    ran: list[int] = []

    def unit(tx: Any) -> str | None:
        ran.append(1)
        tx._context.link.tell(ADD, key="o", value="1")
        if len(ran) == 1:
            threading.Event().wait(3.0)
        found: str | None = tx.installation.get("o")
        return found

    assert await store.write(unit) == "1"
    assert len(ran) == 2
