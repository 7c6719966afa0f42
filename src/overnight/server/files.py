"""Sending files that an agent may have had its hands on: never through a link, never more than was there at first."""

from __future__ import annotations

import asyncio
import codecs
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.responses import Response

from overnight.domain.redaction import Redactor
from overnight.server.asgi import Receive, Scope, Send

PIECE: Final = 64 * 1024
"""Redacting holds up every other thread of ours: no longer than so many bytes take."""
KEEP_BYTES: Final = "surrogateescape"
"""What is no UTF-8 comes out as it went in."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open descriptor and the size at that moment; a file that still grows is sent up to here."""

    descriptor: int
    size: int


def open_regular(path: Path) -> OpenFile | None:
    """Open for reading, if it is a regular file and no link; else None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    return OpenFile(descriptor, status.st_size)


class FileResponse(Response):
    """A file as a text download, piece by piece, byte for byte but for secrets. Owns the descriptor."""

    def __init__(self, file: OpenFile, name: str, redactor: Redactor) -> None:
        self.status_code = 200
        self.background = None
        self._file = file
        self._name = name
        self._redactor = redactor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the ASGI signature
        """Send it, as long as it is now. Its length is not announced: a secret is as long as its mark."""
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-disposition", b'attachment; filename="%b"' % self._name.encode("ascii", "replace")),
        ]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            pieces = iter(()) if scope.get("overnight.head") else self._pieces()
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            os.close(self._file.descriptor)

    def _pieces(self) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder("utf-8")(KEEP_BYTES)
        redacting = self._redactor.stream()
        left, line = self._file.size, ""
        while left and (read := os.read(self._file.descriptor, min(PIECE, left))):
            left -= len(read)
            text = line + decoder.decode(read)
            end = text.rfind("\n") + 1 or len(text)  # whole lines are judged many times faster than parts
            line = text[end:]
            yield redacting.feed(text[:end]).encode("utf-8", KEEP_BYTES)
        rest = redacting.feed(line + decoder.decode(b"", final=True)) + redacting.finish()
        yield rest.encode("utf-8", KEEP_BYTES)
