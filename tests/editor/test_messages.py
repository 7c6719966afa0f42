"""Whatever comes in over standard input is answered, and the process lives on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.editor.driver import end

from overnight.client.editor.stdio import Stdio

pytestmark = pytest.mark.anyio


class Pipe:
    """What an agent writes, line by line."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        self.lines.append(orjson.loads(data))

    async def drain(self) -> None:
        """Nothing is held back."""


def transport(*lines: bytes, limit: int = 1 << 16) -> tuple[Stdio, Pipe, list[str]]:
    reader, pipe, words = asyncio.StreamReader(limit=limit), Pipe(), list[str]()
    reader.feed_data(b"".join(lines))
    reader.feed_eof()
    return Stdio(reader, pipe, words.append), pipe, words  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line,code,id",
    [
        (b"{bad", -32700, None),
        (b"\xff\xfe", -32700, None),
        (b'"\\ud800"', -32700, None),
        (b"[]", -32600, None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"initialize"}]', -32600, None),
        (b"null", -32600, None),
        (b'{"id":{},"method":"initialize"}', -32600, None),
        (b'{"id":true,"method":"initialize"}', -32600, None),
        (b'{"id":null,"method":"initialize"}', -32600, None),
        (b'{"id":4,"method":["initialize"]}', -32600, 4),
    ],
)
async def test_what_is_no_message_is_answered_and_the_next_one_is_read(
    line: bytes, code: int, id: object
) -> None:
    stdio, pipe, _ = transport(line + b"\n", b'{"jsonrpc":"2.0","id":2,"method":"initialize"}\n')
    assert await stdio.receive() == {"jsonrpc": "2.0", "id": 2, "method": "initialize"}
    assert [(answer["error"]["code"], answer["id"]) for answer in pipe.lines] == [(code, id)]
    assert await stdio.receive() is None


async def test_a_line_that_is_too_long_is_skipped_and_answered() -> None:
    long = b'{"id":1,"method":"' + b"x" * 5000 + b'"}\n'
    stdio, pipe, _ = transport(long, b'{"id":2,"method":"a"}\n', limit=1000)
    message = await stdio.receive()
    assert message is not None
    assert message["id"] == 2
    assert [answer["error"]["code"] for answer in pipe.lines] == [-32600]


@pytest.mark.parametrize(
    "line", [b'{"id":[1],"result":1}', b'{"result":1}', b"{}", b'{"id":null,"error":{}}']
)
async def test_answers_to_nothing_are_passed_over(line: bytes) -> None:
    stdio, pipe, words = transport(line + b"\n", b'{"id":2,"method":"a"}\n')
    assert await stdio.receive() == {"id": 2, "method": "a"}
    assert pipe.lines == []
    assert len(words) == 1


async def test_an_error_of_the_wrong_shape_becomes_one_that_can_be_read() -> None:
    stdio, _, _ = transport(b'{"id":2,"error":"no"}\n')
    assert await stdio.receive() == {"id": 2, "error": {"code": -32603, "message": "no"}}


async def test_unknown_notifications_and_blank_lines_are_passed_over() -> None:
    stdio, pipe, words = transport(b"\n  \n", b'{"method":"$/noise"}\n', b'{"method":"session/cancel"}')
    assert await stdio.receive() == {"method": "session/cancel"}
    assert pipe.lines == []
    assert "$/noise" in words[0]


async def test_an_open_permission_request_can_be_withdrawn_once() -> None:
    stdio, pipe, _ = transport(b'{"id":8,"result":{}}\n')
    for number in (7, 8):
        params = {"sessionId": "s", "toolCall": {"toolCallId": f"t{number}"}}
        await stdio.send({"id": number, "method": "session/request_permission", "params": params})
    await stdio.receive()
    pipe.lines.clear()
    for call in ("t7", "t7", "t8", "t9"):
        await stdio.withdraw("s", call)
    assert [(line["method"], line["params"]) for line in pipe.lines] == [
        ("$/cancel_request", {"requestId": 7})
    ]


@asynccontextmanager
async def command(tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "OVERNIGHT_DATA_DIR": str(tmp_path / "data"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "overnight", "acp", env=environment, cwd=tmp_path,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        await end(process)


async def test_the_command_answers_every_request_and_says_nothing_else_on_stdout(tmp_path: Path) -> None:
    requests: list[tuple[bytes, int]] = [
        (b'{"jsonrpc":"2.0","id":1,"method":"nope"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"_own/thing","params":{}}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"session/fork","params":{"sessionId":"a","cwd":"/"}}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"session/prompt","params":[1]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"session/prompt"}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"session/new","params":{"cwd":7}}', -32602),
        (b"garbage", -32700),
    ]
    async with command(tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line, code in requests:
            process.stdin.write(line + b"\n")
            answer = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
            assert answer["error"]["code"] == code, (line, answer)
        process.stdin.write(
            b'{"jsonrpc":"2.0","id":"i","method":"initialize","params":{"protocolVersion":9}}\n'
        )
        answer = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert answer["id"] == "i"
        assert answer["result"]["protocolVersion"] == 1
        assert answer["result"]["agentCapabilities"]["loadSession"] is True
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert await process.stdout.read() == b""
    assert not (tmp_path / "data").exists()  # no server was started for this


def test_without_pipes_it_says_so(tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "OVERNIGHT_DATA_DIR": str(tmp_path / "data"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "overnight", "acp"], env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "let an editor start this command" in done.stderr
