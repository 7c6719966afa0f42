"""A server may die at any point of a conversation: the next one says what is unsaid, once, and does what is undone."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from acp import schema
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from tests.backends.acp_stage import ALLOW

from overnight.backends.acp.codec import AcpCodec
from overnight.backends.acp.script import Script
from overnight.backends.process.dialogue import Dialogue
from overnight.backends.process.hands import Hands
from overnight.backends.process.program import Exit
from overnight.backends.process.talk import Deed, Done, OpenTerminal, Result, TerminalState, Text, UseTerminal
from overnight.domain.update import Asked, Delta, Update

SCRIPT = Script(workspace="/w", prompt="Do it.", model="big")
DIFF = {"type": "diff", "path": "/w/a", "oldText": None, "newText": "text"}
ENDLESS = 10**9


class Crash(BaseException):
    """The server is gone."""


class SimulatedAgent:
    """Goes one step further for every message; what it has read is in `read`."""

    def __init__(self, out: list[bytes]) -> None:
        self.read: list[Any] = []
        self._out = out
        self._steps = iter(self._story())

    def take(self, data: bytes) -> None:
        message = json.loads(data)
        self.read.append(message)
        for line in next(self._steps, []):
            self._out.append(json.dumps({"jsonrpc": "2.0", **line}).encode() + b"\n")

    def _story(self) -> Any:
        models = {"availableModels": [{"modelId": "big"}]}
        yield [{"id": 1, "result": {"protocolVersion": 1, "agentCapabilities": {"loadSession": True}}}]
        yield [{"id": 2, "result": {"sessionId": "s", "models": models}}]
        yield [{"id": 3, "result": {}}]
        edit = {"toolCallId": "e", "kind": "edit", "title": "Write a", "content": [DIFF]}
        options = [{"optionId": kind, "name": kind, "kind": kind} for kind in ("allow_once", "reject_once")]
        yield [
            self._says("I write."),
            self._asks("p", "session/request_permission", toolCall=edit, options=options),
        ]
        yield [self._asks(1, "fs/write_text_file", path="/w/a", content="text")]
        yield [self._says("Covered."), self._asks(2, "fs/write_text_file", path="/w/a", content="more")]
        yield [self._asks(3, "no/such/method"), self._asks(4, "terminal/create", command="make")]
        yield []
        yield [self._asks(5, "terminal/wait_for_exit", terminalId="terminal-1")]
        yield [self._asks(6, "terminal/output", terminalId="terminal-1"), self._says("Two at once.")]
        yield [
            self._asks(7, "terminal/release", terminalId="terminal-1"),
            self._asks(1, "fs/read_text_file", path="/w/b"),
        ]
        yield []
        yield [self._says("Done."), {"id": 4, "result": {"stopReason": "end_turn"}}]

    @staticmethod
    def _says(text: str) -> dict[str, Any]:
        update = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
        return {"method": "session/update", "params": {"sessionId": "s", "update": update}}

    @staticmethod
    def _asks(id: object, method: str, **params: object) -> dict[str, Any]:
        return {"id": id, "method": method, "params": {"sessionId": "s", **params}}


@dataclass
class World:
    """What outlives a server: the agent and its output, the stored messages, the recorded position and events."""

    out: list[bytes] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    taken: int = 0
    position: int = 0
    events: list[Update] = field(default_factory=list)
    deeds: list[Deed] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self.agent = SimulatedAgent(self.out)
        self.stored.append(AcpCodec(SCRIPT).opening)
        self.pass_on()

    def pass_on(self) -> None:
        """What the keeper does with stored messages: each once, in order."""
        while self.taken < len(self.stored):
            self.taken += 1
            self.agent.take(self.stored[self.taken - 1])


class Server:
    """One process that carries out the turn, for as many steps as it has left to live."""

    def __init__(self, world: World, life: int) -> None:
        self.world = world
        self.life = life
        self.terminals = self

    def tick(self) -> None:
        self.life -= 1
        self.world.steps += 1
        if self.life < 0:
            raise Crash

    async def do(self, deed: Deed) -> Result:
        self.tick()
        if isinstance(deed, OpenTerminal) and deed.terminal not in self.world.opened:
            self.world.opened.append(deed.terminal)  # one that is there is taken up
        self.world.deeds.append(deed)
        self.tick()
        if isinstance(deed, UseTerminal) and deed.verb in {"wait", "output"}:
            return TerminalState(output="made", ended=True, exit_code=0)
        return Text(text="b") if type(deed).__name__ == "ReadText" else Done()

    async def text_of(self, path: str, most: int) -> str | None:
        return None

    async def deliver(self, data: bytes) -> bool:
        self.tick()
        self.world.stored.append(data)
        self.tick()
        self.world.pass_on()
        self.tick()
        return True

    async def run(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # a crash in a task is a crash
        world, codec = self.world, AcpCodec(SCRIPT)
        codec.said(world.stored)
        for line in world.out[: world.position]:
            codec.stdout(line)
        world.pass_on()
        dialogue = Dialogue(codec, cast("Hands", self), self.deliver)
        await dialogue.begin()
        for asked in dialogue.asks():
            await dialogue.answer(asked.key, ALLOW)
        await dialogue.run_errands()
        while not (codec.over and world.position == len(world.out)):
            while world.position == len(world.out):
                if self.life < 0:
                    raise Crash  # it was in a task
                await asyncio.sleep(0)
            updates = await dialogue.attend(codec.stdout(world.out[world.position]))
            self.tick()
            world.position += 1
            world.events += [update for update in updates if not isinstance(update, Delta)]
            self.tick()
            for update in updates:
                if isinstance(update, Asked):
                    await dialogue.answer(update.key, ALLOW)
        world.events += codec.finish(Exit(code=0)).updates
        assert codec.finish(Exit(code=0)).outcome.stop_reason == "end_turn"


def play(*lives: int) -> World:
    """Servers with so many steps to live, one after the other, then one that lives on."""
    world = World()
    for life in (*lives, ENDLESS):
        try:
            asyncio.run(asyncio.wait_for(Server(world, life).run(), 60))
        except Crash:
            continue
        break
    return world


def same(world: World, plain: World) -> None:
    assert world.agent.read == plain.agent.read, "the agent reads each message once, in the same order"
    assert [json.loads(data) for data in world.stored] == plain.agent.read
    assert world.events == plain.events, "each event is recorded once"
    assert world.opened == ["terminal-1"]
    assert {repr(deed) for deed in world.deeds} == {repr(deed) for deed in plain.deeds}


@pytest.fixture(scope="module")
def plain() -> World:
    return play()


def test_the_story_is_told_in_full(plain: World) -> None:
    methods = [message.get("method") for message in plain.agent.read]
    assert methods[:4] == ["initialize", "session/new", "session/set_model", "session/prompt"]
    assert len(plain.agent.read) == 13
    assert [asked.key for asked in plain.events if isinstance(asked, Asked)] == [
        'reply:"p"', "reply:2", "reply:4",
    ]  # fmt: skip
    assert plain.agent.read[-1]["error"]["data"] == {"copy": 1}, "an id that was used before"


def test_a_crash_at_any_step_changes_nothing(plain: World) -> None:
    assert plain.steps > 60
    for life in range(plain.steps):
        same(play(life), plain)


@settings(max_examples=60, deadline=None)
@given(lives=st.lists(st.integers(0, 60), max_size=6))
def test_crashes_of_crashes_change_nothing(lives: list[int]) -> None:
    same(play(*lives), play())


def test_the_same_lines_make_the_same_codec(plain: World) -> None:
    one, other = AcpCodec(SCRIPT), AcpCodec(SCRIPT)
    for codec in (one, other):
        codec.said(plain.stored)
    assert [one.stdout(line) for line in plain.out] == [other.stdout(line) for line in plain.out]
    assert one.errands() == other.errands() == []


KEYS = [
    *(
        "jsonrpc",
        "id",
        "method",
        "params",
        "result",
        "error",
        "update",
        "sessionUpdate",
        "toolCall",
        "content",
    ),
    *("toolCallId", "options", "path", "command", "rawInput", "locations", "usage"),
]
METHODS = ["session/update", "session/request_permission", "fs/read_text_file", "terminal/create"]
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 9), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=12,
)
UPDATES = st.fixed_dictionaries(
    {
        "sessionUpdate": st.sampled_from(["tool_call", "plan", "agent_message_chunk", "usage_update"]),
        "content": ANYTHING,
        "toolCallId": ANYTHING,
        "rawInput": ANYTHING,
        "status": st.sampled_from(["pending", "completed", None]),
    }
)
PARAMS = st.dictionaries(st.sampled_from(KEYS), st.one_of(ANYTHING, UPDATES), max_size=4)
MESSAGES = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": st.sampled_from(METHODS), "params": PARAMS},
    optional={"id": st.integers(0, 3)},
)
LINES = st.one_of(
    st.binary(max_size=80), st.one_of(ANYTHING, MESSAGES).map(lambda value: json.dumps(value).encode())
)


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(LINES, max_size=12))
def test_no_line_raises(lines: list[bytes]) -> None:
    codec = AcpCodec(SCRIPT)
    for line in lines:
        codec.stdout(line)
        codec.errands()
        for asked in codec.asks():
            codec.decide(asked.key, ALLOW)
    codec.farewell()
    codec.finish(Exit(code=1))


def test_what_is_said_fits_the_protocol(plain: World) -> None:
    """By the schema of the protocol's own library."""
    requests: dict[str, type[BaseModel]] = {
        "initialize": schema.InitializeRequest,
        "session/new": schema.NewSessionRequest,
        "session/prompt": schema.PromptRequest,
    }
    checked = 0
    for message in plain.agent.read:
        model = requests.get(message.get("method", ""))
        if model is not None:
            model.model_validate(message["params"])
            checked += 1
    results = {message["id"]: message["result"] for message in plain.agent.read if "result" in message}
    schema.RequestPermissionResponse.model_validate(results["p"])
    schema.WriteTextFileResponse.model_validate(results[2])
    schema.CreateTerminalResponse.model_validate(results[4])
    schema.WaitForTerminalExitResponse.model_validate(results[5])
    schema.TerminalOutputResponse.model_validate(results[6])
    assert checked == 3
