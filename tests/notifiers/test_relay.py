"""What waits to be sent, and how the state of connections is told."""

import asyncio

import pytest
from structlog.testing import capture_logs

from overnight.domain.event import Recorded
from overnight.ports.notifier import QUEUE, Notice, stream_topic
from overnight.stores.relay import line
from overnight.stores.relay.figures import Figures
from overnight.stores.relay.line import Health, LineLost, tend
from overnight.stores.relay.outbox import MOST_OWED, Batch, Outbox

pytestmark = pytest.mark.anyio
RUN = stream_topic("run_1")


def event(seq: int, size: int = 2) -> Notice:
    return Notice(topic=RUN, events=(Recorded(seq, "x", b"x" * size),))


async def taken(outbox: Outbox) -> Batch:
    batch = await outbox.take(0.01, most=100, most_bytes=10_000)
    assert batch is not None
    return batch


async def test_what_waits_is_bounded_and_what_goes_is_owed() -> None:
    figures = Figures("test", None)
    outbox = Outbox(figures, most_notices=10, most_bytes=5000)
    outbox.open()
    outbox.put([Notice(topic=QUEUE)] + [event(seq) for seq in range(1, 15)])
    batch = await taken(outbox)
    assert [notice.events[0].seq for notice in batch.notices] == list(range(5, 15))
    assert batch.owed == {QUEUE, RUN}
    assert figures.counts["dropped"] == 5
    outbox.put([event(1, 3000), event(2, 3000)])
    assert [notice.events[0].seq for notice in (await taken(outbox)).notices] == [2]
    assert await outbox.take(0.01, most=1, most_bytes=1) is None


async def test_while_there_is_no_way_out_only_topics_are_kept() -> None:
    figures = Figures("test", None)
    outbox = Outbox(figures)
    outbox.put([event(1), Notice(topic=RUN, delta=b"{}"), Notice(topic=QUEUE)])
    outbox.put([Notice(topic="stream:run_2", delta=b"{}")])
    outbox.open()
    batch = await taken(outbox)
    assert (batch.notices, batch.owed, batch.owes_all) == ([], {RUN, QUEUE}, False)
    outbox.shut()
    for number in range(MOST_OWED + 1):
        outbox.put([Notice(topic=f"t{number}")])
    batch = await taken(outbox)
    assert batch.owes_all
    assert len(batch.owed) <= 1
    outbox.failed(batch)
    assert (await taken(outbox)).owes_all, "still owed"


async def test_what_is_refused_is_owed_and_the_rest_counts() -> None:
    figures = Figures("test", None)
    outbox = Outbox(figures)
    outbox.open()
    outbox.put([event(1), Notice(topic=QUEUE), Notice(topic=RUN, delta=b"{}")])
    outbox.refused(await taken(outbox), {RUN}, wakes=False)
    assert (figures.counts["published"], figures.counts["failed"]) == (1, 2)
    batch = await taken(outbox)
    assert batch.owed == {RUN}
    outbox.refused(batch, {"the wake-up channel"}, wakes=True)
    assert (await taken(outbox)).owed == {RUN}


async def test_draining_ends_with_what_was_taken_last() -> None:
    outbox = Outbox(Figures("test", None))
    await asyncio.wait_for(outbox.drained(), 30)
    outbox.open()
    outbox.put([event(1)])
    draining = asyncio.ensure_future(outbox.drained())
    batch = await taken(outbox)
    await asyncio.sleep(0)
    assert batch.notices
    assert not draining.done(), "it may still be on its way"
    while not draining.done():
        await outbox.take(0.01, most=1, most_bytes=1)


async def test_states_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(line, "MOST_PAUSE_S", 0.002)
    figures = Figures("test", None)
    with capture_logs() as logs:
        health = Health("test", "there", figures, ("one",))
        rounds = iter(["refused", "refused", "silent", "refused", "", "refused", "bug", ""])
        over = asyncio.Event()

        async def session() -> None:
            outcome = next(rounds, None)
            if outcome is None:
                over.set()
                await asyncio.Event().wait()
            if outcome == "bug":
                raise RuntimeError("ours")
            if outcome:
                raise LineLost(outcome)
            health.up("one")

        task = asyncio.create_task(tend("one", session, health))
        await asyncio.wait_for(over.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    told = [(entry["event"].removeprefix("notifier."), entry.get("reason")) for entry in logs]
    assert told == [
        ("disconnected", "refused"),
        ("disconnected", "silent"),
        ("connected", None),
        ("disconnected", "refused"),
        ("line_failed", None),
        ("disconnected", "an error of ours: RuntimeError"),
        ("connected", None),
    ]
    assert figures.connected
    assert figures.counts["reconnected"] == 2
