"""The public suite, passed by a real server over real WebSockets, with a model that always says the same."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import pytest
from tests.server.stage import Stage, staged
from tests.socket.models import TestModels, question, saying

from overnight.client.socket.target import Target
from overnight.client.socket.transport import SocketTransport
from overnight.testing.conformance.socket.offer import Offer, Said, Wire
from overnight.testing.conformance.socket.suite import SocketSuite

LONGER_THAN_ANY_QUEUE = 1400
QUESTION = {"messages": [{"role": "user", "content": [{"type": "text", "text": "go"}]}]}


@pytest.fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    models = TestModels(lambda _: saying(*(f"{number} " for number in range(LONGER_THAN_ANY_QUEUE))))
    async with staged(tmp_path_factory.mktemp("conformance"), models=models) as made:
        yield made


class TestWebSocket(SocketSuite):
    @pytest.fixture
    def offer(self, stage: Stage) -> Offer:
        async def connect() -> Wire:
            transport = SocketTransport()
            await transport.connect(Target(url=f"ws://127.0.0.1:{stage.port}"))
            return transport

        return Offer(
            connect=connect, token=stage.secret, asked=Said(type="models.list"),
            stream=Said(type="stream.start", payload={"model": question().model, "context": QUESTION}),
            abort=Said(type="stream.abort"), wrong=Said(type="stream.abort", payload={"reason": 7}),
        )  # fmt: skip


@pytest.mark.anyio
async def test_the_command_judges_a_server_somewhere(stage: Stage) -> None:
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "overnight.testing.conformance.socket", f"ws://127.0.0.1:{stage.port}/api/v1/socket",
        env={**os.environ, "OVERNIGHT_TOKEN": stage.secret}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(120):
        said, _ = await command.communicate()
    assert command.returncode == 0, said.decode()
    assert b"  ok  hello is answered by welcome" in said
    assert b"  --  a stream has one terminal and no gap: not judged" in said
