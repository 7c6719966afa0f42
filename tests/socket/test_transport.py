"""The client's WebSocket: its states, its handshake, and how it ends."""

import asyncio

import pytest
from tests.socket.connected import connected, rest
from tests.socket.raw import CLOSE, Peer, close, frame, server

from overnight.client.socket.opening import Patience
from overnight.client.socket.target import Target
from overnight.client.socket.transport import Closing, SocketTransport, State
from overnight.errors import AlreadyConnected, HandshakeFailed, NotConnected, Unauthorized, Unreachable

pytestmark = pytest.mark.anyio


def state_of(transport: SocketTransport) -> State:
    return transport.state


# --- states


async def test_connect_is_refused_unless_it_is_over_and_before_the_url_is_looked_at() -> None:
    async with connected(rest) as transport:
        assert state_of(transport) is State.CONNECTED
        with pytest.raises(AlreadyConnected):
            await transport.connect(Target(url="ws://nobody.invalid"))
    assert state_of(transport) is State.CLOSED


async def test_connect_is_refused_while_connecting_and_while_closing() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.read_head()
        arrived.set()
        await go.wait()
        await peer.send(peer.accept())
        await peer.until(CLOSE)
        arrived.set()
        await asyncio.Event().wait()

    transport = SocketTransport(Patience(close_s=0.5))
    async with server(slow, shake=False) as url:
        connecting = asyncio.create_task(transport.connect(Target(url=url)))
        await arrived.wait()
        assert state_of(transport) is State.CONNECTING
        with pytest.raises(AlreadyConnected):
            await transport.connect(Target(url=url))
        arrived.clear()
        go.set()
        await connecting
        closing = asyncio.create_task(transport.close())
        await arrived.wait()
        assert state_of(transport) is State.CLOSING
        with pytest.raises(AlreadyConnected):
            await transport.connect(Target(url=url))
        await transport.close()
        await closing
        assert state_of(transport) is State.CLOSED


async def test_a_failed_connect_leaves_it_disconnected_and_it_may_be_tried_again() -> None:
    async def broken(peer: Peer) -> None:
        await peer.read_head()
        peer.leave()

    transport = SocketTransport()
    async with server(broken, shake=False) as url:
        for _ in range(2):
            with pytest.raises(HandshakeFailed):
                await transport.connect(Target(url=url))
            assert state_of(transport) is State.DISCONNECTED
    with pytest.raises(Unreachable):
        await transport.connect(Target(url=url))
    async with server(rest) as url:
        await transport.connect(Target(url=url))
        await transport.close()


async def test_a_connect_that_is_cancelled_leaves_it_disconnected() -> None:
    asked = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.read_head()
        asked.set()
        await asyncio.Event().wait()

    transport = SocketTransport()
    async with server(silent, shake=False) as url:
        task = asyncio.create_task(transport.connect(Target(url=url)))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state_of(transport) is State.DISCONNECTED


async def test_close_while_connecting_wins() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.read_head()
        asked.set()
        await go.wait()
        await peer.send(peer.accept())
        await rest(peer)

    transport = SocketTransport()
    async with server(slow, shake=False) as url:
        task = asyncio.create_task(transport.connect(Target(url=url)))
        await asked.wait()
        await transport.close()
        go.set()
        with pytest.raises(NotConnected):
            await task
        assert state_of(transport) is State.CLOSED


async def test_close_is_idempotent_from_every_state() -> None:
    transport = SocketTransport()
    await transport.close()
    await transport.close()
    assert state_of(transport) is State.CLOSED
    async with connected(rest) as transport:
        await transport.close(1000, "done")
        await transport.close()
        assert (transport.state, transport.closing) == (State.CLOSED, Closing(code=1000, reason="done"))


async def test_without_a_connection_nothing_is_sent_or_received() -> None:
    transport = SocketTransport()
    with pytest.raises(NotConnected):
        await transport.send(b"x")
    with pytest.raises(NotConnected):
        await transport.receive()
    await transport.close()
    with pytest.raises(NotConnected):
        await transport.send(b"x")


async def test_a_new_connection_has_nothing_of_the_earlier_one() -> None:
    turn = iter([b"one", b"two"])

    async def serve(peer: Peer) -> None:
        await peer.send(frame(next(turn)), frame(b"never asked for"))
        await rest(peer)

    transport = SocketTransport()
    async with server(serve) as url:
        await transport.connect(Target(url=url))
        assert await transport.receive() == b"one"
        await transport.close()
        await transport.connect(Target(url=url))
        assert (await transport.receive(), transport.closing) == (b"two", None)
        await transport.close()


# --- the handshake


