"""A follower sees each event once and in order, wherever its connections are cut."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.client import Client, Endpoint
from overnight.client.follow import Follow, Plan
from overnight.client.transport import Transport
from overnight.errors import NotFound, OvernightError, StreamTrimmed, Unauthorized, Unreachable

pytestmark = pytest.mark.anyio


def event(seq: int) -> bytes:
    body = json.dumps({"seq": seq, "type": "agent.custom", "data": {"text": "grüße\u2028" * (seq % 3)}})
    return f"id: {seq}\ndata: {body}\n\n".encode()


def stream(after: int, last: int) -> bytes:
    """The whole answer of an honest server for a run that has ended at `last`."""
    frames = b"".join(event(seq) for seq in range(after + 1, last + 1))
    return b":open\n\n" + frames + f"id: {last}\nevent: end\ndata: [DONE]\n\n".encode()


class FakeClock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def wall_ms(self) -> int:
        return round(self.now * 1000)

    def boot(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeResponse:
    def __init__(self, status: int, body: bytes, error: Exception | None = None, pieces: int = 1000) -> None:
        self.status_code = status
        self.headers = {"content-type": "text/event-stream" if status == 200 else "application/problem+json"}
        self._body, self._error, self._pieces = body, error, pieces

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), self._pieces):
            yield self._body[start : start + self._pieces]
        if self._error:
            raise self._error

    async def aread(self) -> bytes:
        return self._body


class FakeTransport:
    """Answers each connection by `answer(after)`, which is given the cursor that the client sent."""

    def __init__(self, answer: Callable[[int], FakeResponse]) -> None:
        self.answer = answer
        self.cursors: list[int] = []
        self.elsewhere = 0
        self.movable = False

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[FakeResponse]:
        assert str(query["after"]) == headers.get("Last-Event-ID", "0")
        self.cursors.append(int(query["after"]))
        yield self.answer(self.cursors[-1])

    async def relocate(self) -> bool:
        self.elsewhere -= 1
        return self.elsewhere >= 0


async def followed(transport: FakeTransport, **plan: Any) -> list[Any]:
    follow = Follow(cast("Transport", transport), FakeClock(), Plan(path="/x", **({"after": 0} | plan)))
    return [item async for item in follow.items()]


def seqs(items: list[Any]) -> list[int]:
    return [item["seq"] for item in items]


@given(last=st.integers(0, 12), cuts=st.lists(st.integers(0, 900), max_size=12), pieces=st.integers(1, 300))
def test_cuts_lose_nothing_and_double_nothing(last: int, cuts: list[int], pieces: int) -> None:
    left: Iterator[int] = iter(cuts)

    def answer(after: int) -> FakeResponse:
        whole = stream(after, last)
        cut = next(left, None)
        if cut is None:
            return FakeResponse(200, whole, pieces=pieces)
        error = httpx2.ReadError("cut") if cut % 2 else None
        return FakeResponse(200, whole[:cut], error if cut < len(whole) else None, pieces)

    assert seqs(asyncio.run(followed(FakeTransport(answer)))) == list(range(1, last + 1))


async def test_a_cut_at_every_byte() -> None:
    whole = stream(0, 4)
    for cut in range(len(whole) + 1):
        first = iter([whole[:cut]])
        transport = FakeTransport(lambda after, first=first: FakeResponse(200, next(first, stream(after, 4))))  # type: ignore[misc]
        assert seqs(await followed(transport)) == [1, 2, 3, 4], cut


async def test_repeats_are_dropped_and_holes_are_read_again() -> None:
    answers = iter([event(1) + event(2) + event(1) + event(2), event(2) + event(4), stream(2, 4)])
    transport = FakeTransport(lambda _: FakeResponse(200, next(answers)))
    assert seqs(await followed(transport)) == [1, 2, 3, 4]
    assert transport.cursors == [0, 2, 2]


async def test_a_hole_that_stays_is_said() -> None:
    with pytest.raises(OvernightError, match="no event 1, only 2"):
        await followed(FakeTransport(lambda _: FakeResponse(200, event(2))))


async def test_204_is_the_end() -> None:
    assert await followed(FakeTransport(lambda _: FakeResponse(204, b"")), after=7) == []


async def test_the_cursor_of_the_caller_is_kept() -> None:
    transport = FakeTransport(lambda after: FakeResponse(200, stream(after, 9)))
    assert seqs(await followed(transport, after=6)) == [7, 8, 9]


async def test_deltas_come_only_when_asked_for() -> None:
    delta = (
        b'id: 1\nevent: message.delta\ndata: {"type":"message.delta","item_id":"i","offset":0,"text":"t"}\n\n'
    )
    transport = FakeTransport(lambda after: FakeResponse(200, event(1) + delta + stream(1, 2)))
    assert [item["type"] for item in await followed(transport, deltas=True)] == [
        "agent.custom", "message.delta", "agent.custom",
    ]  # fmt: skip
    assert seqs(await followed(transport)) == [1, 2]


@pytest.mark.parametrize(
    "status, code, kind",
    [
        (404, "not_found", NotFound),
        (410, "stream_trimmed", StreamTrimmed),
        (401, "unauthorized", Unauthorized),
    ],
)
async def test_refusals_are_raised_at_once(status: int, code: str, kind: type[OvernightError]) -> None:
    body = json.dumps({"code": code, "detail": "words", "earliest": 5, "latest": 9}).encode()
    with pytest.raises(kind) as caught:
        await followed(FakeTransport(lambda _: FakeResponse(status, body)))
    assert caught.value.extra["earliest"] == 5


async def test_a_new_token_is_looked_up_once() -> None:
    answers = iter([FakeResponse(401, b"{}"), FakeResponse(200, stream(0, 2))])
    transport = FakeTransport(lambda _: next(answers))
    transport.elsewhere, transport.movable = 1, True
    assert seqs(await followed(transport)) == [1, 2]


async def test_a_server_that_drains_is_waited_for() -> None:
    answers = iter([FakeResponse(503, b"{}"), FakeResponse(429, b"{}"), FakeResponse(200, stream(0, 1))])
    heard: list[str] = []
    assert seqs(await followed(FakeTransport(lambda _: next(answers)), lost=heard.append)) == [1]
    assert len(heard) == 2


async def test_patience_ends() -> None:
    with pytest.raises(Unreachable, match="no connection for"):
        await followed(FakeTransport(lambda _: FakeResponse(503, b"{}")), patience_s=30.0)


async def test_patience_begins_when_the_connection_is_lost() -> None:
    clock = FakeClock()

    class Slow(FakeResponse):
        async def aiter_raw(self) -> AsyncIterator[bytes]:
            yield event(1)
            clock.now += 3600
            raise httpx2.ReadError("cut after an hour")

    answers = iter([Slow(200, b""), FakeResponse(200, stream(1, 2))])
    transport = cast("Transport", FakeTransport(lambda _: next(answers)))
    follow = Follow(transport, clock, Plan(path="/x", after=0, patience_s=30.0))
    assert seqs([item async for item in follow.items()]) == [1, 2]


async def test_what_is_no_stream_is_refused() -> None:
    response = FakeResponse(200, b"<html>")
    response.headers = {"content-type": "text/html"}
    with pytest.raises(OvernightError, match="no event stream"):
        await followed(FakeTransport(lambda _: response))


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def listening(handler: Handler) -> tuple[asyncio.Server, str]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def scripted(body: Callable[[int], bytes], token: str) -> Handler:
    """A server on a real socket that sends one answer a connection and then cuts it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        after = int(head.partition("after=")[2].partition(" ")[0])
        status = "200 OK" if f"Bearer {token}" in head else "401 Unauthorized"
        kind = "text/event-stream" if token in head else "application/problem+json"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode())
        if token in head:
            writer.write(body(after))
        await writer.drain()
        writer.close()

    return handle


