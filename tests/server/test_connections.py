"""The registry of connections: limits, the same client coming again, rows, presence."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.server.stage import SERVER, Stage, staged
from tests.server.tails import Tail, tail, url

from overnight.domain.connection import Connection
from overnight.ids import new_connection_id, new_worker_id
from overnight.ports.unit_of_work import Transaction
from overnight.testing.clocks import ManualClock
from overnight.testing.signals import eventually
from overnight.wire import sse

pytestmark = pytest.mark.anyio


@pytest.fixture
async def small(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path, max_connections=3, max_connections_per_user=2) as made:
        yield made


async def refused(stage: Stage, path: str, secret: str = "", **headers: str) -> Any:
    async with stage.client(secret) as http:
        answer = await http.get(path, headers=headers)
    assert answer.status_code == 429, answer.text
    return answer


async def rows(stage: Stage) -> tuple[Connection, ...]:
    return await stage.store.read(lambda tx: tx.connections.all(None))


async def connections(stage: Stage, secret: str = "", **query: str) -> list[dict[str, Any]]:
    async with stage.client(secret) as http:
        answer = await http.get("/api/v1/connections", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


@contextlib.asynccontextmanager
async def others_tail(stage: Stage, secret: str, path: str) -> AsyncIterator[Tail]:
    async with stage.client(secret) as http, http.stream("GET", path) as answer:
        assert answer.status_code == 200
        found = Tail(answer)
        try:
            await eventually(lambda: b":" in found.body, what="the first bytes")
            yield found
        finally:
            found.task.cancel()
            await asyncio.gather(found.task, return_exceptions=True)


async def test_one_user_is_refused_above_the_users_limit_and_hears_why(small: Stage) -> None:
    run = await small.submitted()
    async with tail(small, url(run.id)), tail(small, "/api/v1/stream"):
        answer = await refused(small, url(run.id))
        assert answer.json()["code"] == "too_many_requests"
        assert "OVERNIGHT_MAX_CONNECTIONS_PER_USER" in answer.json()["mend"]
        assert answer.headers["retry-after"] == "5"
        bob = await small.token(owner="usr_bob", name="bob")
        async with others_tail(small, bob, "/api/v1/stream"):
            full = await refused(small, "/api/v1/stream", await small.token(owner="usr_eve", name="eve"))
            assert "the server's limit" in full.json()["detail"]
        async with small.client() as http:
            assert b"overnight_connections_refused_total 2" in (await http.get("/metrics")).content

    async def room() -> bool:
        return len(await connections(small)) < 2

    await eventually(room, what="those who left to be gone")
    async with tail(small, url(run.id)):
        pass


async def test_an_agent_cannot_use_up_what_its_owner_needs(small: Stage) -> None:
    agent = await small.token(kind="agent", name="a")
    async with others_tail(small, agent, "/api/v1/stream"), others_tail(small, agent, "/api/v1/stream"):
        await refused(small, "/api/v1/stream", agent)
        async with tail(small, "/api/v1/stream"):
            pass


@pytest.mark.parametrize("how", ["query", "header"])
async def test_a_client_that_comes_again_takes_its_own_place_though_it_is_full(
    small: Stage, how: str
) -> None:
    run = await small.submitted()
    query, headers = ("?client=tab-1", {}) if how == "query" else ("", {"Overnight-Client": "tab-1"})
    async with tail(small, url(run.id, query), **headers) as first, tail(small, "/api/v1/stream"):
        await first.has(1)
        await refused(small, url(run.id))
        async with tail(small, url(run.id, query), **headers) as second:
            await first.task
            assert first.body.endswith(sse.REPLACED), "it is told, and nothing of it is cut"
            await small.append(run, "for the second")
            await second.has(2)
            assert len(first.frames) == 1
            assert len(await connections(small)) == 2
        await eventually(lambda: not small.follower._streams, what="the reader of the run to be closed")


async def test_another_target_user_or_kind_is_another_place(stage: Stage) -> None:
    run, other = await stage.submitted(), await stage.submitted()
    bob = await stage.token(owner="usr_bob", name="bob")
    agent = await stage.token(kind="agent", name="a")
    async with contextlib.AsyncExitStack() as stack:
        for path in (url(run.id), url(other.id), "/api/v1/stream"):
            await stack.enter_async_context(tail(stage, f"{path}?client=one"))
        for secret in (bob, agent):
            await stack.enter_async_context(others_tail(stage, secret, "/api/v1/stream?client=one"))
        assert len(await connections(stage)) == 5


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "é", "a\n", "<b>"])
async def test_a_client_has_a_plain_name_or_none(stage: Stage, name: str) -> None:
    async with stage.client() as http:
        answer = await http.get("/api/v1/stream", params={"client": name})
    assert answer.status_code == 422


async def test_a_row_is_written_for_whoever_stays_and_removed_when_it_leaves(stage: Stage) -> None:
    run = await stage.submitted()
    async with tail(stage, url(run.id, "?client=me")) as stream:
        await eventually(lambda: _read(rows(stage)), what="the row")
        (row,) = await rows(stage)
        assert (row.server, row.owner, row.actor, row.kind) == (SERVER, "usr_local", "usr_local", "sse")
        assert (row.target, row.client) == (run.id, "me")
        (shown,) = await connections(stage)
        assert (shown["id"], shown["fresh"], shown["server"]) == (row.id, True, SERVER)
        assert shown["delivered"] == len(stream.body)
    await eventually(lambda: _read(_none(stage)), what="the row to be removed")


async def _read(found: Any) -> bool:
    return bool(await found)


async def _none(stage: Stage) -> bool:
    return not await rows(stage)


async def test_a_hundred_who_come_at_once_are_one_write_or_two(tmp_path: Path) -> None:
    clock, writes = ManualClock(), list[str]()
    async with staged(tmp_path, clock=clock) as stage, contextlib.AsyncExitStack() as stack:
        write = stage.store.write

        async def counted(unit: Any, **more: Any) -> Any:
            writes.append(getattr(unit, "__qualname__", None) or unit.func.__qualname__)
            return await write(unit, **more)

        stage.store.write = counted  # type: ignore[method-assign]
        for _ in range(60):
            await stack.enter_async_context(tail(stage, "/api/v1/stream"))
        await _settled(stage, clock, 60)
        assert 1 <= writes.count("_store") <= 2


async def _so_many(stage: Stage, count: int) -> bool:
    return len(await rows(stage)) == count


async def test_all_live_by_one_heartbeat_and_rows_that_were_lost_come_back(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        staged(tmp_path, clock=clock) as stage,
        tail(stage, "/api/v1/stream"),
        tail(stage, "/api/v1/stream"),
    ):
        await _settled(stage, clock, 2)
        before = {row.heartbeat_at for row in await rows(stage)}
        await clock.advance(30)
        await eventually(lambda: _read(_beaten(stage, max(before))), what="the heartbeat")
        await stage.store.write(lambda tx: tx.connections.forget(SERVER))
        await clock.advance(30)
        await _settled(stage, clock, 2)


async def _beaten(stage: Stage, before: int) -> bool:
    return all(row.heartbeat_at > before for row in await rows(stage))


async def _settled(stage: Stage, clock: ManualClock, count: int) -> None:
    async def written() -> bool:
        await clock.advance(0.2)
        return len(await rows(stage)) == count

    await eventually(written, what=f"{count} rows")


async def test_what_the_database_refuses_is_written_later_and_keeps_nobody_out(stage: Stage) -> None:
    from overnight.errors import DiskFull

    write = stage.store.write
    refusals: list[str] = []

    async def full(unit: Any, **more: Any) -> Any:
        refusals.append("no")
        raise DiskFull("full")

    stage.store.write = full  # type: ignore[method-assign]
    async with tail(stage, "/api/v1/stream"):
        await eventually(lambda: refusals, what="a refusal")
        stage.store.write = write  # type: ignore[method-assign]
        async with tail(stage, "/api/v1/stream"):
            await eventually(lambda: _read(_so_many(stage, 2)), what="both rows")


async def test_the_orderly_end_leaves_no_row(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        path = stage.data_dir / "overnight.db"
        await stage.store.write(lambda tx: tx.connections.add(_row(stage, SERVER)))
        other = _row(stage, new_worker_id(5))
        await stage.store.write(lambda tx: tx.connections.add(other))
    from overnight.stores.inproc.notifier import InprocNotifier
    from overnight.stores.sql.sqlite import SqliteStore

    store = SqliteStore(path, ManualClock(), InprocNotifier())
    await store.start()
    try:
        assert await store.read(lambda tx: tx.connections.all(None)) == (other,), "only its own"
    finally:
        await store.close()


def _add(tx: Transaction, *, row: Connection) -> None:
    tx.connections.add(row)


def _row(stage: Stage, server: Any, **more: Any) -> Connection:
    now = stage.clock.wall_ms()
    values: dict[str, Any] = {"owner": "usr_local", "actor": "ada", "kind": "socket", "connected_at": now}
    return Connection(id=new_connection_id(now), server=server, heartbeat_at=now, **values | more)


async def test_connections_of_other_servers_are_shown_with_their_freshness(stage: Stage) -> None:
    elsewhere, now = new_worker_id(5), stage.clock.wall_ms()
    fresh = _row(stage, elsewhere)
    stale = _row(stage, elsewhere, connected_at=now - 200_000)
    stale = Connection(
        **{name: getattr(stale, name) for name in stale.__slots__} | {"heartbeat_at": now - 100_000}
    )
    for row in (fresh, stale):
        await stage.store.write(partial(_add, row=row))
    async with tail(stage, "/api/v1/stream"):
        found = await connections(stage)
    assert [(one["server"], one["fresh"]) for one in found] == [
        (elsewhere, False), (elsewhere, True), (SERVER, True),
    ]  # fmt: skip
    assert found[0]["peer"] is None
    assert found[2]["peer"].startswith("127.0.0.1:")


async def test_who_is_not_the_operator_sees_their_own_and_who_follows_their_sessions(stage: Stage) -> None:
    bob = await stage.token(owner="usr_bob", name="bob")
    run = await stage.submitted()
    async with tail(stage, url(run.id)), others_tail(stage, bob, "/api/v1/stream"):
        assert len(await connections(stage)) == 2
        assert [one["owner"] for one in await connections(stage, bob)] == ["usr_bob"]
        assert [one["target"] for one in await connections(stage, session_id=run.session_id)] == [run.id]
        async with stage.client(bob) as http:
            answer = await http.get("/api/v1/connections", params={"session_id": run.session_id})
        assert answer.status_code == 404, "not a session of theirs"


async def test_who_a_session_is_shared_with_sees_who_follows_it(stage: Stage) -> None:
    run = await stage.submitted()
    bob = await stage.token(owner="usr_bob", name="bob")
    session = f"/api/v1/sessions/{run.session_id}"
    async with stage.client() as http:
        await http.post(f"{session}/share", json={"user": "usr_bob"})
        code = (await http.post(f"{session}/share", json={"link": True})).json()["code"]
    async with (
        tail(stage, url(run.id, "?client=a&presence=1")) as mine,
        others_tail(stage, bob, f"{session}/stream?client=b&presence=1") as theirs,
    ):
        await eventually(lambda: "b" in names((presences(mine) or [_EMPTY])[-1]), what="bob")
        await eventually(lambda: len(names((presences(theirs) or [_EMPTY])[-1])) == 2, what="both")
        assert [one["actor"] for one in presences(theirs)[-1]["data"]["connections"]] == [
            "usr_local",
            "usr_bob",
        ]
        found = await connections(stage, bob, session_id=run.session_id)
        assert [(one["client"], one["peer"] is not None) for one in found] == [("a", False), ("b", True)]
    async with stage.client(None) as guest:
        entered = await guest.post("/login", json={"share": code})
        assert entered.status_code == 204, entered.text
        assert (await guest.get("/api/v1/connections")).status_code == 403
        assert (
            await guest.get("/api/v1/connections", params={"session_id": run.session_id})
        ).status_code == 200


_EMPTY: dict[str, Any] = {"data": {"connections": []}}


def presences(stream: Tail) -> list[dict[str, Any]]:
    found = [frame for frame in stream.frames if frame.event == "presence"]
    return [json.loads(frame.data[0]) for frame in found]


def names(document: dict[str, Any]) -> list[str | None]:
    return [one["client"] for one in document["data"]["connections"]]


async def test_presence_is_told_to_those_who_ask_and_moves_no_cursor(stage: Stage) -> None:
    run = await stage.submitted()
    stranger = await stage.submitted()
    async with tail(stage, url(run.id, "?presence=1&client=a")) as first, tail(stage, url(run.id)) as silent:
        await eventually(lambda: presences(first), what="the first presence")
        async with (
            tail(stage, url(run.id, "?presence=1&client=b")),
            tail(stage, url(stranger.id, "?client=c")),
        ):
            await eventually(lambda: "b" in names(presences(first)[-1]), what="b to be seen")
            last = presences(first)[-1]
            assert last["session_id"] == run.session_id
            assert (last["data"]["total"], names(last)) == (3, ["a", None, "b"])
            assert set(last["data"]["connections"][0]) == {"actor", "client", "kind", "target"}
        await eventually(lambda: names(presences(first)[-1]) == ["a", None], what="b to be gone")
        assert {frame.id for frame in first.frames if frame.event == "presence"} == {"1"}
        assert b"presence" not in silent.body
    assert len(await stage.log(run)) == 1, "nothing of it is an event"


async def test_presence_reaches_a_reader_that_is_still_far_behind(stage: Stage) -> None:
    run = await stage.submitted()
    await stage.append(run, *map(str, range(2000)))
    async with tail(stage, url(run.id, "?presence=1")) as stream:
        await eventually(lambda: presences(stream), what="presence")
        await eventually(lambda: stream.frames[-1].id == "2001", what="the whole log")
        await stage.append(run, "later")
        await eventually(lambda: stream.frames[-1].id == "2002", what="what comes later")


async def test_presence_counts_those_of_other_servers(stage: Stage) -> None:
    run = await stage.submitted()
    async with tail(stage, url(run.id, "?presence=1&client=here")) as stream:
        await eventually(lambda: presences(stream), what="presence")
        there = _row(stage, new_worker_id(5), target=run.id, client="there")
        await stage.store.write(lambda tx: tx.connections.add(there))
        notice = json.dumps([run.session_id]).encode()
        notifier: Any = stage.follower._notifier
        from overnight.ports.notifier import PRESENCE, Notice

        notifier.publish([Notice(topic=PRESENCE, delta=notice)])
        await eventually(lambda: names(presences(stream)[-1]) == ["here", "there"], what="the other server's")


async def test_the_same_people_are_not_told_twice(stage: Stage) -> None:
    run = await stage.submitted()
    async with tail(stage, url(run.id, "?presence=1&client=a")) as stream:
        await eventually(lambda: presences(stream), what="presence")
        for number in range(3):
            async with tail(stage, url(run.id, "?client=b")):
                await eventually(partial(_told, stream, 2 + 2 * number), what="b to come")
            await eventually(partial(_told, stream, 3 + 2 * number), what="b to go")


def _told(stream: Tail, count: int) -> bool:
    return len(presences(stream)) == count


async def test_a_revoked_token_ends_its_connections(stage: Stage) -> None:
    secret = await stage.token(name="short")
    async with others_tail(stage, secret, "/api/v1/stream") as stream:
        async with stage.client() as http:
            assert (await http.delete("/api/v1/tokens/short")).status_code == 204
        await stream.task
        assert stream.body.endswith(sse.CLOSING)
        await eventually(lambda: _read(_nobody(stage)), what="it to be gone")


async def _nobody(stage: Stage) -> bool:
    return not await connections(stage)
