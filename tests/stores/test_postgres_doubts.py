"""A commit that nobody answers: what became of it is found out, whatever became of the server."""

import asyncio
import os
import signal
import threading
from functools import partial
from typing import Any

import pytest
from tests.stores.acts import Told, get, put, together
from tests.stores.wire import Wire

from overnight.clock import SystemClock
from overnight.errors import OutcomeUnknown
from overnight.stores.sql import postgres, writer
from overnight.stores.sql.postgres import PostgresStore
from overnight.stores.sql.postgres_link import PostgresLink
from overnight.testing.services.postgres import PostgresServer
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
CLOCK = SystemClock()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is taken in, and a server is waited for, however slow this machine is."""
    monkeypatch.setattr(writer, "BATCH_S", 5.0)
    monkeypatch.setattr(postgres, "PATIENCE_S", 60.0)


def before_the_commit(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Have `act` happen once, when all has been done and only the COMMIT is missing."""
    original, done = PostgresLink.commit, threading.Event()

    def commit(self: PostgresLink) -> None:
        if not done.is_set():
            done.set()
            self.rows("SELECT 1")
            act()
        original(self)

    monkeypatch.setattr(PostgresLink, "commit", commit)


def writers(store: PostgresStore) -> PostgresLink:
    link = store._writer._link
    assert isinstance(link, PostgresLink)
    return link


def link_of(tx: Any) -> PostgresLink:
    found: PostgresLink = tx._context.link
    return found


async def test_a_crash_that_gives_the_number_of_a_lost_transaction_to_another(
    own: PostgresServer, own_url: str, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was never written to its log, the server has never seen: the next transaction gets the same number."""
    store = PostgresStore(own_url, CLOCK, told)
    await store.start()
    await store.write(partial(put, "before"))

    def crash() -> None:
        own.restart(signal.SIGKILL)
        for _ in range(3):
            own.execute("SELECT pg_current_xact_id()")

    before_the_commit(monkeypatch, crash)
    said = await together(store, partial(put, "a"), partial(put, "b"))
    assert said == [1, 1]
    assert [await get(store, name) for name in ("a", "b")] == ["1", "1"], "what was acknowledged is there"
    await store.close()


@pytest.mark.parametrize("when, times", [("before", 2), ("after", 1)])
async def test_a_session_that_others_may_not_look_into(
    own: PostgresServer, when: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked that a plain user may not ask."""
    name = own.fresh("OWNER locked")
    store = PostgresStore(f"postgresql://locked:s3cr3t-word@127.0.0.1:{own.port}/{name}", CLOCK, Told())
    await store.start()
    ran = [0]

    def unit(tx: Any) -> int:
        ran[0] += 1
        return put("a", tx)

    def cut() -> None:
        link = writers(store)
        if when == "after":
            link.raw.execute("COMMIT")
        link.raw.cut()

    before_the_commit(monkeypatch, cut)
    assert await store.write(unit) == 1
    assert (ran[0], await get(store, "a")) == (times, "1")
    await store.close()


async def test_a_doubt_that_cannot_be_cleared_is_told(
    over_wire: PostgresStore, cuttable: Wire, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the database is not to be had again, nobody knows, and nothing is done twice."""
    await over_wire.write(partial(put, "before"))
    monkeypatch.setattr(postgres, "PATIENCE_S", 0.1)
    cuttable.refuse()
    cuttable.cut_at(b"COMMIT", "after")
    results = await together(over_wire, partial(put, "a"), partial(put, "b"))
    assert [type(result) for result in results] == [OutcomeUnknown, OutcomeUnknown]
    assert told.topics == ["before"]
    monkeypatch.setattr(postgres, "PATIENCE_S", 60.0)
    cuttable.mend()
    assert await get(over_wire, "a") == "1"


async def test_a_commit_that_still_lies_on_the_way_is_waited_for(
    store: PostgresStore, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has the word and has not come to it yet, when we ask: it is neither done nor undone."""
    monkeypatch.setattr(postgres, "_BOUNDED_SINCE", 10**9)  # however long it stands
    await store.write(lambda tx: link_of(tx).script("SET idle_in_transaction_session_timeout = 0"))
    ran, stopped = [0], list[int]()

    def unit(tx: Any) -> int:
        ran[0] += 1
        return put("a", tx)

    def send_and_leave() -> None:
        link = writers(store)
        stopped.append(link.raw.info.backend_pid)
        os.kill(stopped[0], signal.SIGSTOP)
        link.raw.pgconn.send_query(b"COMMIT")
        link.raw.pgconn.flush()
        link.raw.cut()

    before_the_commit(monkeypatch, send_and_leave)
    writing = asyncio.ensure_future(store.write(unit))
    asking = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    try:
        await eventually(lambda: bool(postgres_server.execute(asking)), within=60)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert await writing == 1
    assert (ran[0], await get(store, "a")) == (1, "1")


async def test_marks_of_writers_that_are_no_more_are_taken_away(
    url: str, reused: str, postgres_server: PostgresServer
) -> None:
    marks = f"VALUES ('writer.gone', '{CLOCK.wall_ms() - 90_000_000}'), ('writer.there', '{CLOCK.wall_ms()}')"
    postgres_server.execute(f"INSERT INTO installation {marks}", reused)
    store = PostgresStore(url, CLOCK, Told())
    await store.start()
    await store.write(partial(put, "a"))
    kept = await store.read(lambda tx: tx.installation.listed("writer.", 9))
    assert len(kept) == 2
    assert "writer.there" in kept
    await store.close()
