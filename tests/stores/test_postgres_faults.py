"""A Postgres that goes away, comes back, throws sessions out, or does not answer: nothing is lost or done twice."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from tests.stores.wire import Wire, wire

from overnight.clock import SystemClock
from overnight.domain.event import Draft
from overnight.domain.request import Principal
from overnight.domain.session import SessionMessage
from overnight.errors import NotFound, OutcomeUnknown, StartRefused, Unavailable, UnsafeDatabase
from overnight.ids import RunId
from overnight.ports.session_tables import SessionFilter
from overnight.ports.tables import RunFilter
from overnight.ports.unit_of_work import Transaction
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import postgres, postgres_schema, postgres_watch, writer
from overnight.stores.sql.postgres import PostgresStore
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.testing.conformance.stage import Stage
from overnight.testing.services.postgres import PostgresServer
from overnight.testing.services.postgres import postgres as start_postgres
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
CLOCK = SystemClock()


class Told(InprocNotifier):
    """Remembers what was published."""

    def __init__(self) -> None:
        super().__init__()
        self.topics: list[str] = []

    def publish(self, notices: Any) -> None:
        self.topics += [notice.topic for notice in notices]


@pytest.fixture
def url(postgres_server: PostgresServer, reused: str) -> str:
    postgres_server.execute("DELETE FROM installation WHERE key NOT LIKE 'schema.%'", reused)
    return postgres_server.url(reused)


@pytest.fixture(autouse=True)
def patient_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is taken in, however slow this machine is: so it is known what is in one transaction."""
    monkeypatch.setattr(writer, "BATCH_S", 5.0)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def store(url: str, told: Told) -> AsyncIterator[PostgresStore]:
    found = PostgresStore(url, CLOCK, told)
    await found.start()
    yield found
    await found.close()


@pytest.fixture
def cuttable(postgres_server: PostgresServer) -> Iterator[Wire]:
    with wire(postgres_server.port) as found:
        yield found


@pytest.fixture
async def over_wire(
    postgres_server: PostgresServer, reused: str, url: str, cuttable: Wire, told: Told
) -> AsyncIterator[PostgresStore]:
    address = f"postgresql://overnight@127.0.0.1:{cuttable.port}/{reused}"
    found = PostgresStore(address, CLOCK, told)
    await found.start()
    yield found
    await found.close()


def put(name: str, tx: Transaction) -> int:
    count = int(tx.installation.get(name) or 0) + 1
    tx.installation.put(name, str(count))
    tx.notify(name)
    return count


async def get(store: PostgresStore, name: str) -> str | None:
    return await store.read(lambda tx: tx.installation.get(name))


async def together(store: PostgresStore, *units: Any) -> list[Any]:
    """All units in one transaction: the first holds it open until the rest have come."""
    gate = threading.Event()
    calls = [asyncio.ensure_future(store.write(unit)) for unit in (lambda _: gate.wait(5), *units)]
    await asyncio.sleep(0)
    gate.set()
    return (await asyncio.gather(*calls, return_exceptions=True))[1:]


def pid_of(store: PostgresStore) -> int:
    return int(store._writer._link.raw.info.backend_pid)  # type: ignore[union-attr]


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
            go_on.wait(20)
        return put("m", tx)

    stopped = asyncio.ensure_future(store.write(stands_still))
    await asyncio.to_thread(begun.wait, 5)
    before = time.monotonic()
    assert await other.write(partial(put, "n")) == 1
    assert time.monotonic() - before < 4
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
    before = time.monotonic()
    assert await store.write(partial(put, "a")) == 1
    assert time.monotonic() - before < 1.5
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


