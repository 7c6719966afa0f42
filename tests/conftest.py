"""Fixtures that every test area shares."""

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["overnight.testing.pytest_plugin"]

# How long an example takes says something about the machine, and nothing about the program. `--hypothesis-profile`
# takes another one.
settings.register_profile("overnight", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("overnight")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio alone: that is what the server runs on."""
    return "asyncio"
