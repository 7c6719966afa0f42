"""What the agent was let in with is not to be had by the commands that it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECRET = f"ova_run_{'0' * 26}.1.1.{'a' * 64}"
CODE = """
import os, sys
from overnight.agent.secrecy import keep_to_itself
from overnight.config.agent_process import agent_settings
settings = agent_settings(os.environ, {"endpoint": "unix:/x"})
assert settings.token == os.environ["OVERNIGHT_AGENT_TOKEN"]
keep_to_itself("OVERNIGHT_AGENT_TOKEN", "NOT_THERE")
assert settings.token.startswith("ova_")
print(os.environ.get("OVERNIGHT_AGENT_TOKEN"), os.environ["KEPT"], flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nobody_finds_the_token_in_the_environment_of_the_process() -> None:
    env = {**os.environ, "OVERNIGHT_AGENT_TOKEN": SECRET, "KEPT": "kept"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", CODE], env=env, stdin=pipe, stdout=pipe, text=True) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline().split() == ["None", "kept"]
        place = Path(f"/proc/{agent.pid}")
        if os.getuid() == 0:
            shown = (place / "environ").read_bytes()
            assert b"KEPT=kept" in shown
            assert b"ova_" not in shown
        else:
            with pytest.raises(PermissionError):
                (place / "environ").read_bytes()
