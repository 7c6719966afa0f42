"""Readers: follow a run's stream over every cut, server by server, and record exactly what arrives."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import orjson

from overnight.client.connecting import connecting
from overnight.client.sse import Frame, SseParser
from overnight.testing.history.entries import Connected, Cut, Received, StreamEnded, Summed
from overnight.testing.history.model import ALL
from overnight.testing.history.recorder import Recorder, boot, digest

PAUSE_S = 0.1
QUIET_S = 30.0
"""A stream that says nothing for so long, not even its keep-alive, is taken for dead."""

Watch = Callable[[dict[str, Any]], None]


class Reader:
    """One reader of one run or session. Unlike a real client it hides nothing: what is wrong goes into the history.

    The stream of a session has no end: its reader reads until it has what comes at `until`.
    """

    def __init__(
        self, recorder: Recorder, http: httpx2.AsyncClient, urls: Sequence[str], run_id: str, *, name: str,
        after: int = 0, first: int = 0, slow_s: float = 0, watch: Watch | None = None, until: int | None = None,
    ) -> None:  # fmt: skip
        self._recorder = recorder
        self._http = http
        self._turn = itertools.islice(itertools.cycle(urls), first % len(urls), None)
        self._run_id = run_id
        self._name = name
        self._slow_s = slow_s
        self._watch = watch
        self._until = until
        self._path = f"/{'sessions' if run_id.startswith('ses_') else 'runs'}/{run_id}/stream"
        self.cursor = after
        self.ended = until is not None and after >= until

    async def read(self) -> None:
        """Until the stream has ended."""
        while not self.ended:
            why = await self._connection(next(self._turn))
            if not self.ended:
                self._recorder.add(Cut(at=boot(), reader=self._name, run_id=self._run_id, why=why))
                await asyncio.sleep(PAUSE_S)

    async def _connection(self, url: str) -> str:
        """One connection; why it ended."""
        headers = {
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Overnight-Client": self._name,
        }
        if self.cursor:
            headers["Last-Event-ID"] = str(self.cursor)
        path = f"{url}/api/v1{self._path}"
        try:
            with connecting():
                async with self._http.stream("GET", path, headers=headers, timeout=QUIET_S) as response:
                    return await self._stream(response, url)
        except httpx2.TransportError as error:
            return type(error).__name__

    async def _stream(self, response: httpx2.Response, url: str) -> str:
        if response.status_code not in {200, 204}:
            return f"status {response.status_code}"
        self._recorder.add(
            Connected(at=boot(), reader=self._name, run_id=self._run_id, after=self.cursor, server=url)
        )
        if response.status_code == 204:
            self._end(self.cursor)
            return "nothing is left"
        return await self._frames(response)

    async def _frames(self, response: httpx2.Response) -> str:
        parser = SseParser()
        async for chunk in response.aiter_raw():
            for frame in parser.feed(chunk):
                self._take(frame)
                if self.ended:
                    return "the end"
            if self._slow_s:
                await asyncio.sleep(self._slow_s)
        return "the server closed the stream"

    def _take(self, frame: Frame) -> None:
        if frame.event == "end" and frame.data == "[DONE]":
            self._end(int(frame.id))
        elif frame.event == "message":
            self.cursor = int(frame.id)
            self._recorder.add(
                Received(
                    at=boot(), reader=self._name, run_id=self._run_id, seq=self.cursor,
                    digest=digest(frame.data),
                )
            )  # fmt: skip
            if self._watch is not None:
                self._watch(orjson.loads(frame.data))
            self.ended = self.cursor == self._until

    def _end(self, last: int) -> None:
        self.ended = True
        self._recorder.add(StreamEnded(at=boot(), reader=self._name, run_id=self._run_id, last=last))


class Overview(Reader):
    """Follows the summaries of all runs, from the first change on; it has no end."""

    def __init__(
        self, recorder: Recorder, http: httpx2.AsyncClient, urls: Sequence[str], *, name: str, first: int
    ) -> None:
        super().__init__(recorder, http, urls, ALL, name=name, first=first)
        self._path = "/stream?after=0"
        self.states: dict[str, str] = {}
        """Of each run as it was shown last."""

    def _take(self, frame: Frame) -> None:
        if frame.event == "message":
            self.cursor, run = int(frame.id), orjson.loads(frame.data)
            self.states[run["id"]] = run["state"]
            self._recorder.add(
                Summed(
                    at=boot(), reader=self._name, change=self.cursor, run_id=run["id"], state=run["state"],
                    last_seq=run["last_seq"],
                )
            )  # fmt: skip
