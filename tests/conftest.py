"""Fixtures that every test area shares."""

import pytest

pytest_plugins = ["overnight.testing.pytest_plugin"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio alone: that is what the server runs on."""
    return "asyncio"
