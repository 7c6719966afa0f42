"""`overnight models` against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.harness import Server


def test_the_models_are_listed_with_what_they_need(tmp_path: Path) -> None:
    config = '[models]\ndefault = "script:x"\n[models.aliases]\nquick = "script:x"\n'
    config += '[models.providers.script]\nkind = "scripted"\n'
    server = Server(root=tmp_path, config=config)
    try:
        server.start("--no-worker")

        def said(*arguments: str) -> subprocess.CompletedProcess[str]:
            argv = [sys.executable, "-m", "overnight", "models", *arguments]
            return subprocess.run(
                argv, env=server.env(), capture_output=True, text=True, check=False, timeout=60
            )

        listed = said("--json")
        assert listed.returncode == 0, listed.stderr
        found = [json.loads(line) for line in listed.stdout.splitlines()]
        assert (found[0]["name"], found[0]["default"], found[0]["ready"]) == ("script:x", True, True)
        assert any(not one["ready"] and "ANTHROPIC_API_KEY" in one["needs"] for one in found)
        table = said()
        assert "quick" in table.stdout
        assert "needs OPENAI_API_KEY" in table.stdout
        assert all(
            json.loads(line)["provider"] == "script" for line in said("script", "--json").stdout.splitlines()
        )
    finally:
        server.stop()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense"])
def test_a_server_that_is_not_there_is_told(tmp_path: Path, url: str) -> None:
    environment = {**Server(root=tmp_path).env()}
    argv = [sys.executable, "-m", "overnight", "models", "--url", url]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in {2, 4}
    assert "Traceback" not in done.stderr
