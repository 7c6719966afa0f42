"""Sessions that are ended, and ways that are cut, at any word: nothing is lost or done twice."""

import asyncio
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from tests.stores.acts import Told, get, pid_of, put, together
from tests.stores.wire import Wire

from overnight.clock import SystemClock
from overnight.errors import OutcomeUnknown, Unavailable
from overnight.ports.unit_of_work import Transaction
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import postgres, postgres_watch, writer
from overnight.stores.sql.postgres import PostgresStore
from overnight.testing.services.postgres import PostgresServer
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
CLOCK = SystemClock()


@pytest.fixture(autouse=True)
def patient_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is taken in, however slow this machine is: so it is known what is in one transaction."""
    monkeypatch.setattr(writer, "BATCH_S", 5.0)


async def test_a_session_that_is_ended_within_a_batch(
    store: PostgresStore, told: Told, postgres_server: PostgresServer
) -> None:
    killed: list[int] = []

    def ends_it(tx: Transaction) -> int:
        if not killed:
            killed.append(pid_of(store))
            put("lost", tx)
            postgres_server.execute(f"SELECT pg_terminate_backend({killed[0]}, 5000)")
        return put("b", tx)

    assert await together(store, partial(put, "a"), ends_it, partial(put, "c")) == [1, 1, 1]
    assert [await get(store, name) for name in ("a", "b", "c", "lost")] == ["1", "1", "1", None]
    assert sorted(told.topics) == ["a", "b", "c"], "each was told once"
    assert pid_of(store) != killed[0]


async def test_a_session_that_is_ended_while_nobody_uses_it(
    store: PostgresStore, postgres_server: PostgresServer
) -> None:
    await get(store, "a")
    postgres_server.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'overnight'"
    )
    assert await store.write(partial(put, "a")) == 1
    assert await get(store, "x") is None


async def test_a_stopped_writer_does_not_keep_the_others_from_writing(store: PostgresStore, url: str) -> None:
    """Its session stands still within a transaction, and is ended; what it had begun is done anew when it goes on."""
    other = PostgresStore(url, CLOCK, InprocNotifier())
    await other.start()
    begun, go_on, times = threading.Event(), threading.Event(), [0]

    def stands_still(tx: Transaction) -> int:
        times[0] += 1
        put("n", tx)
        if times[0] == 1:
            begun.set()
            go_on.wait(60)
        return put("m", tx)

    stopped = asyncio.ensure_future(store.write(stands_still))
    await asyncio.to_thread(begun.wait, 60)
    assert await other.write(partial(put, "n")) == 1
    assert not stopped.done(), "it stands still all the while"
    go_on.set()
    assert await stopped == 1
    assert (times[0], await get(other, "n"), await get(other, "m")) == (2, "2", "1")
    await other.close()


async def test_a_process_that_was_killed_within_a_transaction_leaves_nothing(
    url: str, store: PostgresStore
) -> None:
    script = (
        "import sys\n"
        "from overnight.stores.sql.postgres_connections import PostgresConnections\n"
        "from overnight.stores.sql.postgres_schema import BEGIN\n"
        "link = PostgresConnections(sys.argv[1]).open(writing=True)\n"
        "link.script(BEGIN)\n"
        "link.script(\"INSERT INTO installation VALUES ('half', '1')\")\n"
        "print('begun', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(  # noqa: ASYNC220 -- it is started at once
        [sys.executable, "-c", script, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    await asyncio.to_thread(child.stdout.readline)
    child.kill()
    assert await store.write(partial(put, "a")) == 1
    assert await get(store, "half") is None
    child.wait()
    child.stdin.close()
    child.stdout.close()


@pytest.mark.parametrize("when, times", [("before", 2), ("after", 1)])
async def test_a_wire_that_is_cut_at_the_commit(
    over_wire: PostgresStore, cuttable: Wire, told: Told, when: Any, times: int
) -> None:
    """The server is asked what became of the transaction: nobody hears of a doubt, and nothing is done twice."""
    ran = [0]

    def unit(tx: Transaction) -> int:
        ran[0] += 1
        return put("a", tx)

    await over_wire.write(lambda tx: tx.installation.get("x"))
    cuttable.cut_at(b"COMMIT", when)
    assert await together(over_wire, unit, partial(put, "b")) == [1, 1]
    assert (cuttable.cuts, ran[0]) == (1, times)
    assert [await get(over_wire, name) for name in ("a", "b")] == ["1", "1"]
    assert sorted(told.topics) == ["a", "b"]


@pytest.mark.parametrize("word", [b"BEGIN", b"SAVEPOINT", b"INSERT INTO installation", b"RELEASE"])
async def test_a_wire_that_is_cut_anywhere_else(
    over_wire: PostgresStore, cuttable: Wire, told: Told, word: bytes
) -> None:
    await over_wire.write(lambda tx: tx.installation.get("x"))
    cuttable.cut_at(word, "after")
    assert await together(over_wire, partial(put, "a"), partial(put, "b")) == [1, 1]
    assert cuttable.cuts == 1
    assert [await get(over_wire, name) for name in ("a", "b")] == ["1", "1"]
    assert sorted(told.topics) == ["a", "b"]


async def test_a_server_that_is_away_too_long_is_said_to_be(
    over_wire: PostgresStore, cuttable: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PATIENCE_S", 0.3)
    await get(over_wire, "a")
    cuttable.part()
    results = await asyncio.gather(
        *(over_wire.write(partial(put, "a")) for _ in range(50)),
        *(get(over_wire, "a") for _ in range(5)),
        return_exceptions=True,
    )
    assert {type(result) for result in results} == {Unavailable}
    assert not isinstance(results[0], OutcomeUnknown)
    cuttable.mend()

    async def back() -> int | None:
        with suppress(Unavailable):
            return await over_wire.write(partial(put, "a"))
        return None

    assert await eventually(back) == 1


async def test_a_server_that_falls_silent_is_given_up(
    over_wire: PostgresStore, cuttable: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_watch, "MARGIN_S", 0.2)
    await get(over_wire, "a")
    for connection in over_wire._connections.watch._watched:
        connection.answers_within = 0.1
    cuttable.stall()
    writing, reading = over_wire.write(partial(put, "a")), get(over_wire, "a")
    calls = [asyncio.ensure_future(writing), asyncio.ensure_future(reading)]
    await eventually(
        lambda: not any(each.waiting_since for each in list(over_wire._connections.watch._watched))
    )
    cuttable.mend()
    assert (await calls[0], await calls[1] in {None, "1"}) == (1, True)
    assert await get(over_wire, "a") == "1"


async def test_closing_does_not_wait_for_a_server_that_is_silent(
    postgres_server: PostgresServer, reused: str, url: str, cuttable: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_watch, "LEAVES_S", 0.2)
    address = f"postgresql://overnight@127.0.0.1:{cuttable.port}/{reused}?connect_timeout=2"
    store = PostgresStore(address, CLOCK, InprocNotifier())
    await store.start()
    await get(store, "a")
    cuttable.stall()
    calls = [asyncio.ensure_future(store.write(partial(put, "a"))), asyncio.ensure_future(get(store, "a"))]
    await eventually(
        lambda: any(each.waiting_since is not None for each in store._connections.watch._watched)
    )
    async with asyncio.timeout(60):
        await store.close()
    for call in calls:
        with pytest.raises(Unavailable):
            await call
