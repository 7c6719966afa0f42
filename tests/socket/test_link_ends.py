"""Links through greetings, cuts and ends."""

from __future__ import annotations

import asyncio

import pytest
from tests.socket.exchange import SMALL
from tests.socket.linked import Server, count, hold, joined

from overnight.client.socket import link as module
from overnight.client.socket.inproc import InProcess, pair
from overnight.client.socket.link import Ended, Link
from overnight.errors import (
    Disconnected,
    StreamTrimmed,
)
from overnight.testing.conformance.socket.offer import Offer
from overnight.testing.conformance.socket.probe import Probe
from overnight.testing.signals import eventually
from overnight.wire.socket.envelope import Envelope
from overnight.wire.socket.limits import Limits

pytestmark = pytest.mark.anyio


async def test_a_cut_goes_unnoticed_by_streams() -> None:
    server = Server(start=count)
    async with joined(server) as (link, ours):
        await link.request("stream:a", "start", {"flow": {"window": 16}})
        inbox = link.inbox("stream:a")
        texts: list[str] = []
        ends = [ours]
        again: list[asyncio.Task[Ended]] = []
        for cut in range(1, 4):
            while len(texts) < cut * 300:
                texts.append((await anext(inbox)).payload["text"])
            ends[-1].cut()
            await eventually(lambda: link.connection.state == "cut")
            end, theirs = pair()
            ends.append(end)
            again += [asyncio.create_task(server.serve(theirs)), asyncio.create_task(link.run(end))]
            await link.ready()
        texts += [one.payload["text"] async for one in inbox if one.type == "text"]
        assert texts == [str(number) for number in range(2000)]
        assert server.resumed == 3
        await link.close()
        await asyncio.gather(*again)


async def test_a_client_that_comes_back_before_the_cut_is_noticed_takes_over() -> None:
    server = Server(start=hold)
    async with joined(server) as (link, _):
        await link.request("stream:a", "start", {})
        held = server.links["c0"]
        ours, theirs = pair()
        await link.supplant()
        again = [asyncio.create_task(server.serve(theirs)), asyncio.create_task(link.run(ours))]
        await link.ready()
        held.post("stream:a", "done", {})
        assert [one.type async for one in link.inbox("stream:a")] == ["done"]
        await link.close()
        await asyncio.gather(*again)


async def test_at_a_cut_subscriptions_and_requests_of_the_connection_are_lost() -> None:
    never = asyncio.Event()

    async def silent(link: Link, envelope: Envelope) -> None:
        await never.wait()

    async with joined(Server(start=hold, ask=silent)) as (link, ours):
        await link.request("run:a", "start", {})
        asked = asyncio.create_task(link.request("conn", "ask", {}))
        inbox = link.inbox("run:a")
        await asyncio.sleep(0)
        ours.cut()
        with pytest.raises(Disconnected):
            await asked
        with pytest.raises(Disconnected):
            await anext(inbox)


async def test_scopes_with_a_log_go_on_from_their_cursor_or_tell_the_gap() -> None:
    async with joined(Server()) as (link, _):
        await link.resume({"run:a": 7, "run:b": 13, "session:c": 1})
        assert (await anext(link.inbox("run:a"))).payload == {"text": "after 7"}
        with pytest.raises(StreamTrimmed) as gap:
            await anext(link.inbox("run:b"))
        assert gap.value.extra == {"earliest": 20, "latest": 30}
        with pytest.raises(StreamTrimmed):
            await anext(link.inbox("session:c"))


async def test_a_wrong_token_is_told_and_closes() -> None:
    ours, theirs = pair()
    link = Link("client", ours, hello={"token": "no"}, catalog=SMALL)
    server = asyncio.create_task(Server().serve(theirs))
    ended = await link.run()
    assert (ended.code, ended.survives) == (1008, False)
    assert (await server).code == 1008
    await link.close()


async def test_who_does_not_say_hello_in_time_is_turned_away() -> None:
    ours, theirs = pair()
    ended = await Link("server", theirs, limits=Limits(hello_s=1), catalog=SMALL).run()
    assert ended.code == 1008
    assert await ours.receive() is None


async def test_close_says_goodbye_is_idempotent_and_ends_whoever_waits() -> None:
    never = asyncio.Event()

    async def silent(link: Link, envelope: Envelope) -> None:
        await never.wait()

    server = Server(start=hold, ask=silent)
    async with joined(server) as (link, _):
        await link.request("stream:a", "start", {})
        asked = asyncio.create_task(link.request("conn", "ask", {}))
        read = asyncio.create_task(anext(link.inbox("stream:a")))
        await asyncio.sleep(0)
        await link.close()
        await link.close()
        for one in (asked, read):
            with pytest.raises(Disconnected):
                await one
        with pytest.raises(Disconnected):
            await link.send("stream:b", "start", {})
        with pytest.raises(Disconnected):
            await link.ready()
        await eventually(lambda: not server.links["c0"].connection.survives)


async def test_a_link_closes_though_its_peer_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LAST_WORDS_S", 0.05)
    stuck = asyncio.Event()

    class Stuck(InProcess):
        async def send(self, message: bytes) -> None:
            if stuck.is_set():
                await asyncio.Event().wait()
            await super().send(message)

    server = Server(start=hold)
    async with joined(server) as (link, ours):
        await link.request("stream:a", "start", {})
        ours.__class__ = Stuck
        stuck.set()
        await link.send("stream:a", "text", {"text": "x"})
        async with asyncio.timeout(20):
            await link.close()
        stuck.clear()


async def test_after_a_goodbye_the_same_link_begins_anew() -> None:
    server = Server(start=count)
    async with joined(server) as (link, _):
        await link.request("stream:a", "start", {"flow": {"window": 2}})
        inbox = link.inbox("stream:a")
        await server.links["c0"].close(1012, "restart")
        with pytest.raises(Disconnected):
            async for _one in inbox:
                pass
        await eventually(lambda: link.connection.state == "cut")
        opening = asyncio.create_task(link.request("stream:b", "start", {}))
        ours, theirs = pair()
        again = [asyncio.create_task(server.serve(theirs)), asyncio.create_task(link.run(ours))]
        assert (await opening).type == "ack"
        assert len([one async for one in link.inbox("stream:b")]) == 2001
        await link.close()
        for one in server.links.values():
            await one.close()
        await asyncio.gather(*again)


async def test_a_peer_that_asks_and_never_reads_is_not_read_any_more() -> None:
    """Its requests would otherwise become replies without end."""
    ours, theirs = pair()
    serving = asyncio.create_task(Server(Limits(requests=100_000), ask=hold).serve(theirs))
    probe = Probe(ours, Offer(connect=lambda: asyncio.sleep(0, ours), token="t"))
    await probe.hello()
    sent = 0
    try:
        async with asyncio.timeout(60):
            while sent < 20_000:
                await asyncio.wait_for(probe.say("conn", "nonsense"), 0.5)
                sent += 1
    except TimeoutError:
        pass
    assert sent < 5_000
    for _ in range(sent):
        assert (await probe.hear())["type"] == "nack"  # type: ignore[index]
    await ours.close()
    await serving
