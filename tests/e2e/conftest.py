"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import Server

Start = Callable[..., Server]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not beneath the temporary directory, where Codex refuses to keep its helpers."""
    found = Path(tempfile.mkdtemp(prefix="overnight-e2e-", dir="/var/tmp"))
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Start]:
    """Start a server whose backends are those scripts; it is ended, with all that it left, after the test."""
    servers: list[Server] = []

    def start(
        scripts: Mapping[str, Sequence[Any]], *arguments: str, root: Path | None = None, **settings: Any
    ) -> Server:
        folder = root or tmp_path / f"s{len(servers)}"
        folder.mkdir(exist_ok=True)
        server = Server(root=folder, scripts=scripts, **settings)
        servers.append(server)
        return server.start(*arguments)

    yield start
    for server in servers:
        server.stop()
