"""`overnight tools`: files and MCP servers on offer, called by another process, over deaths of all kinds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.shell import Shell
from tests.cli.test_commands import here, overnight

from overnight.testing.signals import eventually

__all__ = ["here"]
pytestmark = pytest.mark.anyio
MCP = Path(__file__).parents[1] / "tools" / "mcp_server.py"
TOOLS = """
import asyncio
import os
import pathlib
import time
from overnight.client.tools import Say, tool

@tool
def add(a: int, b: int = 1) -> int:
    "Adds."
    return a + b

@tool(destructive=True)
async def hold(folder: str, say: Say | None = None) -> str:
    "Waits."
    await say("begun", percent=50, status="at work")
    pathlib.Path(folder, "held").write_text(str(os.getpid()))
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        pathlib.Path(folder, "released").touch()
        raise

@tool
def block(folder: str) -> str:
    "Hangs in its thread."
    pathlib.Path(folder, "blocked").touch()
    time.sleep(3600)

@tool
def fail() -> str:
    raise ValueError("no luck")
"""


@contextlib.asynccontextmanager
async def serving(shell: Shell, *arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Events]]:
    """`overnight tools serve` as a process of its own, and what it says."""
    process = await shell.start("tools", "serve", "--json", *arguments)
    events = Events(process)
    try:
        yield process, events
    finally:
        if process.returncode is None:
            process.kill()
        await events.closed()
        await process.wait()


class Events:
    """What a host says, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._out, self._stderr = process.stdout, process.stderr
        self.err = b""
        self._reading = asyncio.create_task(self._errors())

    async def _errors(self) -> None:
        while piece := await self._stderr.read(4096):
            self.err += piece

    async def next(self, event: str) -> Any:
        """The next one of that kind, whatever comes before."""
        while True:
            line = await asyncio.wait_for(self._out.readline(), 90)
            assert line, self.err.decode()
            found = json.loads(line)
            if found["event"] == event:
                return found

    async def closed(self) -> None:
        await self._reading


@pytest.fixture
def tools(tmp_path: Path) -> str:
    (tmp_path / "shop.py").write_text(TOOLS)
    return str(tmp_path / "shop.py")


async def test_a_file_is_served_listed_and_called(shell: Shell, tools: str, tmp_path: Path) -> None:
    async with serving(shell, tools) as (process, events):
        assert (await events.next("offered"))["tools"] == ["add", "block", "fail", "hold"]
        rows = (await shell("tools", "ls", "--json")).rows
        assert [(row["name"], row["available"], row["destructive"]) for row in rows] == [
            ("add", True, False), ("block", True, False), ("fail", True, False), ("hold", True, True),
        ]  # fmt: skip
        table = await shell("tools", "ls", "--prefix", "ad")
        assert [line.split() for line in table.out.splitlines()] == [
            ["NAME", "HOST", "ASKS", "DESCRIPTION"],
            ["add", "here", "no", "Adds."],
        ]
        done = await shell("tools", "call", "add", '{"a": 2}')
        assert (done.status, done.out) == (0, "3\n")
        done = await shell("tools", "call", "add", '{"a": 2, "b": 5}', "--json")
        assert (done.rows[0]["details"], done.rows[0]["is_error"]) == (7, False)
        for name, arguments, says in (
            ("add", "{}", "'a' is a required property"),
            ("fail", "{}", "no luck"),
            ("nothing", "{}", "no tool 'nothing'"),
        ):
            done = await shell("tools", "call", name, arguments)
            assert (done.status, says in done.err) == (1, True), done.err
        call = await shell.start("tools", "call", "hold", json.dumps({"folder": str(tmp_path)}))
        await eventually((tmp_path / "held").exists, within=60)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert (tmp_path / "released").exists()
        _, err = await asyncio.wait_for(call.communicate(), 60)
        assert (call.returncode, b"50% at work begun" in err, b"its host has ended" in err) == (1, True, True)
        assert (await shell("tools", "ls", "--json")).rows == []


async def test_ctrl_c_cancels_a_call_and_a_function_that_hangs_does_not_hold_up_its_host(
    shell: Shell, tools: str, tmp_path: Path
) -> None:
    async with serving(shell, tools) as (process, events):
        await events.next("offered")
        call = await shell.start("tools", "call", "hold", json.dumps({"folder": str(tmp_path)}))
        await eventually((tmp_path / "held").exists, within=60)
        call.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(call.wait(), 60) == 130
        await eventually((tmp_path / "released").exists, within=60)
        call = await shell.start("tools", "call", "block", json.dumps({"folder": str(tmp_path)}))
        await eventually((tmp_path / "blocked").exists, within=60)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert await asyncio.wait_for(call.wait(), 60) == 1


