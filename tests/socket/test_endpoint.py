"""The socket's door: who is let in, what is said at it, and how everybody leaves."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.server.stage import Stage, staged
from tests.socket.raw import BINARY, TEXT, Peer, client, close, frame, request

from overnight.client.socket.link import Link
from overnight.client.socket.target import Target
from overnight.client.socket.transport import SocketTransport
from overnight.domain.token import digest
from overnight.errors import MalformedRequest, NotFound, OriginRefused, TooManyRequests, Unauthorized
from overnight.server.login import COOKIE
from overnight.server.socket import desk
from overnight.testing.signals import eventually
from overnight.wire.socket.limits import Limits

pytestmark = pytest.mark.anyio
MASK = b"\x01\x02\x03\x04"
PATH = "/api/v1/socket"


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("shared")) as made:
        yield made


def target(stage: Stage, token: str | None) -> Target:
    return Target(url=f"ws://127.0.0.1:{stage.port}", token=token)


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


@contextlib.asynccontextmanager
async def at_the_door(stage: Stage, *headers: str) -> AsyncIterator[Peer]:
    """Somebody whose handshake was accepted, and who has not said hello."""
    async with client(stage.port, request(PATH, *headers)) as peer:
        await peer.read_head()
        assert peer.head[0].startswith("HTTP/1.1 101 "), peer.head
        assert peer.header("sec-websocket-protocol") == "overnight.v1"
        yield peer


def hello(**payload: object) -> bytes:
    said = {"v": 1, "type": "hello", "scope": "conn", "id": "h", "seq": 1, "ts": 1}
    return frame(json.dumps(said | {"payload": {"versions": [1], **payload}}).encode(), mask=MASK)


async def answer(peer: Peer) -> dict[str, Any]:
    found = json.loads((await peer.until(TEXT)).payload)
    first: dict[str, Any] = found[0] if isinstance(found, list) else found
    return first


async def ended(peer: Peer) -> int | None:
    return (await peer.closed())[0]


async def sockets(stage: Stage) -> int:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {stage.secret}"}) as http:
        listed = (await http.get(f"{stage.base}/api/v1/connections")).json()
    return sum(one["kind"] == "socket" for one in listed["items"])


# --- who is let in


async def test_a_token_in_the_header(shared: Stage) -> None:
    async with at_the_door(shared, bearer(shared.secret)) as peer:
        await peer.send(hello())
        welcome = await answer(peer)
        assert (welcome["type"], welcome["reply_to"]) == ("welcome", "h")
        await eventually(lambda: sockets(shared), what="the socket is listed")
    await eventually(lambda: _none(shared), what="the socket is gone")


async def _none(stage: Stage) -> bool:
    return await sockets(stage) == 0


async def test_a_token_in_the_cookie_of_our_own_page(shared: Stage) -> None:
    origin = f"Origin: http://127.0.0.1:{shared.port}"
    cookie = f"Cookie: {COOKIE}={shared.secret}"
    head = request(PATH, cookie, origin, host=f"127.0.0.1:{shared.port}")
    async with client(shared.port, head) as peer:
        await peer.read_head()
        await peer.send(hello())
        assert (await answer(peer))["type"] == "welcome"


async def test_a_token_in_the_first_message(shared: Stage) -> None:
    async with at_the_door(shared) as peer:
        await peer.send(hello(token=shared.secret))
        assert (await answer(peer))["type"] == "welcome"


@pytest.mark.parametrize("token", [None, "", "wrong", "ovn_" + "x" * 40])
async def test_no_token_or_a_wrong_one_in_the_first_message(shared: Stage, token: str | None) -> None:
    async with at_the_door(shared) as peer:
        await peer.send(hello() if token is None else hello(token=token))
        nack = await answer(peer)
        assert nack["type"] == "nack"
        assert nack["payload"]["code"] == "unauthorized"
        assert await ended(peer) == 1008


async def test_two_tokens_are_nobodys(shared: Stage) -> None:
    async with at_the_door(shared, bearer(shared.secret)) as peer:
        await peer.send(hello(token=shared.secret))
        assert (await answer(peer))["type"] == "nack"
        assert await ended(peer) == 1008


async def test_what_is_refused_before_the_handshake(shared: Stage) -> None:
    with pytest.raises(Unauthorized):
        await SocketTransport().connect(target(shared, "wrong"))
    guest = await shared.token(owner="shr_" + "0" * 26, name="guest")
    with pytest.raises(Unauthorized):
        await SocketTransport().connect(target(shared, guest))
    for headers, kind in (
        (("Origin: https://evil.example",), OriginRefused),
        (("Sec-Fetch-Site: cross-site",), OriginRefused),
        ((bearer(shared.secret), "Origin: null"), OriginRefused),
        (("Authorization: Basic eA==",), Unauthorized),
    ):
        async with client(shared.port, request(PATH, *headers)) as peer:
            await peer.read_head()
            assert int(peer.head[0].split()[1]) == kind.status, headers
    async with client(shared.port, request(PATH, host="evil.example")) as peer:
        await peer.read_head()
        assert int(peer.head[0].split()[1]) == OriginRefused.status
    for path in (PATH + "/", PATH + "/x", "/api/v1//socket", "/api/v1/runs", "/livez", "/"):
        async with client(shared.port, request(path, bearer(shared.secret))) as peer:
            await peer.read_head()
            assert int(peer.head[0].split()[1]) == NotFound.status, path
    head = request(PATH, bearer(shared.secret)).replace(b"overnight.v1", b"another.v1")
    async with client(shared.port, head) as peer:
        await peer.read_head()
        assert int(peer.head[0].split()[1]) == MalformedRequest.status


async def test_only_so_many_connections(tmp_path: Path) -> None:
    async with (
        staged(tmp_path, max_connections_per_user=1) as stage,
        at_the_door(stage, bearer(stage.secret)) as first,
        at_the_door(stage) as second,
    ):
        await first.send(hello())
        assert (await answer(first))["type"] == "welcome"
        with pytest.raises(TooManyRequests):
            await SocketTransport().connect(target(stage, stage.secret))
        await second.send(hello(token=stage.secret))
        nack = await answer(second)
        assert nack["payload"]["code"] == "too_many_requests"
        assert await ended(second) == 1008


# --- the first message


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "Limits", lambda: Limits(hello_s=1))


async def test_who_says_nothing_is_asked_to_leave(short: None, tmp_path: Path) -> None:
    async with (
        staged(tmp_path) as stage,
        at_the_door(stage) as stranger,
        at_the_door(stage, bearer(stage.secret)) as known,
    ):
        assert await ended(stranger) == 1008
        assert await ended(known) == 1008


@pytest.mark.parametrize(
    "first",
    [
        frame(b"[]", mask=MASK), frame(b"no json", mask=MASK), frame(b"{}", mask=MASK), frame(b"", mask=MASK),
        frame(b'{"v":1,"type":"ping","scope":"conn","id":"a","seq":1,"ts":1,"payload":{}}', mask=MASK),
        hello(capabilities={"much": "x" * 4096}),
        frame("€".encode() * 2000, mask=MASK),
    ],
    ids=["empty batch", "no json", "no envelope", "nothing", "a ping", "too long", "too long in bytes"],
)  # fmt: skip
async def test_a_bad_first_message(shared: Stage, first: bytes) -> None:
    async with at_the_door(shared) as peer:
        await peer.send(first)
        assert await ended(peer) == 1008


async def test_whoever_is_known_may_say_a_long_hello(shared: Stage) -> None:
    async with at_the_door(shared, bearer(shared.secret)) as peer:
        await peer.send(hello(capabilities={"much": "x" * 8192}))
        assert (await answer(peer))["type"] == "welcome"


async def test_only_a_few_may_be_about_to_say_who_they_are(shared: Stage) -> None:
    async with contextlib.AsyncExitStack() as stack:
        waiting = [await stack.enter_async_context(at_the_door(shared)) for _ in range(desk.MOST_STRANGERS)]
        async with at_the_door(shared) as one_more:
            assert await ended(one_more) == 1008
        async with at_the_door(shared, bearer(shared.secret)) as known:
            await known.send(hello())
            assert (await answer(known))["type"] == "welcome"
        await waiting[0].send(hello(token=shared.secret))
        assert (await answer(waiting[0]))["type"] == "welcome"
        async with at_the_door(shared) as another:
            await another.send(hello(token=shared.secret))
            assert (await answer(another))["type"] == "welcome"


async def test_messages_that_are_not_text(shared: Stage) -> None:
    async with at_the_door(shared, bearer(shared.secret)) as peer:
        await peer.send(frame(b"{}", BINARY, mask=MASK))
        assert await ended(peer) == 1003


# --- the end


async def test_a_revoked_token_is_out_at_once(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        secret = await stage.token(name="short-lived")
        found = await stage.store.read(lambda tx: tx.tokens.by_digest(digest(secret)))
        assert found is not None
        async with at_the_door(stage, bearer(secret)) as peer, stage.client() as http:
            await peer.send(hello())
            assert (await answer(peer))["type"] == "welcome"
            assert (await http.delete(f"/api/v1/tokens/{found.id}")).status_code < 300
            assert (await answer(peer))["type"] == "goodbye"
            assert await ended(peer) == 1008


async def test_a_server_that_stops_says_goodbye(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with staged(tmp_path) as stage:
            peer = await stack.enter_async_context(at_the_door(stage, bearer(stage.secret)))
            silent = await stack.enter_async_context(at_the_door(stage))
            await peer.send(hello())
            assert (await answer(peer))["type"] == "welcome"
        assert (await answer(peer))["type"] == "goodbye"
        assert await ended(peer) == 1012
        assert await ended(silent) == 1012


async def test_a_client_that_closes_is_answered(shared: Stage) -> None:
    async with at_the_door(shared, bearer(shared.secret)) as peer:
        await peer.send(hello())
        await answer(peer)
        await peer.send(close(1000, b"done", mask=MASK))
        assert await peer.closed() == (1000, "done")
        assert await peer.frame() is None


async def test_links_over_the_whole_way(shared: Stage) -> None:
    transport = SocketTransport()
    await transport.connect(target(shared, shared.secret))
    link = Link("client", transport)
    running = asyncio.create_task(link.run())
    await link.ready()
    assert link.welcome is not None
    assert link.welcome.connection.startswith("con_")
    await link.close()
    end = await running
    assert (end.code, end.survives) == (1000, False)
