"""Stands in for a model's service: `python -m bench.ticking_model PORT`, Chat Completions as a stream.

Each delta is the monotonic clock's nanoseconds at which it was written, a hundred a second, as many as the last message
asks for. Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

RATE = 100
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def chunk(delta: dict[str, str], **more: object) -> bytes:
    """One event of the stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish", None)}
    said = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "ticking",
        "choices": [choice],
    }
    return b"data: " + json.dumps({**said, **more}).encode() + b"\n\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request, one answer."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        writer.close()  # somebody only looked whether we are there
        return
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    asked = json.loads(await reader.readexactly(int(length[1]) if length else 0))
    count = int(re.findall(r"(\d+) ticks", json.dumps(asked["messages"]))[-1])
    writer.write(HEAD)
    begun = time.monotonic()
    for number in range(count):
        await asyncio.sleep(begun + number / RATE - time.monotonic())
        writer.write(chunk({"role": "assistant", "content": f"{time.monotonic_ns()} "}))
        await writer.drain()
    usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
    writer.write(chunk({}, finish="stop") + chunk({}, finish="stop", usage=usage) + b"data: [DONE]\n\n")
    await writer.drain()
    writer.close()


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
