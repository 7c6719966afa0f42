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
from overnight.stores.sql.library import driver
from overnight.stores.sql.sqlite import SqliteStore
from overnight.stores.sql.sqlite_link import SqliteLink

pytestmark = pytest.mark.anyio


class Told(InprocNotifier):
    """Remembers what was published."""

    def __init__(self) -> None:
        super().__init__()
        self.topics: list[str] = []

    def publish(self, notices: Any) -> None:
        self.topics += [notice.topic for notice in notices]


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
    calls = [asyncio.ensure_future(store.write(unit)) for unit in (lambda _: gate.wait(5), *units)]
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
            monkeypatch.undo()
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


async def test_a_flood_does_not_keep_the_first_waiting(store: SqliteStore) -> None:
    def slow(n: int, _: Transaction) -> int:
        threading.Event().wait(0.003)
        return n

    done: list[int] = []

    async def one(n: int) -> None:
        done.append(await store.write(partial(slow, n)))

    flood = [asyncio.ensure_future(one(n)) for n in range(20)]
    await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) < 20
    await asyncio.gather(*flood)
    assert done == list(range(20))


async def test_one_commit_is_one_notice_for_each_topic(store: SqliteStore, told: Told) -> None:
    await together(store, partial(put, "a"), partial(put, "a"), partial(put, "b"))
    assert sorted(told.topics) == ["a", "b"]
