"""The link: requests, handlers and inboxes, over transports in one process."""

from __future__ import annotations

import asyncio

import pytest
from tests.socket.linked import Server, count, hold, joined

from overnight.client.socket.link import Link, Nacked
from overnight.errors import (
    InvalidPayload,
    NoReply,
    NotFound,
    ScopeOver,
    TooSlow,
)
from overnight.testing.signals import eventually
from overnight.wire.socket.envelope import Envelope
from overnight.wire.socket.limits import Limits

pytestmark = pytest.mark.anyio


async def refuse(link: Link, envelope: Envelope) -> None:
    raise NotFound("no such thing", mend="look elsewhere", extra={"asked": envelope.id})


async def test_a_scope_from_its_opening_to_its_terminal() -> None:
    async with joined(Server(start=count)) as (link, _):
        reply = await link.request("stream:a", "start", {"flow": {"window": 5}})
        assert reply.type == "ack"
        texts = [one.payload["text"] async for one in link.inbox("stream:a") if one.type == "text"]
        assert texts == [str(number) for number in range(2000)]
        with pytest.raises(ScopeOver):
            await link.request("stream:a", "ask", {})


async def test_nothing_is_lost_that_comes_before_anybody_listens() -> None:
    async with joined(Server(start=count)) as (link, _):
        await link.request("stream:a", "start", {})
        await eventually(lambda: len(link.inbox("stream:a")) >= 256)
        found = [one.type async for one in link.inbox("stream:a")]
        assert found == ["text"] * 2000 + ["done"]


async def test_fifty_sessions_with_four_streams_each() -> None:
    async def few(link: Link, envelope: Envelope) -> None:
        await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
        for number in range(40):
            await link.send(envelope.scope, "text", {"text": f"{envelope.scope} {number}"})
        await link.end(envelope.scope, "done", {})

    async def stream(link: Link, name: str) -> None:
        await link.request(name, "start", {"flow": {"window": 8}})
        found = [one.payload.get("text") async for one in link.inbox(name)]
        assert found == [*(f"{name} {number}" for number in range(40)), None]

    async with joined(Server(stream=few, session=hold)) as (link, _):
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for number in range(50):
                await link.request(f"session:{number}", "start", {})
                for which in range(4):
                    group.create_task(stream(link, f"stream:{number}.{which}"))
        assert link.connection.scopes.counts() == {"open": 50, "settling": 0, "tombstones": 200}


async def test_a_refused_request_raises_what_the_nack_says() -> None:
    async with joined(Server(ask=refuse, start=refuse)) as (link, _):
        with pytest.raises(Nacked) as found:
            await link.request("conn", "ask", {})
        assert (found.value.code, found.value.detail, found.value.mend) == (
            "not_found", "no such thing", "look elsewhere"
        )  # fmt: skip
        assert "asked" in found.value.extra
        with pytest.raises(Nacked):
            await link.request("stream:a", "start", {})
        assert [one.type async for one in link.inbox("stream:a")] == []
        assert len(link.connection.scopes) == 0


async def test_what_nobody_serves_is_not_available() -> None:
    async with joined(Server()) as (link, _):
        with pytest.raises(Nacked) as found:
            await link.request("conn", "ask", {})
        assert found.value.code == "not_available"


async def test_a_handler_that_breaks_is_told_as_internal_and_ends_nothing_else() -> None:
    async def broken(link: Link, envelope: Envelope) -> None:
        raise RuntimeError("secret")

    async with joined(Server(ask=broken)) as (link, _):
        for _ in range(2):
            with pytest.raises(Nacked) as found:
                await link.request("conn", "ask", {})
            assert found.value.code == "internal"
            assert "secret" not in found.value.detail


