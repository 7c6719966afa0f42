"""The protocol over a pair of byte streams: one message a line, as on a program's standard input and output."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from overnight.errors import BodyTooLarge, NotConnected

LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes. What is longer is no message of ours, and must not fill the memory."""
_PORTION: Final = 64 * 1024


class Lines:
    """A `Transport`. Lines end with LF alone, empty ones are ignored, a last one without LF was cut off and is lost."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, longest: int = LONGEST_LINE
    ) -> None:
        self.closed_with: tuple[int, str] | None = None
        self._reader = reader
        self._writer = writer
        self._longest = longest
        self._waiting: list[bytes] = []
        self._rest: list[bytes] = []
        self._held = 0

    async def send(self, message: bytes) -> None:
        """Write one line; returns when there is room for another. NotConnected when the other end is gone."""
        if (
            b"\n" in message
        ):  # JSON has no bare line end within a value, and white space between them says nothing
            message = message.replace(b"\n", b" ")
        if self._writer.is_closing():
            raise NotConnected("the lines are closed")
        self._writer.writelines((message, b"\n"))
        try:
            await self._writer.drain()
        except OSError as error:
            raise NotConnected(f"the other end is gone: {error}") from None

    async def receive(self) -> bytes | None:
        """The next line that is not empty; None at the end. BodyTooLarge when a line has no end in sight."""
        while not self._waiting:
            if self._held > self._longest:
                raise BodyTooLarge(f"a line is at most {self._longest} bytes")
            try:
                data = await self._reader.read(_PORTION)
            except OSError:
                return None
            if not data:
                return None
            self._cut_up(data)
        return self._waiting.pop()

    def _cut_up(self, data: bytes) -> None:
        first, *more = data.split(b"\n")
        self._rest.append(first)
        self._held += len(first)
        if more:
            whole = [b"".join(self._rest), *more[:-1]]
            self._rest, self._held = [more[-1]], len(more[-1])
            self._waiting = [line for line in reversed(whole) if line.strip()]

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End it; idempotent. Lines have no room for a code: what there is to say was said before."""
        if self.closed_with is None:
            self.closed_with = (code, reason)
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:  # the other end was faster
            return


async def standard_streams() -> Lines:
    """This process's own standard input and output. Nothing else may write to the latter."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), sys.stdout
    )
    return Lines(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
