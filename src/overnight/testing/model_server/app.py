"""The ASGI application of the scripted model server: routes, faults, recording."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from overnight.models.script import Move, Play
from overnight.testing.model_server import chat, gemini, messages, responses
from overnight.testing.model_server.conversation import Conversation, Reply, reply_to

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ROUTES: tuple[tuple[re.Pattern[str], ModuleType], ...] = (
    (re.compile(r"(?:/v1)?/responses"), responses),
    (re.compile(r"(?:/v1)?/chat/completions"), chat),
    (re.compile(r"(?:/v1)?/messages"), messages),
    (re.compile(r"/v1(?:beta|alpha)?/models/(?P<model>[^/:]+):(?P<method>\w+)"), gemini),
)
_SPOILT: Mapping[ModuleType, bytes] = {
    responses: b'event: response.output_text.delta\ndata: {"type": "response.output_text.delta", "delta": "br\n\n',
    chat: b'data: {"choices": [{"delta": {"content": "br\n\n',
    messages: b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "delta": {"te\n\n',
    gemini: b'data: {"candidates": [{"content": {"par\n\n',
}
_TITLE = Move(text="A short title")


class CutOff(ConnectionError):
    """Raised inside the application so that the HTTP server drops the connection in the middle of an answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedRequest:
    """A request to the model as it came in, and the move that answered it (None when none was used up)."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    conversation: Conversation
    move: Move | None


class ModelApp:
    """Plays one script to every client. `requests` grows by one for each call of the model."""

    def __init__(self, play: Play, keys: frozenset[str] | None) -> None:
        self.play = play
        self.requests: list[RecordedRequest] = []
        self.probes: list[str] = []
        self._keys = keys
        self._lock = threading.Lock()
        self.abandoned = 0
        """Answers that hung until the client had gone."""
        self.closing = asyncio.Event()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI entry; the lifespan protocol is switched off by the server."""
        body = await _body(receive)
        path, method = str(scope["path"]), str(scope["method"])
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if method == "GET" and path == "/overnight/requests":
            await _json(send, 200, [_summary(request) for request in self.requests])
        elif not self._admitted(headers):
            await _json(send, 401, _dialect(path)[0].error(401, "that key is not known here"))
        elif method == "POST" and path.endswith("/count_tokens"):
            await _json(send, 200, {"input_tokens": 1000})
        elif method == "POST" and _dialect(path)[1] is not None:
            await self._play(path, headers, json.loads(body or b"{}"), receive, send)
        else:
            await self._probe(method, path, send)

    def _admitted(self, headers: Mapping[str, str]) -> bool:
        if self._keys is None:
            return True
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        return bool(self._keys & {bearer, headers.get("x-api-key", ""), headers.get("x-goog-api-key", "")})

    async def _probe(self, method: str, path: str, send: Send) -> None:
        self.probes.append(f"{method} {path}")
        if path.endswith("/models"):
            models = [
                {"id": name, "object": "model", "type": "model"}
                for name in ("mock-model", "claude-sonnet-4-5")
            ]
            await _json(send, 200, {"object": "list", "data": models, "has_more": False})
        else:
            await _json(
                send, 200 if method == "HEAD" else 404, {"error": {"message": f"no {method} {path} here"}}
            )

    async def _play(
        self, path: str, headers: Mapping[str, str], body: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        dialect, match = _dialect(path)
        if match is not None and dialect is gemini:
            body |= {"model": match["model"], "stream": match["method"].startswith("stream")}
        conversation: Conversation = dialect.read(body)
        with self._lock:
            move = None
            if conversation.tools:
                move = self.play.next_move(
                    turn=conversation.turn, prompt=conversation.prompt, results=conversation.results
                )
            self.requests.append(
                RecordedRequest(path=path, headers=headers, body=body, conversation=conversation, move=move)
            )
        await self._answer(dialect, conversation, move or _TITLE, receive, send)

    async def _answer(
        self, dialect: ModuleType, conversation: Conversation, move: Move, receive: Receive, send: Send
    ) -> None:
        if move.fault is not None and move.fault.isdigit():
            status = int(move.fault)
            retry = {} if move.retry_after_s is None else {"retry-after": f"{move.retry_after_s:g}"}
            await _json(
                send, status, dialect.error(status, move.message or f"scripted error {status}"), retry
            )
            return
        reply = reply_to(conversation, move)
        if conversation.stream:
            await self._stream(dialect, reply, move, receive, send)
        elif move.fault in {"hang", "disconnect"}:
            await _begin(send)
            if move.fault == "hang":
                await self._hang(receive)
            raise CutOff
        elif move.fault == "invalid_json":
            await _whole(send, 200, b'{"this is": not json')
        else:
            await asyncio.sleep(move.delay_s)
            await _json(send, 200, dialect.whole(reply))

    async def _stream(
        self, dialect: ModuleType, reply: Reply, move: Move, receive: Receive, send: Send
    ) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        frames: list[bytes] = dialect.frames(reply)
        if move.fault is not None:
            frames = frames[: max(1, len(frames) // 2)]
        for data in frames:
            if move.delay_s:
                await asyncio.sleep(move.delay_s)
            await send({"type": "http.response.body", "body": data, "more_body": True})
        if move.fault == "hang":
            await self._hang(receive)
        elif move.fault == "disconnect":
            raise CutOff
        elif move.fault == "invalid_json":
            await send({"type": "http.response.body", "body": _SPOILT[dialect], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _hang(self, receive: Receive) -> None:
        """Say nothing until the client has gone or the server stops."""
        gone = asyncio.ensure_future(receive())
        closing = asyncio.ensure_future(self.closing.wait())
        await asyncio.wait({gone, closing}, return_when=asyncio.FIRST_COMPLETED)
        self.abandoned += gone.done()
        gone.cancel()
        closing.cancel()
        raise CutOff


def _dialect(path: str) -> tuple[ModuleType, re.Match[str] | None]:
    for pattern, dialect in _ROUTES:
        match = pattern.fullmatch(path)
        if match is not None:
            return dialect, match
    return responses, None


def _summary(request: RecordedRequest) -> dict[str, Any]:
    talk = request.conversation
    return {
        "path": request.path,
        "model": talk.model,
        "turn": talk.turn,
        "results": talk.results,
        "body": request.body,
    }


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _begin(send: Send) -> None:
    """The head of an answer and no more: what comes then cannot be taken for a whole one."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{", "more_body": True})


async def _json(send: Send, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
    await _whole(send, status, json.dumps(value).encode(), headers)


async def _whole(send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    pairs = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    pairs += [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body, "more_body": False})
