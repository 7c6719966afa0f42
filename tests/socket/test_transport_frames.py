"""The client's WebSocket against a peer whose frames may be anything, or nothing."""

import asyncio

import pytest
from tests.socket.connected import QUICK, all_of, connected, rest
from tests.socket.raw import BINARY, CLOSE, PING, PONG, TEXT, Peer, close, frame

from overnight.client.socket.opening import Patience
from overnight.client.socket.transport import Closing, State
from overnight.errors import Unreachable

pytestmark = pytest.mark.anyio


# --- messages


async def test_two_messages_in_one_read_and_one_in_many() -> None:
    async def serve(peer: Peer) -> None:
        await peer.send(frame(b"a" * 20), frame(b"b" * 200), frame(b"c" * 70_000)[:2])
        for at in range(2, len(whole := frame(b"c" * 70_000)), 9_999):
            await peer.send(whole[at : at + 9_999])
        await rest(peer)

    async with connected(serve) as transport:
        found = [await transport.receive() for _ in range(3)]
    assert found == [b"a" * 20, b"b" * 200, b"c" * 70_000]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 1024 * 1024])
async def test_every_length_there_and_back(size: int) -> None:
    async def serve(peer: Peer) -> None:
        while (found := await peer.frame()) is not None and found.opcode == TEXT:
            assert found.masked
            await peer.send(frame(found.payload))

    async with connected(serve) as transport:
        await transport.send(b"x" * size)
        assert await transport.receive() == b"x" * size


async def test_fragments_are_put_together_with_pings_between_them() -> None:
    pongs = []

    async def serve(peer: Peer) -> None:
        await peer.send(
            frame(b"on", fin=False),
            frame(b"mark", PING),
            frame(b"", 0, fin=False),
            frame(b"ce", 0),
            frame(b"more"),
        )
        pongs.append(await peer.until(PONG))
        await rest(peer)

    async with connected(serve) as transport:
        assert [await transport.receive(), await transport.receive()] == [b"once", b"more"]
    assert [pong.payload for pong in pongs] == [b"mark"]


async def test_messages_before_a_close_are_all_delivered() -> None:
    async def serve(peer: Peer) -> None:
        await peer.send(*[frame(b"%d" % number) for number in range(100)], close(1000, b"bye"))
        assert await peer.closed() == (1000, "bye")

    async with connected(serve) as transport:
        assert await all_of(transport) == [b"%d" % number for number in range(100)]
        assert transport.closing == Closing(code=1000, reason="bye", by_peer=True)
        assert transport.state is State.CLOSED


async def test_many_scopes_keep_their_order() -> None:
    sent = [b"s%d:%d" % (number % 3, number) for number in range(3000)]

    async def serve(peer: Peer) -> None:
        await peer.send(*map(frame, sent))
        await rest(peer)

    async with connected(serve) as transport:
        assert [await transport.receive() for _ in sent] == sent


# --- what must not be taken


