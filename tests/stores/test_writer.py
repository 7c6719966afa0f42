"""The group commit, where it is hard: when the shared transaction is lost, and when a commit fails."""

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from overnight.clock import SystemClock
from overnight.errors import Conflict, DiskFull, OutcomeUnknown, Unavailable
from overnight.ports.unit_of_work import Transaction
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import writer
from overnight.stores.sql.library import driver
from overnight.stores.sql.sqlite import SqliteStore
from overnight.stores.sql.sqlite_link import SqliteLink
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


class Told(InprocNotifier):
    """Remembers what was published."""

    def __init__(self) -> None:
        super().__init__()
        self.topics: list[str] = []

    def publish(self, notices: Any) -> None:
        self.topics += [notice.topic for notice in notices]


@pytest.fixture(autouse=True)
def patient_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is taken in, however slow this machine is: so it is known what is in one transaction."""
    monkeypatch.setattr(writer, "BATCH_S", 5.0)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def store(tmp_path: Path, told: Told) -> AsyncIterator[SqliteStore]:
    found = SqliteStore(tmp_path / "overnight.db", SystemClock(), told)
    await found.start()
    yield found
    await found.close()


def failure(name: str, code: int) -> Exception:
    """What the library raises for such a failure."""
    error: Exception = driver().OperationalError(name)
    vars(error).update(sqlite_errorname=name, sqlite_errorcode=code)
    return error


async def together(store: SqliteStore, *units: Any) -> list[Any]:
    """All units in one transaction: the first holds it open until the rest have come."""
    gate = threading.Event()
    calls = [asyncio.ensure_future(store.write(unit)) for unit in (lambda _: gate.wait(60), *units)]
    await asyncio.sleep(0)
    gate.set()
    return (await asyncio.gather(*calls, return_exceptions=True))[1:]


def put(name: str, tx: Transaction) -> str:
    count = int(tx.installation.get(name) or 0)
    tx.installation.put(name, str(count + 1))
    tx.notify(name)
    return name


async def get(store: SqliteStore, name: str) -> str | None:
    return await store.read(lambda tx: tx.installation.get(name))


async def test_a_lost_transaction_is_done_again_unit_by_unit(store: SqliteStore, told: Told) -> None:
    def loses_it(tx: Any) -> None:
        tx.installation.put("lost", "1")
        tx.notify("lost")
        tx._context.link.script("ROLLBACK")
        raise failure("SQLITE_FULL", 13)

    results = await together(store, partial(put, "a"), loses_it, partial(put, "b"))
    assert isinstance(results[1], DiskFull)
    assert (results[0], results[2]) == ("a", "b")
    assert [await get(store, name) for name in ("a", "lost", "b")] == ["1", None, "1"]
    assert sorted(told.topics) == ["a", "b"], "each was told once"


async def test_other_disk_failures_are_not_called_a_full_disk(store: SqliteStore) -> None:
    def fails(_: Transaction) -> None:
        raise failure("SQLITE_IOERR_READ", 266)

    results = await together(store, fails, partial(put, "a"))
    assert type(results[0]) is Unavailable
    assert results[1] == "a"


async def test_a_unit_that_breaks_the_savepoint_hurts_nobody_else(store: SqliteStore) -> None:
    def breaks(tx: Any) -> None:
        tx._context.link.script("ROLLBACK")
        raise Conflict("broken")

    results = await together(store, partial(put, "a"), breaks, partial(put, "b"))
    assert isinstance(results[1], Conflict)
    assert (results[0], results[2]) == ("a", "b")
    assert [await get(store, name) for name in ("a", "b")] == ["1", "1"]


@pytest.mark.parametrize(
    "name, code, told_as", [("SQLITE_IOERR_FSYNC", 1034, OutcomeUnknown), ("SQLITE_FULL", 13, DiskFull)]
)
async def test_a_failed_commit_fails_all_and_the_store_goes_on(
    store: SqliteStore,
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    code: int,
    told_as: type[Exception],
) -> None:
    link = store._writer._link
    original = SqliteLink.script

    def script(self: Any, sql: str) -> None:
        if sql == "COMMIT":
            monkeypatch.setattr(SqliteLink, "script", original)
            raise failure(name, code)
        original(self, sql)

    monkeypatch.setattr(SqliteLink, "script", script)
    results = await together(store, partial(put, "a"), partial(put, "b"))
    assert [type(result) for result in results] == [told_as, told_as]
    assert told.topics == []
    assert store._writer._link is not link
    assert await store.write(partial(put, "a")) == "a"
    assert await get(store, "a") == "1"


async def test_whatever_a_unit_raises_reaches_its_caller(store: SqliteStore) -> None:
    def stops(_: Transaction) -> None:
        raise StopIteration

    results = await together(store, stops, lambda _: 1 / 0, partial(put, "a"))
    assert [type(result) for result in results] == [RuntimeError, ZeroDivisionError, str]


async def test_a_flood_does_not_keep_the_first_waiting(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BATCH_S", 0.005)
    first_told = threading.Event()

    def slow(n: int, _: Transaction) -> int:
        threading.Event().wait(0.003)
        if n == 19:
            first_told.wait(20)
        return n

    done: list[int] = []

    async def one(n: int) -> None:
        done.append(await store.write(partial(slow, n)))

    flood = [asyncio.ensure_future(one(n)) for n in range(20)]
    await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) < 20
    first_told.set()
    await asyncio.gather(*flood)
    assert done == list(range(20))


async def test_one_commit_is_one_notice_for_each_topic(store: SqliteStore, told: Told) -> None:
    await together(store, partial(put, "a"), partial(put, "a"), partial(put, "b"))
    assert sorted(told.topics) == ["a", "b"]


async def test_all_that_wait_while_no_transaction_can_begin_fail_together(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them would else wait as long as the first one did, one after the other."""
    go_on, tries = threading.Event(), [0]

    def begin(link: Any) -> None:
        tries[0] += 1
        go_on.wait(60)
        raise failure("SQLITE_BUSY", 5)

    with monkeypatch.context() as patched:
        patched.setattr(store._writer._ground, "begin", begin)
        first = asyncio.ensure_future(store.write(partial(put, "a")))
        await eventually(lambda: tries[0])
        calls = [asyncio.ensure_future(store.write(partial(put, "a"), urgent=n % 2 == 0)) for n in range(6)]
        await asyncio.sleep(0)
        for job in (*store._writer._urgent, *store._writer._waiting):
            job.since = 0.0  # as if they had come before the first try
        late = asyncio.ensure_future(store.write(partial(put, "b")))
        await asyncio.sleep(0)
        patched.undo()
        go_on.set()
        results = await asyncio.gather(first, *calls, return_exceptions=True)
    assert {type(result) for result in results} == {Unavailable}
    assert tries == [1]
    assert await late == "b", "who came meanwhile gets a try of his own"


