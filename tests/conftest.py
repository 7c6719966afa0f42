"""Fixtures that every test area shares."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["overnight.testing.pytest_plugin"]

# Whatever proxy is asked for what lies elsewhere, nobody asks one for what is on this machine.
_NEAR = ",".join(
    filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost,::1"))
)
os.environ["NO_PROXY"] = os.environ["no_proxy"] = _NEAR

# A shell without job control starts what it puts into the background with SIGINT ignored, and everything that is
# started from there would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something about the machine, and nothing about the program. `--hypothesis-profile`
# takes another one.
settings.register_profile("overnight", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("overnight")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio alone: that is what the server runs on."""
    return "asyncio"