async def test_a_doubt_that_cannot_be_cleared_is_told(
    over_wire: PostgresStore, cuttable: Wire, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_line", lambda link: None)  # a server that does not say which one it is
    over_wire._ground._line = None
    await over_wire.write(lambda tx: tx.installation.get("x"))
    cuttable.cut_at(b"COMMIT", "after")
    results = await together(over_wire, partial(put, "a"), partial(put, "b"))
    assert [type(result) for result in results] == [OutcomeUnknown, OutcomeUnknown]
    assert told.topics == []
    assert await get(over_wire, "a") == "1"


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

    async def back() -> int:
        while True:
            try:
                return await over_wire.write(partial(put, "a"))
            except Unavailable:
                await asyncio.sleep(0.02)

    async with asyncio.timeout(10):
        assert await back() == 1


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
    async with asyncio.timeout(12):
        await store.close()
    for call in calls:
        with pytest.raises(Unavailable):
            await call


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
async def test_a_restart_under_load(
    own: PostgresServer, own_url: str, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged is there once; nobody hears of an error, as the server is back soon."""
    monkeypatch.setattr(postgres, "PATIENCE_S", 60.0)  # however slow this machine is
    stores = [PostgresStore(own_url, CLOCK, InprocNotifier()) for _ in range(2)]
    for each in stores:
        await each.start()
    for n in range(8):
        await stores[0].write(lambda tx, n=n: tx.installation.put(f"{how.name}{n}", "0"))  # type: ignore[misc]
    acknowledged, over = dict.fromkeys(range(8), 0), asyncio.Event()

    async def client(n: int) -> None:
        while not over.is_set():
            said = await stores[n % 2].write(partial(put, f"{how.name}{n}"))
            assert said == acknowledged[n] + 1, "nothing is lost, nothing is done twice"
            acknowledged[n] = said

    clients = [asyncio.ensure_future(client(n)) for n in range(8)]
    await eventually(lambda: min(acknowledged.values()) >= 3)
    await asyncio.to_thread(own.restart, how)
    then = dict(acknowledged)
    await eventually(
        lambda: any(c.done() for c in clients) or all(acknowledged[n] > then[n] + 3 for n in then)
    )
    over.set()
    await asyncio.gather(*clients)
    assert {n: await get(stores[0], f"{how.name}{n}") for n in range(8)} == {
        n: str(count) for n, count in acknowledged.items()
    }
    for each in stores:
        await each.close()


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

        return next_number(tx._context.link)

    watching = asyncio.ensure_future(watch())
    numbers = await asyncio.gather(*(each.write(unit) for _ in range(100) for each in stores))
    over.set()
    await watching
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + 200))
    assert seen == sorted(seen)
    link.close()
    for each in stores:
        await each.close()


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    """A server of this module alone, which may be hurt."""
    with start_postgres({"max_connections": "12", "superuser_reserved_connections": "3"}) as server:
        hba = server.data / "pg_hba.conf"
        hba.write_text("host all locked 127.0.0.1/32 scram-sha-256\n" + hba.read_text("utf-8"), "utf-8")
        server.execute("CREATE ROLE locked LOGIN PASSWORD 's3cr3t-word'")
        server.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture(scope="module")
def own_url(own: PostgresServer) -> str:
    found = own.url(own.fresh())
    postgres_schema.prepare(PostgresConnections(found))
    return found


async def refused(url: str) -> StartRefused:
    store = PostgresStore(url, CLOCK, InprocNotifier())
    with pytest.raises(StartRefused) as caught:
        await store.start()
    await store.close()
    return caught.value


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://locked:wr0ng-pass@127.0.0.1:{port}/postgres",
        "postgresql://locked@127.0.0.1:{port}/postgres?password=wr0ng-pass",
        "postgresql://locked:wr0ng-pass@127.0.0.1:{port}/nowhere",
        "postgresql://locked:wr0ng-pass@127.0.0.1:{port}/postgres?sslmode=verify-full",
        "postgresql://locked:wr0ng-pass@127.0.0.1:1/postgres",
        "postgresql://locked:wr0ng-pass@nowhere.invalid:{port}/postgres",
        "postgresql://locked:wr0ng-pass/more@127.0.0.1:{port}/postgres",
        "postgresql://locked:more@wr0ng-pass@127.0.0.1:{port}/postgres",
        "postgresql://locked:wr0ng-pass@127.0.0.1:{port}/postgres?unknown=1",
        "host=127.0.0.1 port={port} user=locked password='wr0ng-pass' dbname=postgres",
    ],
)
async def test_an_address_that_will_not_do_is_refused_without_its_password(
    own: PostgresServer, address: str
) -> None:
    error = await refused(address.format(port=own.port))
    told = "".join(traceback.format_exception(error)) + repr(error) + str(error.extra)
    assert "wr0ng-pass" not in told
    assert "127.0.0.1" in told or "address" in told or "nowhere" in told


async def test_the_right_password_opens(own: PostgresServer) -> None:
    own.execute("CREATE DATABASE theirs OWNER locked")
    store = PostgresStore(
        f"postgresql://locked:s3cr3t-word@127.0.0.1:{own.port}/theirs", CLOCK, InprocNotifier()
    )
    await store.start()
    assert await store.write(partial(put, "a")) == 1
    await store.close()


async def test_all_connections_taken(own: PostgresServer, own_url: str) -> None:
    own.execute("CREATE ROLE plain LOGIN; GRANT ALL ON DATABASE postgres TO plain")
    taken = [
        PostgresConnections(own.url().replace("overnight@", "plain@", 1)).open(writing=False)
        for _ in range(9)
    ]
    error = await refused(own.url().replace("overnight@", "plain@", 1))
    assert "connection" in str(error)
    for link in taken:
        link.close()


async def test_a_database_that_only_reads_is_not_written_to(own: PostgresServer) -> None:
    name = own.fresh()
    own.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "read-only" in str(await refused(own.url(name)))


async def test_another_encoding_is_refused(own: PostgresServer) -> None:
    name = own.fresh("ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0")
    error = await refused(own.url(name))
    assert isinstance(error, UnsafeDatabase)
    assert "LATIN1" in str(error)


async def test_a_store_that_loses_what_it_commits_is_told_otherwise(own: PostgresServer) -> None:
    name = own.fresh()
    own.execute(
        f"ALTER DATABASE {name} SET synchronous_commit = off; ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'"
    )
    store = PostgresStore(own.url(name), CLOCK, InprocNotifier())
    await store.start()
    rows = await store.write(lambda tx: tx._context.link.rows("SELECT current_setting('synchronous_commit')"))  # type: ignore[attr-defined]
    assert rows == [("on",)]
    await store.close()


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
