"""The server's stage, and the official JavaScript client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.conftest import serve
from tests.server.conftest import stage

from overnight.testing.agents.install import Name

__all__ = ["serve", "stage"]


@pytest.fixture(scope="session")
def javascript(agent_program: Callable[[Name], Path]) -> Path:
    """The package of the official JavaScript client, installed when it is missing."""
    return agent_program("openai")
