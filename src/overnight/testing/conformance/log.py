"""The event log: one gap-free sequence a stream, the same bytes for every reader."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from overnight.domain.event import Draft
from overnight.errors import NotFound
from overnight.ports.tables import StreamMark
from overnight.ports.unit_of_work import Transaction
from overnight.testing.conformance.stage import Stage

WRITERS, EACH = 16, 25


def _texts(count: int) -> list[Draft]:
    return [Draft(type="output.recorded", data={"n": n}, turn=n % 3 + 1, attempt=1) for n in range(count)]


@pytest.mark.anyio
class LogSuite:
    """The contract of `ports.tables.EventLog`."""

    async def test_events_are_numbered_from_one_and_read_back_as_written(self, stage: Stage) -> None:
        session = await stage.session()
        run = await stage.run(session=session)
        written = await stage.uow.write(lambda tx: tx.events.append(run.pk, _texts(3), 1_700_000_000_000))
        assert [event.seq for event in written] == [2, 3, 4]
        assert await stage.uow.read(lambda tx: tx.events.after(run.pk, 1, 99)) == written
        assert orjson.loads(written[0].body) == {
            "seq": 2,
            "type": "output.recorded",
            "run_id": run.id,
            "session_id": session.id,
            "at": orjson.loads(written[0].body)["at"],
            "turn": 1,
            "attempt": 1,
            "data": {"n": 0},
        }

    async def test_sixteen_writers_leave_no_gap_and_no_double(self, stage: Stage) -> None:
        run = await stage.run()

        async def writer(name: int) -> list[int]:
            found: list[int] = []
            for n in range(EACH):
                drafts = [Draft(type="output.recorded", data={"by": name, "n": n})] * (n % 3 + 1)
                written = await stage.uow.write(lambda tx: tx.events.append(run.pk, drafts, 0))
                found += [event.seq for event in written]
            return found

        given = sorted(seq for part in await asyncio.gather(*map(writer, range(WRITERS))) for seq in part)
        assert given == list(range(2, len(given) + 2))
        stored = await stage.uow.read(lambda tx: tx.events.after(run.pk, 0, 100_000))
        assert [event.seq for event in stored] == list(range(1, len(given) + 2))
        assert await stage.uow.read(lambda tx: tx.events.mark(run.pk)) == StreamMark(
            first=1, last=len(stored)
        )

    async def test_a_number_that_was_rolled_back_is_given_again(self, stage: Stage) -> None:
        run = await stage.run()

        def fails(tx: Transaction) -> None:
            tx.events.append(run.pk, _texts(5), 0)
            raise NotFound("no")

        with pytest.raises(NotFound):
            await stage.uow.write(fails)
        written = await stage.uow.write(lambda tx: tx.events.append(run.pk, _texts(1), 0))
        assert [event.seq for event in written] == [2]

    async def test_time_never_goes_back_within_a_stream(self, stage: Stage) -> None:
        run = await stage.run()
        at = stage.clock.wall_ms()
        for jump in (0, 5_000, -60_000, 1_000, -3_600_000):
            await stage.uow.write(lambda tx: tx.events.append(run.pk, _texts(1), at + jump))
        stored = await stage.uow.read(lambda tx: tx.events.after(run.pk, 0, 99))
        times = [orjson.loads(event.body)["at"] for event in stored]
        assert times == sorted(times)

    async def test_pages_follow_each_other(self, stage: Stage) -> None:
        run = await stage.run()
        await stage.uow.write(lambda tx: tx.events.append(run.pk, _texts(9), 0))
        seen, cursor = list[int](), 0
        while page := await stage.uow.read(lambda tx: tx.events.after(run.pk, cursor, 4)):
            assert len(page) <= 4
            seen += [event.seq for event in page]
            cursor = seen[-1]
        assert seen == list(range(1, 11))

    async def test_a_page_of_long_events_ends_with_the_one_that_fills_it(self, stage: Stage) -> None:
        run = await stage.run()
        texts = [Draft(type="message.completed", data={"text": "x" * 10_000}) for _ in range(9)]
        written = await stage.uow.write(lambda tx: tx.events.append(run.pk, texts, 0))
        size = len(written[0].body)

        async def page(after: int, most: int, most_bytes: int) -> list[int]:
            found = await stage.uow.read(lambda tx: tx.events.after(run.pk, after, most, most_bytes))
            return [event.seq for event in found]

        assert await page(1, 99, 1) == [2], "one at least"
        assert await page(1, 99, 3 * size) == [2, 3, 4]
        assert await page(1, 99, 3 * size + 1) == [2, 3, 4, 5]
        assert await page(1, 2, 3 * size) == [2, 3]
        assert await page(8, 99, 3 * size) == [9, 10]
        assert await page(10, 99, 3 * size) == []

    async def test_select_filters_and_orders(self, stage: Stage) -> None:
        run = await stage.run()
        await stage.uow.write(lambda tx: tx.events.append(run.pk, _texts(9), 0))

        async def seqs(**asked: object) -> list[int]:
            query = {
                "after": None,
                "before": None,
                "descending": False,
                "types": (),
                "turn": None,
                "limit": 99,
            }
            found = await stage.uow.read(lambda tx: tx.events.select(run.pk, **(query | asked)))  # type: ignore[arg-type]
            return [event.seq for event in found]

        assert await seqs() == list(range(1, 11))
        assert await seqs(after=3, before=6) == [4, 5]
        assert await seqs(descending=True, limit=2) == [10, 9]
        assert await seqs(types=("run.queued",)) == [1]
        assert await seqs(turn=1) == [2, 5, 8]

    async def test_unknown_streams_are_refused(self, stage: Stage) -> None:
        with pytest.raises(NotFound):
            await stage.uow.read(lambda tx: tx.events.mark(999))
        with pytest.raises(NotFound):
            await stage.uow.write(lambda tx: tx.events.append(999, _texts(1), 0))
        assert await stage.uow.read(lambda tx: tx.events.after(999, 0, 9)) == ()

    async def test_trimming_moves_the_first_mark_and_nothing_else(self, stage: Stage) -> None:
        run = await stage.run()
        await stage.uow.write(lambda tx: tx.events.append(run.pk, _texts(9), 0))
        assert await stage.uow.write(lambda tx: tx.events.trim(run.pk, 8, 3)) == 3
        assert await stage.uow.read(lambda tx: tx.events.mark(run.pk)) == StreamMark(first=4, last=10)
        assert await stage.uow.write(lambda tx: tx.events.trim(run.pk, 8, 100)) == 4
        assert await stage.uow.write(lambda tx: tx.events.trim(run.pk, 8, 100)) == 0
        left = await stage.uow.read(lambda tx: tx.events.after(run.pk, 0, 99))
        assert [event.seq for event in left] == [8, 9, 10]
        assert await stage.uow.write(lambda tx: tx.events.trim(run.pk, 10_000, 100)) == 3
        assert await stage.uow.read(lambda tx: tx.events.mark(run.pk)) == StreamMark(first=11, last=10)
        written = await stage.uow.write(lambda tx: tx.events.append(run.pk, _texts(1), 0))
        assert [event.seq for event in written] == [11]

    async def test_a_session_has_a_stream_of_its_own(self, stage: Stage) -> None:
        session = await stage.session()
        run = await stage.run(session=session)

        def both(tx: Transaction) -> None:
            tx.events.append(session.pk, [Draft(type="run.linked", data={"run_id": run.id})], 0)
            tx.events.append(run.pk, _texts(1), 0)

        await stage.uow.write(both)
        (linked,) = await stage.uow.read(lambda tx: tx.events.after(session.pk, 0, 9))
        body = orjson.loads(linked.body)
        assert (linked.seq, body["run_id"], body["session_id"]) == (1, None, session.id)

    async def test_what_json_cannot_hold_is_mended_not_lost(self, stage: Stage) -> None:
        run = await stage.run()
        data = {"text": "a\ud800b\x00c", "big": 1 << 70, "nan": float("nan"), "key": {"\udfff": 1}}
        (written,) = await stage.uow.write(
            lambda tx: tx.events.append(run.pk, [Draft(type="agent.custom", data=data)], 0)
        )
        found = orjson.loads(written.body)["data"]
        assert found == {"text": "a\ufffdb\x00c", "big": str(1 << 70), "nan": None, "key": {"\ufffd": 1}}
        assert (await stage.uow.read(lambda tx: tx.events.after(run.pk, 1, 9)))[0] == written

    async def test_the_run_knows_the_end_of_its_stream(self, stage: Stage) -> None:
        run = await stage.run()
        await stage.uow.write(lambda tx: tx.events.append(run.pk, _texts(4), stage.clock.wall_ms() + 7))
        found = await stage.get(run)
        assert (found.last_seq, found.last_event_at) == (5, stage.clock.wall_ms() + 7)
        await stage.run()
        saved = await stage.uow.write(lambda tx: tx.runs.save(run))
        assert (saved.last_seq, saved.last_event_at) == (5, stage.clock.wall_ms() + 7)
