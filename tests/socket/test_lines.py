"""The protocol on a program's standard streams."""

import asyncio
import sys
from pathlib import Path

import pytest
from tests.socket.exchange import SMALL

from overnight.client.socket.lines import Lines
from overnight.client.socket.link import Link
from overnight.errors import BodyTooLarge, NotConnected

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).resolve().parents[2]


class Sink:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.written += b"".join(parts)

    async def drain(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None: ...


def reading(*portions: bytes, longest: int = 100) -> Lines:
    reader = asyncio.StreamReader()
    for one in portions:
        reader.feed_data(one)
    reader.feed_eof()
    return Lines(reader, Sink(), longest=longest)  # type: ignore[arg-type]


async def rest(lines: Lines) -> list[bytes]:
    found = []
    while (one := await lines.receive()) is not None:
        found.append(one)
    return found


@pytest.mark.parametrize(
    "portions, lines",
    [
        ((b"a\nb\n",), [b"a", b"b"]),
        ((b"a", b"b\n", b"c\nd", b"e\n"), [b"ab", b"c", b"de"]),
        ((b"\n\n  \na\n\r\n\nb\n",), [b"a", b"b"]),
        ((b"a\r\nb\n",), [b"a\r", b"b"]),
        ((b"a\x0bb\x0cc\x1cd\xc2\x85e\xe2\x80\xa8f\n",), [b"a\x0bb\x0cc\x1cd\xc2\x85e\xe2\x80\xa8f"]),
        ((b"a\ncut off",), [b"a"]),
        ((), []),
    ],
)
async def test_lines_end_with_lf_alone_and_empty_ones_are_none(
    portions: tuple[bytes, ...], lines: list[bytes]
) -> None:
    assert await rest(reading(*portions)) == lines


async def test_a_line_without_end_is_not_collected_for_ever() -> None:
    lines = reading(b"a\n", b"x" * 60, b"x" * 60)
    assert await lines.receive() == b"a"
    with pytest.raises(BodyTooLarge):
        await lines.receive()


async def test_a_message_is_one_line_and_nothing_is_written_after_the_end() -> None:
    sink = Sink()
    lines = Lines(asyncio.StreamReader(), sink)  # type: ignore[arg-type]
    await lines.send(b'{"a":\n1}')
    assert sink.written == b'{"a": 1}\n'
    await lines.close(1000, "done")
    await lines.close(1011, "again")
    assert lines.closed_with == (1000, "done")
    with pytest.raises(NotConnected):
        await lines.send(b"{}")


async def test_a_child_process_serves_a_stream_on_its_standard_streams() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.socket.lines_peer", cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdin is not None
    link = Link("client", Lines(child.stdout, child.stdin), hello={"token": "t"}, catalog=SMALL)
    running = asyncio.create_task(link.run())
    async with asyncio.timeout(60):
        await link.request("stream:a", "start", {"flow": {"window": 7}}, timeout_s=60)
        found = [one.payload.get("text") async for one in link.inbox("stream:a")]
        assert found == [*map(str, range(20)), None]
        await link.close()
        await running
        assert await child.wait() == 0
