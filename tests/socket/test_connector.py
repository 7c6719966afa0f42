"""A link over one connection after another."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest
from tests.server.stage import Stage, staged
from tests.socket.raw import Peer, client, server

from overnight.client.socket.connector import Backoff, Connector
from overnight.client.socket.link import Link
from overnight.client.socket.target import Target
from overnight.errors import Disconnected, Unauthorized
from overnight.testing.clocks import ManualClock
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
QUICK = Backoff(first_s=0.01, most_s=0.02, lasting_s=1000)


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("shared")) as made:
        yield made


@contextlib.asynccontextmanager
async def kept(connector: Connector) -> AsyncIterator[asyncio.Task[None]]:
    running = asyncio.create_task(connector.run())
    try:
        yield running
    finally:
        await connector.close()
        await asyncio.wait([running])


def test_the_bound_doubles_from_one_second_to_thirty() -> None:
    assert [Backoff().bound(failures) for failures in (0, 1, 2, 3, 4, 5, 6, 1000)] == [
        1,
        2,
        4,
        8,
        16,
        30,
        30,
        30,
    ]


def _waiting(connector: Connector, clock: ManualClock, attempts: int) -> bool:
    return connector.attempts == attempts and clock.sleepers > 0


def _more(connector: Connector, attempts: int) -> bool:
    return connector.attempts > attempts


async def test_waits_are_by_chance_up_to_the_bound_and_end_with_a_close() -> None:
    async def refusing(peer: Peer) -> None:
        peer.leave()

    clock, chances = ManualClock(), iter([0.0, 0.5, 1.0, 0.25, 0.5])
    async with server(refusing, shake=False) as url:
        connector = Connector(Link("client"), Target(url=url), clock=clock, chance=lambda: next(chances))
        async with kept(connector):
            for attempts, wait in ((2, 1.0), (3, 4.0), (4, 2.0)):
                await eventually(partial(_waiting, connector, clock, attempts), what="the wait")
                await clock.advance(wait - 0.5)
                assert connector.attempts == attempts
                await clock.advance(0.5)


async def test_a_link_comes_back_after_a_cut(shared: Stage) -> None:
    cuts: list[Peer] = []

    async def passing(peer: Peer) -> None:
        """A wire that the test can cut."""
        cuts.append(peer)
        reader, writer = await asyncio.open_connection("127.0.0.1", shared.port)
        try:
            await asyncio.gather(_pump(peer.reader, writer), _pump(reader, peer.writer))
        finally:
            writer.close()

    async with server(passing, shake=False) as url:
        link = Link("client")
        connector = Connector(link, Target(url=url, token=shared.secret), backoff=QUICK)
        async with kept(connector):
            for times in range(1, 6):
                await link.ready()
                assert connector.attempts == times
                cuts[-1].leave()
                await eventually(partial(_more, connector, times), what="another attempt")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def test_a_refused_token_is_the_end_whenever_it_is_refused(shared: Stage) -> None:
    url = f"ws://127.0.0.1:{shared.port}"
    with pytest.raises(Unauthorized):
        await Connector(Link("client"), Target(url=url, token="wrong"), backoff=QUICK).run()
    with pytest.raises(Unauthorized):
        await Connector(Link("client", hello={"token": "wrong"}), Target(url=url), backoff=QUICK).run()


async def test_a_server_that_is_elsewhere_now_is_found(shared: Stage) -> None:
    places = iter(["ws://127.0.0.1:9", "ws://127.0.0.1:9", f"ws://127.0.0.1:{shared.port}"])
    link = Link("client")
    connector = Connector(link, lambda: Target(url=next(places), token=shared.secret), backoff=QUICK)
    async with kept(connector):
        await link.ready()
        assert connector.attempts == 3


async def test_after_a_close_nobody_waits_for_it(shared: Stage) -> None:
    link = Link("client")
    connector = Connector(
        link, Target(url=f"ws://127.0.0.1:{shared.port}", token=shared.secret), backoff=QUICK
    )
    async with kept(connector) as running:
        await link.ready()
        await connector.close()
        await connector.close()
        await asyncio.wait_for(running, 30)
        with pytest.raises(Disconnected):
            await link.ready()
        with pytest.raises(Disconnected):
            async for _ in connector.follow("run:x"):
                pass


async def test_strangers_do_not_hold_a_place_for_ever(shared: Stage) -> None:
    async with client(shared.port) as peer:
        await peer.read_head()
    async with kept(
        Connector(Link("client", hello={"token": shared.secret}), Target(url=f"ws://127.0.0.1:{shared.port}"))
    ):
        pass
