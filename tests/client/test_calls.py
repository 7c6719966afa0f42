"""Many short calls to one server, over connections that stay open: each call gets its own answer or none."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.client.endpoint import Endpoint
from overnight.client.worker import calls as module
from overnight.client.worker.calls import Calls
from overnight.errors import ConfigInvalid, LeaseLost, OvernightError, Unreachable
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
Script = Callable[["Told", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Told:
    """One request, as it came in on the connection of that number."""

    connection: int
    number: int
    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Peer:
    """A server that does on each connection what its script says."""

    port: int = 0
    connections: list[asyncio.StreamWriter] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    closed: int = 0

    def endpoint(self, path: str = "") -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self.port}{path}", "ovn_token")


@asynccontextmanager
async def serving(script: Script, trust: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    peer = Peer()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections.append(writer)
        connection = len(peer.connections)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *rest = head.decode().rstrip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
                body = await reader.readexactly(int(headers["content-length"]))
                asked = Told(
                    connection=connection, number=len(peer.told), line=line, headers=headers, body=body
                )
                peer.told.append(asked)
                await script(asked, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            peer.closed += 1
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=trust)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for writer in peer.connections:
            writer.close()


@asynccontextmanager
async def calling(script: Script, path: str = "") -> AsyncIterator[tuple[Calls, Peer]]:
    async with serving(script) as peer:
        calls = Calls(peer.endpoint(path))
        try:
            yield calls, peer
        finally:
            await calls.close()


def answer(content: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers])
    return f"{head}\r\n\r\n".encode() + content


async def echo(asked: Told, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(asked.body))


async def test_a_call_says_who_calls_and_what() -> None:
    async with calling(echo, path="/nights/") as (calls, peer):
        found = await calls.request("POST", "/api/run 1/ä?x=%20", json={"a": [1, "ü"]})
    assert (found.status, orjson.loads(found.content)) == (200, {"a": [1, "ü"]})
    assert peer.told[0].line == "POST /nights/api/run%201/%C3%A4?x=%20 HTTP/1.1"
    assert peer.told[0].headers == {
        "host": f"127.0.0.1:{peer.port}", "authorization": "Bearer ovn_token", "content-type": "application/json",
        "content-length": str(len(peer.told[0].body)),
    }  # fmt: skip


async def test_calls_one_after_another_share_a_connection_and_others_do_not() -> None:
    async with calling(echo) as (calls, peer):
        for number in range(5):
            assert (await calls.request("POST", "/", json=number)).content == str(number).encode()
        assert len(peer.connections) == 1
        found = await asyncio.gather(*(calls.request("POST", "/", json=number) for number in range(8)))
        assert [one.content for one in found] == [str(number).encode() for number in range(8)]
        assert len(peer.connections) == 8


ANSWERS = [
    answer(b"{}"),
    answer(b"x" * 70_000),
    answer(b"", "204 No Content"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"later"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n",
]


@pytest.mark.parametrize("whole", ANSWERS, ids=range(len(ANSWERS)))
async def test_an_answer_may_come_in_any_pieces(whole: bytes) -> None:
    async def in_pieces(asked: Told, writer: asyncio.StreamWriter) -> None:
        cut = (1, len(whole) // 2, len(whole))[asked.number]
        for start in range(0, len(whole), cut) if len(whole) < 1000 else (0,):
            writer.write(whole[start : start + cut] if len(whole) < 1000 else whole)
            await writer.drain()
            await asyncio.sleep(0)

    async with calling(in_pieces) as (calls, peer):
        found = [(await calls.request("POST", "/", json={})).content for _ in range(3)]
        assert len(peer.connections) == 1
    expected = whole.partition(b"Content-Length: ")[2].partition(b"\r\n\r\n")[2]
    assert found == [expected if b"chunked" not in whole else b"abcde"] * 3


async def test_a_refusal_is_the_error_that_the_server_raised() -> None:
    problem = orjson.dumps({"code": LeaseLost.code, "detail": "somebody else has it"})

    async def refuse(asked: Told, writer: asyncio.StreamWriter) -> None:
        writer.write(
            answer(problem, "409 Conflict") if asked.number == 0 else answer(b"<html>", "502 Bad Gateway")
        )

    async with calling(refuse) as (calls, peer):
        with pytest.raises(LeaseLost, match="somebody else"):
            await calls.request("POST", "/", json={})
        with pytest.raises(OvernightError) as caught:
            await calls.request("POST", "/", json={})
        assert caught.value.extra["status"] == 502
        assert len(peer.connections) == 1


@pytest.mark.parametrize(
    "ending", [answer(b"1", "200 OK", "Connection: close"), b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1"]
)
async def test_a_connection_that_the_server_ends_is_not_used_again(ending: bytes) -> None:
    async def once(_: Told, writer: asyncio.StreamWriter) -> None:
        writer.write(ending)

    async with calling(once) as (calls, peer):
        for _ in range(3):
            assert (await calls.request("POST", "/", json={})).content == b"1"
        assert [asked.connection for asked in peer.told] == [1, 2, 3]


async def test_a_connection_that_was_closed_in_between_is_not_used_again() -> None:
    async with calling(echo) as (calls, peer):
        await calls.request("POST", "/", json=1)
        peer.connections[0].close()
        await peer.connections[0].wait_closed()
        await eventually(lambda: not calls._spare, what="the connection is known to be closed")
        assert (await calls.request("POST", "/", json=2)).content == b"2"
        assert len(peer.connections) == 2


async def test_one_that_was_long_unused_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE_S", 0.0)
    async with calling(echo) as (calls, peer):
        for number in range(3):
            await calls.request("POST", "/", json=number)
        assert len(peer.connections) == 3


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"SSH-2.0\r\n"])
async def test_half_an_answer_is_none(said: bytes) -> None:
    async def stop(asked: Told, writer: asyncio.StreamWriter) -> None:
        writer.write(said if asked.number == 0 else answer(b"whole"))
        if asked.number == 0:
            writer.close()

    async with calling(stop) as (calls, peer):
        with pytest.raises(Unreachable, match="does not answer"):
            await calls.request("POST", "/", json={})
        assert (await calls.request("POST", "/", json={})).content == b"whole"
        assert len(peer.connections) == 2


async def test_a_server_that_falls_silent_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.02)

    async def silent(_: Told, __: asyncio.StreamWriter) -> None:
        return

    async with calling(silent) as (calls, _):
        with pytest.raises(Unreachable, match="nothing was heard"):
            await calls.request("POST", "/", json={})


class Way(asyncio.Transport):
    """A way on which less and less waits to be sent."""

    def __init__(self, waiting: list[int]) -> None:
        super().__init__()
        self._waiting = waiting

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nobody reads it."""

    def abort(self) -> None:
        """Nobody waits for it."""

    def get_write_buffer_size(self) -> int:
        return self._waiting.pop(0) if len(self._waiting) > 1 else self._waiting[0]


