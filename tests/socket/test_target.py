"""Where a socket may be opened."""

import asyncio
from pathlib import Path

import pytest
from tests.socket.connected import rest
from tests.socket.raw import Peer, frame

from overnight.client.socket.target import Target
from overnight.client.socket.transport import SocketTransport
from overnight.errors import UrlRefused


@pytest.mark.parametrize(
    "url, uri",
    [
        ("ws://127.0.0.1", "ws://127.0.0.1/api/v1/socket"),
        ("ws://127.0.0.1:80/", "ws://127.0.0.1/api/v1/socket"),
        ("ws://[::1]:4010/own", "ws://[::1]:4010/own"),
        ("wss://nights.example", "wss://nights.example/api/v1/socket"),
        ("wss://nights.example:4443", "wss://nights.example:4443/api/v1/socket"),
        ("unix:/run/overnight/socket", "ws://localhost/api/v1/socket"),
    ],
)
def test_urls(url: str, uri: str) -> None:
    assert Target(url=url).address.uri == uri


@pytest.mark.parametrize(
    "url",
    [
        "", "http://127.0.0.1", "127.0.0.1:4010", "ws://", "ws://a:b", "ws://[::1", "ws://a b", "unix:relative",
        "unix:",
        "ws://user@host", "ws://user:secret@host", "ws://host/?token=secret", "ws://host/#secret", "ws://host\n",
    ],
)  # fmt: skip
def test_urls_that_are_refused_and_never_shown_whole(url: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        Target(url=url)
    assert "secret" not in str(refused.value)


def test_a_target_does_not_show_its_token() -> None:
    assert "secret" not in repr(Target(url="ws://host", token="secret"))


@pytest.mark.anyio
async def test_a_listener_in_a_folder_however_deep(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 40)
    folder.mkdir()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        await peer.read_head()
        await peer.send(peer.accept(), frame(b"hello"))
        await rest(peer)
        writer.close()

    (tmp_path / "short").symlink_to(folder)
    listening = await asyncio.start_unix_server(served, tmp_path / "short" / "s")
    transport = SocketTransport()
    await transport.connect(Target(url=f"unix:{folder}/s"))
    assert await transport.receive() == b"hello"
    await transport.close()
    listening.close()