async def test_where_none_can_begin_anew_the_rest_of_a_lost_batch_fails_together(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, original = [0], store._writer._ground.begin

    def begin(link: Any) -> None:
        tries[0] += 1
        if tries[0] > 1:
            raise failure("SQLITE_BUSY", 5)
        original(link)

    def fails(_: Transaction) -> None:
        raise failure("SQLITE_IOERR_READ", 266)

    monkeypatch.setattr(store._writer._ground, "begin", begin)
    results = await together(store, partial(put, "a"), partial(put, "b"), fails)
    assert {type(result) for result in results} == {Unavailable}
    assert tries == [2]
    monkeypatch.undo()
    assert await store.write(partial(put, "a")) == "a"


async def test_what_is_stored_is_told_whatever_becomes_of_the_notices(tmp_path: Path) -> None:
    class Broken(InprocNotifier):
        def publish(self, notices: Any) -> None:
            raise ZeroDivisionError

    store = SqliteStore(tmp_path / "overnight.db", SystemClock(), Broken())
    await store.start()
    troubles = list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context["exception"]))
    assert await store.write(partial(put, "a")) == "a"
    assert [type(trouble) for trouble in troubles] == [ZeroDivisionError]
    await store.close()


async def test_a_query_that_comes_while_the_store_closes_is_refused(store: SqliteStore) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: Transaction) -> str:
        begun.set()
        go_on.wait(60)
        return "read"

    reading = asyncio.ensure_future(store.read(slow))
    await asyncio.to_thread(begun.wait, 60)
    closing = asyncio.ensure_future(store.close())

    await eventually(lambda: store._readers.pool._shutdown)
    with pytest.raises(Unavailable):
        await store.read(lambda tx: tx.installation.get("a"))
    go_on.set()
    assert await reading == "read"
    await closing
