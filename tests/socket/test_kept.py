"""Sockets that are cut: what comes back to whom, and what a client that does not read costs."""

import asyncio
import contextlib
import socket as sockets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from bench.socket_clients import text
from tests.server.stage import Stage, staged
from tests.socket.raw import WITHIN_S, request
from tests.socket.wire import wire

from overnight.client.socket.connector import Backoff, Connector
from overnight.client.socket.link import Link
from overnight.client.socket.target import Target
from overnight.client.socket.terms import Handler, Resumer
from overnight.domain.token import TokenKind
from overnight.errors import Disconnected, NotAvailable
from overnight.server.socket import desk
from overnight.server.socket.handlers import Socket
from overnight.testing.signals import eventually
from overnight.wire.socket.envelope import Envelope
from overnight.wire.socket.limits import Limits

pytestmark = pytest.mark.anyio
QUICK = Backoff(first_s=0.001, most_s=0.01)
STEPS = 40


class Counting:
    """A protocol that counts to STEPS for everybody who executes anything."""

    kinds: frozenset[TokenKind] = frozenset({"user"})

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.left_by: list[Socket] = []
        self.size = 1
        self.go = asyncio.Event()
        self.go.set()

    def handlers(self, socket: Socket) -> Mapping[str, Handler]:
        return {"tool.execute": self.count}

    def resumers(self, socket: Socket) -> Mapping[str, Resumer]:
        return {}

    async def left(self, socket: Socket) -> None:
        self.left_by.append(socket)

    async def count(self, link: Link, envelope: Envelope) -> None:
        self.begun.append(envelope.scope)
        await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
        for number in range(STEPS):
            await self.go.wait()
            await link.send(envelope.scope, "tool.stream", {"partial": f"{number} " + "x" * self.size})
        await link.end(envelope.scope, "tool.result", {"content": []})


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    made = Counting()
    monkeypatch.setattr(desk, "spoken", lambda parts: (made,))
    return made


@contextlib.asynccontextmanager
async def client(url: str, token: str) -> AsyncIterator[Link]:
    link = Link("client")
    connector = Connector(link, Target(url=url, token=token), backoff=QUICK)
    running = asyncio.create_task(connector.run())
    try:
        yield link
    finally:
        await connector.close()
        await asyncio.wait([running])


async def executed(link: Link, name: str) -> list[str]:
    """Everything that is heard of one execution."""
    await link.ready()
    scope = f"tool:{name}"
    await link.request(scope, "tool.execute", {"execution": name, "name": "count"})
    async with asyncio.timeout(WITHIN_S):
        return [
            f"{one.type} {one.payload.get('partial', '').partition(' ')[0]}"
            async for one in link.inbox(scope)
        ]


WHOLE = [f"tool.stream {number}" for number in range(STEPS)] + ["tool.result "]