BAD = {
    "masked": (frame(b"x", mask=b"abcd"), 1002),
    "rsv1": (frame(b"x", rsv=4), 1002),
    "rsv2": (frame(b"x", rsv=2), 1002),
    "rsv3": (frame(b"x", rsv=1), 1002),
    "opcode 3": (frame(b"x", 3), 1002),
    "opcode 11": (frame(b"x", 11), 1002),
    "fragmented ping": (frame(b"x", PING, fin=False), 1002),
    "long ping": (frame(b"x" * 126, PING), 1002),
    "long close": (frame(b"\x03\xe8" + b"x" * 124, CLOSE), 1002),
    "close of one byte": (frame(b"x", CLOSE), 1002),
    "close with 999": (close(999), 1002),
    "close with 1005": (close(1005), 1002),
    "close with a bad reason": (close(1000, b"\xff"), 1007),
    "continuation of nothing": (frame(b"x", 0), 1002),
    "text within text": (frame(b"x", fin=False) + frame(b"y"), 1002),
    "too long": (frame(b"x" * 2001), 1009),
    "too long in fragments": (frame(b"x" * 1500, fin=False) + frame(b"x" * 1500, 0), 1009),
    "no utf-8": (frame(b"\xff\xfe"), 1007),
    "half a character": (frame(b"ok \xc3"), 1007),
    "half a pair": (frame(b"\xed\xa0\x80"), 1007),
    "a character cut by the end, in fragments": (frame(b"\xc3", fin=False) + frame(b"", 0), 1007),
    "binary": (frame(b"{}", BINARY), 1003),
    "a length that lies": (b"\x81\x7f" + b"\x7f" + b"\xff" * 7, 1009),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_frames_close_with_the_right_code(name: str) -> None:
    piece, code = BAD[name]
    told = asyncio.get_running_loop().create_future()

    async def serve(peer: Peer) -> None:
        await peer.send(frame(b"good"), piece)
        told.set_result(await peer.closed())

    async with connected(serve, max_message=2000, patience=QUICK) as transport:
        assert await all_of(transport) == [b"good"]
        assert transport.closing is not None
        assert (transport.closing.code, transport.closing.by_peer) == (code, False)
        assert (await asyncio.wait_for(told, 30))[0] == code


@pytest.mark.parametrize(
    "piece",
    [b"", b"\x81", b"\x81\x7e", b"\x81\x7e\x01", b"\x81\x7f\x00\x00\x00", b"\x81\x05abc", b"\x01\x02ab"],
)
async def test_frames_that_break_off_end_as_a_cut(piece: bytes) -> None:
    async def serve(peer: Peer) -> None:
        await peer.send(frame(b"good"), piece)
        peer.writer.write_eof()
        await peer.reader.read()

    async with connected(serve, patience=QUICK) as transport:
        assert await all_of(transport) == [b"good"]
        assert (transport.closing, transport.state) == (Closing(code=1006, by_peer=True), State.CLOSED)


# --- pings


async def test_a_peer_that_does_not_answer_pings_is_dead() -> None:
    async def serve(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with connected(serve, patience=Patience(ping_s=0.02, pong_s=0.05, close_s=0.05)) as transport:
        assert await transport.receive() is None
        assert transport.closing is not None
        assert transport.closing.ping_timeout
        assert transport.state is State.CLOSED


async def test_a_peer_that_answers_pings_stays() -> None:
    answered = asyncio.Event()

    async def serve(peer: Peer) -> None:
        for _ in range(5):
            await peer.send(frame((await peer.until(PING)).payload, PONG))
        answered.set()
        await peer.send(frame(b"alive"))
        await rest(peer)

    async with connected(serve, patience=Patience(ping_s=0.01, pong_s=30)) as transport:
        assert await transport.receive() == b"alive"
        assert answered.is_set()
        assert transport.state is State.CONNECTED


# --- backpressure


async def test_what_is_not_asked_for_is_not_read() -> None:
    """Five hundred messages of 100 KB: the peer's writes stall long before they are all in our memory."""
    sent = 0

    async def serve(peer: Peer) -> None:
        nonlocal sent
        for _ in range(500):
            await peer.send(frame(b"x" * 100_000))
            sent += 1

    async with connected(serve, patience=QUICK) as transport:
        seen = -1
        while seen != sent:
            seen = sent
            await transport.receive()
            for _ in range(200):
                await asyncio.sleep(0)
            if sent >= 400:
                raise AssertionError("nothing held the peer back")
            if sent > 20:
                break
        assert sent < 400


async def test_a_peer_that_does_not_read_is_dropped_after_the_deadline() -> None:
    async def serve(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with connected(serve, patience=Patience(send_s=0.1, close_s=0.05)) as transport:
        with pytest.raises(Unreachable):
            await asyncio.gather(*[transport.send(b"x" * 1_000_000) for _ in range(100)])
        assert await transport.receive() is None
