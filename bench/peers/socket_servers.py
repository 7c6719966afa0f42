"""Servers of WebSockets that say back what they hear: `python socket_servers.py NAME PORT`, in the peers' environment.

Each as its own documents recommend it, without compression, with messages up to one MiB. At `flood` a server sends
64 MiB in messages of 16 KiB, waiting wherever it is told to wait.
"""

# ruff: noqa: PLC0415 -- each server is there in its own process only
from __future__ import annotations

import asyncio
import sys
from typing import Any

PIECE = "x" * 16_384
PIECES = 4096
MOST = 1 << 20
HOST = "127.0.0.1"


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """For those that run ASGI applications."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text == "flood":
            for _ in range(PIECES):
                await send({"type": "websocket.send", "text": PIECE})
        elif text is not None:
            await send({"type": "websocket.send", "text": text})


def uvicorn_with(websockets: str, port: int) -> None:
    import uvicorn

    uvicorn.run(
        asgi, host=HOST, port=port, loop="uvloop", http="httptools", ws=websockets, lifespan="off", log_config=None,
        access_log=False, ws_max_size=MOST, ws_per_message_deflate=False, backlog=2048,
    )  # fmt: skip


def baseline(port: int) -> None:
    uvicorn_with("websockets-sansio", port)


def wsproto(port: int) -> None:
    uvicorn_with("wsproto", port)


def granian(port: int) -> None:
    from granian import Granian  # type: ignore[import-not-found, unused-ignore]
    from granian.constants import Interfaces, Loops  # type: ignore[import-not-found, unused-ignore]

    Granian(
        "socket_servers:asgi", address=HOST, port=port, interface=Interfaces.ASGI, loop=Loops.uvloop, workers=1,
        websockets=True, log_enabled=False, backlog=2048, backpressure=2048,
    ).serve()  # fmt: skip


def aiohttp(port: int) -> None:
    import uvloop
    from aiohttp import WSMsgType, web  # type: ignore[import-not-found, unused-ignore]

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=MOST)
        await socket.prepare(request)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            if message.data == "flood":
                for _ in range(PIECES):
                    await socket.send_str(PIECE)
            else:
                await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.add_routes([web.get("/", echo)])
    web.run_app(
        app, host=HOST, port=port, loop=uvloop.new_event_loop(), access_log=None, print=None, backlog=2048
    )


def picows(port: int) -> None:  # noqa: C901 -- the frames of its core are handled by hand
    import uvloop
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server  # type: ignore[import-not-found, unused-ignore]

    class Echo(WSListener):  # type: ignore[misc, unused-ignore]
        def on_ws_connected(self, _: WSTransport) -> None:
            self.free = asyncio.Event()
            self.free.set()
            self.floods: set[asyncio.Task[None]] = set()

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            elif frame.msg_type == WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
            elif frame.msg_type == WSMsgType.TEXT:
                payload = frame.get_payload_as_bytes()
                if payload == b"flood":
                    self.floods.add(asyncio.ensure_future(self.flood(transport)))
                else:
                    transport.send(WSMsgType.TEXT, payload)

        def pause_writing(self) -> None:
            self.free.clear()

        def resume_writing(self) -> None:
            self.free.set()

        async def flood(self, transport: WSTransport) -> None:
            for _ in range(PIECES):
                await self.free.wait()
                transport.send(WSMsgType.TEXT, PIECE.encode())

    async def serve() -> None:
        server = await ws_create_server(lambda _: Echo(), HOST, port, backlog=2048)
        await server.serve_forever()

    uvloop.run(serve())


def socketify(port: int) -> None:
    from socketify import App, CompressOptions, OpCode  # type: ignore[import-not-found, unused-ignore]

    left: dict[Any, int] = {}

    def go_on(socket: Any) -> None:
        while left.get(socket, 0) and socket.get_buffered_amount() < MOST:
            left[socket] -= 1
            socket.send(PIECE, OpCode.TEXT)

    def heard(socket: Any, message: Any, opcode: Any) -> None:
        if message == "flood":
            left[socket] = PIECES
            go_on(socket)
        else:
            socket.send(message, opcode)

    app = App()
    app.ws(
        "/*",
        {
            "compression": CompressOptions.DISABLED, "max_payload_length": MOST, "idle_timeout": 60,
            "max_backpressure": 4 * MOST, "message": heard, "drain": go_on,
            "close": lambda socket, *_: left.pop(socket, None),
        },
    )  # fmt: skip
    app.listen(port, lambda _: None)
    app.run()


SERVERS = {one.__name__: one for one in (baseline, wsproto, granian, aiohttp, picows, socketify)}

if __name__ == "__main__":
    SERVERS[sys.argv[1]](int(sys.argv[2]))