async def test_cut_anywhere_nothing_is_missing_and_nothing_comes_twice(
    counting: Counting, tmp_path: Path
) -> None:
    async with staged(tmp_path) as stage:
        async with wire(stage.port) as whole, client(whole.url, stage.secret) as link:
            assert await executed(link, "whole") == WHOLE
        for number, budget in enumerate(range(300, whole.passed, 251)):
            async with wire(stage.port, budget, budget // 2) as cut, client(cut.url, stage.secret) as link:
                heard = await _heard_in_spite_of_cuts(link, f"cut-{number}")
                assert heard == WHOLE, f"cut after {budget} of {whole.passed} bytes"
        assert len(counting.begun) == len(set(counting.begun))
        await eventually(lambda: len(counting.left_by) >= number + 2, what="all have left")


async def _heard_in_spite_of_cuts(link: Link, name: str) -> list[str]:
    """The request itself may be lost with a cut that comes before anything was agreed: then it is asked again."""
    for attempt in range(5):
        try:
            return await executed(link, f"{name}-{attempt}")
        except Disconnected:
            continue
    raise AssertionError("five attempts were cut off")


async def test_only_who_it_belonged_to_takes_it_up_again(counting: Counting, tmp_path: Path) -> None:
    counting.go.clear()
    async with staged(tmp_path) as stage, wire(stage.port) as cut, client(cut.url, stage.secret) as link:
        await link.ready()
        await link.request("tool:x", "tool.execute", {"execution": "x", "name": "count"})
        assert link.welcome is not None
        first = link.welcome.connection, link.welcome.resume_key
        other = await stage.token(name="another")
        for token, connection, key in (
            (other, *first),
            (stage.secret, first[0], "another key"),
            (stage.secret, "con_nobody", first[1]),
        ):
            async with client(f"ws://127.0.0.1:{stage.port}", token) as stranger:
                stranger._hello = {"resume": {"connection": connection, "key": key}}
                await stranger.ready()
                assert stranger.welcome is not None
                assert not stranger.welcome.resumed
                assert stranger.welcome.connection != first[0]
        cut.connections[-1].leave()
        await eventually(lambda: _resumed(link), what="it has come back")
        assert (link.welcome.connection, link.welcome.resume_key) == first
        counting.go.set()
        async with asyncio.timeout(WITHIN_S):
            assert [one.type async for one in link.inbox("tool:x")][-1] == "tool.result"


async def test_who_does_not_come_back_is_forgotten(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "Limits", lambda: Limits(resume_s=1))
    counting.go.clear()
    async with staged(tmp_path) as stage, wire(stage.port) as cut, client(cut.url, stage.secret) as link:
        await link.ready()
        await link.request("tool:x", "tool.execute", {"execution": "x", "name": "count"})
        connector_gone = link.welcome
        cut.port = 9
        cut.connections[-1].leave()
        await eventually(lambda: counting.left_by, what="the server has given it up")
        assert connector_gone is not None
        assert counting.left_by[0].id == connector_gone.connection


async def test_only_so_many_wait_for_their_clients(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "MOST_KEPT", 2)
    counting.go.clear()
    async with staged(tmp_path) as stage, contextlib.AsyncExitStack() as stack:
        cut = await stack.enter_async_context(wire(stage.port))
        links = [await stack.enter_async_context(client(cut.url, stage.secret)) for _ in range(4)]
        for number, link in enumerate(links):
            await link.ready()
            await link.request(f"tool:{number}", "tool.execute", {"execution": str(number), "name": "count"})
        cut.port = 9
        for peer in cut.connections[:4]:
            peer.leave()
        await eventually(lambda: len(counting.left_by) == 2, what="two were given up")


async def test_a_kind_of_token_that_may_not_speak_it(counting: Counting, tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        secret = await stage.token(kind="worker", name="worker")
        async with client(f"ws://127.0.0.1:{stage.port}", secret) as link:
            await link.ready()
            with pytest.raises(Exception, match="not served") as refused:
                await link.request("tool:x", "tool.execute", {"execution": "x", "name": "count"})
            assert refused.value.code == NotAvailable.code  # type: ignore[attr-defined]
    assert counting.begun == []


async def test_a_client_that_does_not_read_is_dropped_and_others_are_not_kept_waiting(
    counting: Counting, tmp_path: Path
) -> None:
    counting.size = 200_000
    hello = b'{"v":1,"type":"hello","scope":"conn","id":"h","seq":1,"ts":1,"payload":{"versions":[1]}}'
    execute = (
        b'{"v":1,"type":"tool.execute","scope":"tool:%d","id":"%d","seq":1,"ts":1,'
        b'"payload":{"execution":"%d","name":"count"}}'
    )
    async with staged(tmp_path, send_timeout_s=0.5) as stage:
        with sockets.socket() as stalled:
            stalled.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
            stalled.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(stalled, ("127.0.0.1", stage.port))
            first = request("/api/v1/socket", f"Authorization: Bearer {stage.secret}") + text(hello)
            await loop.sock_sendall(stalled, first)
            assert await loop.sock_recv(stalled, 4096)
            for number in range(5):
                await loop.sock_sendall(stalled, text(execute % (number, number, number)))
            await eventually(lambda: len(counting.begun) == 5, what="it is being sent a lot")
            async with client(f"ws://127.0.0.1:{stage.port}", stage.secret) as link:
                assert await executed(link, "healthy") == WHOLE
            await eventually(lambda: _open(stage), what="the stalled one was dropped")


def _resumed(link: Link) -> bool:
    return link.welcome is not None and link.welcome.resumed


async def _open(stage: Stage) -> bool:
    async with stage.client() as http:
        listed = (await http.get("/api/v1/connections")).json()["items"]
    return len(listed) == 0