async def test_over_a_restart_on_another_port_with_another_token() -> None:
    first, url = await listening(scripted(lambda after: event(after + 1), "one"))
    second, second_url = await listening(scripted(lambda after: stream(after, 5), "two"))
    places = iter([None, Endpoint(url, "one")])
    async with (
        first,
        second,
        Client(url, "one", locate=lambda: next(places, Endpoint(second_url, "two"))) as client,
    ):
        found = [item async for item in client.follow("run_x")]
        assert seqs(found) == [1, 2, 3, 4, 5]
        assert client.url == second_url


async def test_nobody_there() -> None:
    with socket.socket() as taken:  # so that nobody else listens there meanwhile
        taken.bind(("127.0.0.1", 0))
        async with Client(f"http://127.0.0.1:{taken.getsockname()[1]}", "x") as client:
            with pytest.raises(Unreachable, match="does not answer"):
                await client.run("run_x")
            with pytest.raises(Unreachable, match="no connection"):
                _ = [item async for item in client.follow("run_x", patience_s=0.0)]


async def test_a_server_that_has_not_announced_its_new_token_yet_is_waited_for() -> None:
    answers = iter([FakeResponse(401, b"{}"), FakeResponse(401, b"{}"), FakeResponse(200, stream(0, 2))])
    transport = FakeTransport(lambda _: next(answers))
    transport.movable = True
    assert seqs(await followed(transport)) == [1, 2]
    transport = FakeTransport(lambda _: FakeResponse(401, b"{}"))
    transport.movable = True
    with pytest.raises(Unauthorized):
        await followed(transport)


async def test_an_answer_that_is_no_json_is_told() -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
        await writer.drain()
        writer.close()

    server, url = await listening(page)
    async with server, Client(url, "x") as client:
        with pytest.raises(OvernightError, match="no JSON"):
            await client.runs()
