"""Event streams over real connections: exactly the log, from any position, for any number of readers."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.server.stage import Stage, frames, raw, staged
from tests.server.tails import Tail, request, tail, url, whole

from overnight.domain.event import Recorded
from overnight.ports.notifier import Notice, stream_topic
from overnight.testing.clocks import ManualClock
from overnight.testing.signals import eventually
from overnight.wire import sse

pytestmark = pytest.mark.anyio


async def test_a_finished_run_replays_to_the_byte_and_ends(stage: Stage) -> None:
    run = await stage.submitted()
    await stage.append(run, *(f"n {n}\r\n\u2028 {{}}" for n in range(1200)))
    await stage.finish(run)
    log = await stage.log(run)
    status, body = await whole(stage, run.id)
    assert status == 200
    assert body == sse.OPENED + sse.events(log) + sse.end(log[-1].seq)
    last = frames(body)[-1]
    assert (last.id, last.event, last.data) == (str(log[-1].seq), "end", ["[DONE]"])


async def test_the_headers_are_what_browsers_and_proxies_need(stage: Stage) -> None:
    run = await stage.submitted()
    async with stage.client() as http, http.stream("GET", url(run.id)) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"


async def test_a_run_resumes_at_every_position_by_header_and_by_query(stage: Stage) -> None:
    run = await stage.submitted()
    await stage.append(run, *map(str, range(20)))
    await stage.finish(run)
    log = await stage.log(run)
    for after in range(len(log)):
        expected = sse.OPENED + sse.events(log[after:]) + sse.end(log[-1].seq)
        assert await whole(stage, run.id, f"?after={after}") == (200, expected)
        by_header = await whole(stage, run.id, "?after=3", **{"Last-Event-ID": str(after)})
        assert by_header == (200, expected), "the header goes before the query"
    assert await whole(stage, run.id, f"?after={len(log)}") == (204, b"")
    assert await whole(stage, run.id, "?after=end") == (204, b""), "a finished run has nothing new"
    assert await whole(stage, run.id, "", **{"Last-Event-ID": ""}) == (
        200,
        sse.OPENED + sse.events(log) + sse.end(log[-1].seq),
    )


@pytest.mark.parametrize("cursor", ["-1", "1.5", "x", "99", "9" * 30, "\u0663", "0x1", "+1", " 1"])
async def test_a_position_that_was_never_given_out_is_refused(stage: Stage, cursor: str) -> None:
    run = await stage.submitted()
    async with stage.client() as http:
        answer = await http.get(url(run.id), params={"after": cursor})
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_cursor"


async def test_an_unknown_run_is_404_and_not_an_endless_stream(stage: Stage) -> None:
    for run_id in ("run_00000000000000000000000000", "nonsense", "1"):
        status, body = await whole(stage, run_id)
        assert (status, json.loads(body)["code"]) == (404, "not_found")


async def test_live_events_arrive_and_the_final_one_ends_the_stream(stage: Stage) -> None:
    run = await stage.submitted()
    async with tail(stage, url(run.id)) as live:
        await live.has(1)
        await stage.append(run, "a", "b")
        await live.has(3)
        await stage.finish(run)
        await live.task
    log = await stage.log(run)
    assert live.body == sse.OPENED + sse.events(log) + sse.end(log[-1].seq)


async def test_after_end_resolves_once_and_misses_nothing_later(stage: Stage) -> None:
    run = await stage.submitted()
    await stage.append(run, "old")
    async with tail(stage, url(run.id, "?after=end")) as live:
        await stage.append(run, "new 1")
        await stage.append(run, "new 2")
        assert [frame.id for frame in await live.has(2)] == ["3", "4"]


async def test_notices_that_are_lost_or_have_holes_are_made_good_from_the_log(stage: Stage) -> None:
    run = await stage.submitted()
    notifier: Any = stage.follower._notifier
    async with tail(stage, url(run.id)) as live:
        await live.has(1)
        publish, notifier.publish = notifier.publish, lambda notices: None
        await stage.append(run, "silent")
        await live.has(2)  # by the slow poll
        await stage.append(run, "silent too")
        notifier.publish = publish
        await stage.append(run, "with a hole before it")
        await live.has(4)
    assert [frame.id for frame in live.frames] == ["1", "2", "3", "4"]


async def test_writers_and_many_readers_that_join_at_random_all_see_exactly_the_log(stage: Stage) -> None:
    run = await stage.submitted()
    stop = asyncio.Event()

    async def write() -> None:
        for number in range(60):
            await stage.append(run, *(f"{number}.{part}" for part in range(number % 7 + 1)))
            await asyncio.sleep(0)
        stop.set()

    async def read(start: int) -> bytes:
        body = b""
        while True:
            last = body.rfind(b"id: ")
            after = int(body[last + 4 :].split(b"\n")[0]) if last >= 0 else 0
            async with stage.client() as http, http.stream("GET", url(run.id, f"?after={after}")) as answer:
                if answer.status_code == 204:
                    return body
                piece = b""
                limit = 300 * (start + 1)
                async for chunk in answer.aiter_raw():
                    piece += chunk
                    if len(piece) > limit and not stop.is_set():
                        break  # leave in the middle and come back
                whole_frames = piece[: piece.rfind(b"\n\n") + 2].removeprefix(sse.OPENED)
                body += whole_frames
                if b"event: end" in whole_frames:
                    return body

    readers = [asyncio.create_task(read(n)) for n in range(8)]
    await write()
    await stage.finish(run)
    bodies = await asyncio.gather(*readers)
    log = await stage.log(run)
    expected = sse.events(log) + sse.end(log[-1].seq)
    assert all(body == expected for body in bodies)


async def test_a_hundred_readers_cost_one_framing_of_each_event(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    framed: list[int] = []
    from overnight.server.routes import stream

    original = stream.RENDERINGS["0", "0"]

    def counting(batch: Any) -> bytes:
        framed.extend(event.seq for event in batch)
        return sse.events(batch)

    monkeypatch.setitem(stream.RENDERINGS, ("0", "0"), type(original)(key="plain", batch=counting))
    run = await stage.submitted()
    async with contextlib.AsyncExitStack() as stack:
        tails = [await stack.enter_async_context(tail(stage, url(run.id, "?after=end"))) for _ in range(100)]
        for number in range(40):
            await stage.append(run, f"{number}a", f"{number}b", f"{number}c")
        for one in tails:
            await one.has(120)
        assert len({one.body for one in tails}) == 1
    assert sorted(framed) == list(range(2, 122)), "each event was framed exactly once"
    await eventually(lambda: not stage.follower._streams, what="the channel to be gone with its readers")


async def test_named_adds_the_type(stage: Stage) -> None:
    run = await stage.submitted()
    await stage.append(run, "x")
    await stage.finish(run)
    _, body = await whole(stage, run.id, "?named=1")
    assert [frame.event for frame in frames(body)] == [
        "run.queued", "message.completed", "run.completed", "end",
    ]  # fmt: skip


async def test_deltas_come_only_to_those_who_ask_and_move_no_cursor(stage: Stage) -> None:
    run = await stage.submitted()
    notifier: Any = stage.follower._notifier
    delta = b'{"type":"message.delta","data":{"item_id":"m","offset":0,"text":"he"}}'
    async with tail(stage, url(run.id, "?deltas=1")) as asked, tail(stage, url(run.id)) as plain:
        await asked.has(1)
        await plain.has(1)
        notifier.publish([Notice(topic=stream_topic(run.id), delta=delta)])
        await asked.has(2)
        await stage.append(run, "hello")
        await asked.has(3)
        await plain.has(2)
    first, fragment, last = asked.frames
    assert (first.id, last.id) == ("1", "2")
    assert (fragment.id, fragment.event, fragment.data) == ("1", "message.delta", [delta.decode()])
    assert [frame.id for frame in plain.frames] == ["1", "2"]


async def test_behind_the_trim_is_410_before_any_byte_or_a_gap_frame(stage: Stage) -> None:
    run = await stage.submitted()
    await stage.append(run, *map(str, range(10)))
    await stage.store.write(lambda tx: tx.events.trim(run.pk, 6, 1000))
    answer = await raw(
        stage.port,
        request(stage, url(run.id, "?after=2")),
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 410 ")
    problem = json.loads(body)
    assert (problem["code"], problem["earliest"], problem["latest"]) == ("stream_trimmed", 6, 11)
    async with tail(stage, url(run.id, "?after=2&on_gap=event")) as live:
        gap, *rest = await live.has(7)
    assert (gap.event, gap.id, json.loads(gap.data[0])) == ("gap", "5", {"earliest": 6, "latest": 11})
    assert [frame.id for frame in rest] == ["6", "7", "8", "9", "10", "11"]
    async with tail(stage, url(run.id, "?after=5")) as live:
        assert (await live.has(6))[0].id == "6", "nothing is missing after 5"


async def test_a_trim_while_a_reader_is_behind_cuts_it_off_instead_of_leaving_a_hole(stage: Stage) -> None:
    run = await stage.submitted()
    await stage.append(run, *map(str, range(5)))
    reader = stage.follower.events(run, 0)
    await stage.store.write(lambda tx: tx.events.trim(run.pk, 4, 1000))
    from overnight.errors import StreamTrimmed

    with pytest.raises(StreamTrimmed):
        await reader.read()
    reader.close()


async def test_quiet_streams_get_keepalives_by_the_clock(tmp_path: Path) -> None:
    clock = ManualClock()
    async with staged(tmp_path, clock=clock) as stage:
        run = await stage.submitted()
        async with tail(stage, url(run.id)) as live, tail(stage, "/api/v1/stream?after=end") as changes:
            await live.has(1)
            for count in range(1, 4):
                await clock.asleep(2)  # the keepalives' pause, and the heartbeat's
                await clock.advance(15)
                await eventually(lambda: live.body.count(sse.KEEPALIVE) == count)  # noqa: B023 - awaited at once
                await eventually(lambda: changes.body.count(sse.KEEPALIVE) == count)  # noqa: B023


async def test_the_end_of_the_server_ends_streams_with_a_comment_in_time(tmp_path: Path) -> None:
    server = contextlib.AsyncExitStack()
    stage = await server.enter_async_context(staged(tmp_path))
    run = await stage.submitted()
    http = stage.client()
    stage.clients.clear()
    async with http, http.stream("GET", url(run.id)) as answer:
        live = Tail(answer)
        await live.has(1)
        closing = asyncio.create_task(server.aclose())
        await live.task
        assert live.body.endswith(sse.CLOSING)
        await closing


async def test_a_reader_that_leaves_is_noticed_at_once_while_nothing_happens(stage: Stage) -> None:
    run = await stage.submitted()
    async with tail(stage, url(run.id)):
        assert stage.follower._streams
    await eventually(lambda: not stage.follower._streams, what="the reader to be gone")


async def test_a_revoked_token_ends_its_streams(stage: Stage) -> None:
    run = await stage.submitted()
    secret = await stage.token(name="doomed")
    async with tail(stage, url(run.id), Authorization=f"Bearer {secret}") as live:
        await live.has(1)
        async with stage.client() as http:
            assert (await http.delete("/api/v1/tokens/doomed")).status_code == 204
        await asyncio.wait_for(live.task, 60)
    status, _ = await whole(stage, run.id, Authorization=f"Bearer {secret}")
    assert status == 401


async def test_the_summaries_show_each_change_to_its_owner_alone(stage: Stage) -> None:
    first = await stage.submitted("mine")
    bob = await stage.token(owner="usr_bob", name="bob")
    async with (
        tail(stage, "/api/v1/stream") as mine,
        tail(stage, "/api/v1/stream", Authorization=f"Bearer {bob}") as bobs,
    ):
        assert json.loads((await mine.has(1))[0].data[0])["id"] == first.id
        async with stage.client(bob) as http:
            theirs = (await http.post("/api/v1/runs", json={"goal": "theirs"})).json()
        assert json.loads((await bobs.has(1))[0].data[0])["id"] == theirs["id"]
        await stage.finish(first)
        await eventually(lambda: json.loads(mine.frames[-1].data[0])["state"] == "completed")
        shown = [json.loads(frame.data[0]) for frame in mine.frames]
        assert {run["id"] for run in shown} == {first.id}
        assert all("config" not in run for run in shown)
        last = mine.frames[-1].id
        positions = [int(frame.id or 0) for frame in mine.frames]
        assert positions == sorted(set(positions))
    async with tail(stage, "/api/v1/stream", **{"Last-Event-ID": str(last)}) as resumed:
        second = await stage.submitted("again")
        assert [json.loads(frame.data[0])["id"] for frame in await resumed.has(1)] == [second.id]


async def test_head_answers_without_a_body_and_holds_nothing_open(stage: Stage) -> None:
    run = await stage.submitted()
    async with stage.client() as http:
        answer = await http.head(url(run.id))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    await eventually(lambda: not stage.follower._streams)


def test_slices_of_a_batch_for_a_reader_in_the_middle_of_it() -> None:
    batch = tuple(Recorded(seq, "message.completed", b"{}") for seq in range(1, 4))
    assert sse.events(batch[1:]) == b"id: 2\ndata: {}\n\nid: 3\ndata: {}\n\n"
