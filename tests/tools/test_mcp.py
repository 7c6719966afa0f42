"""MCP servers as hosts of tools: real ones, as child processes and over HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.tools import mcp_server

from overnight.agent.tools.servers import ServersOfSession
from overnight.agent.tools.tool import ForModel, ToolContext
from overnight.agent.tools.workspace import open_workspace
from overnight.client.mcp.server import McpServer
from overnight.client.mcp.target import McpAddress, McpProgram, McpTarget, of_session, tool_name
from overnight.client.socket.connector import Backoff
from overnight.client.socket.tools import Progress
from overnight.errors import InvalidInput, ToolFailure, ToolUnavailable
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
FILE = Path(mcp_server.__file__)
QUICK = Backoff(first_s=0.01, most_s=0.05)


def program(folder: Path) -> McpProgram:
    return McpProgram(
        command=sys.executable, arguments=(str(FILE), "stdio", str(folder)), environment={"GIVEN": "given"},
        folder=str(folder),
    )  # fmt: skip


@asynccontextmanager
async def running(target: McpTarget, **more: Any) -> AsyncIterator[McpServer]:
    server = McpServer(target, backoff=QUICK, **more)
    server.open()
    try:
        await asyncio.wait_for(server.tried(), 60)
        assert not server.trouble
        yield server
    finally:
        await server.close()


async def unheard(_: Progress) -> None:
    """Nobody listens."""


async def pid_of(server: McpServer) -> int:
    return int((await server.call("who", {}, unheard)).text.split()[0])


async def back(server: McpServer) -> None:
    async def answers() -> bool:
        try:
            return (await server.call("add", {"a": 1}, unheard)).text == "2"
        except ToolUnavailable:
            return False

    await eventually(answers, within=90, every=0.01, what="the server answers again")


async def test_schemas_pass_through_and_hints_say_what_destroys(tmp_path: Path) -> None:
    async with running(program(tmp_path), prefix="shop_") as server:
        metas = {name: tool.meta for name, tool in server.tools.items()}
        assert metas["shop_add"]["parameters"]["properties"]["b"]["default"] == 1
        assert metas["shop_add"]["description"] == "Adds."
        assert [name for name, meta in metas.items() if meta["destructive"]] == ["shop_wipe"]


async def test_answers_progress_pictures_and_errors_come_over(tmp_path: Path) -> None:
    heard: list[Progress] = []

    async def hear(progress: Progress) -> None:
        heard.append(progress)

    async with running(program(tmp_path)) as server:
        answer = await server.tools["add"].run({"a": 2}, hear)
        assert (answer.text, answer.details, answer.is_error) == ("3", {"result": 3}, False)
        assert (await server.tools["count"].run({"to": 4}, hear)).text == "counted to 4"
        assert [(one.percent, one.status) for one in heard] == [(25.0 * n, f"step {n}") for n in (1, 2, 3, 4)]
        picture = (await server.tools["picture"].run({}, hear)).content[1]
        assert picture == {"type": "image", "data": mcp_server.PICTURE, "media_type": "image/png"}
        failed = await server.tools["fail"].run({}, hear)
        assert (failed.is_error, "no luck today" in failed.text) == (True, True)
        wrong = await server.call("add", {}, hear)
        assert wrong.is_error
        assert (await server.call("who", {}, hear)).text.split()[1:] == [
            "no", "token", "given", str(tmp_path),
        ]  # fmt: skip


async def test_a_call_that_is_cancelled_is_cancelled_at_the_server(tmp_path: Path) -> None:
    async with running(program(tmp_path)) as server:
        work = asyncio.create_task(server.tools["hold"].run({}, unheard))
        await eventually((tmp_path / "held").exists, within=60)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await eventually((tmp_path / "released").exists, within=60)
        assert (await server.call("add", {"a": 1}, unheard)).text == "2"


async def test_a_server_that_dies_is_unavailable_and_started_again(tmp_path: Path) -> None:
    changes: list[int] = []
    async with running(program(tmp_path), changed=lambda: changes.append(1)) as server:
        for _ in range(2):
            held = tmp_path / "held"
            held.unlink(missing_ok=True)
            work = asyncio.create_task(server.call("hold", {}, unheard))
            await eventually(held.exists, within=60)
            os.kill(await pid_of(server), signal.SIGKILL)
            with pytest.raises(ToolUnavailable, match="died"):
                await work
            await back(server)
        assert changes == [1], "the same tools are no change"
        last = await pid_of(server)
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)
    with pytest.raises(ToolUnavailable):
        await server.call("add", {"a": 1}, unheard)


async def test_a_program_that_cannot_be_started_says_why() -> None:
    for command, says in (("/nonexistent/mcp", "No such file"), ("/bin/true", "")):
        server = McpServer(McpProgram(command=command), backoff=QUICK)
        server.open()
        await asyncio.wait_for(server.tried(), 60)
        assert server.trouble
        assert says in server.trouble
        with pytest.raises(ToolUnavailable):
            await server.call("add", {}, unheard)
        await server.close()


async def test_a_server_over_http_is_found_again_after_its_restart(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    async def up() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(FILE), str(port), str(tmp_path), stderr=asyncio.subprocess.DEVNULL
        )
        await eventually(listens, within=90, every=0.01, what="the server listens")
        return process

    process = await up()
    try:
        async with running(McpAddress(url=f"http://127.0.0.1:{port}/mcp")) as server:
            assert (await server.call("add", {"a": 1}, unheard)).text == "2"
            process.kill()
            await process.wait()
            with pytest.raises(ToolFailure):
                await server.call("add", {"a": 1}, unheard)
            process = await up()
            await back(server)
    finally:
        process.kill()
        await process.wait()


async def test_the_servers_of_a_session_run_with_it_and_end_with_it(tmp_path: Path) -> None:
    given: list[dict[str, Any]] = [
        {"name": "the shop", "command": sys.executable, "args": [str(FILE), "stdio", str(tmp_path)],
         "env": [{"name": "GIVEN", "value": "by the client"}]},
        {"name": "dead", "command": "/nonexistent/mcp", "args": [], "env": []},
        {"type": "http", "name": "bad", "url": "nowhere", "headers": []},
        {"type": "sse", "name": "old", "url": "http://127.0.0.1:9/"},
    ]  # fmt: skip
    servers = ServersOfSession(given, str(tmp_path))
    with open_workspace(tmp_path) as workspace:
        told: list[str] = []
        context = ToolContext(workspace=workspace, folder=tmp_path, progress=told.append)
        tools = await servers.tools({"the_shop__fail"})
        assert "the_shop__add" in tools
        assert "the_shop__fail" not in tools
        assert [name for name, tool in tools.items() if tool.spec.is_destructive] == ["the_shop__wipe"]
        outcome = await tools["the_shop__count"].run({"to": 2}, context)
        assert (outcome.text, outcome.ok, told) == ("counted to 2", True, ["step 1\n", "step 2\n"])
        who = (await tools["the_shop__who"].run({}, context)).text
        assert who.endswith(f"by the client {tmp_path}")
        pictures = (await tools["the_shop__picture"].run({}, context)).images
        assert [one.media_type for one in pictures] == ["image/png"]
        await servers.close()
        with pytest.raises(ProcessLookupError):
            os.kill(int(who.split()[0]), 0)
        with pytest.raises(ForModel) as refused:
            await tools["the_shop__add"].run({"a": 1}, context)
        assert refused.value.code == "tool_unavailable"


def test_names_fit_every_model() -> None:
    assert tool_name("a__", "read.file/x") == "a__read_file_x"
    assert tool_name("", "1st") == "_1st"
    assert len(tool_name("p_", "x" * 200)) == 64


def test_what_is_no_server_is_refused() -> None:
    for line in ("", "'"):
        with pytest.raises(InvalidInput):
            McpProgram.of(line)
    assert McpProgram.of("npx -y 'a server'").arguments == ("-y", "a server")
    for url in ("nowhere", "ftp://x/", "http://me:secret@x/", "http:///mcp", "http://x y/"):
        with pytest.raises(InvalidInput) as refused:
            McpAddress(url=url)
        assert "secret" not in refused.value.detail
    found = of_session(
        [{"type": "http", "name": "a", "url": "https://x/mcp", "headers": [{"name": "A", "value": "b"}]}], "/"
    )
    assert found == {"a": McpAddress(url="https://x/mcp", headers={"A": "b"})}
    assert "headers" not in repr(found["a"]), "they hold secrets"
