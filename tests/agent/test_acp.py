"""The agent as a client of the protocol meets it; each message is held to the library's schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from acp import schema
from tests.agent.turns import Bell, Scripted

from overnight.agent.acp.agent import AgentOfSessions
from overnight.agent.acp.peer import Gone, Peer, Refusal
from overnight.agent.history import History
from overnight.agent.process import AgentSettings
from overnight.agent.tools.tool import Tool
from overnight.agent.workshop import Equipped

pytestmark = pytest.mark.anyio

ANSWERS: Mapping[str, Any] = {
    "initialize": schema.InitializeResponse,
    "session/new": schema.NewSessionResponse,
    "session/load": schema.LoadSessionResponse,
    "session/resume": schema.ResumeSessionResponse,
    "session/prompt": schema.PromptResponse,
}


class Queues:
    """One end of a pair of queues, as a `Wire`."""

    def __init__(self, inbox: asyncio.Queue[Any], outbox: asyncio.Queue[Any]) -> None:
        self._inbox = inbox
        self._outbox = outbox

    async def receive(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self._inbox.get()
        return found

    async def send(self, message: dict[str, Any] | None) -> None:
        await self._outbox.put(message)


class Client:
    """The other end: remembers updates, answers requests for permission."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.updates: list[dict[str, Any]] = []
        self.asked: list[Mapping[str, Any]] = []
        self.option: str | None = "allow_once"
        self.heard = asyncio.Event()

    async def request(self, method: str, params: Mapping[str, Any]) -> Mapping[str, object]:
        assert method == "session/request_permission"
        schema.RequestPermissionRequest.model_validate(params)
        self.asked.append(params)
        if self.option is None:
            return {"outcome": {"outcome": "cancelled"}}
        return {"outcome": {"outcome": "selected", "optionId": self.option}}

    def notified(self, method: str, params: Mapping[str, Any]) -> None:
        assert method == "session/update"
        schema.SessionNotification.model_validate(params)
        self.updates.append(params["update"])
        self.heard.set()

    async def call(self, method: str, **params: Any) -> Any:
        answer = await self.peer.request(method, params)
        if method in ANSWERS:
            ANSWERS[method].model_validate(answer)
        return answer

    def kinds(self) -> list[str]:
        return [update["sessionUpdate"] for update in self.updates]

    def said(self, kind: str = "agent_message_chunk") -> str:
        return "".join(u["content"]["text"] for u in self.updates if u["sessionUpdate"] == kind)


@asynccontextmanager
async def talking(tmp_path: Path, script: Any, *tools: Tool) -> AsyncIterator[Client]:
    """A client of an agent that plays the script."""
    there: asyncio.Queue[Any] = asyncio.Queue()
    back: asyncio.Queue[Any] = asyncio.Queue()
    settings = AgentSettings(endpoint="unix:/nowhere", home=tmp_path)

    async def workshop(history: History, _: Sequence[Mapping[str, Any]]) -> Equipped:
        named: Mapping[str, Tool] = {tool.spec.name: tool for tool in tools}
        models = script if isinstance(script, Scripted) else Scripted(script)
        return Equipped(settings=settings, history=history, models=models, tools=named)

    served = Peer(Queues(there, back))
    agent = AgentOfSessions(served, settings.folder, workshop, version="0")
    client = Client(Peer(Queues(back, there)))
    tasks = [asyncio.create_task(served.serve(agent)), asyncio.create_task(client.peer.serve(client))]
    (tmp_path / "work").mkdir(exist_ok=True)
    try:
        yield client
    finally:
        await there.put(None)
        await back.put(None)
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)
        agent.close()


async def opened(client: Client, tmp_path: Path) -> str:
    await client.call("initialize", protocolVersion=1, clientCapabilities={})
    return str((await client.call("session/new", cwd=str(tmp_path / "work"), mcpServers=[]))["sessionId"])


