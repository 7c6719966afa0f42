"""The public suite, passed by our own core over every transport, and failed by servers that break the protocol."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.socket.exchange import SMALL
from tests.socket.serving import Counting

from overnight.client.socket.inproc import InProcess, pair
from overnight.client.socket.lines import Lines
from overnight.testing.conformance.socket import greeting, streaming
from overnight.testing.conformance.socket.offer import Offer, Said, Wire
from overnight.testing.conformance.socket.probe import Broken
from overnight.testing.conformance.socket.suite import SocketSuite
from overnight.wire.socket.limits import Limits

ROOT = Path(__file__).resolve().parents[2]


def offering(
    connect: Callable[[], Awaitable[Wire]], cut: Callable[[Wire], Awaitable[None]] | None = None
) -> Offer:
    return Offer(
        connect=connect, cut=cut, token="t", asked=Said(type="ask"), stream=Said(type="start"),
        abort=Said(type="abort"), wrong=Said(type="text", payload={"text": 7}), catalog=SMALL,
    )  # fmt: skip


class TestInProcess(SocketSuite):
    @pytest.fixture
    async def offer(self) -> AsyncIterator[Offer]:
        server = Counting(Limits(queue=4))

        async def connect() -> InProcess:
            ours, theirs = pair()
            server.serve(theirs)
            return ours

        async def cut(wire: Wire) -> None:
            assert isinstance(wire, InProcess)
            wire.cut()

        yield offering(connect, cut)
        await server.close()


class TestLines(SocketSuite):
    """Every connection of one server, over pairs of byte streams."""

    @pytest.fixture
    async def offer(self) -> AsyncIterator[Offer]:
        counting = Counting(Limits(queue=4))
        there: list[Lines] = []

        async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there.append(Lines(reader, writer))
            await counting.run(there[-1])

        server = await asyncio.start_server(met, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def connect() -> Lines:
            return Lines(*await asyncio.open_connection("127.0.0.1", port))

        yield offering(connect)
        await counting.close()
        for one in there:
            await one.close()
        server.close()
        await server.wait_closed()


@pytest.mark.anyio
async def test_a_program_passes_on_its_standard_streams() -> None:
    """Checks that need one connection only: a program has no more."""
    checks = (
        greeting.hello_is_answered_by_welcome,
        greeting.what_is_no_json_is_nacked,
        streaming.streams_do_not_disturb_each_other,
        streaming.no_more_is_sent_than_was_granted,
    )
    for check in checks:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.socket.lines_peer", cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdin is not None
        wire = Lines(child.stdout, child.stdin)

        async def connect(wire: Lines = wire) -> Lines:
            return wire

        async with asyncio.timeout(60):
            await check(offering(connect))
            assert await child.wait() == 0


def forgetful(data: bytes) -> bytes | None:
    """A server that never sends terminals."""
    return None if b'"type":"done"' in data else data


def stuttering(data: bytes) -> bytes | None:
    return data.replace(b'"seq":3', b'"seq":2')


def silent(data: bytes) -> bytes | None:
    return None if b'"type":"nack"' in data else data


@pytest.mark.anyio
@pytest.mark.parametrize(
    "fault, check",
    [
        (forgetful, streaming.a_stream_has_one_terminal_and_no_gap),
        (stuttering, streaming.a_stream_has_one_terminal_and_no_gap),
        (silent, greeting.an_unknown_type_is_nacked),
        (silent, greeting.numbers_are_checked_and_a_refused_one_changes_nothing),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_found_out(
    fault: Callable[[bytes], bytes | None], check: Callable[[Offer], Awaitable[None]]
) -> None:
    server = Counting()

    class Faulty(InProcess):
        async def send(self, message: bytes) -> None:
            if (told := fault(message)) is not None:
                await super().send(told)

    async def connect() -> InProcess:
        ours, theirs = pair()
        theirs.__class__ = Faulty
        server.serve(theirs)
        return ours

    offer = Offer(
        connect=connect, token="t", stream=Said(type="start"), abort=Said(type="abort"), catalog=SMALL, patience_s=0.3
    )  # fmt: skip
    with pytest.raises(Broken):
        await check(offer)
    await server.close()