async def test_a_handler_that_fails_after_its_reply_fails_its_scope() -> None:
    async def half(link: Link, envelope: Envelope) -> None:
        await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
        await link.send(envelope.scope, "text", {"text": "x"})
        raise InvalidPayload("of its own")

    async with joined(Server(start=half)) as (link, _):
        await link.request("stream:a", "start", {})
        found = [one async for one in link.inbox("stream:a")]
        assert [one.type for one in found] in (["text", "failed"], ["failed"])
        assert found[-1].payload["code"] == "invalid_payload"


async def test_a_handler_that_says_nothing_acks() -> None:
    async with joined(Server(ask=hold)) as (link, _):
        assert (await link.request("conn", "ask", {})).type == "ack"


async def test_a_request_that_is_not_answered_in_time_is_told_so() -> None:
    forever = asyncio.Event()

    async def silent(link: Link, envelope: Envelope) -> None:
        await forever.wait()

    async with joined(Server(ask=silent)) as (link, _):
        with pytest.raises(NoReply):
            await link.request("conn", "ask", {}, timeout_s=0.05)


async def test_requests_are_answered_while_another_takes_long() -> None:
    release = asyncio.Event()

    async def long(link: Link, envelope: Envelope) -> None:
        await release.wait()

    async with joined(Server(start=long, ask=hold)) as (link, _):
        opening = asyncio.create_task(link.request("stream:a", "start", {}))
        assert (await link.request("conn", "ask", {})).type == "ack"
        assert not opening.done()
        release.set()
        assert (await opening).type == "ack"


async def test_a_producer_waits_for_a_reader_that_is_slow() -> None:
    sent = 0

    async def counting(link: Link, envelope: Envelope) -> None:
        nonlocal sent
        await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
        for number in range(500):
            await link.send(envelope.scope, "text", {"text": str(number)})
            sent += 1
        await link.end(envelope.scope, "done", {})

    async with joined(Server(Limits(window=8, queue=16), start=counting)) as (link, _):
        await link.request("stream:a", "start", {})
        await eventually(lambda: sent >= 24)
        assert (sent, len(link.inbox("stream:a"))) == (24, 8)
        assert len([one async for one in link.inbox("stream:a")]) == 501


async def test_a_reader_that_is_too_slow_gets_its_terminal_all_the_same() -> None:
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def flood(link: Link, envelope: Envelope) -> None:
        await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
        try:
            while True:
                await link.send(envelope.scope, "text", {"text": "x"})
        except TooSlow as error:
            outcome.set_result(error.code)

    async with joined(Server(Limits(window=4, queue=8), start=flood)) as (link, _):
        await link.request("stream:a", "start", {"flow": {"policy": "fail"}})
        assert await outcome == "too_slow"
        found = [one async for one in link.inbox("stream:a")]
        assert found[-1].type == "failed"
        assert len(found) <= 13


async def test_a_server_asks_its_client() -> None:
    async def work(link: Link, envelope: Envelope) -> None:
        await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
        await link.send(envelope.scope, "text", {"text": "half"})
        await link.end(envelope.scope, "done", {})

    server = Server()
    async with joined(server, start=work):
        there = server.links["c0"]
        assert (await there.request("tool:1", "start", {})).type == "ack"
        assert [one.type async for one in there.inbox("tool:1")] == ["text", "done"]


async def test_the_inbox_that_is_closed_drops_the_scope() -> None:
    async with joined(Server(start=count)) as (link, _):
        await link.request("stream:a", "start", {})
        async with link.inbox("stream:a") as inbox:
            assert (await anext(inbox)).type == "text"
        assert [one async for one in inbox] == []
        assert len(link.connection.scopes) == 0


async def test_an_answer_that_ends_its_scope_is_not_kept_for_nobody() -> None:
    async def whole(link: Link, envelope: Envelope) -> None:
        await link.end(envelope.scope, "done", {}, reply_to=envelope.id)

    async with joined(Server(start=whole)) as (link, _):
        assert (await link.request("stream:a", "start", {})).type == "done"
        assert [one async for one in link.inbox("stream:a")] == []