async def test_what_the_handshake_says() -> None:
    heads: list[Peer] = []

    async def serve(peer: Peer) -> None:
        heads.append(peer)
        await rest(peer)

    async with connected(serve, token="secret"):
        pass
    peer = heads[0]
    assert peer.head[0] == "GET /api/v1/socket HTTP/1.1"
    assert (peer.header("host") or "").startswith("127.0.0.1:")
    assert peer.header("authorization") == "Bearer secret"
    assert peer.header("sec-websocket-protocol") == "overnight.v1"
    assert peer.header("sec-websocket-extensions") is None


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"SSH-2.0-other\r\n\r\n",
        b"\x00\xff" * 100,
        b"",
    ],
    ids=["200", "redirect", "no headers", "another protocol", "garbage", "nothing"],
)
async def test_a_bad_answer_to_the_handshake(answer: bytes) -> None:
    async def serve(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(answer)

    transport = SocketTransport()
    async with server(serve, shake=False) as url:
        with pytest.raises(HandshakeFailed):
            await transport.connect(Target(url=url))
    assert state_of(transport) is State.DISCONNECTED


@pytest.mark.parametrize("fault", ["key", "protocol", "extension"])
async def test_what_the_answer_claims_is_checked(fault: str) -> None:
    async def serve(peer: Peer) -> None:
        await peer.read_head()
        if fault == "key":
            await peer.send(peer.accept(key="another key"))
        elif fault == "protocol":
            await peer.send(peer.accept(protocol=None))
        else:
            await peer.send(peer.accept("Sec-WebSocket-Extensions: permessage-deflate"))
        await rest(peer)

    async with server(serve, shake=False) as url:
        with pytest.raises(HandshakeFailed):
            await SocketTransport().connect(Target(url=url))


async def test_a_refusal_is_the_error_that_the_server_named() -> None:
    body = b'{"code":"unauthorized","status":401,"detail":"the token is not known"}'

    async def serve(peer: Peer) -> None:
        await peer.read_head()
        head = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n"
        await peer.send(head % len(body) + body)

    async with server(serve, shake=False) as url:
        with pytest.raises(Unauthorized, match="the token is not known"):
            await SocketTransport().connect(Target(url=url))


async def test_frames_that_come_with_the_answer_are_not_lost() -> None:
    async def serve(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(peer.accept(), frame(b"first"), frame(b"second"))
        await rest(peer)

    transport = SocketTransport()
    async with server(serve, shake=False) as url:
        await transport.connect(Target(url=url))
        assert [await transport.receive(), await transport.receive()] == [b"first", b"second"]
        await transport.close()


async def test_a_handshake_that_is_not_answered_is_given_up() -> None:
    async def serve(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with server(serve, shake=False) as url:
        with pytest.raises(Unreachable, match="handshake"):
            await SocketTransport(Patience(handshake_s=0.05)).connect(Target(url=url))


# --- ends


@pytest.mark.parametrize(
    "sent, code, reason",
    [
        (close(1000, b"bye"), 1000, "bye"),
        (close(1012), 1012, ""),
        (close(), 1005, ""),
        (close(4000, b"own"), 4000, "own"),
    ],
)
async def test_the_peers_close_is_answered_and_told(sent: bytes, code: int, reason: str) -> None:
    echoed = asyncio.get_running_loop().create_future()

    async def serve(peer: Peer) -> None:
        await peer.send(sent)
        echoed.set_result(await peer.closed())

    async with connected(serve) as transport:
        assert await transport.receive() is None
        assert transport.closing == Closing(code=code, reason=reason, by_peer=True)
        assert await transport.receive() is None, "asking again changes nothing"
        assert await echoed == (code, reason)
        with pytest.raises(NotConnected):
            await transport.send(b"late")


async def test_our_close_says_why_and_waits_for_the_answer() -> None:
    told = asyncio.get_running_loop().create_future()

    async def serve(peer: Peer) -> None:
        found = await peer.until(CLOSE)
        told.set_result(found.payload)
        await peer.send(frame(b"still on its way"), frame(found.payload, CLOSE))

    async with connected(serve) as transport:
        await transport.close(1001, "leaving")
        assert await told == b"\x03\xe9leaving"


async def test_a_peer_that_never_answers_a_close_is_left() -> None:
    async def serve(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with connected(serve, patience=Patience(close_s=0.05)) as transport:
        await transport.close()
        assert state_of(transport) is State.CLOSED


async def test_a_reader_that_waits_hears_of_our_own_close() -> None:
    async with connected(rest) as transport:
        reading = asyncio.create_task(transport.receive())
        await asyncio.sleep(0)
        await transport.close()
        assert await reading is None


async def test_a_reset_is_an_end_without_a_word() -> None:
    async def serve(peer: Peer) -> None:
        peer.leave()

    async with connected(serve) as transport:
        assert await transport.receive() is None
        assert transport.closing is not None
        assert transport.closing.code == 1006
