"""The built-in agent: how soon it is there, how soon a model's word comes through it, how late, and what it weighs."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Self

from tests.e2e.harness import TOKEN, Server

from bench import stage
from bench.figure import Figure
from overnight.models.configured import ConfiguredModels
from overnight.models.endpoint import Endpoint, ModelSettings
from overnight.ports.model import Context, ModelRequest, TextBlock, TextDelta, UserMessage
from overnight.testing.services.ports import free_port
from overnight.testing.signals import wait_until

ROUNDS = 7
TICKS, WARM = 1000, 20
LEAST = "import asyncio, orjson, structlog"


def figures(*, long: bool) -> Iterator[Figure]:
    del long
    port = free_port()
    with stage.child("-m", "bench.ticking_model", str(port)):
        wait_until(lambda: stage.answers(port), within=20, every=0.01, what="the model answers")
        url = f"http://127.0.0.1:{port}/v1"
        config = (
            '[models]\ndefault = "tick:ticking"\n[models.providers.tick]\nkind = "openai-chat"\n'
            f'base_url = "{url}"\nmodels = ["ticking"]\n'
        )
        with stage.server(config=config) as server:
            yield from _starts(server)
            yield from _tokens(server, url)


class Agent:
    """One `overnight agent`, and its client."""

    def __init__(self, server: Server) -> None:
        self.begun = time.perf_counter()
        self._server = server
        self._ids = itertools.count(1)
        # As the backend starts it.
        self._argv = [sys.executable, "-I", "-u", "-m", "overnight", "agent"]
        self._argv += ["--endpoint", f"ws://127.0.0.1:{server.port}"]

    def __enter__(self) -> Self:
        env = {**self._server.env(), "OVERNIGHT_AGENT_TOKEN": TOKEN}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self._argv, env=env, stdin=pipe, stdout=pipe)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, method: str, **params: Any) -> Iterator[Mapping[str, Any]]:
        """Everything that it says until it has answered, the answer's result last."""
        assert self.process.stdin is not None and self.process.stdout is not None  # noqa: PT018
        id = next(self._ids)
        said = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        self.process.stdin.write(json.dumps(said).encode() + b"\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            message = json.loads(line)
            if message.get("id") == id:
                yield message["result"]
                return
            yield message["params"]["update"]
        raise RuntimeError("the agent has ended")

    def open(self) -> str:
        """Greet it and begin a session."""
        list(self.ask("initialize", protocolVersion=1))
        place = str(self._server.workspace())
        return str(list(self.ask("session/new", cwd=place, mcpServers=[]))[-1]["sessionId"])

    def prompt(self, session: str, ticks: int) -> Iterator[tuple[int, int]]:
        """When each delta was written and when it was heard, in nanoseconds."""
        prompt = [{"type": "text", "text": f"{ticks} ticks"}]
        for update in self.ask("session/prompt", sessionId=session, prompt=prompt):
            if update.get("sessionUpdate") == "agent_message_chunk":
                # Whatever was heard together counts from when it was.
                heard = time.monotonic_ns()
                yield from ((int(sent), heard) for sent in update["content"]["text"].split())


def _starts(server: Server) -> Iterator[Figure]:
    """In turns, so that both see the same machine."""
    greeted, least, first, rss, pss = [], [], [], [], []
    for _ in range(ROUNDS):
        least.append(stage.timed([sys.executable, "-I", "-c", LEAST], server.env())[0])
        with Agent(server) as agent:
            session = agent.open()
            greeted.append(time.perf_counter() - agent.begun)
            said = agent.prompt(session, WARM)
            next(said)
            first.append(time.perf_counter() - agent.begun)
            list(said)
            rss.append(stage.memory(agent.process.pid))
            pss.append(stage.memory(agent.process.pid, "Pss"))
    for name, values, aim in (
        ("overnight agent until session/new is answered", greeted, "≤ 400"),
        ("the same until a model's first word, prompted at once", first, ""),
    ):
        yield Figure(
            name=name, value=1000 * statistics.median(values), unit="ms", limit=1000 * statistics.median(least),
            limit_name=f"python -c '{LEAST}'", aim=aim,
        )  # fmt: skip
    yield Figure(name="memory of an agent after a turn, RSS", value=statistics.median(rss), unit="MiB")
    yield Figure(name="the same, PSS", value=statistics.median(pss), unit="MiB")


def _tokens(server: Server, url: str) -> Iterator[Figure]:
    """One after the other: beside each other each would wait for the other's processor."""
    with Agent(server) as agent:
        session = agent.open()
        list(agent.prompt(session, WARM))
        through = [(heard - sent) / 1e6 for sent, heard in agent.prompt(session, TICKS)]
    direct = asyncio.run(_direct(url))
    for name, part, aim in (("p50", 0.5, ""), ("p99", 0.99, "+ 5")):
        yield Figure(
            name=f"a model's word through server and agent, 100/s, {name}", value=stage.percentile(through, part),
            unit="ms", limit=stage.percentile(direct, part), limit_name="the same model asked in process", aim=aim,
        )  # fmt: skip
    added = stage.percentile(through, 0.99) - stage.percentile(direct, 0.99)
    yield Figure(name="what the chain adds to its p99", value=added, unit="ms", aim="≤ 5")


async def _direct(url: str) -> list[float]:
    endpoint = Endpoint(name="tick", kind="openai-chat", base_url=url, models=("ticking",))
    models = ConfiguredModels(ModelSettings(endpoints=(endpoint,), default="tick:ticking"))
    try:
        [one async for one in _heard(models, WARM)]
        return [one async for one in _heard(models, TICKS)]
    finally:
        await models.close()


async def _heard(models: ConfiguredModels, ticks: int) -> AsyncIterator[float]:
    asked = UserMessage(content=(TextBlock(text=f"{ticks} ticks"),))
    request = ModelRequest(model="tick:ticking", context=Context(messages=(asked,)))
    async with models.stream(request) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                heard = time.monotonic_ns()
                for sent in event.delta.split():
                    yield (heard - int(sent)) / 1e6
