"""Streams that tests read: whole, or in the background while they go on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.server.stage import Frame, Stage, frames

from overnight.testing.signals import eventually


def url(run_id: str, query: str = "") -> str:
    return f"/api/v1/runs/{run_id}/stream{query}"


async def whole(stage: Stage, run_id: str, query: str = "", **headers: str) -> tuple[int, bytes]:
    async with stage.client() as http:
        answer = await http.get(url(run_id, query), headers=headers)
        return answer.status_code, answer.content


def request(stage: Stage, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {stage.secret}\r\n\r\n".encode()


class Tail:
    """A stream that is read in the background."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.body = b""
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for piece in self.answer.aiter_raw():
            self.body += piece

    @property
    def frames(self) -> list[Frame]:
        end = self.body.rfind(b"\n\n") + 2
        return frames(self.body[:end] if end > 1 else b"")

    async def has(self, count: int) -> list[Frame]:
        await eventually(lambda: len(self.frames) >= count, what=f"{count} frames")
        return self.frames


@contextlib.asynccontextmanager
async def tail(stage: Stage, path: str, **headers: str) -> AsyncIterator[Tail]:
    async with stage.client() as http, http.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        found = Tail(answer)
        try:
            await eventually(lambda: b":" in found.body, what="the first bytes")
            yield found
        finally:
            found.task.cancel()
            await asyncio.gather(found.task, return_exceptions=True)
