"""Fixtures for pytest: `pytest_plugins = ["overnight.testing.pytest_plugin"]` in the root conftest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from overnight.testing.agents import AgentsUnavailable, agents_folder, install
from overnight.testing.agents.install import USUAL, Name
from overnight.testing.clocks import ManualClock
from overnight.testing.model_server import ModelServer, Script
from overnight.testing.services import valkey as valkey_service
from overnight.testing.services.postgres import PostgresServer, ServiceUnavailable, postgres
from overnight.testing.services.valkey import Valkey, ValkeyUnavailable
from overnight.testing.signals import Signals

StartModel = Callable[..., ModelServer]


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock that moves by hand."""
    return ManualClock()


@pytest.fixture
def signals() -> Signals:
    """Named points to wait for."""
    return Signals()


@pytest.fixture
def start_model() -> Iterator[StartModel]:
    """Starts scripted model servers: `start_model(script, keys=None)`; stopped at the test's end."""
    with ExitStack() as stack:

        def start(script: Script | list[Any] | dict[str, Any], **options: Any) -> ModelServer:
            return stack.enter_context(ModelServer(script, **options))

        yield start


@pytest.fixture(scope="session")
def codex_program() -> Path:
    """The real Codex program, installed from npm when it is missing."""
    return _real("codex")


@pytest.fixture(scope="session")
def claude_program() -> Path:
    """The real Claude Code program, installed from npm when it is missing."""
    return _real("claude")


@pytest.fixture(scope="session")
def agent_program() -> Callable[[Name], Path]:
    """Gives the real program of a name, installed when missing; some only where `make test-agents` asks for them."""

    def give(name: Name) -> Path:
        if name not in USUAL and not os.environ.get("OVERNIGHT_TEST_AGENTS"):
            pytest.skip(f"the real {name} program is driven by `make test-agents`")
        return _real(name)

    return give


@pytest.fixture
def outside_tmp() -> Iterator[Path]:
    """A fresh folder that is not beneath the temporary directory, where Codex keeps no home; removed afterwards."""
    base = agents_folder().parent / "test-folders"
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(prefix="t-", dir=base))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """One Valkey server for all tests of this process; take `valkey`, which is empty at each test's beginning."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(valkey_service.valkey())
        except ValkeyUnavailable as error:
            pytest.skip(f"no Valkey server: {error}")
        yield server


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """An empty Valkey server that answers, whatever the test before has done to it."""
    valkey_server.mend()
    return valkey_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A Postgres of this test process; skipped with the reason where there is none."""
    try:
        with postgres() as server:
            yield server
    except ServiceUnavailable as error:
        pytest.skip(f"no Postgres here: {error}")


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of a fresh, empty database on it, removed afterwards."""
    name = postgres_server.fresh()
    yield postgres_server.url(name)
    postgres_server.drop(name)


def _real(name: Name) -> Path:
    try:
        return install((name,))[name]
    except AgentsUnavailable as error:
        pytest.skip(f"the real {name} program is not here: {error}")
