"""The listener in a folder: the same socket, the same tokens, and nothing else."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.server import stage as stages
from tests.server.stage import staged
from tests.socket.echo import echo
from tests.socket.raw import Peer, frame, request

from overnight.client.socket.link import Link
from overnight.client.socket.target import Target
from overnight.client.socket.transport import SocketTransport
from overnight.errors import StartRefused, Unauthorized
from overnight.server.serve import Listen, serving
from overnight.server.unix import unix_listener

pytestmark = pytest.mark.anyio


def listen(path: Path) -> Listen:
    return Listen(port=0, grace_s=1, unix=path)


async def asked(path: Path, head: bytes) -> Peer:
    reader, writer = await asyncio.open_unix_connection(path)
    peer = Peer(reader, writer)
    await peer.send(head)
    await peer.read_head()
    return peer


async def test_messages_there_and_back(tmp_path: Path) -> None:
    async with serving(echo, listen(tmp_path / "s"), end_streams=lambda: None):
        peer = await asked(tmp_path / "s", request())
        await peer.send(frame(b"over the folder", mask=b"abcd"))
        assert (await peer.until(1)).payload == b"over the folder"
        peer.leave()
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == []


async def test_a_deep_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 40)
    folder.mkdir()
    async with serving(echo, listen(folder / "s"), end_streams=lambda: None):
        transport = SocketTransport()
        await transport.connect(Target(url=f"unix:{folder}/s"))
        await transport.send(b"x")
        assert await transport.receive() == b"x"
        await transport.close()


async def test_a_later_server_takes_the_place_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (tmp_path / f"s.{os.getpid()}").touch()  # what one left that was killed as it began
    with unix_listener(path) as first:
        assert first is not None
        mark = path.stat().st_ino
        with unix_listener(path):
            assert path.stat().st_ino != mark
        assert not path.exists()
        with unix_listener(path):
            first.close()
            assert path.exists()
    assert not path.exists()


async def test_the_first_to_end_leaves_the_place_of_the_other(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = unix_listener(path)
    first.__enter__()
    with unix_listener(path):
        first.__exit__(None, None, None)
        assert path.exists()


async def test_a_place_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(StartRefused), unix_listener(tmp_path / "missing" / "s"):
        pass
    (tmp_path / "taken").mkdir()
    with pytest.raises(StartRefused), unix_listener(tmp_path / "taken"):
        pass


async def test_only_the_socket_and_what_is_open_is_served_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    monkeypatch.setattr(stages, "Listen", lambda **given: Listen(**given, unix=path))
    async with staged(tmp_path) as stage:
        for method, route, status in (
            ("GET", "/livez", 200), ("GET", "/api/v1/runs", 404), ("POST", "/api/v1/runs", 404),
            ("GET", "/metrics", 404),
        ):  # fmt: skip
            lines = (
                f"{method} {route} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {stage.secret}",
                "Content-Length: 0", "", "",
            )  # fmt: skip
            peer = await asked(path, "\r\n".join(lines).encode())
            assert int(peer.head[0].split()[1]) == status, route
            peer.leave()
        target = Target(url=f"unix:{path}", token=stage.secret)
        transport = SocketTransport()
        await transport.connect(target)
        link = Link("client", transport)
        running = asyncio.create_task(link.run())
        await link.ready()
        await link.close()
        await running
        with pytest.raises(Unauthorized):
            await transport.connect(Target(url=f"unix:{path}", token="wrong"))