def words(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


async def test_a_prompt_is_worked_on_and_everything_is_told(tmp_path: Path) -> None:
    script = [
        {"reasoning": "Hm.", "text": "Ringing.", "tool": "bell", "arguments": {"times": 1}},
        {"text": "Done."},
    ]
    async with talking(tmp_path, script, Bell()) as client:
        session = await opened(client, tmp_path)
        answer = await client.call("session/prompt", sessionId=session, prompt=words("Ring."))
    assert answer["stopReason"] == "end_turn"
    assert answer["usage"]["totalTokens"] == 2100
    assert client.said() == "Ringing.Done."
    assert client.said("agent_thought_chunk") == "Hm."
    calls = [u for u in client.updates if u["sessionUpdate"].startswith("tool_call")]
    assert [(u["sessionUpdate"], u["status"]) for u in calls] == [
        ("tool_call", "in_progress"), ("tool_call_update", "completed"),
    ]  # fmt: skip
    ids = [u["messageId"] for u in client.updates if u["sessionUpdate"] == "agent_message_chunk"]
    assert len(set(ids)) == 2


async def test_nothing_is_asked_unless_the_mode_says_so(tmp_path: Path) -> None:
    script = {"turns": [{"moves": [{"tool": "bell"}, {"text": "."}]}]}
    bell = Bell()
    async with talking(tmp_path, script, bell) as client:
        session = await opened(client, tmp_path)
        await client.call("session/prompt", sessionId=session, prompt=words("Ring."))
        assert client.asked == []
        await client.call("session/set_mode", sessionId=session, modeId="ask")
        client.option = "reject_once"
        await client.call("session/prompt", sessionId=session, prompt=words("Ring."))
        assert (len(client.asked), bell.rung) == (1, 1)
        client.option = None
        await client.call("session/prompt", sessionId=session, prompt=words("Ring."))
        client.option = "allow_once"
        await client.call("session/prompt", sessionId=session, prompt=words("Ring."))
        assert (len(client.asked), bell.rung) == (3, 2)
        with pytest.raises(Refusal, match="no mode"):
            await client.call("session/set_mode", sessionId=session, modeId="yolo")


async def test_the_mode_that_only_looks_offers_nothing_that_changes(tmp_path: Path) -> None:
    script = [{"tools": [{"tool": "bell"}, {"tool": "look"}]}, {"text": "."}]
    bell, look = Bell(), Bell("look", required=frozenset({"read"}))
    async with talking(tmp_path, script, bell, look) as client:
        session = await opened(client, tmp_path)
        await client.call("session/set_mode", sessionId=session, modeId="read")
        await client.call("session/prompt", sessionId=session, prompt=words("Ring."))
    assert (bell.rung, look.rung) == (0, 1)


async def test_a_cancelled_prompt_is_answered_so_and_the_next_one_works(tmp_path: Path) -> None:
    started = asyncio.Event()

    async def forever(_: object, __: object) -> str:
        started.set()
        await asyncio.Event().wait()
        return ""

    bell = Bell(do=forever)
    script = {"turns": [[{"tool": "bell"}, {"text": "."}], [{"text": "Here."}]]}
    async with talking(tmp_path, script, bell) as client:
        session = await opened(client, tmp_path)
        work = asyncio.create_task(client.call("session/prompt", sessionId=session, prompt=words("Ring.")))
        await started.wait()
        with pytest.raises(Refusal, match="being worked on"):
            await client.call("session/prompt", sessionId=session, prompt=words("And?"))
        await client.peer.notify("session/cancel", {"sessionId": session})
        assert (await work)["stopReason"] == "cancelled"
        assert client.updates[-1]["status"] == "failed"
        assert (await client.call("session/prompt", sessionId=session, prompt=words("And?")))[
            "stopReason"
        ] == "end_turn"


@pytest.mark.parametrize("method", ["session/load", "session/resume"])
async def test_another_process_takes_a_session_up(tmp_path: Path, method: str) -> None:
    script = {"turns": [[{"text": "First.", "tool": "bell"}, {"text": "Rung."}], [{"text": "Second."}]]}
    async with talking(tmp_path, script, Bell()) as client:
        session = await opened(client, tmp_path)
        await client.call("session/prompt", sessionId=session, prompt=words("Ring."))
    async with talking(tmp_path, script, Bell()) as client:
        await client.call(method, sessionId=session, cwd=str(tmp_path / "work"), mcpServers=[])
        told = client.kinds()
        await client.call("session/prompt", sessionId=session, prompt=words("Again."))
    assert client.said().endswith("Second.")
    full = [
        "user_message_chunk",
        "agent_message_chunk",
        "tool_call",
        "tool_call_update",
        "agent_message_chunk",
    ]
    assert told == (full if method == "session/load" else [])


async def test_what_a_turn_cannot_do_is_an_error_with_its_code(tmp_path: Path) -> None:
    async with talking(tmp_path, [{"fault": "401", "message": "no key"}]) as client:
        session = await opened(client, tmp_path)
        with pytest.raises(Refusal) as refused:
            await client.call("session/prompt", sessionId=session, prompt=words("Ring."))
    assert refused.value.data["code"] == "auth_required"  # type: ignore[index]
    assert "no key" in refused.value.message


@pytest.mark.parametrize(
    "method, params, words_",
    [
        ("session/new", {"cwd": "relative"}, "cwd"),
        ("session/new", {}, "cwd"),
        ("session/new", {"cwd": "/nowhere/at/all"}, "cwd"),
        ("session/prompt", {"sessionId": "ses_x", "prompt": [{"type": "text", "text": "."}]}, "no session"),
        ("session/load", {"sessionId": "../../etc", "cwd": "/"}, "no session"),
        ("session/load", {"cwd": "/"}, "no session"),
        ("session/dance", {}, "no method"),
    ],
)
async def test_bad_requests_are_refused_and_the_agent_lives_on(
    tmp_path: Path, method: str, params: dict[str, Any], words_: str
) -> None:
    async with talking(tmp_path, [{"text": "."}]) as client:
        with pytest.raises(Refusal, match=words_):
            await client.call(method, **params)
        session = await opened(client, tmp_path)
        for prompt in ([], "text", [{"type": "smell"}], [7], None):
            with pytest.raises(Refusal, match="prompt"):
                await client.call("session/prompt", sessionId=session, prompt=prompt)
        await client.call("session/prompt", sessionId=session, prompt=words("Go."))


async def test_a_client_that_leaves_ends_the_work(tmp_path: Path) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def forever(_: object, __: object) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    async with talking(tmp_path, [{"tool": "bell"}], Bell(do=forever)) as client:
        session = await opened(client, tmp_path)
        work = asyncio.create_task(client.call("session/prompt", sessionId=session, prompt=words("Ring.")))
        await started.wait()
    assert stopped.is_set()
    with pytest.raises(Gone):
        await work
