"""The least that the same libraries need for the same answer: `python -m bench.bare start|echo|fan|quiet PORT`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvicorn

FRAME = b'id: 1\ndata: {"seq":1,"type":"message.completed","data":"%b"}\n\n' % (b"x" * 280)
BATCH = FRAME * 64
FOR_S = 60.0


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Gives back the body."""
    if scope["type"] != "http":
        return
    body = (await receive()).get("body", b"")
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 202, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def fan(scope: Any, _: Any, send: Any) -> None:
    """Sends batches of 64 frames that were made once, as fast as they are taken."""
    if scope["type"] != "http":
        return
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    )
    loop = asyncio.get_running_loop()
    end = loop.time() + FOR_S
    while loop.time() < end:
        await send({"type": "http.response.body", "body": BATCH, "more_body": True})
        await asyncio.sleep(0)


async def quiet(scope: Any, receive: Any, send: Any) -> None:
    """Opens a stream and says nothing."""
    if scope["type"] != "http":
        return
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    )
    await send({"type": "http.response.body", "body": b":open\n\n", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


def start() -> Any:
    """What a server on FastAPI, pydantic and SQLAlchemy cannot do without: one route, one open database."""
    import sqlalchemy  # noqa: PLC0415 -- the import is what is measured
    from fastapi import FastAPI  # noqa: PLC0415
    from sqlalchemy.pool import StaticPool  # noqa: PLC0415

    app = FastAPI()
    engine = sqlalchemy.create_engine("sqlite://", poolclass=StaticPool)

    @app.get("/readyz")
    async def ready() -> dict[str, int]:
        with engine.connect() as connection:
            return {"one": connection.execute(sqlalchemy.text("select 1")).scalar_one()}

    return app


def main() -> None:
    """Serve until killed."""
    name, port = sys.argv[1], int(sys.argv[2])
    app = start() if name == "start" else {"echo": echo, "fan": fan, "quiet": quiet}[name]
    uvicorn.run(
        app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", lifespan="off", log_config=None,
        access_log=False, server_header=False, backlog=2048,
    )  # fmt: skip


if __name__ == "__main__":
    main()
