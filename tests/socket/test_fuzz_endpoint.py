"""Whatever a client that was let in sends, the server answers or closes, and goes on."""

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from bench.socket_clients import text
from tests.server.stage import staged
from tests.socket.raw import TEXT, client, request

pytestmark = pytest.mark.anyio
HELLO = b'{"v":1,"type":"hello","scope":"conn","id":"h","seq":1,"ts":1,"payload":{"versions":[1]}}'
TYPES = [
    "hello", "welcome", "ping", "pong", "credit", "resume", "ack", "nack", "goodbye", "stream.start", "stream.abort",
    "models.list", "tool.register", "tool.execute", "tool.cancel", "run.subscribe", "run.unsubscribe", "session.send",
    "text.delta", "done", "error", "nonsense",
]  # fmt: skip
SCOPES = ["conn", "stream:a", "tool:a", "run:a", "session:a", "run:", "x:y", "", "stream:" + "é", "conn:x"]
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2,
    1 << 63,
    1.5,
    "",
    "x",
    "1",
    [],
    {},
    [1],
    {"a": {"b": []}},
    "\ud800",
]


def member(chance: random.Random) -> object:
    """One envelope, with about one thing wrong in it."""
    made: dict[str, Any] = {
        "v": 1, "type": chance.choice(TYPES), "scope": chance.choice(SCOPES), "id": f"m{chance.randrange(9)}",
        "seq": chance.randrange(1, 9), "ts": 1, "payload": chance.choice([{}, {"scope": "run:a", "messages": 5}]),
    }  # fmt: skip
    if chance.random() < 0.5:
        made[chance.choice([*made, "reply_to"])] = chance.choice(ODD)
    if chance.random() < 0.2:
        del made[chance.choice([*made])]
    return chance.choice([made, made, made, chance.choice(ODD)])


def message(chance: random.Random) -> bytes:
    """A message: an envelope, a batch, or JSON that is broken somewhere."""
    one = member(chance) if chance.random() < 0.6 else [member(chance) for _ in range(chance.randrange(5))]
    found = json.dumps(one).encode()
    if chance.random() < 0.2:
        at = chance.randrange(len(found))
        found = found[:at] + bytes([chance.randrange(32, 127)]) + found[at + 1 :]
    if chance.random() < 0.05:
        found = b"[" * chance.choice([10, 5000])
    return found


async def test_a_client_that_sends_anything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(5)
    async with staged(tmp_path) as stage:
        head = request("/api/v1/socket", f"Authorization: Bearer {stage.secret}")
        for number in range(60):
            async with client(stage.port, head + text(HELLO)) as peer:
                await peer.read_head()
                assert b"welcome" in (await peer.until(TEXT)).payload
                for _ in range(20):
                    peer.writer.write(text(message(chance)))
                peer.writer.write_eof()
                while (frame := await peer.frame()) is not None:
                    assert frame.opcode != TEXT or json.loads(frame.payload), number
        async with client(stage.port, head + text(HELLO)) as peer:
            await peer.read_head()
            assert b"welcome" in (await peer.until(TEXT)).payload
    traces = [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    assert traces == []
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
