"""The library's own client side as an editor, for tests: it keeps what it is shown and answers as it was told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import acp
from acp.schema import AllowedOutcome, DeniedOutcome, RequestPermissionResponse
from tests.e2e.harness import TOKEN, Server

from overnight.client import Client
from overnight.client.editor.agent import EditorAgent
from overnight.client.editor.stdio import MAX_LINE, Stdio

Choose = Callable[[Sequence[Any]], str | None]


@dataclass
class Question:
    """A permission request. It is answered with `answer`; None as option: the editor gives it up."""

    session_id: str
    tool_call: Any
    options: Sequence[Any]
    reply: asyncio.Future[str | None]
    cancelled: bool = False

    def answer(self, option: str | None) -> None:
        """Choose the option of that id."""
        self.reply.set_result(option)


@dataclass
class Window:
    """The editor."""

    updates: list[tuple[str, Any]] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    withdrawn: list[Any] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        """Keep it."""
        async with self.changed:
            self.updates.append((session_id, update))
            self.changed.notify_all()

    async def request_permission(
        self, session_id: str, tool_call: Any, options: list[Any], **_: Any
    ) -> RequestPermissionResponse:
        """Wait for the test's choice."""
        question = Question(session_id, tool_call, options, asyncio.get_running_loop().create_future())
        async with self.changed:
            self.questions.append(question)
            self.changed.notify_all()
        option = await question.reply
        if option is None:
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        return RequestPermissionResponse(outcome=AllowedOutcome(outcome="selected", option_id=option))

    def observe(self, event: Any) -> None:
        """Keep what the library passes over: questions that are withdrawn."""
        if event.message.get("method") == "$/cancel_request":
            self.withdrawn.append(event.message["params"]["requestId"])

    def on_connect(self, conn: Any) -> None:
        """Nothing to do."""

    def kinds(self, session_id: str | None = None) -> list[str]:
        """What kinds of updates came, in order."""
        return [one.session_update for id, one in self.updates if session_id in {None, id}]

    def text(self, kind: str = "agent_message_chunk", session_id: str | None = None) -> str:
        """Everything that was said, as one text."""
        return "".join(
            one.content.text
            for id, one in self.updates
            if one.session_update == kind and session_id in {None, id}
        )

    def calls(self, session_id: str | None = None) -> dict[str, dict[str, Any]]:
        """The tool calls by id, as they stand after all updates."""
        found: dict[str, dict[str, Any]] = {}
        for id, one in self.updates:
            if one.session_update in {"tool_call", "tool_call_update"} and session_id in {None, id}:
                told = one.model_dump(exclude_none=True, exclude={"session_update"})
                found.setdefault(one.tool_call_id, {}).update(told)
        return found

    async def until(self, condition: Callable[[], Any], what: str, within: float = 60) -> Any:
        """The condition's value once it is true."""
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(condition), within)
            except TimeoutError:
                raise AssertionError(f"never: {what}; last updates: {self.updates[-5:]}") from None
            return condition()

    async def asked(self, number: int = 1) -> Question:
        """The question of that number, once it is asked."""
        await self.until(lambda: len(self.questions) >= number, f"question {number}")
        return self.questions[number - 1]


@dataclass
class Link:
    """A running `overnight acp` with its editor."""

    window: Window
    agent: Any
    words: Callable[[], str]
    """What it wrote on stderr."""
    process: asyncio.subprocess.Process | None = None
    """None where it runs inside the test."""

    async def session(self, cwd: Path, **more: Any) -> Any:
        """A new session."""
        return await self.agent.new_session(cwd=str(cwd), mcp_servers=[], **more)

    def prompt(self, session_id: str, text: str) -> asyncio.Task[Any]:
        """Say something; the task ends with the answer."""
        return asyncio.create_task(self.agent.prompt(session_id, [acp.text_block(text)]))


@asynccontextmanager
async def editor(
    environment: Mapping[str, str], root: Path, *arguments: str, initialize: bool = True
) -> AsyncIterator[Link]:
    """Start `overnight acp` as an editor does."""
    window = Window()
    argv = [sys.executable, "-m", "overnight", "acp", *arguments]
    with (root / "acp.stderr").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
            env=dict(environment), cwd=root, limit=1 << 26,
        )  # fmt: skip
    connection = acp.connect_to_agent(
        cast("acp.Client", window), process.stdin, process.stdout, observers=[window.observe]
    )
    try:
        if initialize:
            await connection.initialize(protocol_version=acp.PROTOCOL_VERSION)
        yield Link(window, connection, lambda: (root / "acp.stderr").read_text(encoding="utf-8"), process)
    finally:
        await end(process)
        with contextlib.suppress(OSError):
            await connection.close()


@asynccontextmanager
async def inside(server: Server, **defaults: str) -> AsyncIterator[Link]:
    """The same agent inside the test, which is quicker. `defaults`: fields of a run."""
    window, words = Window(), list[str]()
    (ours, theirs), client = socket.socketpair(), Client(f"http://127.0.0.1:{server.port}", TOKEN)
    reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE)
    transport = Stdio(reader, writer, words.append)

    async def connect() -> Client:
        return client

    agent = EditorAgent(
        connect, transport, version="0", defaults=defaults, say=words.append, lost=words.append
    )
    serving = asyncio.create_task(
        acp.run_agent(cast("acp.Agent", agent), transport, use_unstable_protocol=True)
    )
    reader, theirs_writer = await asyncio.open_connection(sock=theirs, limit=MAX_LINE)
    near = acp.connect_to_agent(cast("acp.Client", window), theirs_writer, reader, observers=[window.observe])
    try:
        await near.initialize(protocol_version=acp.PROTOCOL_VERSION)
        yield Link(window, near, lambda: "\n".join(words))
    finally:
        with contextlib.suppress(OSError):
            await near.close()
        await _closed(theirs_writer)
        await serving
        await agent.close()
        await _closed(writer)
        await client.close()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def end(process: asyncio.subprocess.Process, within: float = 60) -> int:
    """Close its standard input, as an editor does that is closed; its exit status."""
    if process.stdin is not None and not process.stdin.is_closing():
        process.stdin.close()
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(process.wait(), within)
    process.kill()
    await process.wait()
    raise AssertionError("`overnight acp` did not end with its standard input")