@pytest.mark.parametrize(
    "heard, waiting, outcome",
    [
        ([bytes([byte]) for byte in answer(b"slow")], [0], b"slow"),
        ([b""] * 3 + [answer(b"long")], [4, 3, 2, 1, 0], b"long"),
        ([b""] * 3 + [answer(b"long")], [4, 3, 3, 1, 0], None),
        ([b"HTTP/1.1 200", b"", b" OK\r\n"], [0], None),
    ],
)
async def test_as_long_as_anything_moves_a_call_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, heard: list[bytes], waiting: list[int], outcome: bytes | None
) -> None:
    connection = module._Connection(lambda _: None)
    connection.connection_made(Way(waiting))
    coming = iter(heard)

    async def quiet(futures: tuple[asyncio.Future[object], ...], timeout: float) -> object:
        """What comes until it is looked again."""
        assert timeout == module.QUIET_S
        if piece := next(coming):
            connection.data_received(piece)
        return {one for one in futures if one.done()}, set()

    monkeypatch.setattr(asyncio, "wait", quiet)
    if outcome is None:
        with pytest.raises(TimeoutError, match="nothing was heard"):
            await connection.ask(b"")
    else:
        assert (await connection.ask(b"")).content == outcome
    connection.drop()


async def test_a_late_answer_is_nobody_elses() -> None:
    late = asyncio.Event()

    async def slow(asked: Told, writer: asyncio.StreamWriter) -> None:
        if asked.number == 0:
            await late.wait()
        writer.write(answer(asked.body))

    async with calling(slow) as (calls, peer):
        first = asyncio.create_task(calls.request("POST", "/", json="first"))
        await eventually(lambda: bool(peer.told), what="the first call has arrived")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(calls.request("POST", "/", json="second"))
        await eventually(lambda: len(peer.told) == 2, what="the second call has arrived")
        late.set()
        assert (await second).content == b'"second"'
        assert [asked.connection for asked in peer.told] == [1, 2]


