"""The follower over a real store and a notifier that loses, repeats and strips notices as it likes."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.server.stage import HOST

from overnight.clock import SystemClock
from overnight.domain.event import Draft, Recorded
from overnight.domain.run import Run
from overnight.domain.session import Session
from overnight.domain.spec import RunSpec
from overnight.domain.states import State
from overnight.engine import channel
from overnight.engine.channel import Batch
from overnight.engine.follow import Follower, Reader
from overnight.engine.sources import PAGE_BYTES
from overnight.errors import NotFound
from overnight.ids import new_run_id, new_session_id
from overnight.ports.notifier import Notice, stream_topic
from overnight.ports.unit_of_work import Transaction
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
NOW = 1_790_000_000_000


@dataclass(frozen=True)
class Unknown:
    """A run that is not there."""

    pk: int = 4711
    id: str = "run_0"


class Unreliable(InprocNotifier):
    """Loses a third of the notices, strips the events from another, and says some twice."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def publish(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            match self._random.randrange(4):
                case 0:
                    pass
                case 1:
                    super().publish([replace(notice, events=())])
                case 2:
                    super().publish([notice, notice])
                case _:
                    super().publish([notice])


def made(tx: Transaction) -> Run:
    session = tx.sessions.add(
        Session(
            pk=0,
            id=new_session_id(NOW),
            owner="usr_local",
            name="s",
            mode="oneshot",
            created_at=NOW,
            updated_at=NOW,
        )
    )
    run = Run(
        pk=0, id=new_run_id(NOW), owner="usr_local", state=State.QUEUED, spec=RunSpec(goal="g", backend="echo"),
        session_pk=session.pk, session_id=session.id, host_id=HOST, workspace=None, created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    return tx.runs.add(run, secret_environment={}, idempotency=None)


@pytest.fixture
async def store(
    tmp_path: Path, anyio_backend: str, request: pytest.FixtureRequest
) -> AsyncIterator[SqliteStore]:
    notifier = Unreliable(getattr(request, "param", 1))
    store = SqliteStore(tmp_path / "overnight.db", SystemClock(), notifier, synchronous="OFF")  # type: ignore[arg-type]
    await store.start()
    yield store
    await store.close()


async def append(store: SqliteStore, run: Run, count: int, *, type: str = "message.completed") -> None:
    drafts = [Draft(type=type, data={"n": n}) for n in range(count)]
    await store.write(lambda tx: tx.events.append(run.pk, drafts, NOW))


async def everything(reader: Reader[Recorded], pace: random.Random | None = None) -> list[int]:
    found: list[int] = []
    while (entries := await reader.read()) is not None:
        for entry in entries:
            assert isinstance(entry, Batch)
            found += [event.seq for event in entry.items]
        for _ in range(pace.randrange(30) if pace is not None else 0):
            await asyncio.sleep(0)
    reader.close()
    return found


@pytest.mark.parametrize("store", range(4), indirect=True)
async def test_every_reader_gets_every_event_once_whatever_the_notifier_does(store: SqliteStore) -> None:
    dice = random.Random(7)
    run = await store.write(made)
    follower = Follower(store, store._notifier, poll_s=0.01)
    await append(store, run, 30)
    readers: list[tuple[int, asyncio.Task[list[int]]]] = []
    for _ in range(60):
        if dice.random() < 0.2:
            after = dice.randrange(30)
            reader = follower.events(run, after)
            readers.append((after, asyncio.create_task(everything(reader, random.Random(dice.random())))))
        await append(store, run, dice.randrange(1, 12))
    await append(store, run, 1, type="run.completed")
    last = (await store.read(lambda tx: tx.events.mark(run.pk))).last
    for after, task in readers:
        assert await asyncio.wait_for(task, 60) == list(range(after + 1, last + 1))
    assert readers
    assert not follower._streams


async def test_long_events_are_read_a_few_at_a_time(store: SqliteStore) -> None:
    run, hub = await store.write(made), InprocNotifier()
    long = [Draft(type="message.completed", data={"text": "x" * 400_000})] * 12
    await store.write(lambda tx: tx.events.append(run.pk, long, NOW))
    reader = Follower(store, hub, poll_s=3600).events(run, 0)
    seqs: list[int] = []

    async def read_to(last: int) -> None:
        while not seqs or seqs[-1] < last:
            for entry in await asyncio.wait_for(reader.read(), 60) or ():
                assert isinstance(entry, Batch)
                assert sum(len(event.body) for event in entry.items) < 2 * PAGE_BYTES
                seqs.extend(event.seq for event in entry.items)

    await read_to(12)
    await store.write(lambda tx: tx.events.append(run.pk, long, NOW))
    hub.publish([Notice(topic=stream_topic(run.id))])
    await read_to(24)
    assert seqs == list(range(1, 25)), "one word is enough for all of them"
    reader.close()


async def test_a_reader_closed_before_its_channel_has_taken_a_step_is_let_go(store: SqliteStore) -> None:
    run = await store.write(made)
    reader = Follower(store, store._notifier, poll_s=0.01).events(run, 0)
    reader.close()
    assert await asyncio.wait_for(reader.read(), 60) is None


async def test_a_reader_that_lost_the_channel_goes_on_from_the_log(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "RING_BYTES", 1000)
    run = await store.write(made)
    follower = Follower(store, store._notifier, poll_s=0.01)
    await append(store, run, 1)
    slow = follower.events(run, 1)
    waiting = asyncio.create_task(slow.read())
    await eventually(lambda: slow.taken is not None, what="the reader to be live")
    await append(store, run, 1)
    assert await waiting
    for _ in range(30):
        await append(store, run, 5)
    source = follower._streams[run.pk]
    await eventually(lambda: source.last == 152)
    assert source._bytes <= 2000, "what is kept is bounded while nobody reads"
    await append(store, run, 1, type="run.failed")
    assert await everything(slow) == list(range(3, 154))


async def test_a_channel_keeps_nothing_that_all_have_read(store: SqliteStore) -> None:
    run = await store.write(made)
    follower = Follower(store, store._notifier, poll_s=0.01)
    task = asyncio.create_task(everything(follower.events(run, 0)))
    for _ in range(20):
        await append(store, run, 50)
    source = follower._streams[run.pk]
    await eventually(lambda: source.last == 1000)
    assert source._bytes < 200_000
    await append(store, run, 1, type="run.cancelled")
    assert len(await task) == 1001


async def test_the_simple_form_ends_with_the_final_event(store: SqliteStore) -> None:
    run = await store.write(made)
    follower = Follower(store, store._notifier, poll_s=0.01)
    await append(store, run, 1200)
    await append(store, run, 1, type="run.completed")
    found = [event.seq async for batch in follower.follow(run, 5) for event in batch]
    assert found == list(range(6, 1202))
    assert not follower._streams


async def test_closing_ends_readers_that_wait_and_those_that_come_later(store: SqliteStore) -> None:
    run = await store.write(made)
    follower = Follower(store, store._notifier, poll_s=60)
    waiting = asyncio.create_task(everything(follower.events(run, 0)))
    await asyncio.sleep(0)
    follower.close()
    assert await asyncio.wait_for(waiting, 60) == []
    assert await follower.events(run, 0).read() is None
    assert not follower._streams


async def test_an_unknown_stream_is_not_found(store: SqliteStore) -> None:
    follower = Follower(store, store._notifier)
    reader = follower.events(Unknown(), 0)
    with pytest.raises(NotFound):
        await reader.read()
    reader.close()
    assert not follower._streams
