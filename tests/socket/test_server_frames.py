"""The server's WebSocket against a client whose frames may be anything, or nothing."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator

import pytest
from tests.socket.echo import echoing
from tests.socket.raw import BINARY, CLOSE, PING, PONG, TEXT, Frame, Peer, client, close, frame, request

from overnight.server.serve import MAX_MESSAGE
from overnight.server.socket.protocol import MOST_FRAGMENTS

pytestmark = pytest.mark.anyio
MASK = b"\x01\x02\x03\x04"


@pytest.fixture(scope="module")
async def port(anyio_backend: str) -> AsyncIterator[int]:
    async with echoing() as found:
        yield found


@contextlib.asynccontextmanager
async def shaken(port: int) -> AsyncIterator[Peer]:
    async with client(port) as peer:
        await peer.read_head()
        assert peer.head[0].startswith("HTTP/1.1 101 ")
        yield peer


def sent(payload: bytes, opcode: int = TEXT, **more: bool | int) -> bytes:
    return frame(payload, opcode, mask=MASK, **more)  # type: ignore[arg-type]


async def test_the_subprotocol_is_chosen_and_nothing_is_compressed(port: int) -> None:
    async with client(port, request("/", "Sec-WebSocket-Extensions: permessage-deflate")) as peer:
        await peer.read_head()
        assert peer.header("sec-websocket-protocol") == "overnight.v1"
        assert peer.header("sec-websocket-extensions") is None


async def test_frames_that_come_with_the_handshake_are_not_lost(port: int) -> None:
    async with client(port, request() + sent(b"first") + sent(b"second")[:3]) as peer:
        await peer.send(sent(b"second")[3:], sent(b"third"))
        await peer.read_head()
        assert [(await peer.until(TEXT)).payload for _ in range(3)] == [b"first", b"second", b"third"]


async def test_many_messages_in_one_read_keep_their_order(port: int) -> None:
    async with shaken(port) as peer:
        numbers = [b"s%d:%d" % (number % 3, number) for number in range(500)]
        await peer.send(*map(sent, numbers))
        assert [(await peer.until(TEXT)).payload for _ in numbers] == numbers


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, MAX_MESSAGE])
async def test_every_length_there_and_back(port: int, size: int) -> None:
    async with shaken(port) as peer:
        await peer.send(sent(b"x" * size))
        found = await peer.until(TEXT)
        assert (len(found.payload), found.masked) == (size, False)


async def test_fragments_are_put_together_with_pings_between_them(port: int) -> None:
    async with shaken(port) as peer:
        await peer.send(sent(b"on", fin=False), sent(b"mark", PING), sent(b"", 0, fin=False), sent(b"ce", 0))
        assert [await peer.frame(), await peer.frame()] == [Frame(PONG, b"mark"), Frame(TEXT, b"once")]


BAD = {
    "not masked": (frame(b"x"), 1002),
    "rsv1": (sent(b"x", rsv=4), 1002),
    "rsv2": (sent(b"x", rsv=2), 1002),
    "rsv3": (sent(b"x", rsv=1), 1002),
    "opcode 3": (sent(b"x", 3), 1002),
    "opcode 11": (sent(b"x", 11), 1002),
    "fragmented ping": (sent(b"x", PING, fin=False), 1002),
    "long ping": (sent(b"x" * 126, PING), 1002),
    "close of one byte": (sent(b"x", CLOSE), 1002),
    "close with 999": (close(999, mask=MASK), 1002),
    "close with a bad reason": (close(1000, b"\xff", mask=MASK), 1007),
    "continuation of nothing": (sent(b"x", 0), 1002),
    "text within text": (sent(b"x", fin=False) + sent(b"y"), 1002),
    "no utf-8": (sent(b"\xff\xfe"), 1007),
    "half a character, in fragments": (sent(b"\xc3", fin=False) + sent(b"", 0), 1007),
    "too long": (sent(b"x" * (MAX_MESSAGE + 1)), 1009),
    "too long in fragments": (sent(b"x" * MAX_MESSAGE, fin=False) + sent(b"x", 0), 1009),
    "too many fragments": (sent(b"x", fin=False) + sent(b"", 0, fin=False) * (MOST_FRAGMENTS + 1), 1009),
    "a length that lies": (b"\x81\xff" + b"\x7f" + b"\xff" * 7 + MASK, 1009),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_frames_close_with_the_right_code_and_leave_no_trace(
    port: int, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    piece, code = BAD[name]
    async with shaken(port) as peer:
        with caplog.at_level(logging.INFO):
            await peer.send(sent(b"good"))
            assert (await peer.until(TEXT)).payload == b"good"
            await peer.send(piece)
            assert (await peer.closed())[0] == code
            assert await peer.frame() is None
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_close_is_answered_with_its_own_code(port: int) -> None:
    async with shaken(port) as peer:
        await peer.send(close(4321, b"own", mask=MASK))
        assert await peer.closed() == (4321, "own")
        assert await peer.frame() is None


async def test_pings_of_a_peer_that_does_not_read_are_not_answered_without_end(port: int) -> None:
    """Twenty megabytes of pings: each answer would otherwise wait in memory to be read."""
    async with shaken(port) as peer:
        for _ in range(20):
            await peer.send(sent(b"p" * 125, PING) * 8000)
        pongs = 0
        await peer.send(close(1000, mask=MASK))
        while (found := await peer.frame()) is not None:
            pongs += found.opcode == PONG
        assert pongs < 20 * 8000


async def test_random_bytes_never_crash_the_server(port: int, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(1)
    for _ in range(150):
        async with shaken(port) as peer:
            good = b"".join(
                sent(
                    chance.randbytes(chance.choice([0, 5, 125, 126, 300])),
                    chance.choice([TEXT, BINARY, PING, PONG, 0, 8]),
                )
                for _ in range(chance.randrange(5))
            )
            piece = bytearray(good + chance.randbytes(chance.randrange(40)))
            for _ in range(chance.randrange(4)):
                if piece:
                    piece[chance.randrange(len(piece))] ^= 1 << chance.randrange(8)
            await peer.send(bytes(piece))
            peer.writer.write_eof()
            while await peer.frame() is not None:
                pass
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_random_handshakes_never_crash_the_server(port: int, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(2)
    for _ in range(150):
        head = bytearray(request("/%E2%82%AC?a=\xff"))
        for _ in range(chance.randrange(1, 6)):
            head[chance.randrange(len(head))] = chance.randrange(256)
        async with client(port, bytes(head) + sent(b"early")) as peer, asyncio.timeout(30):
            peer.writer.write_eof()
            with contextlib.suppress(ConnectionError):
                assert len(await peer.reader.read()) < 2000
    traces = [record for record in caplog.records if record.exc_info]
    assert traces == []