async def test_what_nobody_has_asked_for_is_no_answer() -> None:
    async def twice(asked: Told, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(asked.body) + answer(b"more"))

    async with calling(twice) as (calls, peer):
        for number in range(3):
            assert (await calls.request("POST", "/", json=number)).content == str(number).encode()
        assert len(peer.connections) == 3


async def test_where_nobody_listens_nobody_answers() -> None:
    async with serving(echo) as peer:
        endpoint = peer.endpoint()
    calls = Calls(endpoint)
    with pytest.raises(Unreachable, match="does not answer"):
        await calls.request("POST", "/", json={})
    await calls.close()


async def test_at_the_end_all_connections_are_closed() -> None:
    async with calling(echo) as (calls, peer):
        await asyncio.gather(*(calls.request("POST", "/", json=number) for number in range(3)))
        await calls.close()
        await eventually(lambda: peer.closed == 3, what="the connections are closed")


@pytest.mark.parametrize(
    "url, host",
    [
        ("http://[::1]:4010", "[::1]:4010"),
        ("http://nights.example:443", "nights.example:443"),
        ("https://nights.example", "nights.example"),
        ("http://nächte.example/", "xn--nchte-gra.example"),
    ],
)
def test_the_server_is_called_by_its_name(url: str, host: str) -> None:
    assert f"Host: {host}\r\n" in Calls(Endpoint(url, "ovn_token"))._head


@pytest.mark.parametrize("url", ["http://a..b", f"http://{'x' * 70}"])
def test_what_can_be_no_host_is_refused(url: str) -> None:
    with pytest.raises(ConfigInvalid, match="no name of a host"):
        Calls(Endpoint(url, "ovn_token"))


@given(st.text(max_size=20))
def test_a_token_never_becomes_more_than_a_header(token: str) -> None:
    try:
        calls = Calls(Endpoint("http://127.0.0.1:1", token))
    except ConfigInvalid:
        return
    assert calls._head.count("\r\n") == 3


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate that nobody has signed, in one file with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    made, part = tmp_path / "night.pem", tmp_path / "part.pem"
    kind = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=night -days 36500"
    argv = ["openssl", "req", "-x509", *kind.split(), "-keyout", str(made), "-out", str(part)]
    subprocess.run(argv, check=True, capture_output=True)
    made.write_bytes(made.read_bytes() + part.read_bytes())
    return made


async def test_over_tls_exactly_one_certificate_is_trusted(certificate: Path) -> None:
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trust.load_cert_chain(certificate)
    async with serving(echo, trust) as peer:
        url = f"https://127.0.0.1:{peer.port}"
        calls = Calls(Endpoint(url, "ovn_token", certificate))
        for number in range(2):
            assert (await calls.request("POST", "/", json=number)).content == str(number).encode()
        await calls.close()
        assert len(peer.connections) == 1
        stranger = Calls(Endpoint(url, "ovn_token"))
        with pytest.raises(Unreachable, match="certificate"):
            await stranger.request("POST", "/", json={})
        assert len(peer.told) == 2