async def test_a_host_that_is_killed_at_work_leaves_its_tools_unavailable_until_the_next_one_comes(
    shell: Shell, tools: str, tmp_path: Path
) -> None:
    async with serving(shell, tools) as (process, events):
        await events.next("offered")
        call = await shell.start("tools", "call", "hold", json.dumps({"folder": str(tmp_path)}))
        await eventually((tmp_path / "held").exists, within=60)
        process.kill()
        await process.wait()
        done = await shell("tools", "call", "add", '{"a": 2}')
        assert (done.status, "not connected" in done.err) == (1, True), done.err
        assert [row["available"] for row in (await shell("tools", "ls", "--json")).rows] == [False] * 4
        call.kill()
        await call.communicate()
    async with serving(shell, tools) as (_, events):
        await events.next("offered")
        assert (await shell("tools", "call", "add", '{"a": 2}')).out == "3\n"


async def test_names_that_another_host_offers_are_refused(shell: Shell, tools: str) -> None:
    async with serving(shell, tools) as (_, events):
        await events.next("offered")
        done = await shell.process("tools", "serve", tools)
        assert (done.status, "is offered by another host" in done.err) == (1, True), done.err
        async with serving(shell, tools, "--prefix", "my_") as (_, more):
            assert (await more.next("offered"))["tools"][0] == "my_add"
            assert (await shell("tools", "call", "my_add", '{"a": 2}')).out == "3\n"


async def test_an_mcp_server_is_served_and_started_again_when_it_is_killed(
    shell: Shell, tmp_path: Path
) -> None:
    command = shlex.join([sys.executable, str(MCP), "stdio", str(tmp_path)])
    async with serving(shell, "--mcp", command, "--prefix", "shop_") as (process, events):
        assert "shop_add" in (await events.next("offered"))["tools"]
        assert (await shell("tools", "call", "shop_add", '{"a": 2}')).out == "3\n"
        found = (await shell("tools", "call", "shop_who")).out.split()
        assert found[1:3] == ["no", "token"], "a program of others does not get our token"
        os.kill(int(found[0]), signal.SIGKILL)

        async def called() -> bool:
            return (await shell("tools", "call", "shop_add", '{"a": 2}')).out == "3\n"

        for _ in range(200):
            if await called():
                break
        assert await called()
        second = int((await shell("tools", "call", "shop_who")).out.split()[0])
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(second, 0)


async def test_tools_are_on_offer_again_after_the_server_was_killed(
    here: dict[str, str], tools: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def up() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "overnight", "up", "--no-worker", "--listen", f"127.0.0.1:{port}",
            env=here, cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        said = ""
        for _ in range(300):
            done = await asyncio.to_thread(overnight, here, "tools", "ls")
            if done.returncode == 0:
                return process
            said = done.stderr
        raise AssertionError(said)

    server = await up()
    host = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "overnight", "tools", "serve", "--json", tools,
        env=here, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    events = Events(host)
    try:
        await events.next("offered")
        server.kill()
        await server.wait()
        await events.next("lost")
        server = await up()
        await events.next("offered")
        done = await asyncio.to_thread(overnight, here, "tools", "call", "add", '{"a": 2}')
        assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    finally:
        for process in (host, server):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await events.closed()


def test_what_cannot_be_served_is_2_and_no_server_is_4(here: dict[str, str], tools: str) -> None:
    bad = str(Path(here["HOME"]) / "bad.py")
    Path(bad).write_text("def broken(:")
    for arguments, status, says in (
        (("serve", "/nonexistent/x.py"), 2, "no such file"),
        (("serve", "nothing_of_this_name"), 2, "cannot be imported"),
        (("serve", tools, tools), 2, "another file has a tool add too"),
        (("serve", bad), 2, "bad.py: line 1"),
        (("serve", "--mcp", "'"), 2, "no command line"),
        (("serve", "--mcp-url", "nowhere"), 2, "not the URL of an MCP server"),
        (("serve", "--prefix", "x"), 2, "nothing to offer"),
        (("serve", tools, "--url", "ws://127.0.0.1:9"), 2, "set OVERNIGHT_TOKEN"),
        (("serve", tools), 4, "no server serves"),
        (("call", "add", "[1]"), 2, "no JSON object"),
        (("call", "add", "{"), 2, "no JSON"),
    ):
        done = overnight(here, "tools", *arguments)
        assert (done.returncode, says in done.stderr) == (status, True), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    token = here | {"OVERNIGHT_TOKEN": "t" * 40}
    for command in (("serve", tools), ("ls",), ("call", "add")):
        done = overnight(token, "tools", *command, "--url", "http://127.0.0.1:9")
        assert done.returncode == 4, (command, done.stderr)
